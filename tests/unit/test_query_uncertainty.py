import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from raylearn.errors import QueryError
from raylearn.measures.uncertainty import (
    PROBABILITIES,
    UNCERTAINTIES,
    entropy,
    least_confidence,
    margin,
    margin_squared,
    probability_vectors,
    uncertainty,
)

quick = settings(deadline=None, max_examples=50)

WORKED = np.array([[0.1, 1e-5, 2e-5]])
UNSURE = np.array([[0.5, 0.25, 0.0]])
EACH = [(name, convention) for name in UNCERTAINTIES for convention in PROBABILITIES]


def score_arrays(min_classes: int = 2) -> st.SearchStrategy[np.ndarray]:
    shapes = st.tuples(st.integers(0, 6), st.integers(min_classes, 5))
    return shapes.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=st.floats(0, 1, width=32)))


# probability vectors


def test_background_gets_what_the_classes_leave():
    np.testing.assert_allclose(probability_vectors(UNSURE, "background"), [[0.5, 0.25, 0.0, 0.25]])


def test_background_is_renormalised_where_scores_sum_to_more_than_one():
    np.testing.assert_allclose(probability_vectors(np.array([[0.9, 0.6]]), "background"), [[0.6, 0.4, 0.0]])


def test_conditional_divides_by_the_sum():
    np.testing.assert_allclose(probability_vectors(UNSURE, "conditional"), [[2 / 3, 1 / 3, 0.0]])


def test_conditional_is_uniform_where_all_scores_are_zero():
    scores = np.array([[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(probability_vectors(scores, "conditional"), [[0.25] * 4, [1.0, 0.0, 0.0, 0.0]])


def test_independent_has_no_vector():
    with pytest.raises(QueryError, match="K Bernoullis and no vector: use 'background' or 'conditional'"):
        probability_vectors(UNSURE, "independent")


@quick
@given(score_arrays(), st.sampled_from(["background", "conditional"]))
def test_probability_vectors_are_distributions(scores, convention):
    vectors = probability_vectors(scores, convention)
    assert vectors.shape == (len(scores), scores.shape[1] + (convention == "background"))
    assert (vectors >= 0).all()
    np.testing.assert_allclose(vectors.sum(axis=1), 1, rtol=1e-12)


# formulas, on vectors


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        (least_confidence, 0.5),
        (margin, 0.75),
        (margin_squared, 0.5625),
        # -(1/2 log 1/2 + 2 * 1/4 log 1/4) = 1.5 bits, of log2(4) = 2
        (entropy, 0.75),
    ],
)
def test_formula_by_hand(formula, expected):
    assert formula(np.array([[0.25, 0.5, 0.0, 0.25]])) == pytest.approx([expected])


@pytest.mark.parametrize("k", [2, 3, 80])
@pytest.mark.parametrize("formula", [formula.of_vectors for formula in UNCERTAINTIES.values()])
def test_formula_is_zero_when_certain_and_maximal_when_uniform(formula, k):
    certain, uniform = formula(np.array([np.eye(k)[0], np.full(k, 1 / k)]))
    assert certain == 0
    assert uniform == pytest.approx(1 - 1 / k if formula is least_confidence else 1)


@pytest.mark.parametrize("formula", [formula.of_vectors for formula in UNCERTAINTIES.values()])
def test_a_float32_distribution_stays_within_the_unit_interval(formula):
    rounded_up = np.array([[1.0 + 1e-6, 0.0], [0.500002, 0.500002]], dtype=np.float32)
    values = formula(rounded_up)
    assert values.min() >= 0
    assert values.max() <= 1


@pytest.mark.parametrize("formula", [formula.of_vectors for formula in UNCERTAINTIES.values()])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0.5, 0.5], [0.5, 0.4]], "row 1 is no distribution"),
        ([[1.2, -0.2]], "row 0 is no distribution"),
        ([[np.nan, 1.0]], "row 0 is no distribution"),
        ([0.5, 0.5], r"k >= 2 wanted, got shape \(2,\)"),
        ([[1.0]], r"k >= 2 wanted, got shape \(1, 1\)"),
    ],
)
def test_formula_refuses_what_is_no_distribution(formula, rows, message):
    with pytest.raises(ValueError, match=message):
        formula(np.array(rows))


# uncertainty, on class scores

TOTAL = 0.10003  # the sum of WORKED
BINARY = -(0.1 * math.log2(0.1) + 0.9 * math.log2(0.9))


