"""COCO: one JSON file of boxes out and back (cocodataset.org/#format-data)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raylearn.data.class_lists import ClassList, refuse_contradiction
from raylearn.data.coco_format import annotated_categories, without_root
from raylearn.data.rotation import attribute_fault, polygon_fault, rotation_fault
from raylearn.errors import LabelsError
from raylearn.handoff.class_lists import as_labels_error, class_lists_below, refuse_repeated_names
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

    Of a folder without annotations/instances_default.json every COCO file is read, as Roboflow writes one for each
    split. An annotation that is not an upright box of a listed image and category goes to the findings, and so does an
    image that was labelled at another size.

    Raises:
        LabelsError: no COCO; a category that is there twice, or lists of classes that contradict each other.
    """
    boxes: dict[str, list[Box]] = {}
    lists = []
    for file in _files(path):
        own, listed = _read_file(file, images, found)
        for name in own.keys() & boxes.keys():
            found.add("twice", f"{file}: {name} is listed in another file too: keep one of them")
        boxes |= own
        lists.append(listed)
    with as_labels_error():
        refuse_contradiction(lists)
    if path.is_dir():
        class_lists_below(path, lists[0])
    return boxes


def _referred_to(annotation: Any, key: str, known: Mapping[Any, Any], where: str) -> Any:
    """What an annotation refers to by an id.

    Raises:
        LabelsError: it has none, or one that is not known.
    """
    try:
        return known[annotation[key]]
    except (TypeError, KeyError) as error:
        found = annotation.get(key) if isinstance(annotation, dict) else annotation
        raise LabelsError(f"{where}: {key} {found!r:.80} is not listed in the file") from error


def _bbox(annotation: Mapping[str, Any], where: str) -> list[float]:
    """x, y, width and height in pixels. Raises LabelsError for anything else."""
    given = annotation.get("bbox")
    if not isinstance(given, list) or len(given) != 4:
        raise LabelsError(f"{where}: bbox {given!r:.80} is not a list of x, y, width and height")
    return [number(value, where) for value in given]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if (path / ANNOTATIONS_FILE).is_file():
        return [path / ANNOTATIONS_FILE]
    files = [file for file in sorted(path.rglob("*.json")) if _is_coco(file)]
    if not files:
        raise LabelsError(f"{path} should hold {ANNOTATIONS_FILE}, or other JSON files in COCO form, and holds none")
    return files


def _is_coco(file: Path) -> bool:
    content = read_json(file, "give the JSON file of the annotations")
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys()


def _read_file(path: Path, images: Mapping[str, SentImage], found: Findings) -> tuple[dict[str, list[Box]], ClassList]:
    given = read_json(path, "give the JSON file of the annotations")
    if not isinstance(given, dict):
        raise LabelsError(f"{path} is no COCO file: images, annotations and categories are to be keys of one object")
    try:
        names = {image["id"]: str(image["file_name"]) for image in given["images"]}
        annotations = list(given["annotations"])
        categories, _ = without_root(given["categories"], annotated_categories(given))
        classes = {category["id"]: category["name"] for category in categories}
    except (TypeError, KeyError) as error:
        raise LabelsError(f"{path} is no COCO file: no {error}") from error
    if len(set(names.values())) < len(given["images"]):
        raise LabelsError(f"{path} lists an image twice")
    if len(classes) < len(categories):
        raise LabelsError(f"{path} gives two categories one id: number them anew")
    for name in classes.values():
        if not isinstance(name, str):
            raise LabelsError(f"{path}: a category is named {name!r}: put it in quotes")
    in_order = sorted(classes, key=lambda number: (0, number, "") if isinstance(number, int) else (1, 0, str(number)))
    listed = ClassList(path, tuple(classes[number] for number in in_order))
    refuse_repeated_names(path, listed.names)
    for image in given["images"]:
        name = str(image["file_name"])
        if fault := size_fault(images.get(name), image.get("width"), image.get("height")):
            found.add("size", f"{path}: {name} {fault}")
    boxes: dict[str, list[Box]] = {name: [] for name in names.values()}
    for position, annotation in enumerate(annotations, start=1):
        where = f"{path}: annotation {position}"
        with found.listing("no box"):
            name, class_name = (
                _referred_to(annotation, key, known, where)
                for key, known in (("image_id", names), ("category_id", classes))
            )
            x, y, w, h = _bbox(annotation, where)
            if annotation.get("iscrowd"):
                raise LabelsError(f"{where} is a crowd region, which is no box")
            fault = rotation_fault(annotation.get("rotation")) or attribute_fault(annotation.get("attributes"))
            fault = fault or polygon_fault(annotation.get("segmentation"), (x, y, w, h))
            if fault:
                found.add("rotated", f"{path}: {name}: annotation {position} {fault}")
            else:
                boxes[name].append(Box(class_name, (x, y, x + w, y + h), f"{path}: {name}"))
    return boxes, listed
