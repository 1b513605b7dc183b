"""What annotation tools write that is not a box, kind by kind, in every form that can hold it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raylearn.errors import LabelsError
from raylearn.handoff.labels import ImportedLabels, import_labels
from tests.unit.exported_tasks import EXPORTERS, Drawn, Shown, Task, handed_out


def shown() -> list[Shown]:
    """Three images with one box, two and none."""
    boxes = [[Drawn("crab", (4, 5, 30, 20))], [Drawn("eel", (1, 1, 9, 9)), Drawn("crab", (10, 10, 40, 30))], []]
    return [Shown(f"{n}_a.jpg", f"b/{n}.jpg", 96, 64, own) for n, own in enumerate(boxes, start=1)]


def bring_back(
    tool: Any, folder: Path, edit: Callable[[list[Shown]], object], missing: Any = "refuse", text: Any = None
) -> ImportedLabels:
    """Imports three images as a tool exports them after an edit of the task, and then one of the export's text."""
    images = shown()
    record = handed_out(images, folder)
    edit(images)
    path = EXPORTERS[tool](Task(images, list(record.class_names)), folder)
    if text:
        before = path.read_text()
        path.write_text(text(before))
        assert path.read_text() != before
    return import_labels(path, tool, record, missing)


def refusals(*given: Any, **more: Any) -> list[str]:
    with pytest.raises(LabelsError) as caught:
        bring_back(*given, **more)
    return [str(problem) for problem in caught.value.problems or [str(caught.value)]]


def rotate_all(images: list[Shown]) -> None:
    for image in images:
        for box in image.boxes:
            box.rotation = 12.5


def unchanged(_: list[Shown]) -> None:
    pass


@pytest.mark.parametrize("tool", ["label-studio", "cvat", "coco", "csv"])
def test_every_rotated_box_is_listed_with_its_image(tool, tmp_path) -> None:
    problems = refusals(tool, tmp_path, rotate_all)
    assert len(problems) == 3
    assert all("is rotated by 12.5 degrees: draw it upright" in problem for problem in problems)
    assert [name for problem in problems for name in ("1_a", "2_a") if name in problem] == ["1_a", "2_a", "2_a"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"attributes"', '"rotation": "-30", "attributes"'),
        ('"attributes"', '"rotation": [3], "attributes"'),
        ('"rotation": 0.0', '"rotation": 180'),
        ('"rotation": 0.0', '"rotation": "0.5"'),
    ],
)
def test_a_rotation_is_refused_wherever_coco_holds_it(old, new, tmp_path) -> None:
    assert len(refusals("coco", tmp_path, unchanged, text=lambda text: text.replace(old, new))) == 3


def test_an_attribute_that_people_named_rotation_is_no_angle(tmp_path) -> None:
    found = bring_back(
        "coco", tmp_path, unchanged, text=lambda text: text.replace('"rotation": 0.0', '"rotation": "left"')
    )
    assert len(found.truth) == 3


def test_a_polygon_is_taken_with_its_own_box_and_refused_where_it_is_a_rotated_rectangle_elsewhere(tmp_path) -> None:
    def polygon(*points: float) -> Callable[[list[Shown]], None]:
        return lambda images: images[0].boxes[0].extra.update(segmentation=[list(points)])

    assert bring_back("coco", tmp_path, polygon(4, 5, 30, 5, 30, 20, 4, 20)).truth
    assert bring_back("coco", tmp_path, polygon(17, 5, 30, 20, 4, 20)).truth
    (problem,) = refusals("coco", tmp_path, polygon(12, 2, 30, 20, 24, 26, 6, 8))
    assert "1_a.jpg: annotation 1 its polygon is a rotated rectangle" in problem


def test_nine_columns_are_a_rotated_box(tmp_path) -> None:
    images = shown()
    record = handed_out(images, tmp_path)
    EXPORTERS["yolo"](Task(images, list(record.class_names)), tmp_path)
    (tmp_path / "labels/1_a.txt").write_text("0 0.5 0.2 0.7 0.5 0.5 0.8 0.3 0.5\n")
    with pytest.raises(LabelsError, match="9 are of a rotated box: export as upright boxes"):
        import_labels(tmp_path, "yolo", record)


@pytest.mark.parametrize("tool", ["label-studio", "cvat", "coco"])
def test_images_labelled_at_another_size_are_listed_and_exchanged_sides_are_told(tool, tmp_path) -> None:
    def turn(images: list[Shown]) -> None:
        for image in images[:2]:
            image.width, image.height = image.height, image.width

    problems = refusals(tool, tmp_path, turn)
    assert len({problem.split(" was labelled")[0] for problem in problems}) == 2
    said = "was labelled at another size, 64x96 and not 96x64; its tool did not turn the photograph upright"
    assert all(said in problem for problem in problems)


