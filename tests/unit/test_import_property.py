"""Whatever people and tools do to a hand-out, it comes back exactly as they left it, or it is refused."""
# ruff: noqa: ARG001  all edits have one signature

import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylearn.errors import LabelsError
from raylearn.handoff.exchange import SentImage, Tool
from raylearn.handoff.labels import import_labels
from tests.unit.exported_tasks import CLASSES, EXPORTERS, Drawn, Shown, Task, handed_out

TOOLS = get_args(Tool)
TOLERANCE = 1e-4  # pixels: of fractions written with nine decimals


def boxes_in(width: int, height: int) -> st.SearchStrategy[Drawn]:
    """Quarters of pixels, which every tool can write down."""

    def side(length: int) -> st.SearchStrategy[tuple[int, int]]:
        return st.integers(0, 4 * length - 8).flatmap(
            lambda start: st.tuples(st.just(start), st.integers(start + 4, 4 * length))
        )

    return st.builds(
        lambda name, x, y: Drawn(name, (x[0] / 4, y[0] / 4, x[1] / 4, y[1] / 4)),
        st.sampled_from(CLASSES),
        side(width),
        side(height),
    )


@st.composite
def images(draw: st.DrawFn) -> list[Shown]:
    found = []
    for rank in range(1, draw(st.integers(1, 4)) + 1):
        width, height = draw(st.sampled_from([(96, 64), (64, 96), (100, 75), (48, 48)]))
        boxes = draw(st.lists(boxes_in(width, height), max_size=4))
        found.append(Shown(f"{rank}_a.jpg", f"camera/{rank} a.jpg", width, height, boxes))
    return found


# Edits; what a task holds after them is to come back, unless `is_refused`


def redraw(task: Task, image: Shown, rng: random.Random) -> None:
    x, y = rng.randrange(image.width - 8), rng.randrange(image.height - 8)
    image.boxes.append(Drawn(rng.choice(CLASSES), (x, y, x + 1 + rng.randrange(7), y + 1 + rng.randrange(7))))


def move(task: Task, image: Shown, rng: random.Random) -> None:
    if image.boxes:
        del image.boxes[rng.randrange(len(image.boxes))]
        redraw(task, image, rng)


def delete(task: Task, image: Shown, rng: random.Random) -> None:
    del image.boxes[: rng.randrange(3)]


def reclassify(task: Task, image: Shown, rng: random.Random) -> None:
    for box in image.boxes:
        box.class_name = rng.choice(CLASSES)


def reorder(task: Task, image: Shown, rng: random.Random) -> None:
    rng.shuffle(task.images)
    rng.shuffle(image.boxes)


def renumber_classes(task: Task, image: Shown, rng: random.Random) -> None:
    rng.shuffle(task.classes)


def flip(task: Task, image: Shown, rng: random.Random) -> None:
    for box in image.boxes:
        x1, y1, x2, y2 = box.corners
        box.corners = rng.choice([(x2, y1, x1, y2), (x1, y2, x2, y1), (x2, y2, x1, y1)])


def repeat(task: Task, image: Shown, rng: random.Random) -> None:
    image.boxes += image.boxes[:1]


def turn_fully(task: Task, image: Shown, rng: random.Random) -> None:
    for box in image.boxes:
        box.rotation = box.rotation or 360.0


def rotate(task: Task, image: Shown, rng: random.Random) -> None:
    if image.boxes:
        rng.choice(image.boxes).rotation = rng.choice([0.01, 37.5, 90, 180, 271.25, -12])


def resize(task: Task, image: Shown, rng: random.Random) -> None:
    image.width, image.height = rng.choice(
        [(image.height, image.width + 1), (2 * image.width, 2 * image.height), (image.width + 1, image.height)]
    )


def rename_class(task: Task, image: Shown, rng: random.Random) -> None:
    if image.boxes:
        image.boxes[0].class_name = rng.choice(["Crab", "eels", "no", "blue_star"])


def rename(task: Task, image: Shown, rng: random.Random) -> None:
    image.name = f"other_{image.name}"


def drop(task: Task, image: Shown, rng: random.Random) -> None:
    task.images = [other for other in task.images if other is not image]


def reach_out(task: Task, image: Shown, rng: random.Random) -> None:
    image.boxes.append(Drawn("crab", (1, 1, image.width + rng.randrange(2, 99), 9)))


