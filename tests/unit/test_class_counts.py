"""Boxes per class of what is labelled: from a JSON object, or from a data set in any of the three forms."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from raylearn.data.class_counts import read_class_counts
from raylearn.errors import DatasetError, QueryError

CATEGORIES = [{"id": 7, "name": "platelet"}, {"id": 1, "name": "cell"}, {"id": 9, "name": "eel"}]


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def write_image(path: Path) -> None:
    """An image whose bytes no other image of another name has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 20), (sum(path.name.encode()) % 256, 0, 0)).save(path, "BMP")


def refusal(path: Path) -> str:
    with pytest.raises(QueryError) as caught:
        read_class_counts(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# A JSON file


@pytest.mark.parametrize("name", ["counts.json", "COUNTS.JSON"])
def test_an_object_of_names_and_counts_is_read_as_it_stands(tmp_path, name):
    path = write(tmp_path / name, '{"fish": 340, "crab": 0, "größe": 9007199254740992}')
    assert read_class_counts(path) == {"fish": 340, "crab": 0, "größe": 9007199254740992}


@pytest.mark.parametrize("count", [-1, 1.0, 1.5, True, "12", None, [3], 2**53 + 1, 10**30], ids=repr)
def test_a_count_that_is_no_whole_number_is_refused_with_its_class(tmp_path, count):
    message = refusal(write(tmp_path / "counts.json", {"crab": 1, "fish": count}))
    assert f"counts.json: 'fish' has {count!r}, a whole number >= 0 and at most 9007199254740992 is wanted" in message


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e3"])
def test_numbers_that_only_look_whole_are_refused(tmp_path, text):
    assert "'fish' has " in refusal(write(tmp_path / "counts.json", f'{{"fish": {text}}}'))


@pytest.mark.parametrize("content", [[1, 2], 5, "crab", None, {}, [["crab", 1]]], ids=repr)
def test_what_is_no_object_of_counts_is_refused_with_an_example(tmp_path, content):
    message = refusal(write(tmp_path / "counts.json", json.dumps(content)))
    assert 'counts.json must be an object such as {"crab": 12, "fish": 340}' in message


@pytest.mark.parametrize("content", ["", '{"crab": 1', "crab: 1", "[" * 200_000], ids=["", "torn", "yaml", "deep"])
def test_what_is_no_json_is_refused(tmp_path, content):
    assert "counts.json cannot be read: " in refusal(write(tmp_path / "counts.json", content))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "counts.json").write_bytes(b'{"\xff": 1}')
    assert "counts.json cannot be read: " in refusal(tmp_path / "counts.json")


# A data set: the boxes of its pool, and none of its held-out images


def test_boxes_of_a_yolo_folder_are_counted_in_its_pool_only(tmp_path):
    boxes = {"train/a": "0 .5 .5 .5 .5\n2 .5 .5 .2 .2\n", "train/b": "0 .5 .5 .5 .5\n", "train/c": "", "val/v": ""}
    boxes["val/v"] = "1 .5 .5 .5 .5\n"
    for name, text in boxes.items():
        write_image(tmp_path / f"images/{name}.png")
        write(tmp_path / f"labels/{name}.txt", text)
    description = write(tmp_path / "data.yaml", "train: images/train\nval: images/val\nnames: [cell, platelet, eel]\n")
    wanted = {"cell": 2, "platelet": 0, "eel": 1}
    assert read_class_counts(tmp_path) == wanted
    assert read_class_counts(description) == wanted
    assert read_class_counts(description.rename(tmp_path / "other.yml")) == wanted


def coco(*category_ids: int, file_name: str = "a.jpg") -> dict[str, Any]:
    annotations = [
        {"id": number, "image_id": 1, "category_id": category, "bbox": [number, 2, 10, 8]}
        for number, category in enumerate(category_ids)
    ]
    return {"images": [{"id": 1, "file_name": file_name}], "annotations": annotations, "categories": CATEGORIES}


@pytest.mark.parametrize("train", ["train/_annotations.coco.json", "annotations/instances_train.json"])
def test_boxes_of_a_coco_folder_are_counted_in_its_pool_only(tmp_path, train):
    write_image(tmp_path / "train/a.jpg")
    write_image(tmp_path / "val/v.jpg")
    write(tmp_path / train, coco(1, 7, 1))
    write(tmp_path / train.replace("train", "val"), coco(9, file_name="v.jpg"))
    assert read_class_counts(tmp_path) == {"cell": 2, "platelet": 1, "eel": 0}


