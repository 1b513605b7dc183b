"""What real data sets and pools hold, kind by kind, in every format that can hold it."""

import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest

from raylearn.data.dataset import Dataset
from raylearn.data.endings import by_ending
from raylearn.data.formats import examine_dataset, read_dataset
from raylearn.data.images import decode, heif_is_installed, upright_size
from raylearn.errors import ImageError, PoolError
from raylearn.scoring.listing import list_pool

FORMATS = ("yolo", "coco", "voc")
RAW = (40, 24)  # pixels of the picture as it lies in the file
BOX = (4.0, 6.0, 14.0, 12.0)


def picture(orientation: int = 1, shade: int = 40) -> bytes:
    """A picture whose box is white, before the orientation turns it; no two shades are the same bytes."""
    pixels = np.full((RAW[1], RAW[0], 3), shade, np.uint8)
    x1, y1, x2, y2 = map(int, BOX)
    pixels[y1:y2, x1:x2] = 255
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG", exif=exif)
    return file.getvalue()


def make(
    root: Path,
    format: str,
    data: bytes,
    box: tuple[float, ...] = BOX,
    size: tuple[int, int] | None = RAW,
    row: str = "",
    **more: Any,
) -> Path:
    """A data set of one labelled image in the pool, and one of another shade that shows nothing."""
    x1, y1, x2, y2 = box
    held_out = picture(shade=70)
    if format == "yolo":
        for split, content in (("train", data), ("val", held_out)):
            (root / split / "images").mkdir(parents=True)
            (root / split / "labels").mkdir()
            (root / split / "images/a.png").write_bytes(content)
            (root / split / "labels/a.txt").touch()
        width, height = RAW
        centre = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height
        sides = (x2 - x1) / width, (y2 - y1) / height
        (root / "train/labels/a.txt").write_text(row or " ".join(map(str, (0, *centre, *sides))))
        (root / "data.yaml").write_text("{train: train/images, val: val/images, names: [crab]}")
    elif format == "coco":
        for split, content in (("train", data), ("val", held_out)):
            (root / split).mkdir(parents=True)
            (root / split / "a.png").write_bytes(content)
            stated = {"width": size[0], "height": size[1]} if size and split == "train" else {}
            own = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], **more}
            table = {
                "images": [{"id": 1, "file_name": "a.png", **stated}],
                "categories": [{"id": 1, "name": "crab"}],
                "annotations": [own] if split == "train" else [],
            }
            (root / split / "_annotations.coco.json").write_text(json.dumps(table))
    else:
        for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (root / name).mkdir(parents=True)
        (root / "labels.txt").write_text("crab")
        stated_size = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
        corners = f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        found = f"<object><name>crab</name>{row}<bndbox>{corners}</bndbox></object>"
        for stem, content, text in (("a", data, stated_size + found), ("b", held_out, "")):
            (root / f"JPEGImages/{stem}.png").write_bytes(content)
            (root / f"Annotations/{stem}.xml").write_text(f"<annotation>{text}</annotation>")
        (root / "ImageSets/Main/train.txt").write_text("a")
        (root / "ImageSets/Main/val.txt").write_text("b")
    return root


def truth(dataset: Dataset) -> list[list[float]]:
    (image,) = dataset.pool
    boxes: list[list[float]] = dataset.truth[image.image_id].boxes.astype(float).round(3).tolist()
    return boxes


def white(data: bytes) -> list[float]:
    """The box of what is white in the upright picture."""
    rows, columns = np.nonzero(decode(data)[..., 0] > 200)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def problems_of(root: Path, format: str, **policies: Any) -> list[str]:
    dataset, problems = examine_dataset(root, format, **policies)
    assert dataset is None
    return [str(problem) for problem in problems]


# Photographs with an EXIF orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", FORMATS)
def test_boxes_of_the_picture_as_it_lies_in_the_file_are_turned_with_it(format, orientation, tmp_path) -> None:
    data = picture(orientation)
    dataset = read_dataset(make(tmp_path, format, data), format, exif="raw")
    assert truth(dataset) == [white(data)]
    assert not dataset.notes


