"""Reading YOLO data sets: every form of data.yaml, strict rows, policies, and nothing outside of the folder."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raylearn.data.dataset import Dataset
from raylearn.data.formats import Problem, examine_dataset, read_dataset
from raylearn.errors import DatasetError

CLASSES = ["cell", "platelet"]
_shade = iter(range(1, 10_000_000))


def write_image(path: Path, size: tuple[int, int] = (40, 20)) -> Path:
    """A PNG whose bytes no other image of the test has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number = next(_shade)
    kind = "PNG" if path.suffix == ".png" else "BMP"  # fast and exact; the reader goes by content
    Image.new("RGB", size, (number & 255, number >> 8 & 255, number >> 16)).save(path, kind)
    return path


def write_labels(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def make(
    root: Path, description: Mapping[str, object] | str | None = None, train: Mapping[str, str] | None = None
) -> Path:
    """A data set of one pool image (or those of `train`, by stem) and one test image."""
    for stem, text in ({"a": "0 0.5 0.5 0.5 0.5\n"} if train is None else train).items():
        write_image(root / "images/train" / f"{stem}.png")
        write_labels(root / "labels/train" / f"{stem}.txt", text)
    write_image(root / "images/val/v.png")
    write_labels(root / "labels/val/v.txt", "1 0.25 0.5 0.5 1\n")
    if description is None:
        description = {"train": "images/train", "val": "images/val", "names": CLASSES}
    (root / "data.yaml").write_text(description if isinstance(description, str) else yaml.safe_dump(dict(description)))
    return root


def ids(dataset: Dataset) -> list[str]:
    return [image.image_id for image in dataset.images()]


def refusal(path: Path, **arguments: object) -> str:
    with pytest.raises(DatasetError) as caught:
        read_dataset(path, "yolo", **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def problems(path: Path, **arguments: object) -> list[Problem]:
    return examine_dataset(path, "yolo", **arguments)[1]  # type: ignore[arg-type]


# What is read


def test_boxes_are_pixels_of_the_image(tmp_path: Path) -> None:
    dataset = read_dataset(make(tmp_path), "yolo")
    image = dataset.pool[0]
    assert (image.image_id, image.width, image.height) == ("images/train/a.png", 40, 20)
    assert Path(image.uri).read_bytes() == (tmp_path / "images/train/a.png").read_bytes()
    assert dataset.truth[image.image_id].boxes.tolist() == [[10, 5, 30, 15]]
    assert dataset.truth["images/val/v.png"].boxes.tolist() == [[0, 0, 20, 20]]
    assert dataset.truth["images/val/v.png"].class_ids.tolist() == [1]
    assert dataset.class_names == ("cell", "platelet")
    assert dataset.notes == ()


def test_empty_label_file_is_an_empty_frame_and_no_problem(tmp_path: Path) -> None:
    dataset = read_dataset(make(tmp_path, train={"a": "", "b": "\n \n"}), "yolo")
    assert [len(dataset.truth[image.image_id]) for image in dataset.pool] == [0, 0]


@pytest.mark.parametrize(
    "row",
    [
        "0 .5 0.5 5e-1 0.5",
        "0.0 0.5 0.5 0.5 0.5",
        "\ufeff0 0.5 0.5 0.5 0.5",
        "  0\t0.5 0.5 0.5 0.5  \r\n\r\n",
        "0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75",
        "0 0.25 0.25 0.75 0.5 0.5 0.75",
    ],
)
def test_every_way_to_write_the_same_box(row: str, tmp_path: Path) -> None:
    dataset = read_dataset(make(tmp_path, train={"a": row}), "yolo")
    assert dataset.truth["images/train/a.png"].boxes.tolist() == [[10, 5, 30, 15]]


def test_keypoints_of_pose_labels_are_left_out(tmp_path: Path) -> None:
    description = {"train": "images/train", "val": "images/val", "names": CLASSES, "kpt_shape": [1, 2]}
    dataset = read_dataset(make(tmp_path, description, {"a": "0 0.5 0.5 0.5 0.5 0.9 0.9"}), "yolo")
    assert dataset.truth["images/train/a.png"].boxes.tolist() == [[10, 5, 30, 15]]


def test_box_that_reaches_one_pixel_out_is_clipped_and_two_are_refused(tmp_path: Path) -> None:
    dataset = read_dataset(make(tmp_path / "one", train={"a": "0 0.5 0.5 1.05 0.5"}), "yolo", bad_boxes="drop")
    assert dataset.notes[0].endswith("'1.05' is outside of 0..1: " + dataset.notes[0].split(": ")[-1])
    dataset = read_dataset(make(tmp_path / "two", train={"a": "0 0.025 0.5 0.1 0.5"}), "yolo")
    assert dataset.truth["images/train/a.png"].boxes.tolist() == [[0, 5, 3, 15]]
    assert "2.0 pixels out" in refusal(make(tmp_path / "three", train={"a": "0 0.0 0.5 0.1 0.5"}))


def test_repeated_row_is_kept_once_with_a_note(tmp_path: Path) -> None:
    row, other = "0 0.5 0.5 0.5 0.5\n", "1 0.5 0.5 0.5 0.5\n"
    dataset = read_dataset(make(tmp_path, train={"a": row + other + row}), "yolo")
    assert dataset.truth["images/train/a.png"].class_ids.tolist() == [0, 1]
    assert len(dataset.notes) == 1
    assert "a.txt:3: " in dataset.notes[0]


# The forms of data.yaml


@pytest.mark.parametrize(
    "change",
    [
        {"train": "./images/train"},
        {"train": ["images/train"]},
        {"train": "../images/train", "val": "../images/val"},
        {"path": "."},
        {"path": None},
        {"path": "", "test": None},
        {"train": "train.txt"},
        {"train": ["train.txt", "images/train"]},
        {"train": "lists/train.txt"},
        {"names": {0: "cell", 1: "platelet"}},
        {"names": {"1": "platelet", "0": "cell"}},
        {"nc": 2},
        {"nc": "2"},
        {"nc": 2.0},
        {"download": "raise SystemExit"},
        {"val": None, "validation": "images/val", "_drop": "val"},
    ],
    ids=str,
)
def test_forms_of_data_yaml(change: Mapping[str, object], tmp_path: Path) -> None:
    description = {"train": "images/train", "val": "images/val", "names": CLASSES, **change}
    description.pop(str(description.pop("_drop", None)), None)
    make(tmp_path, description)
    write_labels(tmp_path / "train.txt", "./images/train/a.png\r\n\n")
    write_labels(tmp_path / "lists/train.txt", "images/train/a.png")
    dataset = read_dataset(tmp_path, "yolo")
    assert ids(dataset) == ["images/train/a.png", "images/val/v.png"]
    assert dataset.class_names == ("cell", "platelet")


def test_path_may_be_absolute_relative_or_missing(tmp_path: Path) -> None:
    description = {"train": "images/train", "val": "images/val", "names": CLASSES}
    for path in ("data", str(tmp_path / "data")):
        make(tmp_path / "data")
        (tmp_path / "my.yaml").write_text(yaml.safe_dump({**description, "path": path}))
        assert ids(read_dataset(tmp_path / "my.yaml", "yolo")) == ["data/images/train/a.png", "data/images/val/v.png"]


def test_list_of_images_may_hold_absolute_paths(tmp_path: Path) -> None:
    make(tmp_path, {"train": "train.txt", "val": "images/val", "names": CLASSES})
    write_labels(tmp_path / "train.txt", str(tmp_path / "images/train/a.png"))
    assert ids(read_dataset(tmp_path, "yolo"))[0] == "images/train/a.png"


def test_classes_without_names_are_numbered(tmp_path: Path) -> None:
    make(tmp_path, {"train": "images/train", "val": "images/val", "nc": 3})
    assert read_dataset(tmp_path, "yolo").class_names == ("class_0", "class_1", "class_2")


def test_folder_without_images_in_its_path_has_labels_beside_the_images(tmp_path: Path) -> None:
    root = tmp_path / "images" / "set"  # the folder `images` above the data set is none of its business
    write_image(root / "t/a.png")
    write_labels(root / "t/a.txt", "0 0.5 0.5 0.5 0.5")
    write_image(root / "v/b.png")
    write_labels(root / "v/b.txt")
    (root / "data.yaml").write_text("{train: t, val: v, names: [x]}")
    for allowed in (None, tmp_path):
        assert len(read_dataset(root, "yolo", root=allowed).truth["t/a.png"]) == 1


def test_last_images_folder_becomes_labels(tmp_path: Path) -> None:
    write_image(tmp_path / "images/deep/images/a.png")
    write_labels(tmp_path / "images/deep/labels/a.txt", "0 0.5 0.5 0.5 0.5")
    make(tmp_path, {"train": "images/deep", "val": "images/val", "names": CLASSES}, train={})
    assert len(read_dataset(tmp_path, "yolo").truth["images/deep/images/a.png"]) == 1


def test_splits_are_those_asked_for(tmp_path: Path) -> None:
    make(tmp_path, {"train": "images/train", "val": "images/val", "test": "images/test", "names": CLASSES})
    write_image(tmp_path / "images/test/t.png")
    write_labels(tmp_path / "labels/test/t.txt")
    assert ids(read_dataset(tmp_path, "yolo")) == ["images/train/a.png", "images/test/t.png"]
    assert ids(read_dataset(tmp_path, "yolo", test=["val"])) == ["images/train/a.png", "images/val/v.png"]
    both = read_dataset(tmp_path, "yolo", pool=["train", "val"], test=["test"])
    assert [len(both.pool), len(both.test)] == [2, 1]
    assert "has no split 'tets': did you mean 'test'?" in refusal(tmp_path, test=["tets"])


def test_yaml_is_found_by_any_name_when_it_is_the_only_one(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "data.yaml").rename(tmp_path / "coco8.yaml")
    assert len(read_dataset(tmp_path, "yolo").pool) == 1
    (tmp_path / "other.yaml").write_text("")
    assert "exactly one *.yaml; found: coco8.yaml, other.yaml" in refusal(tmp_path)
    assert len(read_dataset(tmp_path / "coco8.yaml", "yolo").pool) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: x\nval: [x\n", "data.yaml:3: not valid YAML"),
        ("- a\n", "must be a mapping"),
        ("{train: images/train, val: images/val}", "names no classes"),
        ("{train: images/train, val: images/val, names: []}", "names: must be"),
        ("{train: images/train, val: images/val, names: {0: a, 2: b}}", "from 0 to 1"),
        ("{train: images/train, val: images/val, names: [a, null]}", "class 1"),
        ("{train: images/train, val: images/val, names: [a, {b: c}]}", "class 1"),
        ("{train: images/train, val: images/val, names: [a], nc: 2}", "nc: 2, but names: has 1"),
        ("{train: images/train, val: images/val, names: [a, ' ']}", "class 1"),
        ("{train: images/train, val: images/val, nc: many}", "nc: 'many'"),
        (f"{{train: images/train, val: images/val, nc: 0x{'f' * 6000}}}", "nc: a number too long to show"),
        ("{train: images/train, val: images/val, nc: 1000000000}", "nc: 1000000000"),
        ("{val: images/val, names: [a, b]}", "has no split 'train'"),
        ("{train: 3, val: images/val, names: [a, b]}", "train: 3 must be a folder"),
        ("{train: nowhere, val: images/val, names: [a, b]}", "train: 'nowhere' is no folder"),
        ("{path: nowhere, train: x, val: images/val, names: [a, b]}", "path: 'nowhere' is no folder"),
        ("{path: [x], train: x, val: images/val, names: [a, b]}", "path: ['x'] must be a folder"),
        ("{train: images/train, val: images/val, names: [a, b], kpt_shape: 3}", "kpt_shape: 3"),
        ("a: !!python/object/apply:os.system ['touch canary']", "not valid YAML"),
        ("a: !!timestamp x", "not valid YAML"),
    ],
)
def test_data_yaml_that_cannot_be_used_is_refused_by_name(text: str, message: str, tmp_path: Path) -> None:
    make(tmp_path, text)
    assert message in refusal(tmp_path)
    assert str(tmp_path / "data.yaml") in refusal(tmp_path)
    assert [problem.file for problem in problems(tmp_path)] == [str(tmp_path / "data.yaml")]


def test_missing_folder_and_unknown_words_are_refused(tmp_path: Path) -> None:
    assert "no such folder or data.yaml" in refusal(tmp_path / "nowhere")
    make(tmp_path)
    with pytest.raises(DatasetError, match="did you mean 'yolo'"):
        read_dataset(tmp_path, "yolov5")
    assert "did you mean 'background'" in refusal(tmp_path, missing_labels="backgrounds")
    assert "bad_boxes 'ignore' is unknown" in refusal(tmp_path, bad_boxes="ignore")


# Bad rows


BAD_ROWS = {
    "0 0.9 0.5 0.5 0.5": "pixels out",
    "0 0.5 0.5 0.5": "4 columns",
    "0 0.5 0.5 0.5 0.5 0.9": "6 columns",
    "0 0.1 0.1 0.2 0.2 0.3 0.3 0.4": "8 columns",
    "0 0.5 x 0.5 0.5": "'x' is not a number",
    "0 0.5 0_5 0.5 0.5": "'0_5' is not a number",
    "0 nan 0.5 0.5 0.5": "'nan' is not a finite number",
    "0 0.5 0.5 inf 0.5": "'inf' is not a finite number",
    "0 0.5 0.5 1e999 0.5": "'1e999' is not a finite number",
    "0.5 0.5 0.5 0.5 0.5": "class id '0.5'",
    "2 0.5 0.5 0.5 0.5": "class id '2' is not one of 0..1",
    "-1 0.5 0.5 0.5 0.5": "class id '-1'",
    "0 320 0.5 0.5 0.5": "'320' is outside of 0..1",
    "0 -0.02 0.5 0.5 0.5": "'-0.02' is outside of 0..1",
    "0 0.5 0.5 0 0.5": "zero area",
    "0 0.5 0.5 0.5 -0.001": "zero area",
    "0 0.5 0.5 1e-30 0.5": "zero area",
    "0 0.2 0.2 0.2 0.4 0.2 0.6": "zero area",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_bad_row_is_refused_with_file_and_line(row: str, tmp_path: Path) -> None:
    make(tmp_path, train={"a": f"0 0.5 0.5 0.5 0.5\n\n{row}\n"})
    message = refusal(tmp_path)
    assert f"{tmp_path / 'labels/train/a.txt'}:3: " in message
    assert BAD_ROWS[row] in message
    assert "set bad_boxes to drop" in message
    assert [(problem.line, problem.kind) for problem in problems(tmp_path)] == [(3, "box")]


def test_dropping_bad_boxes_keeps_the_others_and_notes_each(tmp_path: Path) -> None:
    make(tmp_path, train={"a": "\n".join(["0 0.5 0.5 0.5 0.5", *BAD_ROWS])})
    dataset = read_dataset(tmp_path, "yolo", bad_boxes="drop")
    assert dataset.truth["images/train/a.png"].boxes.tolist() == [[10, 5, 30, 15]]
    assert len(dataset.notes) == len(BAD_ROWS)
    for number, (what, note) in enumerate(zip(BAD_ROWS.values(), dataset.notes, strict=True), 2):
        assert f"a.txt:{number}: " in note
        assert what in note
        assert note.endswith("left out")
    assert problems(tmp_path, bad_boxes="drop") == []


def test_all_problems_are_listed_and_the_refusal_counts_them(tmp_path: Path) -> None:
    make(tmp_path, train={"a": "\n".join(BAD_ROWS), "b": "x", "c": ""})
    (tmp_path / "labels/train/c.txt").unlink()
    (tmp_path / "images/val/v.png").write_text("text")
    found = problems(tmp_path)
    assert [problem.kind for problem in found] == ["box"] * (len(BAD_ROWS) + 1) + ["labels", "file"]
    assert f"({len(found) - 1} more problems: `raylearn check` lists all)" in refusal(tmp_path)
    assert str(found[0]) in refusal(tmp_path)


def test_label_file_that_is_not_utf8_is_refused_under_every_policy(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "labels/train/a.txt").write_bytes(b"0 0.5 0.5 0.5 0.5\n\xff\xfe")
    message = refusal(tmp_path, bad_boxes="drop", missing_labels="background")
    assert "a.txt: not valid UTF-8 at byte 18" in message


# Missing labels and bad images


def test_missing_label_file_follows_its_policy(tmp_path: Path) -> None:
    make(tmp_path, train={"a": "0 0.5 0.5 0.5 0.5", "b": "", "c": ""})
    for stem in "bc":
        (tmp_path / f"labels/train/{stem}.txt").unlink()
    message = refusal(tmp_path)
    assert str(tmp_path / "images/train/b.png") in message
    assert f"has no label file {tmp_path / 'labels/train/b.txt'}" in message
    assert "set missing_labels to background" in message
    background = read_dataset(tmp_path, "yolo", missing_labels="background")
    assert [len(background.truth[image.image_id]) for image in background.pool] == [1, 0, 0]
    assert background.notes == (
        "2 pool images without a label file read as empty frames, the first 'images/train/b.png'",
    )
    skipped = read_dataset(tmp_path, "yolo", missing_labels="skip")
    assert [image.image_id for image in skipped.pool] == ["images/train/a.png"]
    assert skipped.notes == ("2 pool images without a label file left out, the first 'images/train/b.png'",)


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n\0\0", "cut"])
def test_bad_image_is_refused_by_name_under_every_policy(content: bytes | str, tmp_path: Path) -> None:
    make(tmp_path)
    image = tmp_path / "images/train/a.png"
    image.write_bytes(image.read_bytes()[:-20] if isinstance(content, str) else content)
    message = refusal(tmp_path, missing_labels="skip", bad_boxes="drop")
    assert message.startswith(str(image))
    assert "repair the file or remove it" in message


def test_test_image_with_the_bytes_of_a_pool_image_is_a_problem(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "images/val/v.png").write_bytes((tmp_path / "images/train/a.png").read_bytes())
    assert "same bytes as pool image 'images/train/a.png'" in refusal(tmp_path)
    assert len(problems(tmp_path)) == 1


def test_image_of_both_splits_is_a_problem(tmp_path: Path) -> None:
    make(tmp_path, {"train": "images", "val": "images/val", "names": CLASSES})
    assert "stands twice" in refusal(tmp_path)
    assert [problem.file for problem in problems(tmp_path)] == [str(tmp_path / "images/val/v.png")]


def test_empty_split_is_a_problem_too(tmp_path: Path) -> None:
    make(tmp_path, train={})
    (tmp_path / "images/train").mkdir()
    assert "no images in its pool" in refusal(tmp_path)
    assert "no images in its pool" in str(problems(tmp_path)[0])


# Names and links


NAMES = ["a b", "a,b", 'it\'s "quoted"', "übergröße 海", "new\nline", "-rf", "100%20", "two.dots", "\u2028separator"]


def test_names_of_every_kind_round_trip(tmp_path: Path) -> None:
    make(tmp_path, train=dict.fromkeys(NAMES, "0 0.5 0.5 0.5 0.5"))
    dataset = read_dataset(tmp_path, "yolo")
    assert {image.image_id for image in dataset.pool} == {f"images/train/{name}.png" for name in NAMES}
    for image in dataset.pool:
        assert Path(image.uri) == tmp_path / image.image_id
        assert len(dataset.truth[image.image_id]) == 1


def test_names_of_every_kind_can_be_listed(tmp_path: Path) -> None:
    names = [name for name in NAMES if "\n" not in name]
    make(tmp_path, {"train": "train.txt", "val": "images/val", "names": CLASSES}, dict.fromkeys(names, ""))
    write_labels(tmp_path / "train.txt", "\n".join(f"./images/train/{name}.png" for name in names))
    assert {image.image_id for image in read_dataset(tmp_path, "yolo").pool} == {
        f"images/train/{name}.png" for name in names
    }


def test_message_about_a_name_with_a_newline_is_one_line(tmp_path: Path) -> None:
    make(tmp_path, train={"new\nline": "x"})
    assert "new\\nline.txt:1: " in refusal(tmp_path)


def test_same_stem_in_two_folders_gives_two_ids(tmp_path: Path) -> None:
    make(tmp_path, train={"one/a": "0 0.5 0.5 0.5 0.5", "two/a": "1 0.5 0.5 1 1"})
    dataset = read_dataset(tmp_path, "yolo")
    assert dataset.truth["images/train/one/a.png"].class_ids.tolist() == [0]
    assert dataset.truth["images/train/two/a.png"].class_ids.tolist() == [1]


def test_images_that_differ_in_their_ending_share_a_label_file_with_a_note(tmp_path: Path) -> None:
    make(tmp_path)
    write_image(tmp_path / "images/train/a.bmp", (80, 40))
    dataset = read_dataset(tmp_path, "yolo")
    assert dataset.truth["images/train/a.png"].boxes.tolist() == [[10, 5, 30, 15]]
    assert dataset.truth["images/train/a.bmp"].boxes.tolist() == [[20, 10, 60, 30]]
    assert len(dataset.notes) == 1
    assert "a.txt: the label file of 'images/train/a.bmp' and 'images/train/a.png'" in dataset.notes[0]


def test_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    make(tmp_path)
    write_image(tmp_path / "images/train/b.png").rename(
        os.fsdecode(os.fsencode(tmp_path / "images/train") + b"/\xff.png")
    )
    message = refusal(tmp_path, missing_labels="skip")
    assert "\\udcff.png: its name is not valid UTF-8" in message
    message.encode()


def test_each_file_is_read_once_whatever_links_there_are(tmp_path: Path) -> None:
    make(tmp_path, train={"sub/a": "", "b": ""})
    train = tmp_path / "images/train"
    (train / "loop").symlink_to("..")
    (train / "sub/self").symlink_to(".")
    (train / "0_first").symlink_to("sub")
    (train / "aa.png").symlink_to("sub/a.png")
    assert ids(read_dataset(tmp_path, "yolo"))[:-1] == ["images/train/b.png", "images/train/sub/a.png"]


def test_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    folders = ["one", "two", "three", "four"]
    make(tmp_path, train={f"{name}/a": "" for name in folders})
    for here in folders:
        for there in folders:
            (tmp_path / "images/train" / here / f"to_{there}").symlink_to(f"../{there}")
    assert ids(read_dataset(tmp_path, "yolo"))[:-1] == [f"images/train/{name}/a.png" for name in sorted(folders)]


def test_linked_folder_outside_is_one_problem_and_not_listed(tmp_path: Path) -> None:
    make(tmp_path / "outside", train={"a": "", "b": ""})
    make(tmp_path / "inside")
    (tmp_path / "inside/images/train/link").symlink_to(tmp_path / "outside/images/train")
    assert [Path(problem.file).name for problem in problems(tmp_path / "inside")] == ["link"]


def test_linked_folder_inside_the_data_set_is_followed(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "images/train").rename(tmp_path / "store")
    (tmp_path / "images/train").symlink_to("../store")
    assert ids(read_dataset(tmp_path, "yolo"))[0] == "images/train/a.png"


def test_hidden_files_and_other_endings_are_no_images(tmp_path: Path) -> None:
    make(tmp_path)
    for name in (".hidden.png", ".git/x.png", "notes.txt", "train.cache"):
        write_labels(tmp_path / "images/train" / name, "text")
    assert len(read_dataset(tmp_path, "yolo").pool) == 1


def test_broken_link_and_pipe_are_problems_and_not_passed_over(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "images/train/b.png").symlink_to("nowhere.png")
    os.mkfifo(tmp_path / "images/train/c.png")
    (tmp_path / "labels/train/a.txt").unlink()
    os.mkfifo(tmp_path / "labels/train/a.txt")
    assert [Path(problem.file).name for problem in problems(tmp_path)] == ["b.png", "c.png", "a.txt"]


def test_listed_image_that_is_none_is_a_problem_with_its_line(tmp_path: Path) -> None:
    make(tmp_path, {"train": "train.txt", "val": "images/val", "names": CLASSES})
    write_labels(tmp_path / "README.md")
    write_labels(tmp_path / "train.txt", "images/train/a.png\nimages/train/gone.png\nREADME.md\nimages/train/\0.png")
    assert [(Path(problem.file).name, problem.line) for problem in problems(tmp_path)] == [
        ("train.txt", 2),
        ("train.txt", 3),
        ("train.txt", 4),
    ]


# Hostile data sets


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A data set beside the one that is read; not one byte of it may be opened."""
    return make(tmp_path / "outside")


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize(
    "way",
    [
        *("entry", "stripped entry", "absolute entry", "path", "absolute path", "line", "absolute line"),
        *("folder link", "image link", "label link", "list link"),
    ],
)
def test_nothing_outside_of_the_folder_is_read(
    way: str, tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "inside"
    base = {"train": "images/train", "val": "images/val", "names": CLASSES}
    change: dict[str, dict[str, object]] = {
        "entry": {"train": "images/../../outside/images/train"},
        "stripped entry": {"train": "../../outside/images/train"},
        "absolute entry": {"train": str(outside / "images/train")},
        "path": {"path": "../outside"},
        "absolute path": {"path": str(outside)},
    }
    make(inside, {**base, **change.get(way, {"train": "list.txt"} if "line" in way or "list" in way else {})})
    if way == "line":
        write_labels(inside / "list.txt", "./../outside/images/train/a.png")
    elif way == "absolute line":
        write_labels(inside / "list.txt", str(outside / "images/train/a.png"))
    elif way == "list link":
        write_labels(outside / "list.txt", "secret")
        _link(inside / "list.txt", outside / "list.txt")
    elif way == "folder link":
        _link(inside / "images/train/x", outside / "images/train")
    elif way == "image link":
        _link(inside / "images/train/x.png", outside / "images/train/a.png")
    elif way == "label link":
        (inside / "labels/train/a.txt").unlink()
        _link(inside / "labels/train/a.txt", outside / "labels/train/a.txt")

    real_open, opened = os.open, []
    real_read = Path.read_bytes
    monkeypatch.setattr(os, "open", lambda path, *rest: opened.append(path) or real_open(path, *rest))
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path) or real_read(path))
    message = refusal(inside, missing_labels="skip", bad_boxes="drop")
    assert f"lies outside of {inside}" in message
    assert ("data.yaml: path: " in message) == ("path" in way)
    assert opened
    assert not [path for path in opened if os.path.realpath(path).startswith(str(outside))]
    if "stripped" not in way:
        monkeypatch.undo()
        assert read_dataset(inside, "yolo", root=tmp_path) if way != "list link" else True


@pytest.mark.usefixtures("outside")
def test_image_outside_of_the_folder_has_its_id_below_the_root(tmp_path: Path) -> None:
    description = {"train": "../outside/images/train", "val": "images/val", "names": CLASSES}
    make(tmp_path / "inside", description)
    dataset = read_dataset(tmp_path / "inside", "yolo", root=tmp_path)
    assert ids(dataset) == ["outside/images/train/a.png", "images/val/v.png"]
    assert len(dataset.truth["outside/images/train/a.png"]) == 1


def test_download_is_not_run_and_caches_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    canary = tmp_path / "canary"
    code = f"open({str(canary)!r}, 'w')"
    description = {"train": "images/train", "val": "images/gone", "names": CLASSES, "download": code}
    make(tmp_path / "set", description)
    (tmp_path / "set/labels/train.cache").write_bytes(b"\x80\x04cos\nsystem\n(S'touch canary'\ntR.")
    assert "download: is never run" in refusal(tmp_path / "set")
    (tmp_path / "set/data.yaml").write_text(yaml.safe_dump({**description, "val": "images/val"}))
    read_dataset(tmp_path / "set", "yolo")
    assert not canary.exists()


def test_yaml_of_nested_aliases_is_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    make(tmp_path, "\n".join([*lines, "train: images/train", "val: images/val", "names: *a29"]))
    assert "class 0 is" in refusal(tmp_path)


# Random input


@pytest.fixture(scope="module")
def random_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("random"))


def survives(path: Path) -> None:
    found = examine_dataset(path, "yolo")[1]
    assert all("\n" not in str(problem) for problem in found)
    if found:
        assert "\n" not in refusal(path)
        return
    dataset = read_dataset(path, "yolo")
    for image in dataset.images():
        boxes = dataset.truth[image.image_id].boxes
        assert (boxes >= 0).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert (boxes <= np.array([image.width, image.height] * 2)).all()


tokens = st.one_of(
    st.floats(-0.1, 1.1).map(repr),
    st.integers(-1, 3).map(str),
    st.sampled_from(["nan", "-inf", "1e400", "1e-400", "1_0", "0x1", "१", "--1", "9" * 5000]),
    st.text(max_size=4),
)


@settings(max_examples=25, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.lists(st.lists(tokens, max_size=9).map(" ".join)).map("\n".join)))
def test_random_labels_raise_only_dataset_errors(random_set: Path, content: bytes | str) -> None:
    data = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
    (random_set / "labels/train/a.txt").write_bytes(data)
    survives(random_set)


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just("images/train"))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars, inner, max_size=3), max_leaves=6
)
keys = st.sampled_from(["path", "train", "val", "test", "names", "nc", "kpt_shape", "validation"])
valid = {"train": "images/train", "val": "images/val", "names": CLASSES}


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(keys, values, max_size=3), st.booleans())
def test_random_descriptions_raise_only_dataset_errors(
    random_set: Path, change: Mapping[str, object], whole: bool
) -> None:
    (random_set / "labels/train/a.txt").write_text("0 0.5 0.5 0.5 0.5")
    (random_set / "data.yaml").write_text(yaml.safe_dump({**valid, **change} if whole else dict(change)))
    survives(random_set)


@settings(max_examples=25, deadline=None)
@given(st.one_of(st.binary(max_size=80), st.text("!&*<>[]{}:-?#|,'\" \nabint0x_1.e\t", max_size=60).map(str.encode)))
def test_random_bytes_as_yaml_raise_only_dataset_errors(random_set: Path, content: bytes) -> None:
    (random_set / "data.yaml").write_bytes(content)
    survives(random_set)


@pytest.mark.parametrize(
    "tag", ["int", "float", "bool", "timestamp", "binary", "omap", "pairs", "set", "null", "merge"]
)
@pytest.mark.parametrize("value", ["''", "x", "'_'", "0x", "0b2", "2001-99-99", "[1]", "{a: b}", "0x" + "f" * 6000])
def test_every_yaml_constructor_fails_with_a_dataset_error(random_set: Path, tag: str, value: str) -> None:
    for text in (
        f"names: [!!{tag} {value}]\ntrain: images/train\nval: images/val",
        f"!!{tag} {value}: !!{tag} {value}",
    ):
        (random_set / "data.yaml").write_text(text)
        examine_dataset(random_set, "yolo")[1]
