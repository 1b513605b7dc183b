"""Pascal VOC data sets: JPEGImages, Annotations, and lists of image names in ImageSets/Main."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from raylearn.data.class_lists import (
    LABELMAP,
    ClassList,
    files_beside,
    lines_of,
    names_in_labelmap,
    refuse_contradicting_files,
)
from raylearn.data.places import slashed
from raylearn.data.records import (
    IMAGE_SUFFIXES,
    Folder,
    Frame,
    Problem,
    ProblemError,
    Row,
    Source,
    label_file_fault,
    number_fault,
    quoted,
    read_text,
    turned_over,
)
from raylearn.data.rotation import attribute_fault, polygon_fault, rotation_fault
from raylearn.errors import nearest

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class _Object:
    line: int
    name: str
    class_name: str = ""
    box: np.ndarray | None = None
    fault: str = ""
    turned: bool = False


@dataclass(frozen=True)
class _Annotation:
    """What one xml file says; `error` when it cannot be read."""

    objects: tuple[_Object, ...] = ()
    size: tuple[int, int] | None = None
    error: ProblemError | None = None


def read_voc(path: Path, pool: Sequence[str] | None, test: Sequence[str] | None, root: Path | None) -> Source:
    """Reads lists and annotations of a data set; see `formats.read_dataset`.

    Raises:
        ProblemError: a folder or a list is missing.
    """
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        if not os.path.isdir(path / name):
            raise ProblemError(
                path, f"a VOC data set needs the folders JPEGImages, Annotations and ImageSets/Main: no {name}"
            )
    folder = Folder(path, root)
    source = Source(name=folder.path.name)
    images = _images_by_stem(folder, source.problems)
    annotations: list[tuple[Literal["pool", "test"], Path, Path, _Annotation | None]] = []
    of_cvat = _is_of_cvat(folder)
    if of_cvat:
        source.notes.append(f"{folder.path / LABELMAP}: CVAT's, so corners are taken to begin at 0, and not shifted")
    splits: tuple[tuple[Literal["pool", "test"], Sequence[str]], ...] = (
        ("pool", _default_splits(folder)[0] if pool is None else pool),
        ("test", _default_splits(folder)[1] if test is None else test),
    )
    for split, names in splits:
        listed: dict[str, Path] = {}
        for name in names:
            listed.update(_listed(folder, name, images, source.problems))
        for stem, image in listed.items():
            xml_file = folder.path / "Annotations" / f"{stem}.xml"
            annotations.append((split, image, xml_file, _read_annotation(xml_file, folder, of_cvat)))
    source.class_names = _class_names(folder, [annotation for *_, annotation in annotations if annotation])
    class_ids = {name: i for i, name in enumerate(source.class_names)}
    for split, image, xml_file, annotation in annotations:
        rows = partial(_rows, annotation, class_ids) if annotation else None
        size = annotation.size if annotation else None
        source.frames.append(Frame(split, folder.image_id(image), image, xml_file, rows, size))
    _refuse_other_lists(folder, source)
    return source


def _default_splits(folder: Folder) -> tuple[list[str], list[str]]:
    exists = {name: os.path.isfile(_list_file(folder, name)) for name in ("trainval", "test")}
    if not exists["test"]:
        return ["train"], ["val"]  # not trainval, which contains val
    return ["trainval" if exists["trainval"] else "train"], ["test"]


def _list_file(folder: Folder, name: str) -> Path:
    return folder.path / "ImageSets" / "Main" / f"{name}.txt"


def _images_by_stem(folder: Folder, problems: list[Problem]) -> dict[str, list[Path]]:
    """Images by their path below JPEGImages without the ending: CVAT keeps a task's folders."""

    def tell(error: OSError) -> None:
        problems.append(Problem(str(error.filename), 0, f"folder cannot be read: {error.strerror}"))

    images: dict[str, list[Path]] = defaultdict(list)
    top = folder.path / "JPEGImages"
    for place, _, names in os.walk(top, onerror=tell):
        for name in sorted(names):
            path = Path(place, name)
            if path.suffix.lower() in IMAGE_SUFFIXES:
                images[path.relative_to(top).with_suffix("").as_posix()].append(path)
    return images