@pytest.mark.parametrize(
    ("name", "convention", "scores", "expected"),
    [
        ("least_confidence", "background", WORKED, TOTAL),
        ("least_confidence", "conditional", WORKED, 3e-5 / TOTAL),
        ("least_confidence", "independent", WORKED, 0.9),
        ("margin", "background", WORKED, 1 - (1 - TOTAL - 0.1)),
        ("margin", "conditional", WORKED, 1 - (0.1 - 2e-5) / TOTAL),
        ("margin", "independent", WORKED, 1 - (0.1 - 2e-5)),
        ("margin_squared", "background", WORKED, (1 - (1 - TOTAL - 0.1)) ** 2),
        ("margin_squared", "conditional", WORKED, (1 - (0.1 - 2e-5) / TOTAL) ** 2),
        ("margin_squared", "independent", WORKED, (1 - (0.1 - 2e-5)) ** 2),
        ("entropy", "background", UNSURE, 0.75),
        ("entropy", "conditional", UNSURE, (math.log(3) - 2 / 3 * math.log(2)) / math.log(3)),
        # H(1/2) = 1, H(1/4) = 2 - 3/4 log2 3, H(0) = 0
        ("entropy", "independent", UNSURE, (1 + 2 - 0.75 * math.log2(3)) / 3),
    ],
)
def test_uncertainty_by_hand(name, convention, scores, expected):
    assert uncertainty(scores, name, convention) == pytest.approx([expected], rel=1e-9)


def test_worked_example_of_the_design():
    values = [uncertainty(WORKED, "least_confidence", convention)[0] for convention in PROBABILITIES]
    assert values == pytest.approx([0.10, 0.0003, 0.90], rel=1e-2)


@pytest.mark.parametrize(
    ("name", "convention", "expected"),
    [
        ("least_confidence", "background", 0.1),
        ("margin", "background", 0.2),
        ("margin_squared", "background", 0.04),
        ("entropy", "background", BINARY),
        ("least_confidence", "independent", 0.9),
        ("margin", "independent", 0.9),
        ("margin_squared", "independent", 0.81),
        ("entropy", "independent", BINARY),
    ],
)
def test_one_class_by_hand(name, convention, expected):
    assert uncertainty(np.array([[0.1]]), name, convention) == pytest.approx([expected])


@pytest.mark.parametrize("num_detections", [0, 2])
@pytest.mark.parametrize("name", UNCERTAINTIES)
def test_conditional_is_refused_with_one_class(name, num_detections):
    with pytest.raises(QueryError, match=r"one-class detector certain.*use 'background' or 'independent'"):
        uncertainty(np.full((num_detections, 1), 0.5), name, "conditional")


@pytest.mark.parametrize(
    ("name", "score", "expected"),
    [("least_confidence", 0, 1), ("margin", 0, 1), ("margin_squared", 0, 1), ("entropy", 0, 0), ("entropy", 0.5, 1)],
)
def test_independent_reaches_its_documented_ends(name, score, expected):
    assert uncertainty(np.full((1, 3), float(score)), name, "independent") == pytest.approx([expected])


@pytest.mark.parametrize(("name", "convention"), EACH)
def test_no_detections_have_no_uncertainties(name, convention):
    assert uncertainty(np.zeros((0, 3), dtype=np.float32), name, convention).shape == (0,)


@quick
@given(score_arrays(), st.sampled_from(EACH))
def test_uncertainty_is_in_the_unit_interval(scores, which):
    values = uncertainty(scores, *which)
    assert values.dtype == np.float64
    assert values.shape == (len(scores),)
    assert ((values >= 0) & (values <= 1)).all()


@quick
@given(score_arrays(), st.sampled_from(EACH), st.randoms(use_true_random=False))
def test_naming_the_classes_in_another_order_changes_nothing(scores, which, random):
    order = random.sample(range(scores.shape[1]), scores.shape[1])
    np.testing.assert_allclose(uncertainty(scores[:, order], *which), uncertainty(scores, *which), atol=1e-12)


@quick
@given(score_arrays(), st.sampled_from(EACH), st.randoms(use_true_random=False))
def test_detections_do_not_see_each_other(scores, which, random):
    order = random.sample(range(len(scores)), len(scores))
    np.testing.assert_array_equal(uncertainty(scores[order], *which), uncertainty(scores, *which)[order])


@pytest.mark.parametrize(("name", "convention"), EACH)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -0.01, 1.01])
def test_what_is_no_class_score_is_refused_with_its_row(name, convention, wrong):
    scores = np.full((4, 2), 0.5)
    scores[2, 1] = wrong
    with pytest.raises(ValueError, match=r"1 of 4 detections have others, the first is row 2: "):
        uncertainty(scores, name, convention)


@pytest.mark.parametrize("convention", PROBABILITIES)
@pytest.mark.parametrize("shape", [(3,), (2, 0), (1, 2, 3)])
def test_class_scores_of_another_shape_are_refused(convention, shape):
    with pytest.raises(ValueError, match=r"class scores \(D, K\) with K >= 1 wanted"):
        uncertainty(np.zeros(shape), "margin", convention)


def test_class_scores_are_not_changed():
    scores = np.array([[0.9, 0.6], [0.0, 0.0]])
    before = scores.copy()
    for which in EACH:
        uncertainty(scores, *which)
    np.testing.assert_array_equal(scores, before)


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(QueryError, match="unknown uncertainty 'entropie': did you mean 'entropy'"):
        uncertainty(WORKED, "entropie", "background")
    with pytest.raises(QueryError, match="unknown probabilities 'backgrund': did you mean 'background'"):
        uncertainty(WORKED, "entropy", "backgrund")