@pytest.mark.parametrize("format", ["coco", "voc"])
def test_sizes_exchanged_by_an_orientation_are_refused(format, tmp_path) -> None:
    make(tmp_path, format, picture(6))
    (problem,) = problems_of(tmp_path, format)
    assert "made for 40x24, but" in problem
    assert "is 24x40 upright, by its EXIF orientation 6: set exif to raw if" in problem
    kept = read_dataset(tmp_path, format, exif="upright")
    assert truth(kept) == [list(BOX)]
    assert "made for 40x24" in kept.notes[0]


@pytest.mark.parametrize("format", ["coco", "voc"])
def test_a_size_that_is_the_upright_one_is_believed_whatever_exif_says(format, tmp_path) -> None:
    make(tmp_path, format, picture(6), size=RAW[::-1])
    for exif in ("refuse", "raw", "upright"):
        assert truth(read_dataset(tmp_path, format, exif=exif)) == [list(BOX)]


@pytest.mark.parametrize(("format", "size"), [("yolo", None), ("coco", None), ("voc", None), ("coco", RAW)])
def test_where_no_size_decides_the_boxes_are_taken_for_upright_with_a_note(format, size, tmp_path) -> None:
    make(tmp_path, format, picture(3), size=size)
    (note,) = read_dataset(tmp_path, format).notes
    assert "1 images have an EXIF orientation" in note
    assert not read_dataset(tmp_path, format, exif="upright").notes


# Rotated and flipped boxes

POLYGON = "".join(
    f"<x{n}>{x}</x{n}><y{n}>{y}</y{n}>" for n, (x, y) in enumerate([(30, 2), (38, 10), (30, 18), (22, 10)], 1)
)
ROTATED: dict[str, tuple[str, dict[str, Any]]] = {
    "coco attribute": ("coco", {"attributes": {"rotation": 37.5}}),
    "coco attribute as text": ("coco", {"attributes": {"rotation": "90"}}),
    "coco rotation": ("coco", {"rotation": -3}),
    "coco polygon": ("coco", {"segmentation": [[30, 2, 38, 10, 30, 18, 22, 10]]}),
    "voc attribute": (
        "voc",
        {"row": "<attributes><attribute><name>rotation</name><value>37.5</value></attribute></attributes>"},
    ),
    "voc rotation": ("voc", {"row": "<rotation>12</rotation>"}),
    "voc angle": ("voc", {"row": "<angle>0.7</angle>"}),
    "voc robndbox": ("voc", {"row": "<robndbox><cx>9</cx><cy>9</cy><w>5</w><h>4</h><angle>.3</angle></robndbox>"}),
    "voc polygon": ("voc", {"row": f"<polygon>{POLYGON}</polygon>"}),
    "yolo corners": ("yolo", {"row": "0 .75 .0834 .95 .4167 .75 .75 .55 .4167"}),
}


@pytest.mark.parametrize("name", ROTATED)
def test_a_rotated_box_is_refused_in_any_form(name, tmp_path) -> None:
    format, how = ROTATED[name]
    (problem,) = problems_of(make(tmp_path, format, picture(), **how), format)
    assert "rotat" in problem


@pytest.mark.parametrize("angle", [0, 0.0, "0.0", 360, None, "left"])
def test_what_is_not_rotated_is_read(angle, tmp_path) -> None:
    make(tmp_path, "coco", picture(), attributes={"rotation": angle}, segmentation=[[4, 6, 14, 6, 14, 12, 4, 12]])
    assert truth(read_dataset(tmp_path, "coco")) == [list(BOX)]


def test_a_polygon_of_four_corners_is_a_rotated_box_only_where_no_polygon_has_others(tmp_path) -> None:
    rotated = "0 .75 .0834 .95 .4167 .75 .75 .55 .4167"
    make(tmp_path, "yolo", picture(), row=f"{rotated}\n0 .1 .1 .2 .1 .2 .2\n")
    assert len(truth(read_dataset(tmp_path, "yolo"))) == 2
    (tmp_path / "train/labels/a.txt").write_text(f"{rotated}\n0 .1 .1 .2 .1 .2 .2 .1 .2\n{rotated}\n")
    problems = problems_of(tmp_path, "yolo", bad_boxes="drop")
    assert [problem.split(": ")[0][-7:] for problem in problems] == ["a.txt:1"]


