"""Strategies: one registry, options that are checked when one is made, and queries that file order does not change."""

import json
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylearn import strategies
from raylearn.errors import InputError, QueryError
from raylearn.reporting.summary import ArmKey, arm_labels
from raylearn.strategies import (
    BASELINE,
    DEFAULT,
    UPPER_BOUND,
    BoxCount,
    Candidates,
    Context,
    FullData,
    Query,
    Random,
    Strategy,
    Uncertainty,
    all_strategies,
    ask,
    asking,
    controls,
    is_control,
    label_of,
    make_strategy,
    options_text,
)
from raylearn.sweep.grid import Arm, Trial
from tests.unit.hand_made import make_experiment

CHOICES = [Uncertainty(), Uncertainty("margin", "max", "inverse_sqrt", "independent", 3.0), Random(), BoxCount()]
IDS = [f"clip/{i:02}.jpg" for i in range(9)]
CONTEXT = Context(3, np.array([4, 0]))


def candidates(ids, detections) -> Candidates:
    counts = [len(rows) for rows in detections]
    rows = [row for rows in detections for row in rows]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Candidates(ids, offsets, np.array(rows, np.float32).reshape(-1, 2))


# few values, so that many images tie
images = st.dictionaries(
    st.sampled_from(IDS), st.lists(st.tuples(*[st.sampled_from([0.0, 0.25, 0.5, 1.0])] * 2), max_size=3), min_size=1
)


@given(st.sampled_from(CHOICES), images, st.integers(0, 2**40), st.data())
def test_the_order_of_the_candidates_changes_no_query(strategy, found, seed, data):
    size = data.draw(st.integers(1, len(found)))
    order = data.draw(st.permutations(list(found)))
    context = Context(seed, CONTEXT.class_counts)
    first = strategy.select(candidates(list(found), list(found.values())), size, context)
    other = strategy.select(candidates(order, [found[name] for name in order]), size, context)
    assert first == other
    assert len(set(first.image_ids)) == size
    assert list(first.scores) == sorted(first.scores, reverse=True)


@given(st.sampled_from([Uncertainty(), Uncertainty("margin", "max"), BoxCount()]), images)
def test_the_names_of_classes_change_no_query(strategy, found):
    swapped = [[row[::-1] for row in rows] for rows in found.values()]
    one = strategy.select(candidates(list(found), list(found.values())), len(found), CONTEXT)
    other = strategy.select(candidates(list(found), swapped), len(found), Context(3, CONTEXT.class_counts[::-1]))
    assert one.image_ids == other.image_ids


def test_predicted_counts_are_those_of_each_images_own_detections():
    found = candidates(IDS[:3], [[(0.9, 0.1), (0.2, 0.3)], [], [(0.5, 0.5), (0.6, 0.1), (0.0, 0.1)]])
    assert found.predicted_counts.tolist() == [[1, 1], [0, 0], [2, 1]]
    assert Candidates.unseen(IDS[:2], 2).predicted_counts.tolist() == [[0, 0], [0, 0]]


# The registry


def test_the_registry_says_who_is_a_control_and_who_asks():
    names = ["uncertainty", "random", "box_count", "full_data", "diverse", "coverage", "core_set", "ppal", "oracle"]
    assert list(all_strategies())[: len(names)] == names
    assert controls() == ["random", "box_count", "full_data", "core_set", "ppal", "oracle"]
    assert asking() == [name for name in names if name != "full_data"]
    assert (DEFAULT, BASELINE, UPPER_BOUND) == ("uncertainty", "random", "full_data")
    assert [is_control(name) for name in ("random", "uncertainty", "of nobody")] == [True, False, False]


@pytest.mark.parametrize("found", all_strategies().values(), ids=lambda found: found.name)
def test_every_strategy_is_made_of_its_options_alone(found):
    made = found()
    options = {field.name: getattr(made, field.name) for field in fields(found)}
    assert make_strategy(found.name, options) == made
    assert made.own_options == {}
    assert found.__doc__


def test_an_arm_cannot_have_options_that_its_strategy_has_not():
    with pytest.raises(TypeError, match="uncertainty"):
        Random(uncertainty="entropy")
    with pytest.raises(TypeError, match="uncertainty"):
        Arm("random", uncertainty="entropy")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("randm", {}, "unknown strategy 'randm': did you mean 'random'?"),
        ("random", {"uncertainty": "entropy"}, "uncertainty has no meaning with strategy random: leave it out"),
        ("box_count", {"weight_cap": 3}, "weight_cap has no meaning with strategy box_count: leave it out"),
        ("uncertainty", {"uncertainty": "entropie"}, "unknown uncertainty 'entropie': did you mean 'entropy'?"),
        ("uncertainty", {"aggregation": None}, "unknown aggregation None: known: max, mean, sum"),
        (
            "uncertainty",
            {"agregation": "max"},
            "agregation has no meaning with strategy uncertainty: leave it out",
        ),
        ("uncertainty", {"weight_cap": 3.0}, "weight_cap has no meaning without a weighting: give one too, or leave"),
        ("uncertainty", {"weighting": "inverse_sqrt", "weight_cap": -1.0}, "the cap on class weights is -1.0: it must"),
    ],
)
def test_what_cannot_be_made_is_refused(name, options, said):
    with pytest.raises(QueryError) as refusal:
        make_strategy(name, options)
    assert str(refusal.value).startswith(said)


