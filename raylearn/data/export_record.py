"""The record that an exported data set carries: where it comes from, and its boxes to the last bit.

Label files of every format are read in float32 and hold decimals, fractions or differences, so a box that went through
one may come back a rounding away. A training notices: it would be another one.
"""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from raylearn.data.dataset import Dataset, GroundTruth
from raylearn.data.records import Folder, ProblemError, quoted, read_text

RECORD_FILE = "raylearn_export.json"
ROUNDING = 0.01  # pixels: above what any format rounds off, below what anybody who corrects a box moves it


def image_records(dataset: Dataset, files: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """What the record says of each image; a box is [x1, y1, x2, y2, class id], in pixels.

    Args:
        dataset: what is exported.
        files: image id -> path of the image below the export's folder.
    """
    for split, images in (("pool", dataset.pool), ("test", dataset.test)):
        for image in images:
            truth = dataset.truth[image.image_id]
            boxes = zip(truth.boxes.astype(float).tolist(), truth.class_ids.tolist(), strict=True)
            yield {
                "image_id": image.image_id,
                "file": files[image.image_id],
                "split": split,
                "source": image.uri,
                "content_hash": image.content_hash,
                "boxes": [[*corners, class_id] for corners, class_id in boxes],
            }


def with_recorded_boxes(truth: Mapping[str, GroundTruth], folder: Folder) -> dict[str, GroundTruth]:
    """Ground truth as label files gave it, with the bits that they round off put back where the folder is an export.

    An image whose labels were changed since, in class, number, order or by more than `ROUNDING`, is left as it is.

    Args:
        truth: image id -> ground truth; ids are paths below the folder.
        folder: of the data set.

    Raises:
        ProblemError: the record is damaged.
    """
    file = folder.path / RECORD_FILE
    if not os.path.lexists(file):
        return dict(truth)
    if not folder.holds(file):
        raise ProblemError(file, folder.outside())
    try:
        images = json.loads(read_text(file))["images"]
        recorded = {image["file"]: np.array(image["boxes"], dtype=np.float64).reshape(-1, 5) for image in images}
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        what = f"is not as raylearn wrote it ({quoted(str(error))}): export again, or remove it and labels count alone"
        raise ProblemError(file, what) from error
    return {name: _restored(own, recorded[name]) if name in recorded else own for name, own in truth.items()}


def _restored(truth: GroundTruth, recorded: np.ndarray) -> GroundTruth:
    unchanged = np.array_equal(truth.class_ids, recorded[:, 4]) and np.allclose(
        truth.boxes, recorded[:, :4], rtol=0, atol=ROUNDING
    )
    return GroundTruth(recorded[:, :4], truth.class_ids) if unchanged else truth
