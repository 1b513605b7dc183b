"""Reading COCO data sets: the layouts, strict annotations, and nothing outside of the folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raylearn.data.formats import examine_dataset, read_dataset
from raylearn.errors import DatasetError

CATEGORIES = [{"id": 7, "name": "platelet"}, {"id": 1, "name": "cell"}]
BOX = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 5, 20, 10]}
_shade = iter(range(1, 10_000_000))


def write_image(path: Path) -> Path:
    """A BMP of 40x20 whose bytes no other image of the test has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number = next(_shade)
    Image.new("RGB", (40, 20), (number & 255, number >> 8 & 255, number >> 16)).save(path, "BMP")
    return path


def write_json(path: Path, file_name: object = "a.jpg", *annotations: object, **change: object) -> Path:
    content = {"images": [{"id": 1, "file_name": file_name}], "annotations": annotations, "categories": CATEGORIES}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**content, **change}))
    return path


def make(root: Path, *annotations: object, **change: object) -> Path:
    """A data set in Roboflow's layout; annotations and changes are of the pool."""
    write_image(root / "train/a.jpg")
    write_image(root / "valid/v.jpg")
    write_json(root / "train/_annotations.coco.json", "a.jpg", *(annotations or [BOX]), **change)
    write_json(root / "valid/_annotations.coco.json", "v.jpg", {**BOX, "category_id": 7})
    return root


