"""A query as an annotation tool opens it: images in order of rank, with what the detector saw in them."""

import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from raylearn.data.images import content_hash, read_bytes
from raylearn.data.storage import not_writable
from raylearn.detectors.base import Detections
from raylearn.errors import QueryError, nearest
from raylearn.handoff import coco, csv_boxes, cvat, label_studio, yolo
from raylearn.handoff.exchange import ONLY_COPIES, PreAnnotation, Record, SentImage, Tool
from raylearn.learning.collectors import QueriedImage

IMAGES_FOLDER = "images"
_WRITERS: dict[str, Callable[[Sequence[SentImage], Mapping[str, PreAnnotation], Sequence[str], Path], None]] = {
    "label-studio": label_studio.write,
    "cvat": cvat.write,
    "coco": coco.write,
    "yolo": yolo.write,
    "csv": csv_boxes.write,
}


def check_handout(tool: Tool, folder: Path, copies: bool | None) -> None:
    """Raises QueryError where `export_query` could write nothing: the folder is there, or the tool needs copies."""
    if tool not in _WRITERS:
        raise QueryError(f"unknown tool {tool!r}: {nearest(tool, _WRITERS)}")
    if tool in ONLY_COPIES and copies is False:
        raise QueryError(f"{tool} knows images by their files' names alone: leave --images uri out")
    if folder.exists():
        raise QueryError(f"{folder} is there already: remove it, or give another --out")


def export_query(
    images: Sequence[QueriedImage],
    found: Mapping[str, tuple[tuple[int, int], Detections]],
    names: Sequence[str],
    tool: Tool,
    folder: Path,
    *,
    copies: bool | None = None,
    confidence: float = 0.25,
) -> Path:
    """Writes a query in a tool's form, with the detections as pre-annotations, and a record for the way back.

    Args:
        images: in order of rank.
        found: image id -> (width, height) and detections, as `ledger_query.detections_of` gives them.
        names: of the classes.
        tool: whose form.
        folder: made here, whole or not at all.
        copies: put the images into it, named by rank, or leave them where they are; by default copied for tools that
            cannot do without.
        confidence: detections below it are no help to an annotator, and are left out.

    Raises:
        QueryError: the folder is there already, the tool needs copies, or two classes have one name.
        ImageError: an image cannot be read.
        InputError, StorageError: the folder cannot be written.
    """
    check_handout(tool, folder, copies)
    twice = next((name for name in names if list(names).count(name) > 1), None)
    if twice is not None:
        raise QueryError(f"two classes are called {twice!r}, and labels come back by name: rename one and train again")
    if copies is None:
        copies = tool in (*ONLY_COPIES, "coco")
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        (temporary / IMAGES_FOLDER if copies else temporary).mkdir(parents=True)
        sent, seen = [], {}
        for image in images:
            data = read_bytes(image.uri)
            name = _name(image, len(images))
            if copies:
                (temporary / IMAGES_FOLDER / name).write_bytes(data)
            (width, height), detections = found[image.image_id]
            sent.append(
                SentImage(
                    rank=image.rank,
                    score=image.score,
                    image_id=image.image_id,
                    uri=image.uri,
                    name=name if copies or tool != "coco" else image.uri,
                    address=f"{IMAGES_FOLDER}/{name}" if copies else image.uri,
                    width=width,
                    height=height,
                    content_hash=content_hash(data),
                )
            )
            kept = detections.confidences >= confidence
            seen[image.image_id] = PreAnnotation(
                detections.boxes[kept], detections.class_ids[kept], detections.confidences[kept]
            )
        _WRITERS[tool](sent, seen, names, temporary)
        Record(tuple(names), tuple(sent)).write(temporary)
        os.rename(temporary, folder)
    except OSError as error:
        raise not_writable(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _name(image: QueriedImage, num_images: int) -> str:
    """The rank, so that a listing by name is in order, and as much of the image's own name as any tool can carry."""
    path = PurePosixPath(image.image_id)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem)[:60]
    suffix = re.sub(r"[^A-Za-z0-9.]", "", path.suffix.lower())
    return f"{image.rank:0{len(str(num_images))}d}_{stem}{suffix}"