@pytest.mark.parametrize("size", ["null", "0"])
def test_a_size_that_a_tool_did_not_know_is_no_other_size(size, tmp_path) -> None:
    text = lambda given: given.replace('"width": 96', f'"width": {size}')  # noqa: E731
    assert len(bring_back("coco", tmp_path, unchanged, text=text).truth) == 3


@pytest.mark.parametrize("tool", list(EXPORTERS))
def test_flipped_boxes_are_turned_over_with_a_note_each(tool, tmp_path) -> None:
    def flip(images: list[Shown]) -> None:
        for image in images:
            for box in image.boxes:
                x1, y1, x2, y2 = box.corners
                box.corners = (x2, y1, x1, y2)

    (tmp_path / "a").mkdir()
    found, upright = bring_back(tool, tmp_path, flip), bring_back(tool, tmp_path / "a", unchanged)
    assert found.truth == upright.truth
    assert len(found.notes) == 3
    assert not upright.notes
    assert all("turned over" in note for note in found.notes)


@pytest.mark.parametrize("missing", ["refuse", "skip", "background"])
def test_tracks_of_a_video_are_refused_and_no_background(missing, tmp_path) -> None:
    track = '<track id="0" label="crab"><box frame="0" xtl="1" ytl="1" xbr="5" ybr="5" /></track></annotations>'
    (problem,) = refusals("cvat", tmp_path, unchanged, missing, lambda text: text.replace("</annotations>", track))
    assert 'export the same task as "CVAT for images 1.1"' in problem


@pytest.mark.parametrize(
    ("state", "message"), [("draft", "it has a draft that was not submitted: submit it"), ("skipped", "it was skipped")]
)
def test_drafts_and_skipped_tasks_are_never_background(state, message, tmp_path) -> None:
    def leave(images: list[Shown]) -> None:
        images[0].state = images[1].state = state

    for missing in ("refuse", "background"):
        problems = refusals("label-studio", tmp_path, leave, missing)
        assert len(problems) == 2
        assert all(message in problem for problem in problems)
    found = bring_back("label-studio", tmp_path, leave, "skip")
    assert list(found.truth) == ["b/3.jpg"]
    assert len(found.notes) == 2
    assert message in found.notes[0]


def test_a_draft_beside_an_annotation_is_told(tmp_path) -> None:
    found = bring_back(
        "label-studio", tmp_path, unchanged, text=lambda text: text.replace('"drafts": []', '"drafts": [1]', 1)
    )
    assert len(found.truth) == 3
    assert found.notes == [f"{tmp_path / 'export.json'}: 1_a.jpg {DRAFT_BESIDE}"]


DRAFT_BESIDE = "has a draft beside its annotation, which was not submitted and is left out"


@pytest.mark.parametrize("tool", list(EXPORTERS))
def test_everything_wrong_is_listed_at_once_kind_by_kind_with_counts(tool, tmp_path) -> None:
    def spoil(images: list[Shown]) -> None:
        images[1].boxes[0].class_name = "eels"
        images[0].boxes[0].corners = (4, 5, 300, 20)
        images[1].boxes.append(Drawn("eels", (3, 3, 6, 6)))
        images[2].name = "other.jpg"

    with pytest.raises(LabelsError) as caught:
        bring_back(tool, tmp_path, spoil)
    assert len(caught.value.problems) == 5
    kinds = "(4 more; of all 5, not asked for: 1, missing: 1, impossible box: 1, unknown class: 2)"
    assert str(caught.value).endswith(f"{kinds}; nothing was imported")


def test_what_is_no_box_in_a_file_is_listed_beside_the_rest(tmp_path) -> None:
    def break_numbers(text: str) -> str:
        content = json.loads(text)
        content["annotations"][0]["bbox"] = ["x", 1, 2, 3]
        content["annotations"][1]["iscrowd"] = 1
        content["annotations"][2]["category_id"] = 77
        return json.dumps(content)

    assert len(refusals("coco", tmp_path, unchanged, text=break_numbers)) == 3


@pytest.mark.parametrize("tool", list(EXPORTERS))
def test_a_box_and_the_same_one_flipped_are_one_box(tool, tmp_path) -> None:
    def repeat(images: list[Shown]) -> None:
        images[0].boxes = [Drawn("crab", (0.25, 0.0, 1.25, 1.0)), Drawn("crab", (1.25, 0.0, 0.25, 1.0))]

    found = bring_back(tool, tmp_path, repeat)
    assert len(found.truth["b/1.jpg"]) == 1
    assert found.repeated == 1
