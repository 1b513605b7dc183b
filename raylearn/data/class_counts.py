"""Boxes per class of what is labelled already, from a data set or a JSON file."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from raylearn.data.formats import read_dataset
from raylearn.errors import QueryError

_MAX_COUNT = 2**53  # what float64 counts exactly


def read_class_counts(path: Path) -> dict[str, int]:
    """Class name -> boxes.

    Args:
        path: a JSON file with an object of names and counts, or with the annotations of a COCO split; or a data set in
            YOLO, COCO or Pascal VOC form, of whose pool (its training split) the boxes are counted.

    Raises:
        QueryError: no such file, or not of these forms.
        DatasetError: a data set with a problem.
    """
    if path.is_file() and path.suffix.lower() == ".json":
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise QueryError(f"class counts {path} cannot be read: {error}") from error
        if isinstance(content, dict) and isinstance(content.get("annotations"), list):
            return _annotated(content, path)
        return checked_counts(content, path)
    dataset = read_dataset(path, _format_of(path))
    counts = np.zeros(dataset.num_classes, dtype=np.int64)
    for image in dataset.pool:
        counts += np.bincount(dataset.truth[image.image_id].class_ids, minlength=dataset.num_classes)
    return dict(zip(dataset.class_names, counts.tolist(), strict=True))


def checked_counts(content: Any, source: object) -> dict[str, int]:
    if not isinstance(content, Mapping) or not content:
        raise QueryError(f'class counts {source} must be an object such as {{"crab": 12, "fish": 340}}')
    for name, count in content.items():
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= _MAX_COUNT:
            raise QueryError(
                f"class counts {source}: {name!r} has {count!r}, a whole number >= 0 and at most {_MAX_COUNT} is wanted"
            )
    return dict(content)


def _annotated(content: Mapping[str, Any], path: Path) -> dict[str, int]:
    """Counts as `read_dataset` does of a whole COCO data set: without crowds, and boxes that stand twice once."""
    try:
        names = {category["id"]: str(category["name"]) for category in content["categories"]}
        boxes = {
            (box["image_id"], box["category_id"], tuple(box["bbox"]))
            for box in content["annotations"]
            if not box.get("iscrowd")
        }
        counts = Counter(names[category] for _, category, _ in boxes)
        return {names[category]: counts[names[category]] for category in sorted(names)}
    except (KeyError, TypeError, AttributeError) as error:
        raise QueryError(f"class counts {path} has annotations that are not COCO's: {error!r}") from error


def _format_of(path: Path) -> str:
    if path.suffix.lower() in (".yaml", ".yml"):
        return "yolo"
    if not path.exists():
        raise QueryError(f"class counts {path} is not there: give a data set or a JSON file")
    if (path / "JPEGImages").is_dir():
        return "voc"
    if any(path.glob("*.yaml")) or any(path.glob("*.yml")):
        return "yolo"
    if any(path.glob("*/_annotations.coco.json")) or any(path.glob("annotations/*.json")):
        return "coco"
    raise QueryError(f"class counts {path}: no data set in YOLO, COCO or Pascal VOC form, and no JSON file")
