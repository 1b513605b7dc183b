"""COCO: one JSON file of boxes out and back (cocodataset.org/#format-data)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raylearn.data.rotation import attribute_fault, polygon_fault, rotation_fault
from raylearn.errors import LabelsError
from raylearn.handoff.exchange import (
    Box,
    Findings,
    PreAnnotation,
    Returned,
    SentImage,
    number,
    read_json,
    size_fault,
)

ANNOTATIONS_FILE = "annotations/instances_default.json"


def write(
    images: Sequence[SentImage], predictions: Mapping[str, PreAnnotation], class_names: Sequence[str], folder: Path
) -> None:
    """Writes annotations/instances_default.json, images in order of rank, predicted boxes with their score."""
    path = folder / ANNOTATIONS_FILE
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content(images, predictions, class_names), indent=1), encoding="utf-8")


def content(
    images: Sequence[SentImage], boxes: Mapping[str, PreAnnotation], class_names: Sequence[str]
) -> dict[str, Any]:
    """What stands in the file; corners, as differences of float32 numbers in float64, come back exactly."""
    annotations = [
        {
            "image_id": image.rank,
            "category_id": int(class_id) + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
            "segmentation": [],
            **({} if seen.confidences is None else {"score": float(seen.confidences[index])}),
        }
        for image in images
        for seen in [boxes[image.image_id]]
        for index, ((x1, y1, x2, y2), class_id) in enumerate(
            zip(seen.boxes.astype(float).tolist(), seen.class_ids, strict=True)
        )
    ]
    return {
        "images": [
            {"id": image.rank, "file_name": image.name, "width": image.width, "height": image.height}
            for image in images
        ],
        "categories": [{"id": k, "name": name} for k, name in enumerate(class_names, start=1)],
        "annotations": [{"id": index, **annotation} for index, annotation in enumerate(annotations, start=1)],
    }


def read(path: Path, images: Mapping[str, SentImage], found: Findings) -> Returned:
    """Boxes of every image that the file lists; one without annotations shows nothing.

    An annotation that is not an upright box of a listed image and category goes to the findings, and so does an image
    that was labelled at another size.

    Raises:
        LabelsError: no COCO.
    """
    if path.is_dir():
        path = path / ANNOTATIONS_FILE
    given = read_json(path, "give the JSON file of the annotations")
    try:
        names = {image["id"]: str(image["file_name"]) for image in given["images"]}
        classes = {category["id"]: str(category["name"]) for category in given["categories"]}
        annotations = list(given["annotations"])
    except (TypeError, KeyError) as error:
        raise LabelsError(f"{path} is no COCO file: no {error}") from error
    if len(set(names.values())) < len(names):
        raise LabelsError(f"{path} lists an image twice")
    for image in given["images"]:
        name = str(image["file_name"])
        if fault := size_fault(images.get(name), image.get("width"), image.get("height")):
            found.add("size", f"{path}: {name} {fault}")
    boxes: dict[str, list[Box]] = {name: [] for name in names.values()}
    for position, annotation in enumerate(annotations, start=1):
        where = f"{path}: annotation {position}"
        with found.listing("no box"):
            try:
                name, class_name = names[annotation["image_id"]], classes[annotation["category_id"]]
                x, y, w, h = (number(value, where) for value in annotation["bbox"])
            except (TypeError, KeyError, ValueError) as error:
                raise LabelsError(f"{where} has no box of a listed image and category: {error}") from error
            if annotation.get("iscrowd"):
                raise LabelsError(f"{where} is a crowd region, which is no box")
            fault = rotation_fault(annotation.get("rotation")) or attribute_fault(annotation.get("attributes"))
            fault = fault or polygon_fault(annotation.get("segmentation"), (x, y, w, h))
            if fault:
                found.add("rotated", f"{path}: {name}: annotation {position} {fault}")
            else:
                boxes[name].append(Box(class_name, (x, y, x + w, y + h), f"{path}: {name}"))
    return boxes
