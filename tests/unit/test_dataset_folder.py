"""Data sets written in every format: what is read back is what was written, to the last bit, or nothing is there."""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Picture

from raylearn.data.dataset import Dataset, GroundTruth, Image
from raylearn.data.export_record import RECORD_FILE
from raylearn.data.formats import read_dataset
from raylearn.data.images import content_hash
from raylearn.data.lock import locked
from raylearn.errors import DatasetError, ExportError, RunFolderError
from raylearn.handoff import dataset_folder
from raylearn.handoff.dataset_folder import reading_root, write_dataset
from tests.unit.hand_made import CLASS_NAMES

FORMATS = ("yolo", "coco", "voc")
SIZE = (641, 359)  # no power of two, so that fractions of it are no float32 numbers
Boxes = Iterable[tuple[float, float, float, float, int]]


def dataset_of(folder: Path, pool: dict[str, Boxes], test: dict[str, Boxes] | None = None, **changes: Any) -> Dataset:
    """A data set with images on the disk, in any place below `folder`, from image id -> boxes with their class."""
    truth, splits = {}, []
    for part in (pool, {"images/val/v.png": [(1, 2, 30, 40, 0)]} if test is None else test):
        images = []
        for image_id, boxes in part.items():
            path = folder / f"{len(truth)}.png"
            Picture.new("L", SIZE, len(truth)).save(path)
            images.append(Image(image_id, str(path), *SIZE, content_hash(path.read_bytes())))
            table = np.array(list(boxes), dtype=np.float64).reshape(-1, 5)
            truth[image_id] = GroundTruth(table[:, :4], table[:, 4])
        splits.append(tuple(images))
    return Dataset(
        **{"name": "made", "class_names": CLASS_NAMES, "pool": splits[0], "test": splits[1], "truth": truth, **changes}
    )


def write(dataset: Dataset, format: Any, out: Path, **options: Any) -> Path:
    return write_dataset(dataset, format, out, about={}, about_images={}, **options)


def without_record(folder: Path) -> Path:
    (folder / RECORD_FILE).unlink()
    return folder


def corners(side: int) -> st.SearchStrategy[tuple[float, float]]:
    """Of a box of more than a pixel, which is the least that VOC can hold."""
    ends = st.floats(0, side, width=32)
    return st.tuples(ends, ends).map(sorted).filter(lambda pair: pair[1] - pair[0] > 1.01).map(tuple)  # type: ignore[arg-type]


BOXES = st.lists(
    st.tuples(corners(SIZE[0]), corners(SIZE[1]), st.integers(0, len(CLASS_NAMES) - 1)).map(
        lambda found: (found[0][0], found[1][0], found[0][1], found[1][1], found[2])
    ),
    max_size=4,
    unique_by=lambda box: tuple(round(value) for value in box),
)