def test_a_json_file_with_annotations_is_a_coco_data_set_and_no_object_of_counts(tmp_path):
    content = coco(7, 7, 1)
    again = {**content["annotations"][0], "id": 8}
    crowd = {**content["annotations"][0], "id": 9, "bbox": [0, 0, 40, 20], "iscrowd": 1}
    content["annotations"] += [again, crowd]
    write_image(tmp_path / "train/a.jpg")
    write_image(tmp_path / "val/v.jpg")
    write(tmp_path / "val/_annotations.coco.json", coco(9, file_name="v.jpg"))
    split = write(tmp_path / "train/_annotations.coco.json", content)
    assert read_class_counts(split) == {"cell": 1, "platelet": 2, "eel": 0}
    assert read_class_counts(tmp_path) == {"cell": 1, "platelet": 2, "eel": 0}


def test_a_class_may_be_called_annotations(tmp_path):
    assert read_class_counts(write(tmp_path / "counts.json", {"annotations": 3})) == {"annotations": 3}


@pytest.mark.parametrize(
    "change",
    [{"categories": None}, {"categories": [{"id": 1}]}, {"annotations": [3]}, {"annotations": [{"category_id": 1}]}],
    ids=str,
)
def test_annotations_of_another_form_are_refused(tmp_path, change):
    message = refusal(write(tmp_path / "labelled.json", {**coco(1), **change}))
    assert "labelled.json has annotations that are not COCO's: " in message


def test_an_annotation_of_an_unknown_category_is_refused(tmp_path):
    assert "KeyError(5)" in refusal(write(tmp_path / "labelled.json", coco(1, 5)))


def test_boxes_of_a_voc_folder_are_counted_in_its_pool_only(tmp_path):
    corners = "<bndbox><xmin>{0}</xmin><ymin>2</ymin><xmax>30</xmax><ymax>15</ymax></bndbox>"
    for stem, split, names in (("a", "train", ["cell", "eel", "cell"]), ("v", "val", ["platelet"])):
        objects = "".join(
            f"<object><name>{name}</name>{corners.format(number + 1)}</object>" for number, name in enumerate(names)
        )
        write_image(tmp_path / f"JPEGImages/{stem}.jpg")
        write(tmp_path / f"Annotations/{stem}.xml", f"<annotation>{objects}</annotation>")
        write(tmp_path / f"ImageSets/Main/{split}.txt", f"{stem}\n")
    assert read_class_counts(tmp_path) == {"cell": 2, "eel": 1, "platelet": 0}


# Neither


def test_what_is_not_there_is_refused(tmp_path):
    for name in ("nowhere", "none.json"):
        assert refusal(tmp_path / name).endswith(f"{name} is not there: give a data set or a JSON file")
    with pytest.raises(DatasetError, match=r"none\.yaml: cannot be read: No such file or directory"):
        read_class_counts(tmp_path / "none.yaml")


def test_a_file_of_another_kind_is_there_and_refused(tmp_path):
    message = refusal(write(tmp_path / "counts.txt", "crab 12"))
    assert "counts.txt: no data set in YOLO, COCO or Pascal VOC form, and no JSON file" in message


@pytest.mark.parametrize("inside", [(), ("a.jpg", "notes.txt", "train/a.jpg")], ids=["empty", "images"])
def test_a_folder_of_no_known_form_is_refused(tmp_path, inside):
    for name in inside:
        write(tmp_path / name, "")
    assert "no data set in YOLO, COCO or Pascal VOC form, and no JSON file" in refusal(tmp_path)


def test_a_data_set_with_a_problem_is_refused_with_file_and_line(tmp_path):
    write_image(tmp_path / "images/train/a.png")
    write_image(tmp_path / "images/val/v.png")
    write(tmp_path / "labels/train/a.txt", "0 .5 .5 .5 .5\n3 .5 .5 .5 .5\n")
    write(tmp_path / "labels/val/v.txt", "")
    write(tmp_path / "data.yaml", "train: images/train\nval: images/val\nnames: [cell]\n")
    with pytest.raises(DatasetError, match=r"labels/train/a\.txt:2: class id '3' is not one of 0\.\.0"):
        read_class_counts(tmp_path)
