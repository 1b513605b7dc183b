"""CSV: a row per box, for spreadsheets and own programs."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from raylearn.data.rotation import rotation_fault
from raylearn.data.storage import reason_of
from raylearn.errors import LabelsError
from raylearn.handoff.exchange import (
    Box,
    Findings,
    PreAnnotation,
    Returned,
    SentImage,
    number,
    only_file,
    refuse_another,
)
from raylearn.handoff.query_files import guarded, unguarded
from raylearn.wording import columns_in_words

BOXES_FILE = "boxes.csv"
_CORNERS = ("x1", "y1", "x2", "y2")
_COLUMNS = ("rank", "name", "image_id", "class", *_CORNERS, "confidence")


def write(
    images: Sequence[SentImage], predictions: Mapping[str, PreAnnotation], class_names: Sequence[str], folder: Path
) -> None:
    """Writes boxes.csv in order of rank; an image without boxes has one row, with no class."""
    with (folder / BOXES_FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for image in images:
            named = [image.rank, guarded(image.name), guarded(image.image_id)]
            seen = predictions[image.image_id]
            assert seen.confidences is not None
            for corners, class_id, confidence in zip(
                seen.boxes.astype(float).tolist(), seen.class_ids, seen.confidences, strict=True
            ):
                writer.writerow([*named, guarded(class_names[class_id]), *corners, float(confidence)])
            if not len(seen.boxes):
                writer.writerow([*named, "", "", "", "", "", ""])


def read(path: Path, images: Mapping[str, SentImage], found: Findings) -> Returned:
    """Boxes by the columns name, class, x1, y1, x2, y2; a row without a class is an image that shows nothing.

    A row that is no box goes to the findings; so does one that a column `rotation` says is rotated.

    Raises:
        LabelsError: it cannot be read, or lacks a column.
    """
    path = only_file(path, BOXES_FILE)
    by_name: dict[str, list[Box]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            lacking = [name for name in ("name", "class", *_CORNERS) if name not in (reader.fieldnames or ())]
            if lacking:
                raise LabelsError(
                    f"{path} has no column {lacking[0]}, only {columns_in_words(reader.fieldnames or ())}"
                )
            for row in reader:
                where = f"{path}:{reader.line_num}"
                name = unguarded(row["name"] or "")
                with found.listing("another hand-off"):
                    refuse_another(images.get(name), unguarded(row.get("image_id") or "") or None, where)
                boxes = by_name.setdefault(name, [])
                with found.listing("no box"):
                    if row["class"]:
                        x1, y1, x2, y2 = (number(row[key], where) for key in _CORNERS)
                        boxes.append(Box(unguarded(row["class"]), (x1, y1, x2, y2), where))
                    elif any(row[key] for key in _CORNERS):
                        raise LabelsError(f"{where}: a box without a class")
                if fault := rotation_fault(row.get("rotation")):
                    found.add("rotated", f"{where}: a box of {name} {fault}")
    except (OSError, ValueError, csv.Error) as error:
        raise LabelsError(f"{path} cannot be read: {reason_of(error)}") from error
    return by_name