@pytest.mark.parametrize("format", FORMATS)
def test_a_flipped_box_is_turned_over_with_a_note(format, tmp_path) -> None:
    x1, y1, x2, y2 = BOX
    flipped = (x2 + (format == "voc") * -1, y1, x1 + (format == "voc"), y2)  # VOC counts the last pixel in
    dataset = read_dataset(make(tmp_path, format, picture(), box=flipped), format)
    assert truth(dataset) == [list(BOX)]
    (note,) = dataset.notes
    assert "its corners were exchanged, and it is turned over" in note


# Images by ending, HEIC, and numbers that are no brightness


def test_what_a_pool_leaves_out_is_told_by_ending_with_what_to_do(tmp_path) -> None:
    for name in ("a.jpg", "b.JXL", "c.jxl", "d.txt", "e.mp4", ".hidden.jpg", "README"):
        (tmp_path / name).touch()
    _, left_out = list_pool(str(tmp_path))
    assert left_out == {".jxl": 2, ".txt": 1, ".mp4": 1, "hidden": 1, "no ending": 1}
    told = ".jxl: 2, convert them to JPEG or PNG; .mp4: 1, extract their frames; .txt: 1; hidden: 1; no ending: 1"
    assert by_ending(left_out) == told
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(PoolError, match=r"\.jxl: 2, convert them to JPEG or PNG; \.mp4: 1, extract their frames$"):
        list_pool(str(tmp_path))


def test_pictures_that_a_yolo_folder_leaves_out_are_noted(tmp_path) -> None:
    make(tmp_path, "yolo", picture())
    (tmp_path / "train/images/b.gif").touch()
    (tmp_path / "train/images/notes.txt").touch()
    (note,) = read_dataset(tmp_path, "yolo").notes
    assert note.endswith("files left out of the folders of images: .gif: 1, convert them to JPEG or PNG")


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.mark.skipif(heif_is_installed(), reason="pillow-heif is installed")
def test_heic_says_what_it_is_and_what_to_do(tmp_path) -> None:
    for read in (decode, upright_size):
        with pytest.raises(
            ImageError, match=r"image is HEIC, .* convert it to JPEG, or pip install 'raylearn\[heic\]'"
        ):
            read(HEIC)
    make(tmp_path, "yolo", picture())
    (tmp_path / "train/images/b.heic").write_bytes(HEIC)
    (tmp_path / "train/labels/b.txt").touch()
    (problem,) = problems_of(tmp_path, "yolo")
    assert problem.endswith("pip install 'raylearn[heic]'")


@pytest.mark.skipif(not heif_is_installed(), reason="pillow-heif is not installed")
def test_heic_is_read_where_pillow_heif_is_installed(tmp_path) -> None:
    from pillow_heif import register_heif_opener

    register_heif_opener()
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:, 48:] = 200
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "HEIF", quality=95)
    assert upright_size(file.getvalue()) == (96, 64)
    assert np.abs(decode(file.getvalue()).astype(int) - pixels).mean() < 3
    (tmp_path / "A.HEIC").write_bytes(file.getvalue())
    assert len(list_pool(str(tmp_path))[0]) == 1
    with pytest.raises(ImageError, match="not an image of a known format"):
        decode(HEIC)


RAMP = np.tile(np.linspace(0, 1, 16), (8, 1))


@pytest.mark.parametrize(
    ("pixels", "kind"),
    [
        (RAMP.astype(np.float32), "32-bit floating-point"),
        (RAMP, "64-bit floating-point"),
        (np.dstack([RAMP.astype(np.float32)] * 3), "32-bit floating-point"),
        ((RAMP * 30000).astype(np.int16), "16-bit signed"),
        ((RAMP * 4e9).astype(np.uint32), "32-bit unsigned"),
    ],
)
def test_a_tiff_of_numbers_that_are_no_brightness_is_told_what_it_is(pixels, kind) -> None:
    data = cv2.imencode(".tif", pixels)[1].tobytes()
    with pytest.raises(ImageError, match=f"is a TIFF of {kind} numbers: scale it to 8 bits"):
        decode(data)


@pytest.mark.parametrize("ending", [".tif", ".png"])
def test_of_sixteen_bits_the_high_byte_is_kept(ending) -> None:
    sixteen = (RAMP * 65535).astype(np.uint16)
    pixels = decode(cv2.imencode(ending, sixteen)[1].tobytes())
    assert np.array_equal(pixels[..., 0], sixteen >> 8)
