"""What a page shows of an image: a small picture of it, and why it was asked for. As JSON has it."""

import base64
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import PIL.Image

from raylearn.data.dataset import GroundTruth, Image
from raylearn.data.images import decode, read_bytes
from raylearn.detectors.base import Detections
from raylearn.errors import ImageError, StorageError
from raylearn.learning.collectors import QueriedImage
from raylearn.progress import steps
from raylearn.strategies import Context, Reason, Strategy

MOST_BOXES = 12
MOST_IMAGES = 300  # of one query on a page of its own: some 10 MB
LONGER_SIDE, LONGER_SIDE_OF_NEAREST = 480, 104  # pixels of their pictures, which a click enlarges
GREY = 128
_READ_AT_ONCE = 4
_UNANSWERED = 4  # pictures in a row


def asked_image(image_id: str, score: float, reason: Reason, num_detections: int, boxes: list[Any]) -> dict[str, Any]:
    """An image of a query.

    Args:
        num_detections: in it.
        boxes: those of them that are known, as of `detection_rows`.
    """
    known = {
        "nearest": reason.nearest,
        "distance": None if reason.distance is None else round(reason.distance, 4),
        "predicted_boxes": None if reason.boxes is None else round(reason.boxes, 2),
        "note": reason.note or None,
    }
    return {
        "image_id": image_id,
        "score": score,
        "num_detections": num_detections,
        "detections": boxes[:MOST_BOXES],
        **{key: value for key, value in known.items() if value is not None},
    }


def waiting_query(
    images: Sequence[QueriedImage],
    files: Mapping[str, Image],
    seen: Mapping[str, Detections],
    strategy: Strategy,
    context: Context,
    round_index: int = 0,
) -> dict[str, Any]:
    """The content of a gallery of one query that nobody has labelled yet; see raylearn.reporting.gallery.

    Args:
        images: in order of rank; the first MOST_IMAGES are shown.
        files: image id -> of all of them, and of the labelled images that are their nearest.
        seen: image id -> what the detector saw, of those it has looked at.
        strategy, context: that they were chosen by.
        round_index: that they are asked for.
    """
    shown = images[:MOST_IMAGES]
    rows = [
        asked_image(
            image.image_id,
            image.score,
            image.reason,
            image.num_detections,
            detection_rows(seen[image.image_id], strategy, context) if image.image_id in seen else [],
        )
        for image in shown
    ]
    wanted = {image.image_id: LONGER_SIDE for image in shown}
    sides = {row["nearest"]: LONGER_SIDE_OF_NEAREST for row in rows if "nearest" in row} | wanted
    pictures, make = dict[str, Any](), Pictures()
    with ThreadPoolExecutor(_READ_AT_ONCE) as threads:
        steps("picture", 0, len(sides))
        made = threads.map(lambda image_id: make.of(files[image_id], None, sides[image_id]), sides)
        for done, (image_id, one) in enumerate(zip(sides, made, strict=True), start=1):
            pictures[image_id] = one
            steps("picture", done, len(sides))
    query = {"trial": "", "round": round_index, "scored": strategy.needs_pass, "waits": True, "images": rows}
    return {"images": pictures, "queries": [{**query, "num_images": len(images)}]}


def detection_rows(found: Detections, strategy: Strategy, context: Context) -> list[list[float]]:
    """Those of one image as [x1, y1, x2, y2, class id, confidence, what it counts], those that count most first."""
    confidences = found.class_scores.max(axis=1, initial=0)
    counted = strategy.detection_scores(found.class_scores, context)
    order = np.lexsort([-confidences, -counted])
    return [
        [
            *(round(float(corner), 1) for corner in found.boxes[i]),
            int(found.class_scores[i].argmax()),
            round(float(confidences[i]), 3),
            round(float(counted[i]), 3),
        ]
        for i in order
    ]


class Pictures:
    """Makes small pictures; once a store is away it is not asked for the others, as each would wait for minutes."""

    def __init__(self) -> None:
        self._unanswered = 0

    def of(self, image: Image, truth: GroundTruth | None, longer_side: int) -> dict[str, Any]:
        """A small JPEG in base64 with the image's own width and height, and its labels as [x1, y1, x2, y2, class id].

        An image that cannot be read any more is a grey area, and `lost` says why.
        """
        pixels, why = self._read(image)
        small = PIL.Image.fromarray(pixels)
        small.thumbnail((longer_side, longer_side))
        written = io.BytesIO()
        small.save(written, format="JPEG", quality=60, optimize=True)
        boxes = zip(truth.boxes.astype(float).tolist(), truth.class_ids.tolist(), strict=True) if truth else ()
        return {
            "width": image.width,
            "height": image.height,
            "jpeg": base64.b64encode(written.getvalue()).decode(),
            "truth": [[*(round(corner, 1) for corner in corners), class_id] for corners, class_id in boxes],
            **({"lost": f"cannot be read ({why})"} if why else {}),
        }

    def _read(self, image: Image) -> tuple[np.ndarray, str]:
        """Its pixels and "", or grey and why it cannot be read."""
        why = "its store does not answer"
        if self._unanswered < _UNANSWERED:
            try:
                pixels = decode(read_bytes(image.uri))
            except ImageError as error:
                why = error.kind
            except StorageError as error:
                why = why if error.may_pass else "storage error"
                self._unanswered += error.may_pass
            else:
                self._unanswered = 0
                return pixels, ""
        return np.full((image.height, image.width, 3), GREY, np.uint8), why