def test_no_weighting_is_an_option_of_every_strategy_and_kept_where_it_means_something():
    assert make_strategy("random", {"weighting": "none"}) == Random()
    assert make_strategy("diverse", {"weighting": "none"}) != make_strategy("diverse")


def test_conditional_probabilities_of_one_class_are_refused():
    with pytest.raises(QueryError, match="`conditional` of one class are always 1"):
        Uncertainty(probabilities="conditional").refuse_classes(1)
    Uncertainty(probabilities="conditional").refuse_classes(2)


# What people read


def test_labels_and_names_of_trials():
    assert [strategy.label for strategy in CHOICES] == [
        *("entropy sum", "margin max inverse_sqrt independent", "random", "box_count"),
    ]
    assert Trial(Arm(CHOICES[1], 4), 0).name == "margin-max-inverse_sqrt-independent-q4-s0"
    assert FullData().label == "all data (upper bound)"


def test_options_that_no_column_has_are_told_as_json():
    assert [options_text(strategy) for strategy in CHOICES] == [None, '{"weight_cap": 3.0}', None, None]
    assert label_of("random", None) == "random"
    assert label_of("of nobody", '{"alpha": 1}') == 'of nobody {"alpha": 1}'
    assert label_of("of nobody", None) == "of nobody"


# Strategies of other packages


@dataclass(frozen=True)
class Far(Strategy):
    """Needs what no pass gives."""

    alpha: float = 0.5
    near: str = "a/b c"

    name = "far"
    needs = "embeddings"

    def select(self, candidates, size, context):  # noqa: ARG002
        return Query(tuple(candidates.image_ids[:size]), (1.0,) * size)


def test_options_of_another_strategy_are_in_its_label_and_fit_for_file_names_in_its_trials():
    assert Far(0.25).label == "far alpha=0.25"
    assert Trial(Arm(Far(0.25, "x/y z"), 2), 1).name == "far-alpha_0.25-near_x_y_z-q2-s1"
    assert json.loads(options_text(Far(0.25)) or "") == {"alpha": 0.25}


@dataclass(frozen=True)
class Answer(Strategy):
    """Gives what it was made with, or raises it."""

    given: object = None

    name = "answer"

    def select(self, candidates, size, context):  # noqa: ARG002
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Query(("a", "a"), (1.0, 1.0)), "asked for 2 images and gave 2: 1 different images"),
        (Query(("a",), (1.0,)), "asked for 2 images and gave 1"),
        (Query(("a", "z"), (1.0, 1.0)), "'z' is not a candidate"),
        (Query(("a", "b"), (1.0,)), "gave 1 scores for 2 images"),
        (Query(("a", "b"), (1.0, float("nan"))), "or one that is not finite"),
        (Query(("a", 7), (1.0, 1.0)), "7 is not a candidate"),
        (Query(("a", "b"), None), "strategy answer: TypeError"),
        (("a", "b"), "gave a tuple, not a Query"),
        (ZeroDivisionError("of mine"), "strategy answer: ZeroDivisionError: of mine"),
    ],
)
def test_an_answer_that_is_not_a_query_is_refused(given, said):
    with pytest.raises(InputError, match=said):
        ask(Answer(given), Candidates.unseen(["a", "b", "c"], 2), 2, CONTEXT)


@dataclass(frozen=True)
class Mine(Uncertainty):
    """Of another package."""

    name = "mine"


def test_a_strategy_made_of_another_has_its_own_name_everywhere():
    assert Mine("margin").label == "mine margin sum"
    assert Trial(Arm(Mine(), 4), 0).name == "mine-entropy-sum-none-background-q4-s0"
    keys = [ArmKey(name, "entropy", "sum", "none", "background", 4) for name in ("uncertainty", "mine")]
    assert list(arm_labels(keys).values()) == ["entropy · sum", "mine · entropy · sum"]


def test_options_are_in_a_label_where_nothing_else_tells_arms_apart():
    cap = '{"weight_cap": 5.0}'
    plain = ArmKey("uncertainty", "entropy", "sum", "none", "background", 4)
    capped = replace(plain, weighting="inverse_frequency", options=cap)
    assert list(arm_labels([plain, capped]).values()) == ["entropy · sum", "entropy · sum · inverse_frequency"]
    uncapped = replace(capped, options=None)
    assert arm_labels([capped, uncapped])[capped] == f"entropy · sum · inverse_frequency · {cap}"


def test_two_arms_of_one_name_are_refused():
    arms = {"query_size": [2], "controls": [], "strategies": ["uncertainty"]}
    with pytest.raises(ValueError, match="two arms would have the same name, entropy-sum-none-background"):
        make_experiment(arms=arms)


def test_a_list_of_options_is_a_tuple_so_that_trials_can_be_told_apart(monkeypatch):
    @dataclass(frozen=True)
    class Some(Answer):
        classes: tuple[str, ...] = ()

        name = "some"

    monkeypatch.setitem(strategies._BUILT_IN, "some", Some)
    assert make_strategy("some", {"classes": ["a", "b"]}).classes == ("a", "b")
    with pytest.raises(QueryError, match="strategy some: TypeError: unhashable"):
        make_strategy("some", {"classes": {"a": 1}})