def _listed(
    folder: Folder, name: str, images: Mapping[str, Sequence[Path]], problems: list[Problem]
) -> dict[str, Path]:
    file = _list_file(folder, name)
    if "/" in name or not os.path.isfile(file):
        known = [path.stem for path in (folder.path / "ImageSets" / "Main").glob("*.txt")]
        raise ProblemError(folder.path, f"has no split {quoted(name)}: {nearest(name, known or ['none'])}")
    if not folder.holds(file):
        raise ProblemError(file, folder.outside())
    listed: dict[str, Path] = {}
    for number, line in enumerate(read_text(file).split("\n"), 1):
        text = line.rstrip("\r")
        if not text.strip():
            continue
        stem = _stem(text, images)
        choices = images.get(stem, [])
        if not choices:
            fault = f"no such image in JPEGImages: looked in {folder.path / 'JPEGImages'}"
        elif len(choices) > 1:
            names = " and ".join(quoted(choice.name) for choice in choices)
            fault = f"names {names}, which would share one xml file: rename one"
        else:
            fault = folder.image_fault(choices[0])
        if fault:
            problems.append(Problem(str(file), number, f"{quoted(stem)}: {fault}"))
        else:
            listed[stem] = choices[0]
    return listed


def _stem(text: str, images: Mapping[str, Sequence[Path]]) -> str:
    """The name of an image in a list, which may have an ending, a path to JPEGImages and a second column.

    The list of one class, such as dog_train.txt of VOC 2007, has -1, 0 or 1 in that column; others the xml file.
    CVAT puts a name with a space in quotes.
    """
    if text in images:
        return text
    if quotes := re.match(r'"([^"]+)"', text):
        text = quotes[1] + text[quotes.end() :]
    column = re.fullmatch(r"(.*?\S)\s+(-1|0|1|\S*Annotations[/\\]\S.*\.xml)\s*", text)
    names = [text.strip(), *([column[1]] if column else [])]
    for name in names:
        *folders, last = slashed(name).split("/")
        if ".." in folders:
            continue
        below = folders[folders.index("JPEGImages") + 1 :] if "JPEGImages" in folders else folders
        path = "/".join([*(part for part in below if part != "."), last])
        stem, suffix = os.path.splitext(path)
        if path in images:
            return path
        if any(choice.suffix.lower() == suffix.lower() for choice in images.get(stem, ())):
            return stem
    return names[-1]


def _read_annotation(file: Path, folder: Folder, of_cvat: bool) -> _Annotation | None:
    fault = label_file_fault(file, folder)
    if fault:
        return _Annotation(error=ProblemError(file, fault))
    if not os.path.exists(file):
        return None
    try:
        return _parse(file, of_cvat)
    except ProblemError as error:
        return _Annotation(error=error)


def _parse(file: Path, of_cvat: bool) -> _Annotation:
    from xml.etree.ElementTree import Element, ParseError

    from defusedxml import DefusedXmlException  # type: ignore[import-untyped]
    from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]
    from supervision.dataset.formats.pascal_voc import detections_from_xml_obj  # 1 s of imports

    try:
        data = file.read_bytes()
        root = fromstring(data, forbid_dtd=True)
    except OSError as error:
        raise ProblemError(file, f"cannot be read: {error.strerror}") from error
    except DefusedXmlException as error:
        raise ProblemError(file, "declares a document type or an entity, which no VOC file needs: remove it") from error
    except (ParseError, ValueError, LookupError) as error:
        line = error.position[0] if isinstance(error, ParseError) else 0
        raise ProblemError(file, f"not valid XML: {quoted(str(error))}", line) from error
    if root.tag != "annotation":
        raise ProblemError(file, f"its root is <{root.tag[:80]}>, not <annotation>".replace("\n", " "))
    elements = root.findall("object")
    lines = _lines(data, len(elements))
    objects, good = [], Element("annotation")
    for i, element in enumerate(elements):
        class_name = (element.findtext("name") or "").strip()
        fault = _fault(element, class_name)
        turned = not fault and _turn_over(element)
        objects.append(_Object(lines[i], f"object {i + 1} {quoted(class_name)}", class_name, None, fault, turned))
        if not fault:
            for polygon in element.findall("polygon"):
                element.remove(polygon)  # or supervision paints a mask for each
            good.append(element)
    xyxy = np.asarray(detections_from_xml_obj(good, [], (1, 1))[0].xyxy).reshape(-1, 4)  # takes 1 off xmin and ymin
    boxes = iter(xyxy + np.array((1, 1, 0, 0)) if of_cvat else xyxy)
    return _Annotation(
        tuple(found if found.fault else replace(found, box=next(boxes)) for found in objects), _stated_size(root)
    )


def _lines(data: bytes, num_objects: int) -> list[int]:
    """The line each object begins in; zeros where counting tags in the text does not find the same objects."""
    starts = [match.start() for match in re.finditer(rb"<object[\s>/]", data)]
    if len(starts) != num_objects:
        return [0] * num_objects
    lines, line, end = [], 1, 0
    for start in starts:
        line += data.count(b"\n", end, start)
        end = start
        lines.append(line)
    return lines


