"""The query of an arm, against ledgers of a few detections whose scores can be worked out on paper."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylearn.errors import QueryError
from raylearn.learning.selection import scored_subset
from raylearn.strategies import BoxCount, Candidates, Context, FullData, Query, Random, Uncertainty
from tests.unit.hand_made import make_ledger

quick = settings(deadline=None, max_examples=30)

# two detections, one, none, and one that could not be read
SCORES = {
    "a.jpg": [[0.6, 0.2], [0.5, 0.5]],
    "b.jpg": [[0.9, 0.1]],
    "c.jpg": [],
    "d.jpg": "image has 0 bytes",
}
NO_LABELS = np.zeros(2, dtype=np.int64)
IDS = [f"clip/{i:02}.jpg" for i in range(12)]


@pytest.fixture
def ledger(tmp_path):
    return make_ledger(SCORES, tmp_path)


def by(uncertainty="least_confidence", aggregation="sum", **options) -> Uncertainty:
    return Uncertainty(uncertainty, aggregation, **options)


def image_scores(strategy, images, class_counts) -> np.ndarray:
    return strategy.image_scores(images, Context(0, class_counts))


def query_by_scores(image_ids, scores, size, seed) -> Query:
    """Of images with as many detections as their scores say, asked for by their number."""
    offsets = np.concatenate([[0], np.cumsum(scores)]).astype(np.int64)
    candidates = Candidates(image_ids, offsets, np.full((offsets[-1], 2), 0.5, np.float32))
    return BoxCount().select(candidates, size, Context(seed, NO_LABELS))


def query_at_random(image_ids, size, seed) -> Query:
    return Random().select(Candidates.unseen(image_ids, 2), size, Context(seed, NO_LABELS))


# Image scores. Under `background` the three detections are (.6, .2, .2), (.5, .5, 0) and (.9, .1, 0).

H = {
    "background": [
        -(0.6 * math.log(0.6) + 0.4 * math.log(0.2)) / math.log(3),
        math.log(2) / math.log(3),
        -(0.9 * math.log(0.9) + 0.1 * math.log(0.1)) / math.log(3),
    ],
    "conditional": [
        -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)),
        1.0,
        -(0.9 * math.log2(0.9) + 0.1 * math.log2(0.1)),
    ],
}
PER_DETECTION = {
    ("least_confidence", "background"): [0.4, 0.5, 0.1],
    ("least_confidence", "conditional"): [0.25, 0.5, 0.1],
    ("least_confidence", "independent"): [0.4, 0.5, 0.1],
    ("margin", "background"): [0.6, 1.0, 0.2],
    ("margin", "conditional"): [0.5, 1.0, 0.2],
    ("margin_squared", "background"): [0.36, 1.0, 0.04],
    ("margin_squared", "independent"): [0.36, 1.0, 0.04],
    ("entropy", "background"): H["background"],
    ("entropy", "conditional"): H["conditional"],
}


@pytest.mark.parametrize(("uncertainty", "probabilities"), PER_DETECTION)
@pytest.mark.parametrize("aggregation", ["sum", "max", "mean"])
def test_an_image_is_scored_by_the_aggregate_of_its_detections(ledger, uncertainty, probabilities, aggregation):
    first, second, third = PER_DETECTION[uncertainty, probabilities]
    a = {"sum": first + second, "max": max(first, second), "mean": (first + second) / 2}[aggregation]
    found = image_scores(by(uncertainty, aggregation, probabilities=probabilities), ledger, NO_LABELS)
    np.testing.assert_allclose(found, [a, third, 0], atol=1e-6)


def test_box_count_scores_an_image_by_its_detections_whatever_they_are(ledger):
    assert image_scores(BoxCount(), ledger, NO_LABELS).tolist() == [2, 1, 0]


def test_an_image_without_detections_scores_zero_and_one_that_could_not_be_read_is_not_ranked(ledger):
    assert ledger.image_ids.tolist() == ["a.jpg", "b.jpg", "c.jpg"]
    assert image_scores(by(), ledger, NO_LABELS)[2] == 0
    assert image_scores(by(weighting="inverse_frequency"), ledger, np.array([5, 0]))[2] == 0


def test_a_ledger_without_any_detection_scores_every_image_zero(tmp_path):
    empty = make_ledger({"a.jpg": [], "b.jpg": []}, tmp_path)
    assert image_scores(by(), empty, NO_LABELS).tolist() == [0, 0]


def test_a_strategy_that_never_asks_has_no_query():
    with pytest.raises(TypeError, match="full_data has every image labelled from the start"):
        FullData().select(Candidates.unseen(IDS, 2), 1, Context(0, NO_LABELS))


# Weighting


def test_a_detection_counts_by_the_labelled_boxes_of_its_own_predicted_class(tmp_path):
    ledger = make_ledger(
        {"crab.jpg": [[0.6, 0.0]], "fish.jpg": [[0.0, 0.6]], "both.jpg": [[0.6, 0.0], [0.0, 0.6]]}, tmp_path
    )
    # eight crabs and no fish: (8 + 2) / 9 and (8 + 2) / 1; ordered by image id
    found = image_scores(by(weighting="inverse_frequency"), ledger, np.array([8, 0]))
    np.testing.assert_allclose(found, np.array([10 / 9 + 10, 10 / 9, 10]) * 0.4, rtol=1e-6)
    found = image_scores(by(weighting="inverse_sqrt"), ledger, np.array([8, 0]))
    np.testing.assert_allclose(found[1:], np.sqrt([10 / 9, 10]) * 0.4, rtol=1e-6)


def test_other_labels_give_another_ranking(tmp_path):
    ledger = make_ledger({"crab.jpg": [[0.6, 0.0]], "fish.jpg": [[0.0, 0.61]]}, tmp_path)
    weighted = by(weighting="inverse_frequency")
    assert image_scores(weighted, ledger, np.array([9, 0])).argmax() == 1
    assert image_scores(weighted, ledger, np.array([0, 9])).argmax() == 0


def test_the_cap_holds_a_weight_down(tmp_path):
    ledger = make_ledger({"fish.jpg": [[0.0, 0.6]]}, tmp_path)
    capped = image_scores(by(weighting="inverse_frequency", weight_cap=3), ledger, np.array([8, 0]))
    np.testing.assert_allclose(capped, [3 * 0.4], rtol=1e-6)


@quick
@given(
    st.lists(st.lists(st.tuples(*[st.floats(0, 1, width=16)] * 2), max_size=3), min_size=1, max_size=6),
    st.integers(0, 50),
    st.sampled_from(["inverse_frequency", "inverse_sqrt"]),
)
def test_equal_counts_do_not_change_the_ranking(tmp_path_factory, detections, count, weighting):
    folder = tmp_path_factory.mktemp("ledger")
    ledger = make_ledger({f"{i}.jpg": rows for i, rows in enumerate(detections)}, folder)
    plain = image_scores(by(), ledger, np.array([count, count]))
    weighted = image_scores(by(weighting=weighting), ledger, np.array([count, count]))
    factor = 2.0 if weighting == "inverse_frequency" else math.sqrt(2)
    np.testing.assert_allclose(weighted, plain * factor)


# From scores to a query


def test_a_query_is_the_highest_scores_in_order_with_what_they_were(ledger):
    candidates = Candidates(ledger.image_ids, ledger.offsets, ledger.class_scores)
    query = by().select(candidates, 2, Context(0, NO_LABELS))
    assert query.image_ids == ("a.jpg", "b.jpg")
    assert query.scores == pytest.approx((0.9, 0.1), abs=1e-6)
    assert all(type(image_id) is str for image_id in query.image_ids)


def test_equal_scores_are_ordered_by_the_seed_and_not_by_file_order():
    queries = {query_by_scores(np.array(IDS, dtype=object), np.zeros(12), 3, seed).image_ids for seed in range(8)}
    assert len(queries) == 8
    assert tuple(IDS[:3]) not in queries


def test_a_query_larger_than_the_ledger_is_refused(ledger):
    with pytest.raises(QueryError, match="query of 4 images, but only 3 are unlabelled"):
        query_by_scores(ledger.image_ids, np.zeros(3), 4, seed=0)


# Random


def test_a_random_query_needs_no_ledger_and_says_that_chance_chose():
    query = query_at_random(IDS, 3, seed=0)
    assert isinstance(query, Query)
    assert len(set(query.image_ids)) == 3
    assert set(query.image_ids) <= set(IDS)
    assert query.scores == (0, 0, 0)


def test_a_random_query_is_decided_by_the_seed_and_not_by_file_order():
    assert query_at_random(IDS, 6, seed=0) == query_at_random(IDS[::-1], 6, seed=0)
    assert query_at_random(IDS, 6, seed=0) != query_at_random(IDS, 6, seed=1)


def test_random_queries_of_any_size_have_labelled_the_same_images_where_their_budgets_meet():
    large = query_at_random(IDS, 6, seed=0).image_ids
    small = []
    for _ in range(3):
        small += query_at_random([name for name in IDS if name not in small], 2, seed=0).image_ids
    assert tuple(small) == large


def test_every_image_is_as_likely_to_be_drawn_as_any_other():
    counts = dict.fromkeys(IDS, 0)
    for seed in range(1200):
        for name in query_at_random(IDS, 3, seed).image_ids:
            counts[name] += 1
    assert sum((count - 300) ** 2 / 300 for count in counts.values()) < 31.3  # chi squared, 11 degrees, p = .001


def test_a_random_query_larger_than_the_pool_is_refused():
    with pytest.raises(QueryError, match="query of 13 images, but only 12 are unlabelled"):
        query_at_random(IDS, 13, seed=0)


# What is scored


@pytest.mark.parametrize("pool_size", [None, 12, 1000])
def test_all_images_are_scored_unless_a_part_is_asked_for(pool_size):
    assert scored_subset(IDS, pool_size, seed=0, round_index=1) == IDS


def test_the_scored_part_is_shared_by_the_arms_of_a_seed_and_drawn_anew_every_round():
    def part(ids=IDS, seed=0, round_index=1):
        found = scored_subset(ids, 5, seed, round_index)
        assert len(set(found)) == 5
        return frozenset(found)

    assert part() == part() == part(IDS[::-1])
    assert part() <= set(IDS)
    assert len({part(), part(seed=1), part(round_index=2)}) == 3


def test_arms_that_have_labelled_other_images_score_nearly_the_same_part():
    pool = [f"{index}.jpg" for index in range(1000)]
    one, other = (set(scored_subset(left, 200, seed=0, round_index=2)) for left in (pool[100:], pool[:900]))
    assert len(one & other) > 150  # drawn apart, about 40


def test_the_scored_part_is_not_the_random_query():
    drawn = query_at_random(IDS, 5, seed=0).image_ids
    assert set(drawn) != set(scored_subset(IDS, 5, seed=0, round_index=1))


def test_a_pool_without_unlabelled_images_has_nothing_to_score():
    with pytest.raises(QueryError, match="no unlabelled image is left to score: lower budget"):
        scored_subset([], 5, seed=0, round_index=1)
