import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylearn.errors import QueryError
from raylearn.measures.aggregation import AGGREGATIONS, aggregate
from raylearn.measures.sampling import top_n
from raylearn.measures.weighting import WEIGHTINGS, class_weights, detection_weights

quick = settings(deadline=None, max_examples=50)

COUNTS = np.array([7, 1, 0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", [1, 1, 1]),
        # (7 + 1 + 0 + 3 classes) / (n_c + 1)
        ("inverse_frequency", [11 / 8, 11 / 2, 11]),
        ("inverse_sqrt", [(11 / 8) ** 0.5, (11 / 2) ** 0.5, 11**0.5]),
    ],
)
def test_weights_by_hand(name, expected):
    np.testing.assert_allclose(class_weights(COUNTS, name), expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("none", [1, 1, 1]), ("inverse_frequency", [1.25, 1.25, 1.25]), ("inverse_sqrt", [(11 / 8) ** 0.5, 1.25, 1.25])],
)
def test_cap_is_the_highest_weight(name, expected):
    np.testing.assert_allclose(class_weights(COUNTS, name, cap=1.25), expected)


def test_none_is_one_under_any_cap():
    np.testing.assert_array_equal(class_weights(COUNTS, "none", cap=0.5), [1, 1, 1])


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_an_unseen_class_and_an_empty_labelled_set_have_finite_weights(name):
    assert np.isfinite(class_weights(np.array([0, 1_000_000]), name)).all()
    weights = class_weights(np.zeros(4, dtype=np.int64), name)
    assert np.isfinite(weights).all()
    assert len(set(weights)) == 1


@pytest.mark.parametrize("name", ["inverse_frequency", "inverse_sqrt"])
@quick
@given(counts=st.lists(st.integers(0, 10**6), min_size=2, max_size=6))
def test_the_rarer_class_weighs_more(name, counts):
    weights = class_weights(np.array(counts), name)
    assert (weights > 1).all()
    rarest_first = np.argsort(counts)
    assert (np.diff(weights[rarest_first]) <= 0).all()
    assert weights[np.argmin(counts)] > weights[np.argmax(counts)] or len(set(counts)) == 1


@pytest.mark.parametrize("name", WEIGHTINGS)
@quick
@given(counts=st.lists(st.integers(0, 1000), min_size=1, max_size=6), data=st.data())
def test_naming_the_classes_in_another_order_permutes_the_weights(name, counts, data):
    order = data.draw(st.permutations(range(len(counts))))
    permuted = class_weights(np.array(counts)[order], name)
    np.testing.assert_allclose(permuted, class_weights(np.array(counts), name)[order])


@pytest.mark.parametrize("cap", [0, -1.0, float("nan")])
@pytest.mark.parametrize("name", WEIGHTINGS)
def test_a_cap_that_is_not_above_zero_is_refused(name, cap):
    with pytest.raises(QueryError, match="must be above 0, or left out"):
        class_weights(COUNTS, name, cap=cap)


@pytest.mark.parametrize("counts", [[1, -1], [1.0, np.nan], [1.0, np.inf]])
def test_counts_that_count_nothing_are_refused(counts):
    with pytest.raises(ValueError, match="class counts must be numbers >= 0"):
        class_weights(np.array(counts), "inverse_frequency")


@pytest.mark.parametrize("counts", [[], [[1, 2]]])
def test_counts_of_another_shape_are_refused(counts):
    with pytest.raises(ValueError, match=r"class counts \(K,\) with K >= 1 wanted"):
        class_weights(np.array(counts), "none")


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(QueryError, match="unknown weighting 'inverse_frequenzy': did you mean 'inverse_frequency'"):
        class_weights(COUNTS, "inverse_frequenzy")


def test_each_detection_has_the_weight_of_its_own_predicted_class():
    scores = np.array([[0.2, 0.7, 0.1], [0.3, 0.1, 0.05], [0.0, 0.0, 0.9]], dtype=np.float32)
    np.testing.assert_array_equal(detection_weights(scores, np.array([1.0, 2.0, 3.0])), [2, 1, 3])


def test_equal_scores_predict_the_first_class():
    np.testing.assert_array_equal(detection_weights(np.array([[0.1, 0.4, 0.4]]), np.array([1.0, 2.0, 3.0])), [2])


def test_no_detections_have_no_weights():
    assert detection_weights(np.zeros((0, 3)), np.ones(3)).shape == (0,)


def test_weights_of_another_number_of_classes_are_refused():
    with pytest.raises(ValueError, match=r"class scores of 2 classes, but weights of shape \(3,\)"):
        detection_weights(np.zeros((1, 2)), np.ones(3))


def test_a_nan_predicts_no_class():
    with pytest.raises(ValueError, match="the first is row 0"):
        detection_weights(np.array([[0.5, np.nan]]), np.ones(2))


@quick
@given(
    name=st.sampled_from(WEIGHTINGS),
    aggregation=st.sampled_from(AGGREGATIONS),
    count=st.integers(0, 10**4),
    seed=st.integers(0, 10**6),
)
def test_equal_class_counts_leave_the_ranking_as_it_is(name, aggregation, count, seed):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 5, size=12))])
    class_scores = rng.random((offsets[-1], 3))
    uncertainties = rng.random(offsets[-1])
    weighted = uncertainties * detection_weights(class_scores, class_weights(np.full(3, count), name))
    ids = [f"{i}.jpg" for i in range(12)]
    np.testing.assert_array_equal(
        top_n(ids, aggregate(weighted, offsets, aggregation), 12, seed=0),
        top_n(ids, aggregate(uncertainties, offsets, aggregation), 12, seed=0),
    )


def test_unequal_class_counts_change_the_ranking():
    class_scores = np.array([[0.9, 0.0], [0.0, 0.9]])
    uncertainties, offsets = np.array([0.5, 0.4]), np.array([0, 1, 2])
    weighted = uncertainties * detection_weights(class_scores, class_weights(np.array([99, 1]), "inverse_frequency"))
    assert top_n(["a", "b"], aggregate(uncertainties, offsets, "sum"), 1, seed=0) == [0]
    assert top_n(["a", "b"], aggregate(weighted, offsets, "sum"), 1, seed=0) == [1]
