"""Ledgers read part by part for strategies that weigh images against each other, within limits and budgets."""

from pathlib import Path

import numpy as np
import pytest

import raylearn
from raylearn.data.groups import folder_of
from raylearn.data.storage import Folder
from raylearn.errors import QueryError
from raylearn.learning.ledger_query import LedgerQuery, query_ledger, query_ledger_for_boxes
from raylearn.scoring.ledger import Ledger
from raylearn.strategies import (
    BoxCount,
    Context,
    CoreSet,
    Coverage,
    Diverse,
    Labelled,
    Ppal,
    Random,
    Strategy,
    Uncertainty,
    ask,
)
from raylearn.strategies.reasons import reasons
from tests.unit.hand_made import write_ledger

NAMES = ["crab", "fish"]
COUNTS = {"crab": 8, "fish": 3}
rng = np.random.default_rng(7)
CONTENT = {
    f"clip{i % 9}/{i:02}.jpg": rng.uniform(0, 1, (i % 4, 2)).round(1).tolist() for i in rng.permutation(40).tolist()
}
LABELLED = sorted(CONTENT)[:6]
WEIGHING = [Diverse(beta=2), Coverage(), Coverage(clusters=2), CoreSet(), Ppal(delta=2)]


def _ledger(tmp_path: Path, part_size: int = 7) -> Folder:
    return write_ledger(CONTENT, tmp_path, 2, part_size, embeddings=True, class_names=NAMES)


def _from_memory(folder: Path, strategy: Strategy, size: int, *, groups: bool = False) -> tuple[str, ...]:
    """The same query from the whole ledger at once."""
    ledger = Ledger.read(Folder.at(folder))
    position = {image_id: index for index, image_id in enumerate(ledger.image_ids)}
    known = ledger.candidates.take(np.array([position[image_id] for image_id in LABELLED]))
    rest = ledger.candidates.take(np.array([at for name, at in position.items() if name not in LABELLED]))
    object.__setattr__(rest, "groups", np.array(list(map(folder_of, rest.image_ids)), object) if groups else None)
    context = Context(3, np.array(list(COUNTS.values())), Labelled(known, None))
    return ask(strategy, rest, size, context).image_ids


def _ids(query: LedgerQuery) -> tuple[str, ...]:
    return tuple(image.image_id for image in query.images)


@pytest.mark.parametrize("strategy", WEIGHING, ids=lambda strategy: strategy.label)
@pytest.mark.parametrize("part_size", [1, 7, 100])
def test_every_strategy_asks_for_what_it_would_from_memory(tmp_path: Path, strategy: Strategy, part_size: int) -> None:
    folder = _ledger(tmp_path, part_size)
    found = query_ledger(folder, strategy, 5, seed=3, class_counts=COUNTS, labelled=LABELLED)
    assert _ids(found) == _from_memory(tmp_path, strategy, 5)
    assert found.num_candidates == len(CONTENT) - len(LABELLED)


@pytest.mark.parametrize(
    "strategy",
    [
        Uncertainty(max_per_group=1),
        BoxCount(max_per_group=2),
        Diverse(beta=2, max_per_group=1),
        Coverage(max_per_group=1),
        CoreSet(max_per_group=1),
        Random(max_per_group=1),
    ],
    ids=lambda strategy: strategy.label,
)
def test_a_limit_per_group_holds_across_parts(tmp_path: Path, strategy: Strategy) -> None:
    folder = _ledger(tmp_path)
    found = query_ledger(folder, strategy, 8, seed=3, class_counts=COUNTS, labelled=LABELLED, group_of=folder_of)
    clips = [folder_of(image_id) for image_id in _ids(found)]
    assert max(map(clips.count, clips)) <= (strategy.max_per_group or 0)
    if not isinstance(strategy, Random):  # of which the streamed query is another draw
        assert _ids(found) == _from_memory(tmp_path, strategy, 8, groups=True)