@pytest.mark.parametrize("format", FORMATS)
@given(boxes=BOXES)
def test_boxes_come_back_to_the_last_bit(
    format: str, tmp_path_factory: pytest.TempPathFactory, boxes: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("export")
    dataset = dataset_of(folder, {"images/train/a.png": boxes})
    again = read_dataset(write(dataset, format, folder / "out"), format)
    (image,) = again.pool
    assert again.truth[image.image_id] == dataset.truth["images/train/a.png"]
    assert again.truth[again.test[0].image_id] == dataset.truth["images/val/v.png"]
    assert again.class_names == dataset.class_names
    alone = read_dataset(without_record(folder / "out"), format).truth[image.image_id]
    np.testing.assert_allclose(alone.boxes, dataset.truth["images/train/a.png"].boxes, rtol=0, atol=1e-4)


def test_without_the_record_a_box_comes_back_a_rounding_away(tmp_path: Path) -> None:
    """Otherwise the test above would prove nothing of the record."""
    edges = np.random.default_rng(0).uniform((64, 64, 513, 257), (128, 128, 641, 359), (60, 4))
    boxes = [(*corners, 0) for corners in edges.tolist()]
    dataset = dataset_of(tmp_path, {"a.png": boxes})
    for format in FORMATS:
        alone = read_dataset(without_record(write(dataset, format, tmp_path / format)), format)
        assert alone.truth[alone.pool[0].image_id] != dataset.truth["a.png"]


@pytest.mark.parametrize("format", FORMATS)
def test_images_without_boxes_stay_in_the_set(tmp_path: Path, format: str) -> None:
    dataset = dataset_of(tmp_path, {"images/a.png": [], "images/b.png": [(1, 2, 30, 40, 2)]})
    again = read_dataset(write(dataset, format, tmp_path / "out"), format)
    assert [len(again.truth[image.image_id]) for image in again.pool] == [0, 1]
    assert [image.content_hash for image in again.pool] == [image.content_hash for image in dataset.pool]


@pytest.mark.parametrize("format", ["yolo", "coco"])
@pytest.mark.parametrize("place", ["images/train/", "train/images/", "pool/", "", "a/b c/ü/", "images/images/"])
def test_ids_are_paths_below_the_folder(tmp_path: Path, format: str, place: str) -> None:
    dataset = dataset_of(tmp_path, {f"{place}{stem}.png": [(1, 2, 30, 40, 1)] for stem in "ab"})
    out = write(dataset, format, tmp_path / "out")
    again = read_dataset(out, format)
    assert again.fingerprint == dataset.fingerprint
    assert (out / f"{place}a.png").read_bytes() == Path(dataset.pool[0].uri).read_bytes()


def test_voc_keeps_ids_of_its_own_form_and_numbers_others_in_their_order(tmp_path: Path) -> None:
    own = dataset_of(tmp_path, {"JPEGImages/b.png": [], "JPEGImages/a.png": []}, {"JPEGImages/t.png": []})
    assert read_dataset(write(own, "voc", tmp_path / "own"), "voc").fingerprint == own.fingerprint
    ids = ["z/a.png", "y/b.png", "y/a.png"]
    other = dataset_of(tmp_path, {name: [] for name in ids})
    again = read_dataset(write(other, "voc", tmp_path / "other"), "voc")
    hashes = {image.content_hash: image.image_id for image in again.pool}
    renamed = [hashes[image.content_hash] for image in sorted(other.pool, key=lambda image: image.image_id)]
    assert renamed == sorted(renamed) == ["JPEGImages/2_a.png", "JPEGImages/3_b.png", "JPEGImages/4_a.png"]


@pytest.mark.parametrize("format", FORMATS)
def test_links_lead_to_the_images_and_are_read_with_a_root(tmp_path: Path, format: str) -> None:
    dataset = dataset_of(tmp_path, {"images/a.png": [(1, 2, 30, 40, 2)]})
    out = write(dataset, format, tmp_path / "out", link=True)
    with pytest.raises(DatasetError, match="set the data set's `root`"):
        read_dataset(out, format)
    again = read_dataset(out, format, root=reading_root(dataset, out))
    assert [image.content_hash for image in again.images()] == [image.content_hash for image in dataset.images()]
    assert os.path.realpath(again.pool[0].uri) == dataset.pool[0].uri


# The record


@pytest.mark.parametrize(
    ("rows", "counts"),
    [
        ("2 0.5 0.5 0.25 0.25\n", [2]),  # moved
        ("1 {own}", [1]),  # of another class
        ("2 {own}1 0.5 0.5 0.25 0.25\n", [2, 1]),  # one more
        ("", []),
    ],
)
def test_labels_that_were_corrected_since_win_over_the_record(tmp_path: Path, rows: str, counts: list[int]) -> None:
    out = write(dataset_of(tmp_path, {"a.png": [(0.1, 0.2, 30.3, 40.4, 2)]}), "yolo", tmp_path / "out")
    own = (out / "a.txt").read_text().split(" ", 1)[1]
    (out / "a.txt").write_text(rows.format(own=own))
    again, alone = (read_dataset(folder, "yolo") for folder in (out, without_record(out)))
    assert again.truth["a.png"].class_ids.tolist() == counts
    assert again.truth["a.png"] == alone.truth["a.png"]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"images": [{"file": "a.png"}]}', '{"images": [[]]}', "[" * 10**5]
)
def test_a_damaged_record_is_refused_and_named(tmp_path: Path, content: str) -> None:
    out = write(dataset_of(tmp_path, {"a.png": []}), "yolo", tmp_path / "out")
    (out / RECORD_FILE).write_text(content)
    with pytest.raises(DatasetError, match=f"{RECORD_FILE}: is not as raylearn wrote it"):
        read_dataset(out, "yolo")


