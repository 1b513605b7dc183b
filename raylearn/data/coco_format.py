"""COCO data sets: one json file per split."""

import json
import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from raylearn.data.class_lists import ClassList, files_beside, refuse_contradicting_files, refuse_contradiction
from raylearn.data.places import Rewritten, found_elsewhere, is_of_another_machine, slashed
from raylearn.data.records import Folder, Frame, Problem, ProblemError, Row, Source, number_fault, quoted
from raylearn.data.rotation import attribute_fault, polygon_fault, rotation_fault
from raylearn.data.yolo_yaml import same_name

Annotation = tuple[int, Mapping[str, Any]]  # its position in the file, from 1


@dataclass(frozen=True)
class _JsonFile:
    """The file of one split; `class_ids` maps its category ids."""

    split: str
    path: Path
    content: Mapping[str, Any]
    class_ids: Mapping[int, int]


def read_coco(path: Path, pool: Sequence[str] | None, test: Sequence[str] | None, root: Path | None) -> Source:
    """Reads the json files of a data set and lists its images; see `formats.read_dataset`.

    Raises:
        ProblemError: a json file is missing or cannot be used.
    """
    if not os.path.exists(path):
        raise ProblemError(path, "no such folder or json file")
    if not os.path.isdir(path):
        if test is None:
            raise ProblemError(path, "one json file holds one split: name the json file of the other as test")
        pool = [path.name] if pool is None else pool
        path = path.parent
    folder = Folder(path, root)
    source = Source(name=folder.path.name)
    loaded: dict[Path, dict[str, Any]] = {}
    splits: tuple[tuple[Literal["pool", "test"], Sequence[str]], ...] = (
        ("pool", ["train"] if pool is None else pool),
        ("test", [_default_test(folder, loaded)] if test is None else test),
    )
    files = [(split, name, _json_file(folder, name)) for split, names in splits for name in names]
    contents = {file: _load(file, folder, loaded) for _, _, file in files}
    annotated = {category for content in contents.values() for category in annotated_categories(content)}
    lists: list[ClassList] = []
    names: dict[int, str] = {}
    for split, name, file in files:
        found, root_category = _categories(contents[file], file, annotated)
        if root_category:
            source.notes.append(f"{file}: {root_category}")
        lists.append(ClassList(file, tuple(found[category] for category in sorted(found))))
        refuse_contradiction(lists)
        if names and found != names:
            first = min(names.items() ^ found.items())[0]
            what = f"category {first} has another name, or none, in {lists[0].file}: give both the same ids"
            raise ProblemError(file, what)
        names = found
        class_ids = {category: i for i, category in enumerate(sorted(names))}
        _add_frames(source, split, _JsonFile(name, file, contents[file], class_ids), folder)
    if lists:
        source.class_names = lists[0].names
        beside = [file for file in files_beside(folder, source.frames) if file.name.lower() != "labels.txt"]
        refuse_contradicting_files(lists[0], beside, numbered=False)
    return source


def _default_test(folder: Folder, loaded: dict[Path, dict[str, Any]]) -> str:
    file = _find_json(folder, "test")
    if file is not None and _load(file, folder, loaded)["annotations"]:
        return "test"
    return "valid" if _find_json(folder, "val") is None and _find_json(folder, "valid") else "val"


def _json_file(folder: Folder, name: str) -> Path:
    file = _find_json(folder, name)
    if file is None:
        raise ProblemError(
            folder.path,
            f"has no split {quoted(name)}: looked for {name}/_annotations.coco.json, "
            f"annotations/instances_{name}*.json (exactly one) and annotations/{name}.json",
        )
    return file


def _find_json(folder: Folder, name: str) -> Path | None:
    if not _is_plain(name):
        return None
    annotations = folder.path / "annotations"
    with_year = [file for file in annotations.glob("instances_*.json") if file.name.startswith(f"instances_{name}")]
    choices = [
        folder.path / name / "_annotations.coco.json",
        annotations / f"instances_{name}.json",
        *(with_year if len(with_year) == 1 else []),
        annotations / f"{name}.json",
    ]
    if name.endswith(".json"):
        choices = [folder.path / name]
    return next((choice for choice in choices if os.path.isfile(choice)), None)


