"""YOLO: a text file of boxes per image out and back (docs.ultralytics.com/datasets/detect)."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import yaml

from raylearn.data.class_lists import LABELMAP, looks_like_boxes
from raylearn.errors import LabelsError
from raylearn.handoff.class_lists import class_lists_below
from raylearn.handoff.exchange import Box, Findings, PreAnnotation, Returned, SentImage, number, without_upload_prefix

YAML_FILE = "data.yaml"


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

    A row that is no box goes to the findings, and so does a second label file of one name. Text files that belong to no
    image and hold no boxes, such as Roboflow's README.dataset.txt, are no label files.

    Raises:
        LabelsError: no class names, or two lists of them that contradict each other.
    """
    folder = path if path.is_dir() else path.parent
    if not path.exists():
        raise LabelsError(f"{path} is not there: give the folder that was exported")
    lists = class_lists_below(folder)
    numbered = next((listed for listed in lists if listed.file.name.lower() != LABELMAP), None)
    if numbered is None:
        raise LabelsError(
            f"{folder} has no list of classes: give the folder with {YAML_FILE}, classes.txt or obj.names"
        )
    class_names = dict(enumerate(numbered.names))
    by_stem = {PurePosixPath(name).stem: name for name in images}
    boxes: dict[str, list[Box]] = {}
    for file in _label_files(folder, by_stem, {listed.file for listed in lists}):
        name = by_stem.get(file.stem) or by_stem.get(without_upload_prefix(file.stem), file.stem)
        if name in boxes:
            found.add("twice", f"{file}: a second label file of {name}: keep one of them")
            continue
        boxes[name] = []
        for index, line in enumerate(_lines(file), start=1):
            if line.strip():
                with found.listing("no box"):
                    boxes[name].append(_box(line.split(), class_names, images.get(name), f"{file}:{index}"))
    return boxes


def _label_files(folder: Path, stems: Collection[str], lists: Collection[Path]) -> list[Path]:
    """The text files that are named after an image, hold boxes, or are empty and lie beside such."""
    files = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() == ".txt" and file not in lists]
    certain = {file for file in files if without_upload_prefix(file.stem) in stems or looks_like_boxes(file)}
    homes = {file.parent for file in certain}
    return [file for file in files if file in certain or (file.parent in homes and _is_empty(file))]


def _is_empty(file: Path) -> bool:
    return file.is_file() and not file.stat().st_size


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise LabelsError(f"{path} cannot be read ({error.strerror})") from error
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
