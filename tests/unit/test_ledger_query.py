"""Queries of a ledger that is read part by part: the same answer as from memory, whatever its parts and their order."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylearn.data.storage import Folder
from raylearn.errors import LedgerError, QueryError
from raylearn.learning.ledger_query import LedgerQuery, all_choices, compare_strategies, counts_by_class, query_ledger
from raylearn.measures.sampling import top_n
from raylearn.scoring.ledger import FACTS_FILE, Ledger
from raylearn.strategies import BoxCount, Context, ImageScoring, Query, Random, Strategy, Tie, Uncertainty
from tests.unit.hand_made import write_ledger

NAMES = ["crab", "fish"]
COUNTS = {"crab": 8, "fish": 0}
ARMS = [arm for convention in ("background", "conditional", "independent") for arm in all_choices(convention, True)]
LEAST_CONFIDENCE = Uncertainty("least_confidence", "sum", "none", "background")
RANDOM = Random()
BOX_COUNT = BoxCount()
IDS = [f"clip/{i:02}.jpg" for i in range(12)]
EMPTY = {image_id: [] for image_id in IDS}

# by least confidence: .9, .6, .4, 0, and one that could not be read
SCORES = {
    "c.jpg": [[0.6, 0.2]],
    "broken.jpg": "image has 0 bytes",
    "none.jpg": [],
    "a.jpg": [[0.2, 0.5], [0.3, 0.6]],
    "b.jpg": [[0.3, 0.3]],
}

# few values, so that many images tie
found = st.lists(st.tuples(*[st.sampled_from([0.0, 0.25, 0.5, 1.0])] * 2), max_size=3) | st.just("torn")
ledgers = st.dictionaries(st.sampled_from(IDS), found, min_size=1, max_size=7)


def make(folder: Path, content=SCORES, names=NAMES, part_size=2) -> Folder:
    return write_ledger(content, folder, len(names), part_size, class_names=names)


def told(query: LedgerQuery) -> list[tuple[str, float]]:
    return [(image.image_id, image.score) for image in query.images]


def ids(query: LedgerQuery) -> list[str]:
    return [image.image_id for image in query.images]


def from_memory(ledger: Ledger, arm: Strategy, size: int, seed: int, exclude=()) -> list[tuple[str, float]]:
    """The same query from the whole ledger at once."""
    counts = np.array(list(COUNTS.values()))
    scores, seed = arm.image_scores(ledger, Context(seed, counts)), arm.tie_seed(seed)
    kept = [i for i, image_id in enumerate(ledger.image_ids) if image_id not in set(exclude)]
    image_ids, scores = ledger.image_ids[kept], scores[kept]
    return [(image_ids[i], scores[i]) for i in top_n(image_ids, scores, size, seed)]


# The same as from memory


def test_every_arm_asks_for_what_it_would_from_memory(tmp_path):
    rng = np.random.default_rng(0)
    content = {f"{i:02}.jpg": rng.uniform(0, 1, (i % 4, 2)).round(1).tolist() for i in range(20)}
    folder = make(tmp_path, content, part_size=8)
    ledger = Ledger.read(Folder.at(tmp_path))
    for arm in ARMS:
        assert told(query_ledger(folder, arm, 7, seed=3, class_counts=COUNTS)) == from_memory(ledger, arm, 7, 3), arm


@given(ledgers, st.sampled_from(ARMS), st.integers(1, 8), st.integers(0, 2**40), st.data())
def test_neither_parts_nor_order_change_a_query(tmp_path_factory, content, arm, part_size, seed, data):
    readable = [image_id for image_id, found in content.items() if isinstance(found, list)]
    exclude = data.draw(st.lists(st.sampled_from(IDS), max_size=4), label="exclude")
    candidates = set(readable) - set(exclude)
    if not candidates:
        return
    size = data.draw(st.integers(1, len(candidates)), label="size")
    order = data.draw(st.permutations(list(content)), label="order")
    path = tmp_path_factory.mktemp("ledger")
    folder = make(path, {image_id: content[image_id] for image_id in order}, part_size=part_size)
    query = query_ledger(folder, arm, size, seed=seed, class_counts=COUNTS, exclude=exclude)
    assert told(query) == from_memory(Ledger.read(Folder.at(path)), arm, size, seed, exclude)
    assert [image.rank for image in query.images] == list(range(1, size + 1))
    assert query.num_candidates == len(candidates)
    assert query.num_without_detections == sum(not content[image_id] for image_id in candidates)
    every = from_memory(Ledger.read(Folder.at(path)), arm, len(candidates), seed, exclude)
    border = every[size - 1][1]
    chosen, alike = (sum(score == border for _, score in some) for some in (every[:size], every))
    tied = Tie(border, chosen, alike) if alike > chosen and arm.needs_pass else None
    assert query.tie == tied
    assert query.num_errors == len(content) - len(readable)
    assert query.num_excluded == len(set(readable) & set(exclude))


def test_a_query_is_the_highest_scores_in_order(tmp_path):
    query = query_ledger(make(tmp_path), LEAST_CONFIDENCE, 4, seed=0)
    assert ids(query) == ["a.jpg", "b.jpg", "c.jpg", "none.jpg"]
    assert [image.score for image in query.images] == pytest.approx([0.9, 0.6, 0.4, 0], abs=1e-6)
    assert query.images[0].uri == "/data/a.jpg"


def test_an_image_without_detections_scores_zero(tmp_path):
    folder = make(tmp_path, part_size=100)
    for arm in ARMS:
        last = query_ledger(folder, arm, 4, seed=0, class_counts=COUNTS).images
        (none,) = [image for image in last if image.image_id == "none.jpg"]
        assert (none.score, none.num_detections, dict(none.classes)) == (0, 0, {}), arm


def test_a_weight_cap_holds_a_weight_down(tmp_path):
    arm = Uncertainty("least_confidence", "sum", "inverse_frequency", "background")
    (free,) = query_ledger(make(tmp_path), arm, 1, seed=0, class_counts=COUNTS).images
    capped_arm = replace(arm, weight_cap=2)
    (capped,) = query_ledger(make(tmp_path), capped_arm, 1, seed=0, class_counts=COUNTS).images
    assert (free.score, capped.score) == pytest.approx((10 * 0.9, 2 * 0.9), abs=1e-5)


# Ties and chance


@pytest.mark.parametrize("part_size", [1, 5, 100])
@pytest.mark.parametrize("arm", [LEAST_CONFIDENCE, BOX_COUNT], ids=lambda arm: arm.name)
def test_equal_scores_are_ordered_by_a_hash_of_seed_and_id(tmp_path, part_size, arm):
    def by_hash(image_id: str) -> int:
        return int.from_bytes(hashlib.blake2b(f"7/{image_id}".encode(), digest_size=8).digest(), "big")

    folder = make(tmp_path, EMPTY, part_size=part_size)
    assert ids(query_ledger(folder, arm, 5, seed=7)) == sorted(IDS, key=by_hash)[:5]


def test_chance_does_not_order_as_ties_are_ordered(tmp_path):
    folder = make(tmp_path, EMPTY)
    assert ids(query_ledger(folder, RANDOM, 5, seed=7)) != ids(query_ledger(folder, BOX_COUNT, 5, seed=7))


def test_chance_looks_at_no_detections_and_its_scores_are_zero(tmp_path):
    busy = {image_id: [[0.5, 0.5]] * number for number, image_id in enumerate(IDS)}
    one = query_ledger(make(tmp_path / "busy", busy), RANDOM, 6, seed=1)
    other = query_ledger(make(tmp_path / "empty", EMPTY), RANDOM, 6, seed=1)
    assert told(one) == told(other)
    assert {image.score for image in one.images} == {0}


def test_other_seeds_draw_other_images_by_chance(tmp_path):
    folder = make(tmp_path, EMPTY, part_size=5)
    assert len({tuple(ids(query_ledger(folder, RANDOM, 6, seed=seed))) for seed in range(8)}) == 8


def test_the_random_query_of_a_seed_grows_by_appending(tmp_path):
    folder = make(tmp_path, EMPTY, part_size=5)
    large = ids(query_ledger(folder, RANDOM, 12, seed=0))
    assert all(ids(query_ledger(folder, RANDOM, size, seed=0)) == large[:size] for size in range(1, 12))


# What is left out


def test_an_image_that_could_not_be_read_is_never_asked_for_and_is_counted(tmp_path):
    folder = make(tmp_path)
    for arm in (LEAST_CONFIDENCE, BOX_COUNT, RANDOM):
        query = query_ledger(folder, arm, 4, seed=0)
        assert "broken.jpg" not in ids(query)
        assert (query.num_candidates, query.num_errors, query.num_excluded) == (4, 1, 0)


def test_excluded_images_are_left_out_and_only_those_found_are_counted(tmp_path):
    query = query_ledger(
        make(tmp_path), LEAST_CONFIDENCE, 2, seed=0, exclude=["a.jpg", "elsewhere.jpg", "a.jpg", "broken.jpg"]
    )
    assert ids(query) == ["b.jpg", "c.jpg"]
    assert (query.num_candidates, query.num_errors, query.num_excluded) == (3, 1, 1)


def test_a_query_larger_than_its_candidates_is_refused_with_the_numbers(tmp_path):
    folder = make(tmp_path)
    for ask in (
        lambda: query_ledger(folder, RANDOM, 1000, seed=0, exclude=["a.jpg"]),
        lambda: compare_strategies(folder, [RANDOM, BOX_COUNT], 1000, seed=0, exclude=["a.jpg"]),
    ):
        with pytest.raises(QueryError) as caught:
            ask()
        assert str(caught.value) == (
            "a query of 1,000 images, but the ledger has 3 that can be asked for "
            "(1 could not be read, 1 are excluded): lower --size"
        )


def test_a_query_of_no_images_is_refused(tmp_path):
    with pytest.raises(QueryError, match="a query of 0 images"):
        query_ledger(make(tmp_path), RANDOM, 0, seed=0)


@pytest.mark.parametrize("content", [{}, {"broken.jpg": "torn"}], ids=["no images", "no image that could be read"])
def test_a_ledger_of_nothing_has_no_images_to_ask_for(tmp_path, content):
    with pytest.raises(QueryError, match="the ledger has 0 that can be asked for"):
        query_ledger(make(tmp_path, content), LEAST_CONFIDENCE, 1, seed=0)


# Class counts


def test_class_counts_go_by_name_and_not_by_order(tmp_path):
    folder = make(tmp_path, {"crab.jpg": [[0.6, 0.0]], "fish.jpg": [[0.0, 0.6]]})
    arm = Uncertainty("entropy", "sum", "inverse_frequency", "background")

    def first(**counts: int) -> str:
        return ids(query_ledger(folder, arm, 1, seed=0, class_counts=counts))[0]

    assert first(crab=9, fish=0) == first(fish=0, crab=9) == "fish.jpg"
    assert first(crab=0, fish=9) == first(fish=9, crab=0) == "crab.jpg"


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"crab": 1}, "class counts: 'fish' has no count; its classes are crab, fish"),
        ({}, "class counts: 'crab' has no count"),
        ({"crab": 1, "fish": 1, "eel": 0}, "class counts: 'eel' is no class of the ledger; its classes are crab, fish"),
        ({"Crab": 1, "fish": 1}, "class counts: 'Crab' is no class of the ledger"),
    ],
)
def test_counts_of_other_classes_are_refused_even_where_they_do_not_count(tmp_path, counts, said):
    folder = make(tmp_path)
    for arm in (RANDOM, LEAST_CONFIDENCE):
        with pytest.raises(QueryError, match=said):
            query_ledger(folder, arm, 1, seed=0, class_counts=counts)
    with pytest.raises(QueryError, match=said):
        compare_strategies(folder, [RANDOM], 1, seed=0, class_counts=counts)


@pytest.mark.parametrize("weighting", ["inverse_frequency", "inverse_sqrt"])
def test_a_weighting_without_class_counts_is_refused(tmp_path, weighting):
    folder = make(tmp_path)
    arm = Uncertainty("entropy", "sum", weighting, "background")
    said = f"entropy sum {weighting} needs the boxes labelled so far: give --class-counts"
    with pytest.raises(QueryError, match=said):
        query_ledger(folder, arm, 1, seed=0)
    with pytest.raises(QueryError, match=said):
        compare_strategies(folder, [RANDOM, arm], 1, seed=0)


def test_counts_are_in_the_order_of_class_ids():
    assert counts_by_class({"b": 1, "c": 2, "a": 3}, ["c", "a", "b"], RANDOM).tolist() == [2, 3, 1]
    assert counts_by_class(None, ["c", "a", "b"], RANDOM).tolist() == [0, 0, 0]


def test_conditional_probabilities_of_one_class_are_refused(tmp_path):
    folder = make(tmp_path, {"a.jpg": [[0.4]]}, ["crab"])
    with pytest.raises(QueryError, match="probabilities `conditional` of one class are always 1"):
        query_ledger(folder, Uncertainty("entropy", "sum", "none", "conditional"), 1, seed=0)
    assert ids(query_ledger(folder, LEAST_CONFIDENCE, 1, seed=0)) == ["a.jpg"]


# What is told of an image


def test_predicted_classes_are_counted_the_most_frequent_first(tmp_path):
    content = {"a.jpg": [[0.1, 0.5, 0.2], [0.4, 0.3, 0.1], [0.0, 0.2, 0.1], [0.1, 0.1, 0.9]], "b.jpg": [[0.4, 0.4, 0]]}
    first, second = query_ledger(make(tmp_path, content, [*NAMES, "squid"]), BOX_COUNT, 2, seed=0).images
    assert first.num_detections == 4
    assert list(first.classes.items()) == [("fish", 2), ("crab", 1), ("squid", 1)]
    assert second.classes == {"crab": 1}


def test_progress_is_told_once_for_every_part(tmp_path):
    folder = make(tmp_path, EMPTY, part_size=5)
    of_query: list[tuple[int, int]] = []
    of_comparison: list[tuple[int, int]] = []
    query_ledger(folder, RANDOM, 1, seed=0, progress=lambda *told: of_query.append(told))
    compare_strategies(folder, [RANDOM, BOX_COUNT], 1, seed=0, progress=lambda *told: of_comparison.append(told))
    assert of_query == of_comparison == [(1, 3), (2, 3), (3, 3)]


# What is not a ledger


def ask(folder: Folder) -> None:
    query_ledger(folder, RANDOM, 1, seed=0)


def compare(folder: Folder) -> None:
    compare_strategies(folder, [RANDOM], 1, seed=0)


@pytest.mark.parametrize("command", [ask, compare])
def test_what_is_no_finished_ledger_of_named_classes_is_refused(tmp_path, command):
    unfinished = make(tmp_path / "unfinished")
    (tmp_path / "unfinished" / FACTS_FILE).unlink()
    with pytest.raises(LedgerError, match="it has 3 finished parts, but is not complete; run the score command again"):
        command(unfinished)
    with pytest.raises(LedgerError, match=r"of_a_run does not name its classes: query a ledger that `raylearn score`"):
        command(write_ledger(SCORES, tmp_path / "of_a_run"))
    with pytest.raises(LedgerError, match=r"nowhere is not a ledger: it has no ledger\.json"):
        command(Folder(str(tmp_path / "nowhere")))


def test_a_ledger_that_lost_a_part_is_refused_with_its_name(tmp_path):
    folder = make(tmp_path)
    (tmp_path / "part-00001.parquet").unlink()
    for command in (ask, compare):
        with pytest.raises(LedgerError, match=r"part-00001.parquet is not there: remove ledger.json, and score again"):
            command(folder)


# Embeddings


class Largest(ImageScoring):
    """The images with the largest first number of a box embedding."""

    name = "largest"
    needs = "embeddings"

    def image_scores(self, images, context):  # noqa: ARG002
        counts = np.diff(images.offsets)
        owner = np.repeat(np.arange(len(counts)), counts)
        scores = np.zeros(len(counts))
        np.maximum.at(scores, owner, images.box_embeddings[:, 0].astype(float))
        assert images.image_embeddings[:, 0].tolist() == (1 + counts).tolist()
        return scores


class LargestOfAll(Strategy):
    """The same by a strategy that has to see all candidates at once."""

    name = "largest of all"
    needs = "embeddings"

    def select(self, candidates, size, context):
        order = np.argsort(-Largest().image_scores(candidates, context), kind="stable")[:size]
        return Query(tuple(candidates.image_ids[i] for i in order), (0.0,) * size)


class Blind(ImageScoring):
    """Needs no embeddings, so that none may be read for it."""

    name = "blind"
    needs = "detections"

    def image_scores(self, images, context):  # noqa: ARG002
        assert images.box_embeddings is None
        assert images.image_embeddings is None
        return np.zeros(len(images.offsets) - 1)


@pytest.mark.parametrize("part_size", [1, 2, 100])
@pytest.mark.parametrize("strategy", [Largest(), LargestOfAll()], ids=lambda strategy: strategy.name)
def test_a_strategy_that_needs_embeddings_gets_them(tmp_path, part_size, strategy):
    write_ledger(SCORES, tmp_path, 2, part_size, embeddings=True, class_names=NAMES)
    query = query_ledger(Folder.at(tmp_path), strategy, 3, seed=0, exclude=["c.jpg"])
    assert sorted(ids(query)[:2]) == ["a.jpg", "b.jpg"]
    assert ids(query)[2] == "none.jpg"


def test_embeddings_are_not_read_for_a_strategy_that_does_not_need_them(tmp_path):
    write_ledger(SCORES, tmp_path, 2, embeddings=True, class_names=NAMES)
    assert len(ids(query_ledger(Folder.at(tmp_path), Blind(), 4, seed=0))) == 4


@pytest.mark.parametrize("settings", [{}, {"iou": 0.7}, {"embeddings": False}])
def test_a_strategy_that_needs_embeddings_is_refused_on_a_ledger_without_them(tmp_path, settings):
    folder = write_ledger(SCORES, tmp_path, class_names=NAMES, settings=settings)
    for strategy in (Largest(), LargestOfAll()):
        with pytest.raises(QueryError, match=rf"{strategy.name} needs embeddings, .* score with --embeddings"):
            query_ledger(folder, strategy, 2, seed=0)
    assert len(ids(query_ledger(folder, BOX_COUNT, 2, seed=0))) == 2


# Comparison


def test_overlaps_are_those_of_the_single_queries(tmp_path):
    rng = np.random.default_rng(1)
    content = {f"{i:02}.jpg": rng.uniform(0, 1, (i % 3, 2)).round(2).tolist() for i in range(18)}
    folder = make(tmp_path, {**content, "torn.jpg": "torn"}, part_size=5)
    asked = {"seed": 2, "class_counts": COUNTS, "exclude": ["04.jpg"]}
    arms = all_choices("background", weighted=True, weight_cap=5.0)
    overlaps, _ = compare_strategies(folder, arms, 6, **asked)
    single = [set(ids(query_ledger(folder, arm, 6, **asked))) for arm in arms]
    np.testing.assert_allclose(overlaps, [[len(one & other) / 6 for other in single] for one in single])
    assert len(np.unique(overlaps)) > 2  # arms that differ, and not in one way


@given(ledgers, st.integers(1, 8), st.integers(0, 100))
def test_overlaps_are_shares_one_on_the_diagonal_and_the_same_both_ways(tmp_path_factory, content, part_size, seed):
    size = sum(isinstance(found, list) for found in content.values()) // 2
    if not size:
        return
    folder = make(tmp_path_factory.mktemp("ledger"), content, part_size=part_size)
    overlaps, _ = compare_strategies(folder, all_choices("independent", weighted=False), size, seed=seed)
    assert overlaps.shape == (14, 14)
    assert (overlaps.diagonal() == 1).all()
    assert (overlaps == overlaps.T).all()
    assert overlaps.min() >= 0
    assert overlaps.max() <= 1


@pytest.mark.parametrize(("weighted", "count"), [(False, 4 * 3), (True, 4 * 3 * 3)])
def test_all_choices_are_the_grid_and_the_controls(weighted, count):
    chosen = all_choices("conditional", weighted)
    assert len(set(chosen)) == len(chosen) == count + 2
    assert chosen[count:] == [Random(), BoxCount()]
    grid = chosen[:count]
    assert {strategy.probabilities for strategy in grid} == {"conditional"}
    assert {strategy.uncertainty for strategy in grid} == {"least_confidence", "margin", "margin_squared", "entropy"}
    assert {strategy.aggregation for strategy in grid} == {"sum", "max", "mean"}
    weightings = {"none", "inverse_frequency", "inverse_sqrt"} if weighted else {"none"}
    assert {strategy.weighting for strategy in grid} == weightings