@pytest.mark.parametrize("boxes", ['[["x"]]', "[[1, 2]]", f"[[1, 2, 3, {'9' * 400}, 0]]", '{"a": 1}'])
def test_a_record_of_boxes_that_are_none_is_refused(tmp_path: Path, boxes: str) -> None:
    out = write(dataset_of(tmp_path, {"a.png": [(1, 2, 30, 40, 0)]}), "yolo", tmp_path / "out")
    (out / RECORD_FILE).write_text(f'{{"images": [{{"file": "a.png", "boxes": {boxes}}}]}}')
    with pytest.raises(DatasetError, match=f"{RECORD_FILE}: is not as raylearn wrote it"):
        read_dataset(out, "yolo")


def test_a_record_that_is_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    out = write(dataset_of(tmp_path, {"a.png": []}), "yolo", tmp_path / "out")
    (out / RECORD_FILE).rename(tmp_path / "elsewhere.json")
    (out / RECORD_FILE).symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(DatasetError, match="lies outside of"):
        read_dataset(out, "yolo")


# What a format cannot hold


@pytest.mark.parametrize(
    ("format", "pool", "said"),
    [
        ("yolo", {"a.png": [(1, 2, 3, 4, 0)], "a.jpg": []}, "two files would have the name 'a.txt'"),
        ("yolo", {"train.png": []}, "two files would have the name 'train.txt'"),
        ("yolo", {"a\nb.png": []}, r"a list of images cannot hold the name 'a\\nb.png'"),
        ("yolo", {"a\u2028b.png": []}, "a list of images cannot hold the name"),
        ("yolo", {"a.gif": []}, "not the name of an image"),
        ("yolo", {"a.png": [(1, 2, 1 + 1e-7, 4, 0)]}, "out/a.txt:1: box of zero area"),
        ("yolo", {"a.png": [(1, 2, 30, 40, 0)] * 2}, "the boxes of 'a.png' would be read as others"),
        ("voc", {"a\nb.png": []}, "no such image in JPEGImages"),
        ("voc", {"a.png": [(1, 2, 1.9, 4, 0)]}, "out/Annotations/1_a.xml:.*: box of zero area"),
        ("coco", {"x.png": [], "train/x.png": []}, "image 'x.png' would be lost, or read twice|twice"),
        *((format, {"../a.png": []}, "is not a plain path below a folder") for format in FORMATS),
        *((format, {"/a.png": []}, "is not a plain path below a folder") for format in FORMATS),
        *((format, {"a//b.png": []}, "is not a plain path below a folder") for format in FORMATS),
        *((format, {"a\udc80.png": []}, "is not valid UTF-8") for format in FORMATS),
    ],
)
def test_what_a_format_cannot_hold_is_refused_and_nothing_is_left(
    tmp_path: Path, format: str, pool: dict[str, Any], said: str
) -> None:
    (tmp_path / "source").mkdir()
    dataset = dataset_of(tmp_path / "source", pool)
    with pytest.raises(ExportError, match=said):
        write(dataset, format, tmp_path / "exports/out")
    assert not list(tmp_path.rglob("*out*"))
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("format", "names", "said"),
    [
        ("coco", ("crab", "crab", "fish"), "stands twice"),
        ("voc", ("crab", "crab", "fish"), "names a class twice"),
        ("voc", ("crab", "fish ", "squid"), "its classes would be read as"),
        ("voc", ("crab\nfish", "b", "squid"), "its class is not in the list of classes"),
        ("voc", ("crab", "b\0", "squid\x01"), "not valid XML|its classes"),
        ("coco", ("crab", " ", "squid"), "needs a whole number as id, and a name"),
        ("yolo", ("crab", "", "squid"), "not a name"),
        ("voc", ("crab", "\ud800", "squid"), "a class name is not valid UTF-8"),
    ],
)
def test_class_names_that_a_format_cannot_hold_are_refused(
    tmp_path: Path, format: str, names: tuple[str, ...], said: str
) -> None:
    dataset = dataset_of(tmp_path, {"a.png": [(1, 2, 30, 40, 2)]}, class_names=names)
    with pytest.raises(ExportError, match=said):
        write(dataset, format, tmp_path / "out")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("names", [("1", "no", "null"), ("a: b", "#", "ü<>&"), ("{x}", "- y", "'\"")])