def _fault(element: Any, class_name: str) -> str:
    if not class_name:
        return "has no name"
    if fault := _rotation_fault(element):
        return fault
    corners = []
    for tag in _CORNERS:
        text = element.findtext(f"bndbox/{tag}")
        if not text:
            return f"has no {tag}"
        try:
            corner = float(text.replace("_", "?"))  # Python reads 1_0 as 10
        except ValueError:
            return f"{tag} is {quoted(text)}, not a number"
        if fault := number_fault(tag, corner):
            return fault
        corners.append(corner)
    xmin, ymin, xmax, ymax = corners
    # Corners are inclusive: one pixel the wrong way round is a box of no pixels, and not one that was flipped.
    if -1 <= xmax - xmin <= 0 or -1 <= ymax - ymin <= 0:
        return f"box of zero area: xmin {xmin:g}, ymin {ymin:g}, xmax {xmax:g}, ymax {ymax:g}"
    left, top = min(xmin, xmax), min(ymin, ymax)
    return polygon_fault([_polygon(element)], (left, top, abs(xmax - xmin), abs(ymax - ymin)))


def _rotation_fault(element: Any) -> str:
    """Of the forms of roLabelImg and of CVAT, whose attributes are a list of names and values."""
    if element.find("robndbox") is not None:
        return "has a robndbox, which is a rotated box: draw it upright, as a bndbox"
    attributes = {one.findtext("name"): one.findtext("value") for one in element.findall("attributes/attribute")}
    stated = (element.findtext(f"{place}{tag}") for place in ("", "bndbox/") for tag in ("rotation", "angle"))
    return next(filter(None, map(rotation_fault, stated)), "") or attribute_fault(attributes)


def _polygon(element: Any) -> list[float]:
    """x1, y1, x2, ... of an object's polygon; of one that is none, nothing."""
    polygon = element.find("polygon")
    numbers: list[float] = []
    try:
        while polygon is not None and (x := polygon.findtext(f"x{len(numbers) // 2 + 1}")):
            numbers += [float(x), float(polygon.findtext(f"y{len(numbers) // 2 + 1}") or "")]
    except ValueError:
        return []
    return numbers


def _turn_over(element: Any) -> bool:
    """Puts exchanged corners in order, and says whether they were."""
    found = [element.find(f"bndbox/{tag}") for tag in _CORNERS]
    corners, turned = turned_over([float(corner.text) for corner in found])
    for corner, value in zip(found, corners, strict=True):
        corner.text = repr(value) if turned else corner.text
    return turned


def _stated_size(root: Any) -> tuple[int, int] | None:
    texts = [(root.findtext(f"size/{side}") or "").strip() for side in ("width", "height")]
    if not all(re.fullmatch(r"[0-9]{1,9}", text) for text in texts):
        return None
    width, height = map(int, texts)
    return (width, height) if width and height else None


def _class_names(folder: Folder, annotations: Sequence[_Annotation]) -> tuple[str, ...]:
    used = {found.class_name for annotation in annotations for found in annotation.objects} - {""}
    file = _class_file(folder)
    if file is None:
        return tuple(sorted(used))
    if not folder.holds(file):
        raise ProblemError(file, folder.outside())
    if file.name != LABELMAP:
        return lines_of(file, numbered=False)
    names = names_in_labelmap(file)
    # CVAT puts it there, whether or not it is one of the classes
    return names[1:] if names[0] == "background" and "background" not in used else names


def _class_file(folder: Folder) -> Path | None:
    choices = (folder.path / "labels.txt", folder.path / "classes.txt")
    found = next((file for file in choices if os.path.isfile(file)), None)
    return found or (folder.path / LABELMAP if _is_of_cvat(folder) else None)


def _is_of_cvat(folder: Folder) -> bool:
    file = folder.path / LABELMAP
    return os.path.isfile(file) and folder.holds(file) and bool(names_in_labelmap(file))


def _refuse_other_lists(folder: Folder, source: Source) -> None:
    file = _class_file(folder)
    own = None if file is None else ClassList(file, source.class_names)
    lists = folder.path / "ImageSets"
    files = [file for file in files_beside(folder, source.frames) if not file.is_relative_to(lists)]
    refuse_contradicting_files(own, files, numbered=False)


def _rows(annotation: _Annotation, class_ids: Mapping[str, int], _width: int, _height: int) -> Iterator[Row]:
    if annotation.error:
        raise annotation.error
    for found in annotation.objects:
        fault = found.fault
        if not fault and found.class_name not in class_ids:
            fault = nearest(found.class_name, class_ids)
            fault = f"its class is not in the list of classes: {fault}"
        yield Row(found.line, found.name, class_ids.get(found.class_name, 0), found.box, fault, found.turned)