def refusal(path: Path, **arguments: Any) -> str:
    with pytest.raises(DatasetError) as caught:
        read_dataset(path, "coco", **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_boxes_classes_and_ids(tmp_path: Path) -> None:
    dataset = read_dataset(make(tmp_path), "coco")
    assert [image.image_id for image in dataset.images()] == ["train/a.jpg", "valid/v.jpg"]
    assert dataset.class_names == ("cell", "platelet")
    assert dataset.truth["train/a.jpg"].boxes.tolist() == [[10, 5, 30, 15]]
    assert dataset.truth["train/a.jpg"].class_ids.tolist() == [0]
    assert dataset.truth["valid/v.jpg"].class_ids.tolist() == [1]


@pytest.mark.parametrize(
    ("train", "images"),
    [
        ("train/_annotations.coco.json", "train"),
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/instances_train2017.json", "images/train2017"),
        ("annotations/instances_train.json", "train"),
        ("annotations/instances_train.json", "images/train"),
        ("annotations/instances_train.json", "images"),
        ("annotations/train.json", "."),
        ("annotations/instances_train2017.json", "train"),
    ],
)
def test_layouts(train: str, images: str, tmp_path: Path) -> None:
    write_image(tmp_path / images / "a.jpg")
    write_image(tmp_path / images.replace("train", "val") / "v.jpg")
    write_json(tmp_path / train, "a.jpg", BOX)
    write_json(tmp_path / train.replace("train", "val"), "v.jpg", BOX)
    dataset = read_dataset(tmp_path, "coco")
    assert [image.uri for image in dataset.pool] == [str(tmp_path / images / "a.jpg")]
    assert [len(truth) for truth in dataset.truth.values()] == [1, 1]


def test_test_split_is_taken_if_it_has_annotations(tmp_path: Path) -> None:
    make(tmp_path)
    write_image(tmp_path / "test/t.jpg")
    write_json(tmp_path / "test/_annotations.coco.json", "t.jpg", annotations=[])
    assert [image.image_id for image in read_dataset(tmp_path, "coco").test] == ["valid/v.jpg"]
    write_json(tmp_path / "test/_annotations.coco.json", "t.jpg", BOX)
    assert [image.image_id for image in read_dataset(tmp_path, "coco").test] == ["test/t.jpg"]
    both = read_dataset(tmp_path, "coco", pool=["train", "valid"])
    assert [image.image_id for image in both.pool] == ["train/a.jpg", "valid/v.jpg"]


def test_json_files_may_be_named(tmp_path: Path) -> None:
    make(tmp_path)
    write_json(tmp_path / "mine.json", "train/a.jpg", BOX)
    write_json(tmp_path / "sub/yours.json", "valid/v.jpg", BOX)
    dataset = read_dataset(tmp_path / "mine.json", "coco", test=["sub/yours.json"])
    assert [image.image_id for image in dataset.images()] == ["train/a.jpg", "valid/v.jpg"]
    assert dataset == read_dataset(tmp_path, "coco", pool=["mine.json"], test=["sub/yours.json"])
    assert "name the json file of the other as test" in refusal(tmp_path / "mine.json")


def test_image_without_annotations_is_an_empty_frame(tmp_path: Path) -> None:
    dataset = read_dataset(make(tmp_path, annotations=[]), "coco")
    assert len(dataset.truth["train/a.jpg"]) == 0


def test_crowds_are_left_out_with_a_note(tmp_path: Path) -> None:
    crowd = {**BOX, "iscrowd": 1, "segmentation": {"counts": [1, 2], "size": [20, 40]}}
    dataset = read_dataset(make(tmp_path, BOX, crowd, crowd), "coco")
    assert len(dataset.truth["train/a.jpg"]) == 1
    assert len(dataset.notes) == 1
    assert "_annotations.coco.json: 2 crowd regions (iscrowd) left out" in dataset.notes[0]


def test_size_that_differs_from_the_image_is_noted(tmp_path: Path) -> None:
    make(tmp_path, images=[{"id": 1, "file_name": "a.jpg", "width": 20, "height": 40}])
    (note,) = read_dataset(tmp_path, "coco").notes
    assert "made for 20x40, but 'train/a.jpg' is 40x20 upright" in note


@pytest.mark.parametrize(
    "name", ["a b.jpg", "a,b.jpg", 'it\'s "x".jpg', "海.jpg", "new\nline.jpg", "-rf.jpg", "sub/a.jpg"]
)
def test_names_of_every_kind_round_trip(name: str, tmp_path: Path) -> None:
    make(tmp_path)
    write_image(tmp_path / "train" / name)
    write_json(tmp_path / "train/_annotations.coco.json", name, BOX)
    dataset = read_dataset(tmp_path, "coco")
    assert [image.image_id for image in dataset.pool] == [f"train/{name}"]
    assert len(dataset.truth[f"train/{name}"]) == 1


def test_images_that_differ_in_their_ending_stay_apart(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": "two", "file_name": "a.png"}]
    make(tmp_path, BOX, {**BOX, "image_id": "two", "category_id": 7}, images=images)
    write_image(tmp_path / "train/a.png")
    dataset = read_dataset(tmp_path, "coco")
    assert dataset.truth["train/a.jpg"].class_ids.tolist() == [0]
    assert dataset.truth["train/a.png"].class_ids.tolist() == [1]


BAD: list[tuple[object, str]] = [
    ({**BOX, "category_id": 4}, "category_id 4 is no category"),
    ({**BOX, "category_id": True}, "category_id True"),
    ({**BOX, "category_id": [3]}, "category_id [3]"),
    ({**BOX, "image_id": 9}, "image_id 9 is no image"),
    ({**BOX, "image_id": None}, "image_id None"),
    ("box", "image_id None"),
    ({**BOX, "bbox": None}, "bbox None must be"),
    ({**BOX, "bbox": [1, 2, 3]}, "bbox [1, 2, 3] must be"),
    ({**BOX, "bbox": [1, 2, "3", 4]}, "'3', which is not a number"),
    ({**BOX, "bbox": [1, 2, True, 4]}, "True, which is not a number"),
    ({**BOX, "bbox": [float("nan"), 2, 3, 4]}, "nan, not a finite number"),
    ({**BOX, "bbox": [1, 2, float("inf"), 4]}, "inf, not a finite number"),
    ({**BOX, "bbox": [10**400, 2, 3, 4]}, "too large"),
    ({**BOX, "bbox": [1e30, 2, 3, 4]}, "far outside"),
    ({**BOX, "bbox": [1, 2, 0, 4]}, "zero area"),
    ({**BOX, "bbox": [1, 2, 3, -4]}, "reaches 2.0 pixels out of it"),
    ({**BOX, "bbox": [30, 5, 20, 10]}, "10.0 pixels out"),
]


@pytest.mark.parametrize(("annotation", "message"), BAD)
def test_bad_annotation_is_refused_by_its_place(annotation: object, message: str, tmp_path: Path) -> None:
    make(tmp_path, BOX, annotation)
    text = refusal(tmp_path)
    assert f"{tmp_path / 'train/_annotations.coco.json'}: annotation 2" in text
    assert message in text
    assert "set bad_boxes to drop" in text


def test_dropping_bad_boxes_notes_each(tmp_path: Path) -> None:
    make(tmp_path, BOX, *(annotation for annotation, _ in BAD))
    dataset = read_dataset(tmp_path, "coco", bad_boxes="drop")
    assert len(dataset.truth["train/a.jpg"]) == 1
    assert len(dataset.notes) == len(BAD)
    assert len(examine_dataset(tmp_path, "coco")[1]) == len(BAD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": [{"id": 1, "file_name": "../valid/v.jpg"}]}, "image 1: file_name '../valid/v.jpg' leads out"),
        ({"images": [{"id": 1, "file_name": "/etc/passwd"}]}, "leads out"),
        ({"images": [{"id": 1, "file_name": "gone.jpg"}]}, "image 1: 'gone.jpg': no such image"),
        ({"images": [{"id": 1, "file_name": "a\0.jpg"}]}, "leads out"),
        ({"images": [{"id": 1, "file_name": "a\ud800.jpg"}]}, "image 1: "),
        ({"images": [{"id": 1}]}, "image 1: {'id': 1} needs an id and a file_name"),
        ({"images": [7]}, "image 1: 7 needs"),
        ({"images": [{"id": 1, "file_name": "a.jpg"}] * 2}, "image 2: id 1 stands twice"),
        ({"images": 3}, "no list of images"),
        ({"categories": []}, "no categories"),
        ({"categories": [{"id": 1}]}, "needs a whole number as id, and a name"),
        ({"categories": [*CATEGORIES, {"id": 9, "name": "cell"}]}, "stands twice"),
        ({"categories": [{"id": 1, "name": "cell"}]}, "lists 2 classes, but "),
    ],
)
def test_bad_description_is_refused_under_every_policy(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    make(tmp_path, **change)
    assert message in refusal(tmp_path, bad_boxes="drop")
    assert message in "".join(map(str, examine_dataset(tmp_path, "coco", bad_boxes="drop")[1]))


def test_broken_json_is_refused_with_its_line(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "train/_annotations.coco.json").write_text('{"images": [],\n oops')
    assert "_annotations.coco.json:2: not valid JSON" in refusal(tmp_path)
    for text in ("[" * 100_000, "[]", "9" * 5000):
        (tmp_path / "train/_annotations.coco.json").write_text(text)
        assert "_annotations.coco.json" in refusal(tmp_path)


def test_missing_split_says_where_it_was_looked_for(tmp_path: Path) -> None:
    make(tmp_path)
    message = refusal(tmp_path, pool=["tarin"])
    assert "has no split 'tarin': looked for tarin/_annotations.coco.json" in message
    assert "has no split '../x.json'" in refusal(tmp_path, test=["../x.json"])
    assert "no such folder" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("way", ["image", "folder", "json"])
def test_links_that_lead_out_are_not_followed(way: str, tmp_path: Path) -> None:
    outside = make(tmp_path / "outside")
    inside = make(tmp_path / "inside")
    path = {"image": "train/a.jpg", "folder": "train", "json": "train/_annotations.coco.json"}[way]
    (inside / path).rename(tmp_path / "aside")
    (inside / path).symlink_to(outside / path)
    assert f"lies outside of {inside}" in refusal(inside)
    assert len(read_dataset(inside, "coco", root=tmp_path).pool) == 1


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just("a.jpg"))
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["id", "image_id", "file_name", "bbox", "category_id", "name", "width"]), inner
        )
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def random_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("random"))


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["images", "annotations", "categories"]), values, max_size=2),
    st.dictionaries(st.sampled_from(["image_id", "category_id", "bbox", "iscrowd", "id"]), values, max_size=2),
)
def test_random_json_raises_only_dataset_errors(
    random_set: Path, change: Mapping[str, object], annotation: Mapping[str, object]
) -> None:
    make(random_set, {**BOX, **annotation}, **change)
    if examine_dataset(random_set, "coco")[1]:
        refusal(random_set)
    else:
        read_dataset(random_set, "coco")


@settings(max_examples=25, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text('{}[]":,0.e-nulltrue \n', max_size=60).map(str.encode)))
def test_random_bytes_as_json_raise_only_dataset_errors(random_set: Path, content: bytes) -> None:
    (random_set / "train/_annotations.coco.json").write_bytes(content)
    assert examine_dataset(random_set, "coco")[1]
    refusal(random_set)