def test_class_names_of_any_letters_come_back(tmp_path: Path, format: str, names: tuple[str, ...]) -> None:
    dataset = dataset_of(tmp_path, {"a.png": [(1, 2, 30, 40, class_id) for class_id in range(3)]}, class_names=names)
    assert read_dataset(write(dataset, format, tmp_path / "out"), format).class_names == names


# Where it is written


def test_a_folder_that_holds_something_is_refused_and_an_empty_one_is_filled(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, {"a.png": []})
    out = tmp_path / "out"
    out.mkdir()
    write(dataset, "yolo", out)
    before = sorted(out.iterdir())
    for taken in (out, Path(dataset.pool[0].uri)):
        with pytest.raises(ExportError, match="is there already: remove it, or give another --out"):
            write(dataset, "yolo", taken)
    assert sorted(out.iterdir()) == before
    with pytest.raises(ExportError, match="is an address: export to a folder on a disk"):
        write(dataset, "yolo", "s3://bucket/out")  # type: ignore[arg-type]


def test_what_a_killed_export_left_is_cleared_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    dataset, aside = dataset_of(tmp_path, {"a.png": []}), tmp_path / ".out.unfinished"
    (aside / "old").mkdir(parents=True)
    (aside / "old/half.png").write_bytes(b"half")
    with locked(aside), pytest.raises(RunFolderError, match="is in use by"):
        write(dataset, "yolo", tmp_path / "out")
    assert (aside / "old/half.png").exists()
    out = write(dataset, "yolo", tmp_path / "out")
    assert sorted(path.name for path in out.iterdir()) == [
        *("a.png", "a.txt", "data.yaml", "images", "labels", RECORD_FILE, "train.txt", "val.txt")
    ]
    assert not aside.exists()


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize(
    ("damage", "said"),
    [(_append, "changed while it was exported|not an image|repair"), (Path.unlink, "cannot be read")],
)
def test_an_image_that_is_not_what_it_was_is_refused(tmp_path: Path, damage: Callable[[Path], None], said: str) -> None:
    dataset = dataset_of(tmp_path, {"a.png": []})
    damage(Path(dataset.pool[0].uri))
    with pytest.raises(Exception, match=said):
        write(dataset, "yolo", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    dataset = dataset_of(tmp_path, {"a.png": []})
    monkeypatch.setattr(dataset_folder, "_fill", full)
    with pytest.raises(Exception, match="out cannot be written: No space left on device"):
        write(dataset, "yolo", tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_the_record_says_where_each_image_is_from(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, {"x/a.png": [(0.5, 2, 30, 40, 2)]})
    about = {"trial": "random-q1-s0"}
    out = write_dataset(dataset, "voc", tmp_path / "out", about=about, about_images={"x/a.png": {"round": 3}})
    record = json.loads((out / RECORD_FILE).read_text())
    assert (record["trial"], record["format"]) == ("random-q1-s0", "voc")
    assert record["images"][0] == {
        "round": 3,
        "image_id": "x/a.png",
        "file": "JPEGImages/2_a.png",
        "split": "pool",
        "source": dataset.pool[0].uri,
        "content_hash": dataset.pool[0].content_hash,
        "boxes": [[0.5, 2.0, 30.0, 40.0, 2]],
    }
    assert [image["split"] for image in record["images"]] == ["pool", "test"]


@pytest.mark.parametrize("format", FORMATS)
def test_the_groups_of_a_data_set_are_written_and_read_again(format: str, tmp_path: Path) -> None:
    tmp_path.joinpath("in").mkdir()
    dataset = dataset_of(tmp_path / "in", {"a/x.png": [], "a/y.png": [], "b/z.png": []})
    names = ['one, "1"', "", "ü\n2"]
    pool = tuple(replace(image, clip_id=name) for image, name in zip(dataset.pool, names, strict=True))
    again = read_dataset(write(replace(dataset, pool=pool), format, tmp_path / "out"), format)
    assert {image.content_hash: image.clip_id for image in again.pool} == {i.content_hash: i.clip_id for i in pool}
    assert not (write(dataset, format, tmp_path / "none") / "groups.csv").exists()