def _is_plain(name: str) -> bool:
    """Whether a name from outside stays below the folder it is joined to (links aside)."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _load(file: Path, folder: Folder, loaded: dict[Path, dict[str, Any]]) -> dict[str, Any]:
    if file in loaded:
        return loaded[file]
    if not folder.holds(file):
        raise ProblemError(file, folder.outside())
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise ProblemError(file, f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ProblemError(file, f"not valid JSON: {quoted(str(error))}", getattr(error, "lineno", 0)) from error
    if not isinstance(content, dict):
        raise ProblemError(file, "must be an object with images, annotations and categories")
    content.setdefault("annotations", [])
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise ProblemError(file, f"has no list of {key}")
    loaded[file] = content
    return content


def annotated_categories(content: Mapping[str, Any]) -> set[int]:
    """Ids of the categories that a box or crowd is of."""
    annotations = [annotation for annotation in content["annotations"] if isinstance(annotation, dict)]
    ids = [annotation.get("category_id") for annotation in annotations]
    return {number for number in ids if isinstance(number, int)}


def without_root(categories: Sequence[Any], annotated: Collection[int]) -> tuple[list[Any], str]:
    """Categories without the one that Roboflow puts above them, named after the project; and a note of that, or "".

    It has the id 0 and no annotation, and every other category names it as its supercategory.
    """
    for root in categories:
        if not isinstance(root, dict) or root.get("id") != 0 or isinstance(root.get("id"), bool) or 0 in annotated:
            continue
        others = [category for category in categories if category is not root]
        if root.get("supercategory") in (None, "", "none") and others and all(_is_below(one, root) for one in others):
            return (
                others,
                f"category 0 {quoted(root.get('name'))} left out: the root of the others, without annotations",
            )
    return list(categories), ""


def _is_below(category: Any, root: Mapping[str, Any]) -> bool:
    above = category.get("supercategory") if isinstance(category, dict) else None
    return isinstance(above, str) and above == root.get("name")


def _categories(content: Mapping[str, Any], file: Path, annotated: Collection[int]) -> tuple[dict[int, str], str]:
    """Id -> name, and a note of what was left out, or ""."""
    names: dict[int, str] = {}
    known: set[str] = set()
    categories, note = without_root(content["categories"], annotated)
    for category in categories:
        number, name = (category.get("id"), category.get("name")) if isinstance(category, dict) else (None, None)
        if not isinstance(number, int) or isinstance(number, bool) or not isinstance(name, str) or not name.strip():
            raise ProblemError(file, f"category {quoted(category)} needs a whole number as id, and a name")
        if number in names or same_name(name) in known:
            raise ProblemError(file, f"category {number} {quoted(name)} stands twice: remove one")
        names[number] = name
        known.add(same_name(name))
    if not names:
        raise ProblemError(file, "has no categories")
    return names, note


def _add_frames(source: Source, split: Literal["pool", "test"], json_file: _JsonFile, folder: Folder) -> None:
    by_image = _by_image(source, json_file)
    seen: set[int | str] = set()
    rewritten = Rewritten(json_file.path)
    for position, record in enumerate(json_file.content["images"], 1):
        number, image, fault = _image(record, json_file, folder, rewritten)
        if number in seen:
            fault = f"id {quoted(number)} stands twice"
        if fault:
            source.problems.append(Problem(str(json_file.path), 0, f"image {position}: {fault}"))
            continue
        seen.add(number)
        rows = partial(_rows, by_image.get(number, []), json_file.class_ids)
        size = _stated_size(record)
        source.frames.append(Frame(split, folder.image_id(image), image, json_file.path, rows, size))
    source.notes += rewritten.notes()


def _image(record: object, json_file: _JsonFile, folder: Folder, rewritten: Rewritten) -> tuple[int | str, Path, str]:
    """The id and file of an image, and what is wrong with it, or ""."""
    number, name = (record.get("id"), record.get("file_name")) if isinstance(record, dict) else (None, None)
    if not isinstance(number, int | str) or not isinstance(name, str):
        return "", json_file.path, f"{quoted(record)} needs an id and a file_name"
    places = _places(json_file, folder)
    if _is_plain(name):
        image = next((place / name for place in places if os.path.lexists(place / name)), None)
        if image is not None:
            fault = folder.image_fault(image)
            return number, image, f"{quoted(name)}: {fault}" if fault else ""
    elif not is_of_another_machine(name) or os.path.lexists(name):
        return number, json_file.path, f"file_name {quoted(name)} leads out of the data set, and is not followed"
    other, ambiguity = (None, "") if ".." in slashed(name).split("/") else found_elsewhere(name, places, folder)
    if other is None:
        looked = f"no such image: looked in {', '.join(map(str, places))}"
        return number, json_file.path, f"{quoted(name)}: {ambiguity or looked}"
    fault = folder.image_fault(other)
    rewritten.add(name, other)
    return number, other, f"{quoted(name)}: {fault}" if fault else ""


def _by_image(source: Source, json_file: _JsonFile) -> dict[int | str, list[Annotation]]:
    known = {record.get("id") for record in json_file.content["images"] if _has_plain_id(record)}
    by_image: dict[int | str, list[Annotation]] = defaultdict(list)
    num_crowds = 0
    for position, annotation in enumerate(json_file.content["annotations"], 1):
        number = annotation.get("image_id") if isinstance(annotation, dict) else None
        if not isinstance(number, int | str) or number not in known:
            what = f"annotation {position}: image_id {quoted(number)} is no image of this file"
            source.problems.append(Problem(str(json_file.path), 0, what, "box"))
        elif annotation.get("iscrowd"):
            num_crowds += 1
        else:
            by_image[number].append((position, annotation))
    if num_crowds:
        source.notes.append(f"{json_file.path}: {num_crowds} crowd regions (iscrowd) left out")
    return by_image


def _has_plain_id(record: object) -> bool:
    return isinstance(record, dict) and isinstance(record.get("id"), int | str)


def _places(json_file: _JsonFile, folder: Folder) -> list[Path]:
    """The folders in which the images of a json file may be, those first that come first."""
    own_name, images = json_file.path.stem.removeprefix("instances_"), folder.path / "images"
    places = [json_file.path.parent]
    for split in (own_name, json_file.split):
        places += [folder.path / split, images / split]
    places = [place for place in (*places, images, folder.path) if os.path.isdir(place)]
    return list(dict.fromkeys(places))


def _stated_size(record: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = record.get("width"), record.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) and width and height else None


def _rows(annotations: Sequence[Annotation], class_ids: Mapping[int, int], width: int, height: int) -> Iterator[Row]:
    from supervision.dataset.formats.coco import coco_annotations_to_detections  # 1 s of imports

    good: list[tuple[str, Mapping[str, Any], bool]] = []
    for position, annotation in annotations:
        number = annotation.get("id")
        name = f"annotation {position}" + (f" (id {quoted(number)})" if number is not None else "")
        fault = _fault(annotation, class_ids)
        if fault:
            yield Row(0, name, fault=fault)
        else:
            x, y, w, h = (float(value) for value in annotation["bbox"])
            bbox = [min(x, x + w), min(y, y + h), abs(w), abs(h)]
            good.append((name, {"bbox": bbox, "category_id": class_ids[annotation["category_id"]]}, min(w, h) < 0))
    boxes = coco_annotations_to_detections(
        [annotation for _, annotation, _ in good], (width, height), with_masks=False, use_iscrowd=False
    ).xyxy
    for (name, annotation, turned), box in zip(good, np.asarray(boxes), strict=True):
        yield Row(0, name, annotation["category_id"], box, turned=turned)


def _fault(annotation: Mapping[str, Any], class_ids: Mapping[int, int]) -> str:
    category, bbox = annotation.get("category_id"), annotation.get("bbox")
    if not isinstance(category, int) or isinstance(category, bool) or category not in class_ids:
        return f"category_id {quoted(category)} is no category of this file"
    if not isinstance(bbox, list) or len(bbox) != 4:
        return f"bbox {quoted(bbox)} must be [x, y, width, height]"
    for value in bbox:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"bbox holds {quoted(value)}, which is not a number"
        try:
            fault = number_fault("a number of bbox", float(value))
        except OverflowError:
            fault = "bbox holds a number too large for any image"
        if fault:
            return fault
    if bbox[2] == 0 or bbox[3] == 0:
        return f"box of zero area: width {bbox[2]:g}, height {bbox[3]:g}"
    fault = rotation_fault(annotation.get("rotation")) or attribute_fault(annotation.get("attributes"))
    return fault or polygon_fault(annotation.get("segmentation"), bbox)
