"""YOLO: a text file of boxes per image out and back (docs.ultralytics.com/datasets/detect)."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from raylearn.errors import LabelsError
from raylearn.handoff.exchange import Box, Findings, PreAnnotation, Returned, SentImage, number

YAML_FILE = "data.yaml"
_NAME_FILES = ("classes.txt", "obj.names")


def write(
    images: Sequence[SentImage], predictions: Mapping[str, PreAnnotation], class_names: Sequence[str], folder: Path
) -> None:
    """Writes data.yaml, and labels/ beside the images; nine decimals of the image's size."""
    (folder / "labels").mkdir(exist_ok=True)
    for image in images:
        seen = predictions[image.image_id]
        rows = label_rows(seen.boxes, seen.class_ids, image.width, image.height)
        (folder / "labels" / f"{PurePosixPath(image.name).stem}.txt").write_text(rows, encoding="utf-8")
    content = {"path": ".", "train": "images", "val": "images", "names": dict(enumerate(class_names))}
    (folder / YAML_FILE).write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def label_rows(boxes: np.ndarray, class_ids: np.ndarray, width: int, height: int) -> str:
    """The text of a label file: class, centre and size, as fractions of the image with nine decimals.

    Args:
        boxes: (n, 4) xyxy pixels.
        class_ids: (n,).
        width, height: pixels of the upright image.
    """
    rows = []
    for (x1, y1, x2, y2), class_id in zip(boxes.astype(float), class_ids, strict=True):
        centre = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height
        size = (x2 - x1) / width, (y2 - y1) / height
        rows.append(" ".join([str(int(class_id)), *(f"{value:.9f}" for value in (*centre, *size))]) + "\n")
    return "".join(rows)


def read(path: Path, images: Mapping[str, SentImage], found: Findings) -> Returned:
    """Boxes from every label file below a folder; an empty file is an image that shows nothing.

    A row that is no box goes to the findings, and so does a second label file of one name.

    Raises:
        LabelsError: no class names.
    """
    folder = path if path.is_dir() else path.parent
    class_names = _class_names(folder)
    by_stem = {PurePosixPath(name).stem: name for name in images}
    boxes: dict[str, list[Box]] = {}
    for file in sorted(folder.rglob("*.txt")):
        if file.name in _NAME_FILES or file.name in ("train.txt", "val.txt", "test.txt"):
            continue
        name = by_stem.get(file.stem, file.stem)
        if name in boxes:
            found.add("twice", f"{file}: a second label file of {name}: keep one of them")
            continue
        boxes[name] = []
        for index, line in enumerate(_lines(file), start=1):
            if line.strip():
                with found.listing("no box"):
                    boxes[name].append(_box(line.split(), class_names, images.get(name), f"{file}:{index}"))
    return boxes


def _class_names(folder: Path) -> dict[int, str]:
    for name in _NAME_FILES:
        if (folder / name).is_file():
            return dict(enumerate(line.strip() for line in _lines(folder / name)))
    path = folder / YAML_FILE
    try:
        names: Any = yaml.safe_load("\n".join(_lines(path)))["names"]
        return {int(k): str(v) for k, v in (names.items() if isinstance(names, dict) else enumerate(names))}
    except (yaml.YAMLError, TypeError, KeyError, ValueError) as error:
        raise LabelsError(f"{path} has no class names: {error}") from error


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise LabelsError(
            f"{path} cannot be read ({error.strerror}): give the folder with {YAML_FILE} or {_NAME_FILES[0]}"
        ) from error
    except ValueError as error:
        raise LabelsError(f"{path} is no UTF-8 text") from error


def _box(row: Sequence[str], class_names: Mapping[int, str], image: SentImage | None, where: str) -> Box:
    if len(row) != 5:
        rotated = "; 9 are of a rotated box: export as upright boxes" if len(row) == 9 else ""
        raise LabelsError(
            f"{where}: {len(row)} columns, but a box has 5: class, centre x and y, width, height{rotated}"
        )
    class_id = number(row[0], where)
    if class_id not in class_names:
        raise LabelsError(f"{where}: class {row[0]}, but the names are of 0 to {len(class_names) - 1}")
    x, y, w, h = (number(value, where) for value in row[1:])
    width, height = (image.width, image.height) if image else (1, 1)
    corners = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
    return Box(class_names[int(class_id)], corners, where)