def crowd(task: Task, image: Shown, rng: random.Random) -> None:
    if image.boxes:
        image.boxes[0].extra = {"iscrowd": 1}


def polygon(task: Task, image: Shown, rng: random.Random) -> None:
    """An oriented rectangle beside the box that its tool drew first."""
    image.boxes.append(
        Drawn("crab", (2, 2, 30, 10), extra={"segmentation": [[12.0, 2.0, 30.0, 20.0, 24.0, 26.0, 6.0, 8.0]]})
    )


def exchange_names(task: Task, image: Shown, rng: random.Random) -> None:
    other = rng.choice(task.images)
    if other is not image:
        image.name, other.name = other.name, image.name


def leave_a_draft(task: Task, image: Shown, rng: random.Random) -> None:
    image.state = rng.choice(["draft", "skipped", "never opened"])


Edit = Callable[[Task, Shown, random.Random], None]
KEPT: tuple[Edit, ...] = (redraw, move, delete, reclassify, reorder, renumber_classes, flip, repeat)
REFUSED: tuple[Edit, ...] = (rename_class, rename, drop, reach_out)
TURNING: tuple[Edit, ...] = (turn_fully, rotate)
EDITS: dict[str, tuple[Edit, ...]] = {
    "label-studio": (*KEPT, *REFUSED, *TURNING, resize, exchange_names, leave_a_draft),
    "cvat": (*KEPT, *REFUSED, *TURNING, resize),
    "coco": (*KEPT, *REFUSED, *TURNING, resize, crowd, polygon),
    "yolo": (*KEPT, *REFUSED),
    "csv": (*KEPT, *REFUSED, *TURNING, exchange_names),
}


def is_refused(tool: Tool, task: Task, sent: Sequence[SentImage]) -> bool:
    """Whether a task holds what no truth can be made of, by what it holds in the end."""
    by_name = {image.name: image for image in sent}
    if {image.name for image in task.images} != by_name.keys():
        return True
    for image in task.images:
        own = by_name[image.name]
        says_its_size = tool in ("cvat", "coco") or (tool == "label-studio" and image.boxes)
        if (own.image_id != image.image_id and tool in ("label-studio", "csv")) or image.state != "submitted":
            return True
        if says_its_size and (image.width, image.height) != (own.width, own.height):
            return True
        for box in image.boxes:
            _, _, right, bottom = upright(box.corners)
            if box.rotation % 360 or box.extra or box.class_name not in CLASSES:
                return True
            if right > own.width or bottom > own.height:
                return True
    return False


def comes_back_or_is_refused(tool: Tool, shown: list[Shown], data: st.DataObject, folder: Path) -> None:
    record = handed_out(shown, folder)
    task = Task(shown, list(CLASSES))
    for edit in data.draw(st.lists(st.sampled_from(EDITS[tool]), max_size=4), label="edits"):
        if task.images:
            rng = data.draw(st.randoms(use_true_random=False))
            edit(task, rng.choice(task.images), rng)
    path = EXPORTERS[tool](task, folder)
    try:
        found = import_labels(path, tool, record)
    except LabelsError:
        assert is_refused(tool, task, record.images)
        return
    assert not is_refused(tool, task, record.images)
    for image in task.images:
        wanted = {(box.class_name, *upright(box.corners)) for box in image.boxes}
        truth = found.truth[image.image_id]
        came = zip(truth.class_ids, truth.boxes.astype(float).tolist(), strict=True)
        rounded = [(CLASSES[class_id], *(round(corner * 4) / 4 for corner in corners)) for class_id, corners in came]
        assert Counter(rounded) == Counter(wanted)
        assert abs(truth.boxes * 4 - (truth.boxes * 4).round()).max(initial=0) < TOLERANCE


def upright(corners: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = corners
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


@pytest.mark.parametrize("tool", TOOLS)
@given(shown=images(), data=st.data())
def test_an_edited_hand_out_comes_back_exactly_or_is_refused(tool, shown, data, tmp_path_factory):
    comes_back_or_is_refused(tool, shown, data, tmp_path_factory.mktemp("edited"))


@pytest.mark.long
@pytest.mark.parametrize("tool", TOOLS)
@settings(max_examples=2000, deadline=None)
@given(shown=images(), data=st.data())
def test_two_thousand_edited_hand_outs_come_back_exactly_or_are_refused(tool, shown, data, tmp_path_factory):
    comes_back_or_is_refused(tool, shown, data, tmp_path_factory.mktemp("edited"))
