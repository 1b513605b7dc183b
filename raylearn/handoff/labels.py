"""Labels back from an annotation tool: checked against what was handed out, and taken over whole or not at all."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from raylearn.data.dataset import GroundTruth, Image, fractions_fault
from raylearn.data.formats import checked_box
from raylearn.data.images import content_hash, read_bytes
from raylearn.data.places import slashed
from raylearn.data.records import TURNED, Row, turned_over
from raylearn.data.storage import not_writable, write_whole
from raylearn.errors import ImageError, LabelsError, nearest
from raylearn.handoff import coco, csv_boxes, cvat, label_studio, yolo
from raylearn.handoff.class_lists import refuse_repeated_names
from raylearn.handoff.exchange import (
    RECORD_FILE,
    Box,
    Findings,
    PreAnnotation,
    Record,
    Returned,
    SentImage,
    Tool,
    without_upload_prefix,
)
from raylearn.handoff.zipped import unpacked

_IN_PIXELS = ("coco", "csv", "cvat")
Missing = Literal["refuse", "skip", "background"]
_READERS: dict[str, Callable[[Path, Mapping[str, SentImage], Findings], Returned]] = {
    "label-studio": label_studio.read,
    "cvat": cvat.read,
    "coco": coco.read,
    "yolo": yolo.read,
    "csv": csv_boxes.read,
}


@dataclass(frozen=True)
class ImportedLabels:
    """What came back.

    Args:
        truth: image id -> boxes, in the order of rank.
        missing: ids of images without labels, which were left unlabelled or taken to show nothing.
        repeated: boxes that stood twice in an image with the same class, of which one is kept.
        notes: what was taken over otherwise than it was written, a line each.
    """

    truth: Mapping[str, GroundTruth]
    missing: Sequence[str]
    repeated: int
    notes: Sequence[str] = ()


def import_labels(path: Path, tool: Tool, record: Record, missing: Missing = "refuse") -> ImportedLabels:
    """Reads what a tool exported and holds it against the record of the hand-off.

    Args:
        path: the tool's file or folder, or a zip file of either.
        tool: whose form.
        record: of the hand-off.
        missing: images without labels are an error, are left unlabelled, or show nothing.

    Raises:
        LabelsError: with all that is wrong: images that were not asked for, that are missing, skipped or drafts, that
            were labelled at another size, or whose bytes changed; classes that are unknown; boxes that are rotated or
            cannot be. `problems` holds every one of them, kind by kind.
    """
    with unpacked(path) as place:
        try:
            found = _import(place, tool, record, missing)
        except LabelsError as error:
            own = [problem.replace(str(place), str(path)) for problem in error.problems]
            raise LabelsError(str(error).replace(str(place), str(path)), own) from error
        return replace(found, notes=[note.replace(str(place), str(path)) for note in found.notes])


def _import(path: Path, tool: Tool, record: Record, missing: Missing) -> ImportedLabels:
    by_name = _ByName({image.name: image for image in record.images})
    told = Findings()
    returned = _READERS[tool](path, by_name, told)
    refuse_repeated_names(Path(RECORD_FILE), record.class_names)  # boxes find their class by its name
    found: dict[str, Sequence[Box]] = {}
    for name, boxes in returned.items():
        image = by_name.get(name)
        if image is None:
            told.add("not asked for", f"{path}: {name} was not asked for")
        elif image.image_id in found:
            told.add("twice", f"{path}: {name} is labelled twice")
        else:
            found[image.image_id] = boxes
    without = [image for image in record.images if image.image_id not in found]
    unfinished = {sent.image_id: why for name, why in told.unfinished.items() if (sent := by_name.get(name))}
    for image in without:
        why = unfinished.get(image.image_id)
        line = f"{path}: {image.name} has no labels{f': {why}' if why else ''}"
        if missing == "refuse" or (missing == "background" and why):
            told.add("unfinished" if why else "missing", line)
        elif missing == "background":
            found[image.image_id] = ()
        elif why:
            told.notes.append(line)
    truth: dict[str, GroundTruth] = {}
    repeated = 0
    for image in record.images:
        if image.image_id in found:
            _tell_changed(image, told)
            num_told = len(told.problems)
            own = _ground_truth(image, found[image.image_id], record.class_names, told)
            truth[image.image_id] = own
            repeated += len(found[image.image_id]) - len(own) - (len(told.problems) - num_told)
    if tool in _IN_PIXELS and (fault := fractions_fault(truth.values())):
        told.add("fractions", f"{path}: {fault}")
    if told.problems:
        raise _refusal(told.problems)
    return ImportedLabels(truth, [image.image_id for image in without], repeated, told.notes)


def write_labels(labels: ImportedLabels, record: Record, path: Path) -> None:
    """Writes a COCO file whose file names are image ids; at once.

    Raises:
        InputError, StorageError: it cannot be written.
    """
    images = [replace(image, name=image.image_id) for image in record.images if image.image_id in labels.truth]
    boxes = {image_id: PreAnnotation(truth.boxes, truth.class_ids, None) for image_id, truth in labels.truth.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_writable(path, error) from error
    text = json.dumps(coco.content(images, boxes, record.class_names), indent=1)
    write_whole(path, text.encode())


def read_labels(path: Path, class_names: Sequence[str]) -> dict[str, GroundTruth]:
    """What `write_labels` wrote.

    Raises:
        LabelsError: it is damaged, or of other classes.
    """
    truth = {}
    told = Findings()
    read = coco.read(path, {}, told)
    if told.problems:
        raise _refusal(told.problems)
    for image_id, boxes in read.items():
        unknown = next((box.class_name for box in boxes if box.class_name not in class_names), None)
        if unknown is not None:
            raise LabelsError(f"{path} has a class {unknown!r} that the project has not: {', '.join(class_names)}")
        table = np.array([box.xyxy for box in boxes], dtype=np.float64).reshape(-1, 4)
        truth[image_id] = GroundTruth(
            table.astype(np.float32), np.array([class_names.index(box.class_name) for box in boxes], dtype=np.int64)
        )
    return truth


class _ByName(dict[str, SentImage]):
    """By the name that was given, or by the end of a path that a tool made of it."""

    def get(self, name: str, default: SentImage | None = None) -> SentImage | None:  # type: ignore[override]
        last = PurePosixPath(slashed(name)).name
        return super().get(name) or super().get(last) or super().get(without_upload_prefix(last), default)


def _tell_changed(image: SentImage, told: Findings) -> None:
    try:
        data = read_bytes(image.uri)
    except ImageError as error:
        told.add("changed image", f"{image.image_id}: the image cannot be read any more: {error}")
        return
    if content_hash(data) != image.content_hash:
        what = f"{image.image_id}: the image at {image.uri} is not the one that was handed out"
        told.add("changed image", what)


def _ground_truth(image: SentImage, boxes: Sequence[Box], class_names: Sequence[str], told: Findings) -> GroundTruth:
    kept: dict[tuple[int, float, float, float, float], None] = {}
    size = Image(image.image_id, image.uri, image.width, image.height, image.content_hash)
    for box in boxes:
        if box.class_name not in class_names:
            what = f"{box.where}: unknown class {box.class_name!r}: {nearest(box.class_name, class_names)}"
            told.add("unknown class", what)
            continue
        upright, turned = turned_over(box.xyxy)
        corners, fault = checked_box(Row(0, box=np.array(upright)), size)
        if fault:
            told.add("impossible box", f"{box.where}: {fault}")
            continue
        if turned:
            told.notes.append(f"{box.where}: {TURNED}")
        # In float32, as it is kept: of two equal boxes, one flipped, percentages end in other last bits.
        kept[(class_names.index(box.class_name), *np.asarray(corners, np.float32).tolist())] = None
    table = np.array(list(kept), dtype=np.float64).reshape(-1, 5)
    return GroundTruth(table[:, 1:].astype(np.float32), table[:, 0].astype(np.int64))


def _refusal(problems: Sequence[tuple[str, str]]) -> LabelsError:
    """The error that says all of them, kind by kind in the order in which the kinds came up."""
    counts = Counter(kind for kind, _ in problems)
    lines = [what for kind in counts for own, what in problems if own == kind]
    kinds = (
        f"; of all {len(lines)}, {', '.join(f'{kind}: {n}' for kind, n in counts.items())}" if len(counts) > 1 else ""
    )
    more = f" ({len(lines) - 1} more{kinds})" if len(lines) > 1 else ""
    return LabelsError(f"{lines[0]}{more}; nothing was imported", lines)
