"""YOLO data sets: a data.yaml, images, and one text file of normalised boxes per image.

Read here and not by Ultralytics, which runs a yaml's `download:`, unpickles `.cache` files, drops an image for one bad
row and takes a missing label file for an empty image.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from raylearn.data.class_lists import ClassList, files_beside, refuse_contradicting_files
from raylearn.data.endings import by_ending
from raylearn.data.places import Rewritten, found_elsewhere
from raylearn.data.records import (
    IMAGE_SUFFIXES,
    Folder,
    Frame,
    Problem,
    ProblemError,
    Row,
    Source,
    image_files,
    label_file_fault,
    quoted,
    read_text,
    shown,
)
from raylearn.data.rotation import is_oriented
from raylearn.data.yolo_yaml import Description, class_names, read_description, whole_number
from raylearn.errors import nearest

_MARGIN = 0.01  # Ultralytics' tolerance for a normalised number


def read_yolo(path: Path, pool: Sequence[str] | None, test: Sequence[str] | None, root: Path | None) -> Source:
    """Reads a data.yaml and lists its images; see `formats.read_dataset`.

    Raises:
        ProblemError: the yaml cannot be used, or names what is not there.
    """
    yaml_file = _yaml_file(path)
    description = read_description(yaml_file)
    data = description.data
    folder = Folder(yaml_file.parent, root)
    source = Source(name=folder.path.name, class_names=class_names(description))
    keypoints = _num_keypoint_columns(data, yaml_file)
    splits: tuple[tuple[Literal["pool", "test"], Sequence[str]], ...] = (
        ("pool", ["train"] if pool is None else pool),
        ("test", ["test" if data.get("test") else "val"] if test is None else test),
    )
    base = _base(description, [key for _, keys in splits for key in keys], folder, source)
    for split, keys in splits:
        images: dict[str, Path] = {}
        for key in keys:
            for image in _split_images(description, key, base, folder, source):
                images.setdefault(os.path.realpath(image), image)
        for image in images.values():
            rows, label_file = _labels(image, folder, len(source.class_names), keypoints)
            source.frames.append(Frame(split, folder.image_id(image), image, label_file, rows))
    if pictures := by_ending(source.left_out, pictures_only=True):
        source.notes.append(f"{shown(str(base))}: files left out of the folders of images: {pictures}")
    source.notes += _shared_label_files(source.frames)
    own = None if description.names is None else ClassList(yaml_file, source.class_names)
    refuse_contradicting_files(own, {yaml_file, *files_beside(folder, source.frames)})
    return source


def _yaml_file(path: Path) -> Path:
    if not path.is_dir():
        if path.suffix.lower() not in (".yaml", ".yml"):
            raise ProblemError(path, "no such folder or data.yaml")
        return path
    if (path / "data.yaml").is_file():
        return path / "data.yaml"
    candidates = sorted(path.glob("*.yaml")) or sorted(path.glob("*.yml"))
    if len(candidates) != 1:
        names = ", ".join(shown(file.name) for file in candidates[:5]) or "none"
        raise ProblemError(path, f"a YOLO data set needs a data.yaml, or exactly one *.yaml; found: {names}")
    return candidates[0]


def _num_keypoint_columns(data: Mapping[str, Any], file: Path) -> int:
    shape = data.get("kpt_shape")
    if shape is None:
        return 0
    if isinstance(shape, list) and len(shape) == 2:
        points, dimensions = (whole_number(value) for value in shape)
        if points and dimensions in (2, 3) and points > 0:
            return points * dimensions
    raise ProblemError(file, f"kpt_shape: {quoted(shape)} must be [number of keypoints, 2 or 3]")


def _base(description: Description, keys: Sequence[str], folder: Folder, source: Source) -> Path:
    """The folder that entries start at: `path:`, or what that means here if it is of another machine."""
    file, stated = description.file, description.data.get("path") or ""
    if not isinstance(stated, str):
        raise ProblemError(file, f"path: {quoted(stated)} must be a folder")
    base = folder.path / stated
    if not os.path.lexists(base):
        return _base_elsewhere(description, keys, folder, source, base)
    if not folder.holds(base):
        raise ProblemError(file, f"path: {quoted(stated)} {folder.outside()}")
    if not os.path.isdir(base):
        raise ProblemError(file, f"path: {quoted(stated)} is no folder")
    return base


def _base_elsewhere(description: Description, keys: Sequence[str], folder: Folder, source: Source, base: Path) -> Path:
    file, stated = description.file, description.data["path"]
    end, ambiguity = found_elsewhere(stated, [folder.path], folder)
    entries = [entry for key in keys for entry in _entries(description, key)]
    whole = [
        place
        for place in {end or folder.path, folder.path}
        if all(os.path.exists(_place(entry, place, folder)[0] or "") for entry in entries)
    ]
    if len(whole) > 1:
        ambiguity = f"can mean {min(whole)} and {max(whole)}: write which one"
    if ambiguity or not whole:
        why = ambiguity or (
            f"is no folder here: looked for {base}, and for what the splits name in {folder.path}; without path: this "
            "file's own folder is taken"
        )
        raise ProblemError(file, f"path: {quoted(stated)} {why}")
    source.notes.append(f"{file}: path: {quoted(stated)} is not of this machine, {whole[0]} is taken")
    return whole[0]


def _entries(description: Description, key: str) -> list[str]:
    """The folders and lists of a split."""
    data, file = description.data, description.file
    entries = data.get(key)
    if entries is None or entries == "":
        raise ProblemError(file, f"has no split {quoted(key)}: {nearest(key, _split_keys(data))}")
    entries = entries if isinstance(entries, list) else [entries]
    for entry in entries:
        if not isinstance(entry, str) or not entry:
            raise ProblemError(
                file, f"{key}: {quoted(entry)} must be a folder of images, or a text file that lists them"
            )
    return entries


def _split_images(description: Description, key: str, base: Path, folder: Folder, source: Source) -> list[Path]:
    file = description.file
    images: list[Path] = []
    for entry in _entries(description, key):
        place, other = _place(entry, base, folder)
        if place is None:
            raise ProblemError(file, f"{key}: {quoted(entry)} {folder.outside()}")
        if os.path.isdir(place):
            images += image_files(place, folder, source.problems, source.left_out)
        elif os.path.isfile(place):
            images += _listed_images(place, base, folder, source)
        else:
            why = other or f"is no folder and no file: looked for {place} (download: is never run)"
            raise ProblemError(file, f"{key}: {quoted(entry)} {why}")
        if other:
            source.notes.append(f"{file}: {key}: {quoted(entry)} {other}")
    return images


def _split_keys(data: Mapping[str, Any]) -> list[str]:
    return [key for key in ("train", "val", "test") if data.get(key)] or ["train", "val", "test"]


def _place(entry: str, base: Path, folder: Folder) -> tuple[Path | None, str]:
    """Where an entry leads, None for out of the root; and how else it was read, or why it could not be."""
    # Roboflow writes ../train/images for what lies beside data.yaml; Ultralytics strips the ../ too.
    choices = [base / entry] + ([base / entry[3:]] if entry.startswith("../") else [])
    inside = [choice for choice in choices if folder.holds(choice)]
    found = next((choice for choice in inside if os.path.exists(choice)), None)
    if found is None and not any(os.path.lexists(choice) for choice in choices):
        other, ambiguity = found_elsewhere(entry, [base], folder)
        if other is not None:
            return other, f"is read as {other}"
        if ambiguity:
            return choices[0], ambiguity
    return found or (inside[0] if inside else None), ""


def _listed_images(file: Path, base: Path, folder: Folder, source: Source) -> list[Path]:
    images = []
    rewritten = Rewritten(file)
    for number, line in enumerate(read_text(file).split("\n"), 1):  # not splitlines(): a name may hold U+2028
        name = line.rstrip("\r")
        if not name.strip():
            continue
        beside, below = file.parent / name, base / name
        image = beside if name.startswith("./") or os.path.lexists(beside) else below
        fault = ""
        if os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES:
            fault = "not the name of an image"
        elif not os.path.lexists(image):
            other, fault = found_elsewhere(name, [file.parent, base], folder)
            if other is not None:
                image = other
                rewritten.add(name, other)
        fault = fault or folder.image_fault(image)
        if fault:
            source.problems.append(Problem(str(file), number, f"{quoted(name)}: {fault}"))
        else:
            images.append(image)
    source.notes += rewritten.notes()
    return images


def _labels(
    image: Path, folder: Folder, num_classes: int, keypoints: int
) -> tuple[partial[Iterator[Row]] | None, Path]:
    """The rows of an image, None without a label file, and where that file is or should be."""
    places = list(_label_files(image, folder))
    # from a camera or Windows, which know no case
    label_file = next(filter(os.path.lexists, [*places, *(place.with_suffix(".TXT") for place in places)]), None)
    if label_file is None:
        return None, places[0]
    fault = label_file_fault(label_file, folder)
    return partial(_rows, label_file, fault, num_classes, keypoints), label_file


def _label_files(image: Path, folder: Folder) -> Iterator[Path]:
    """Where the label file of an image may be: by its name, then with links followed, as Ultralytics does."""
    for follow in (os.path.normpath, os.path.realpath):
        path = Path(follow(image))
        for place in (folder.path, folder.root):
            if path.is_relative_to(place):
                yield label_file_of(place, path.relative_to(place))
    yield label_file_of(folder.root, folder.below_root(image))


def label_file_of(place: Path, image: Path) -> Path:
    """Ultralytics' rule, blind to folders above `place`: the last `images` becomes `labels`, the ending .txt."""
    *folders, name = image.parts
    if "images" in folders:
        folders[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    return place.joinpath(*folders, os.path.splitext(name)[0] + ".txt")


def _shared_label_files(frames: Sequence[Frame]) -> list[str]:
    sharing: dict[Path, list[str]] = defaultdict(list)
    for frame in frames:
        sharing[frame.label_file].append(frame.image_id)
    return [
        f"{shown(str(file))}: the label file of {' and '.join(map(quoted, images))}, as their names differ in the "
        "ending only; both were given its boxes"
        for file, images in sharing.items()
        if len(set(images)) > 1
    ]


def _rows(label_file: Path, fault: str, num_classes: int, keypoints: int, width: int, height: int) -> Iterator[Row]:
    from supervision.dataset.formats.yolo import yolo_annotations_to_detections  # 1 s of imports

    if fault:
        raise ProblemError(label_file, fault)
    lines: list[tuple[int, str, list[float]]] = []
    for number, line in enumerate(read_text(label_file).splitlines(), 1):
        tokens = line.split()
        if keypoints and len(tokens) == 5 + keypoints:
            tokens = tokens[:5]
        if not tokens:
            continue
        parsed = _numbers(tokens, num_classes)
        if isinstance(parsed, str):
            yield Row(number, fault=parsed)
        else:
            upright = [*parsed[:3], *map(abs, parsed[3:])] if len(parsed) == 5 else parsed
            lines.append((number, " ".join([f"{upright[0]:.0f}", *map(repr, upright[1:])]), parsed))
    detections = yolo_annotations_to_detections([line for _, line, _ in lines], (width, height), with_masks=False)
    for (number, _, parsed), box in zip(lines, np.asarray(detections.xyxy), strict=True):
        turned, polygon = len(parsed) == 5 and min(parsed[3:]) < 0, _polygon(parsed, width, height)
        yield Row(number, class_id=int(parsed[0]), box=box, turned=turned, polygon=polygon)


def _polygon(numbers: Sequence[float], width: int, height: int) -> Literal["", "polygon", "oriented"]:
    if len(numbers) == 5:
        return ""
    points = np.reshape(numbers[1:], (-1, 2)) * (width, height)
    if is_oriented(points):
        return "oriented"
    return "" if len(points) == 4 else "polygon"


def _numbers(tokens: Sequence[str], num_classes: int) -> list[float] | str:
    """The numbers of a row, or what is wrong with it."""
    if len(tokens) != 5 and (len(tokens) < 7 or len(tokens) % 2 == 0):
        return f"{len(tokens)} columns: a box has 5, a polygon 7, 9, 11, ..."
    numbers = []
    for token in tokens:
        try:
            numbers.append(float(token.replace("_", "?")))  # Python reads 1_0 as 10
        except ValueError:
            return f"{quoted(token)} is not a number"
    if not np.isfinite(numbers).all():
        return f"{quoted(tokens[int(np.argmin(np.isfinite(numbers)))])} is not a finite number"
    if not numbers[0].is_integer() or not 0 <= numbers[0] < num_classes:
        return f"class id {quoted(tokens[0])} is not one of 0..{num_classes - 1}"
    sides = range(3, 5) if len(tokens) == 5 else ()
    for position, (token, number) in enumerate(zip(tokens[1:], numbers[1:], strict=True), 1):
        if position in sides and -1 - _MARGIN <= number < -_MARGIN:
            continue  # drawn to the left or up
        if not -_MARGIN <= number <= 1 + _MARGIN:
            return f"{quoted(token)} is outside of 0..1: coordinates are fractions of the image's width and height"
    if any(-_MARGIN <= numbers[position] <= 0 for position in sides):
        return f"box of zero area: width {numbers[3]:g}, height {numbers[4]:g}"
    return numbers