def test_a_limit_that_leaves_too_few_is_refused(tmp_path: Path) -> None:
    folder = _ledger(tmp_path)
    for strategy in (Uncertainty(max_per_group=1), Diverse(max_per_group=1), Coverage(max_per_group=1)):
        with pytest.raises(QueryError, match="groups of at most 1 images each give 9"):
            query_ledger(folder, strategy, 10, seed=0, class_counts=COUNTS, group_of=folder_of)


def test_a_limit_without_groups_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="max_per_group needs groups"):
        query_ledger(_ledger(tmp_path), Uncertainty(max_per_group=1), 3, seed=0)


@pytest.mark.parametrize("strategy", [Uncertainty(), BoxCount(), Coverage()], ids=lambda strategy: strategy.label)
def test_a_query_for_boxes_ends_with_the_image_that_pays_them(tmp_path: Path, strategy: Strategy) -> None:
    folder = _ledger(tmp_path)
    arguments = {"seed": 3, "class_counts": COUNTS}
    found = query_ledger_for_boxes(folder, strategy, 4, candidates=len(CONTENT), **arguments)
    paid = np.cumsum([image.reason.boxes for image in found.images])
    assert paid[-1] >= 4
    assert len(paid) == 1 or paid[-2] < 4
    assert _ids(found) == _ids(query_ledger(folder, strategy, len(paid), **arguments))


@pytest.mark.parametrize("kind", [Uncertainty, Diverse, Coverage], ids=lambda kind: kind.__name__)
def test_a_query_for_boxes_is_met_where_the_images_that_groups_give_have_as_many(tmp_path, kind) -> None:
    folder, strategy = _ledger(tmp_path), kind(max_per_group=1)
    arguments = {"seed": 0, "class_counts": COUNTS, "group_of": folder_of}
    every = query_ledger(folder, strategy, 9, **arguments)
    boxes = int(sum(image.reason.boxes or 0 for image in every.images))
    assert boxes > 9  # more than the images that are asked for at first
    found = query_ledger_for_boxes(folder, strategy, boxes, candidates=len(CONTENT), **arguments)
    assert sum(image.reason.boxes or 0 for image in found.images) >= boxes
    with pytest.raises(QueryError, match=r"9 images within groups of at most 1 have .* or raise max_per_group"):
        query_ledger_for_boxes(folder, strategy, boxes + 1, candidates=len(CONTENT), **arguments)


def test_ids_that_a_ledger_does_not_have_take_no_boxes_away(tmp_path: Path) -> None:
    folder = _ledger(tmp_path)
    every = query_ledger(folder, Uncertainty(), len(CONTENT), seed=0)
    boxes = int(sum(image.reason.boxes or 0 for image in every.images))
    strangers = [f"elsewhere/{number}.jpg" for number in range(len(CONTENT) - 1)]
    found = raylearn.query(str(tmp_path), boxes=boxes, exclude=strangers)
    assert sum(image.reason.boxes or 0 for image in found.found.images) >= boxes


def test_more_boxes_than_the_detector_sees_are_refused(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="a query of 1,000 boxes, but 40 images have"):
        query_ledger_for_boxes(_ledger(tmp_path), Uncertainty(), 1000, candidates=len(CONTENT), seed=0)


def test_a_query_says_which_labelled_image_is_nearest_where_the_ledger_has_it(tmp_path: Path) -> None:
    folder = _ledger(tmp_path)
    found = query_ledger(folder, Uncertainty(), 4, seed=0, labelled=[*LABELLED, "elsewhere.jpg"])
    assert all(image.reason.nearest in LABELLED for image in found.images)
    assert all(0 <= (image.reason.distance or 0) <= 1 for image in found.images)
    unknown = query_ledger(folder, Uncertainty(), 4, seed=0, labelled=["elsewhere.jpg"])
    assert [image.reason.nearest for image in unknown.images] == [None] * 4


def test_an_image_is_at_no_distance_from_itself(tmp_path: Path) -> None:
    _ledger(tmp_path)
    images = Ledger.read(Folder.at(tmp_path)).candidates
    known = reasons(list(images.image_ids), images, Context(0, np.zeros(2), Labelled(images, None)))
    assert [reason.distance for reason in known] == [0.0] * len(CONTENT)
