"""What tests make by hand: data sets of a few images, ledgers of a few detections, experiments of a few lines."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raylearn.config import Experiment
from raylearn.data.dataset import Dataset, GroundTruth, Image
from raylearn.data.storage import Folder
from raylearn.detectors.base import BOX_EMBEDDING, IMAGE_EMBEDDING, Detections
from raylearn.scoring.ledger import Ledger, add_part, rows, write_facts

CLASS_NAMES = ("crab", "fish", "squid")


def make_image(image_id: str, *, content: str | None = None, clip: str = "", folder: str = "/data") -> Image:
    """An image of its own bytes, or of those that `content` stands for."""
    digest = hashlib.sha256((content or image_id).encode()).hexdigest()
    return Image(image_id, f"{folder}/{image_id}", 64, 48, digest, clip)


def make_truth(*class_ids: int) -> GroundTruth:
    """One box for each class id, each in another place."""
    boxes = [[4 * i, 2 * i, 4 * i + 10, 2 * i + 8] for i in range(len(class_ids))]
    return GroundTruth(np.array(boxes, dtype=np.float32), np.array(class_ids, dtype=np.int64))


def make_dataset(pool: Mapping[str, Iterable[int]], /, **changes: Any) -> Dataset:
    """A data set from image id -> classes of its boxes, with one test image beside them unless `changes` names some."""
    content: dict[str, Any] = {
        "name": "hand-made",
        "class_names": CLASS_NAMES,
        "pool": tuple(make_image(image_id) for image_id in pool),
        "test": (make_image("test/0.jpg"),),
        "truth": {"test/0.jpg": make_truth(0)} | {name: make_truth(*classes) for name, classes in pool.items()},
    }
    return Dataset(**{**content, **changes})


def make_detections(
    class_scores: Sequence[Sequence[float]], num_classes: int = 2, embeddings: bool = False
) -> Detections:
    """Boxes are numbered; the embedding of each repeats its scores, and that of the image says how many they are."""
    scores = np.array(class_scores, dtype=np.float32).reshape(-1, num_classes)
    boxes = np.arange(4 * len(scores), dtype=np.float32).reshape(-1, 4)
    if not embeddings:
        return Detections(boxes, scores)
    of_boxes = np.array([np.resize(row, BOX_EMBEDDING) for row in scores], np.float16).reshape(-1, BOX_EMBEDDING)
    return Detections(boxes, scores, of_boxes, np.full(IMAGE_EMBEDDING, 1 + len(scores), np.float16))


def make_rows(
    class_scores: Mapping[str, Sequence[Sequence[float]] | str],
    num_classes: int = 2,
    embeddings: bool = False,
    images: str = "/data",
) -> pa.Table:
    """Ledger rows from image id -> class scores of its detections, or the error that reading it gave.

    Args:
        images: the folder that the ids are paths below.
    """
    errors = [found if isinstance(found, str) else "" for found in class_scores.values()]
    columns = {
        "image_id": list(class_scores),
        "uri": [f"{images}/{image_id}" for image_id in class_scores],
        "width": [64] * len(errors),
        "height": [48] * len(errors),
        "status": ["error" if error else "ok" for error in errors],
        "error_kind": ["broken" if error else "" for error in errors],
        "error": errors,
    }
    detections = [
        make_detections([], num_classes) if isinstance(found, str) else make_detections(found, num_classes, embeddings)
        for found in class_scores.values()
    ]
    return rows(columns, detections, num_classes, embeddings)


def write_ledger(
    class_scores: Mapping[str, Sequence[Sequence[float]] | str],
    folder: Path,
    num_classes: int = 2,
    part_size: int = 1000,
    embeddings: bool = False,
    images: str = "/data",
    **facts: Any,
) -> Folder:
    """A finished ledger on the disk; `class_scores` as in `make_rows`."""
    target = Folder.at(folder)
    ids = list(class_scores)
    parts = [ids[start : start + part_size] for start in range(0, len(ids), part_size)] or [[]]
    for number, part in enumerate(parts):
        table = make_rows({name: class_scores[name] for name in part}, num_classes, embeddings, images)
        add_part(target, number, "hand-made", table)
    if embeddings:
        facts = {"settings": {"embeddings": True}, **facts}
    write_facts(target, {"num_parts": len(parts), "num_images": len(ids), **facts})
    return target


def make_ledger(
    class_scores: Mapping[str, Sequence[Sequence[float]] | str], folder: Path, num_classes: int = 2
) -> Ledger:
    write_ledger(class_scores, folder, num_classes)
    return Ledger.read(Folder.at(folder))


def make_experiment(**sections: Any) -> Experiment:
    """An experiment of the fewest keys, and those that are given."""
    fewest = {
        "name": "hand-made",
        "dataset": {"format": "reef"},
        "initial_size": 2,
        "budget": 4,
        "arms": {"query_size": [2]},
    }
    return Experiment.model_validate({**fewest, **sections})
