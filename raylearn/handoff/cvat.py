"""CVAT: the form "CVAT for images 1.1" out and back (docs.cvat.ai, XML annotation format)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from raylearn.data.class_lists import ClassList
from raylearn.data.rotation import rotation_fault
from raylearn.errors import LabelsError
from raylearn.handoff.class_lists import LABEL_CONFIG, class_lists_below, refuse_repeated_names
from raylearn.handoff.exchange import Box, Findings, PreAnnotation, Returned, SentImage, number, only_file, size_fault

ANNOTATIONS_FILE = "annotations.xml"
_SHAPES = ("polygon", "polyline", "points", "cuboid", "mask", "ellipse", "skeleton")
_CORNERS = ("xtl", "ytl", "xbr", "ybr")


def write(
    images: Sequence[SentImage], predictions: Mapping[str, PreAnnotation], class_names: Sequence[str], folder: Path
) -> None:
    """Writes annotations.xml, to be uploaded to a task made of the images; two decimals, as CVAT itself writes.

    CVAT shows a task's images by name, so names begin with the rank.
    """
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels")
    for class_name in class_names:
        ElementTree.SubElement(ElementTree.SubElement(labels, "label"), "name").text = class_name
    for position, image in enumerate(images):
        size = {"width": str(image.width), "height": str(image.height)}
        element = ElementTree.SubElement(root, "image", {"id": str(position), "name": image.name, **size})
        seen = predictions[image.image_id]
        for corners, class_id in zip(seen.boxes.astype(float), seen.class_ids, strict=True):
            given = {"label": class_names[class_id], "source": "auto", "occluded": "0"}
            given |= {key: f"{corner:.2f}" for key, corner in zip(_CORNERS, corners, strict=True)}
            ElementTree.SubElement(element, "box", {**given, "z_order": "0"})
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(folder / ANNOTATIONS_FILE, encoding="utf-8", xml_declaration=True)


def read(path: Path, images: Mapping[str, SentImage], found: Findings) -> Returned:
    """Boxes from its XML; an image without any is one that shows nothing, as CVAT lists all images of a task.

    A shape that is no upright box goes to the findings, and so does an image that was labelled at another size.

    Raises:
        LabelsError: no such XML, or the one for videos; a label that is there twice.
    """
    from defusedxml import DefusedXmlException  # type: ignore[import-untyped]
    from defusedxml.ElementTree import parse  # type: ignore[import-untyped]

    given, path = path, only_file(path, ANNOTATIONS_FILE, (LABEL_CONFIG,))
    try:
        root = parse(path).getroot()
    except OSError as error:
        raise LabelsError(f"{path} cannot be read ({error.strerror}): give the XML that CVAT exported") from error
    except DefusedXmlException as error:
        raise LabelsError(f"{path} declares an entity, which CVAT never does: export it again") from error
    except (ElementTree.ParseError, ValueError) as error:
        raise LabelsError(f"{path} is no XML of CVAT's: {error}") from error
    num_tracks = sum(1 for _ in root.iter("track"))
    if num_tracks:
        # Not read frame by frame: tracks name no image, and which frame was which image a task's order alone knows.
        raise LabelsError(
            f'{path} has tracks ({num_tracks}), which name frames and not images: export the same task as "CVAT for '
            'images 1.1"'
        )
    _refuse_labels(root, path, given)
    by_name: dict[str, list[Box]] = {}
    for element in root.iter("image"):
        name = element.get("name", "")
        where = f"{path}: {name}"
        if name in by_name:
            found.add("twice", f"{where} stands twice: keep one of them")
        if fault := size_fault(images.get(name), element.get("width"), element.get("height")):
            found.add("size", f"{where} {fault}")
        for child in element:
            if child.tag in _SHAPES:
                found.add("no box", f"{where} has a {child.tag}, which is no box")
        boxes = by_name.setdefault(name, [])
        for box in element.iter("box"):
            if fault := rotation_fault(box.get("rotation")):
                found.add("rotated", f"{where} has a rotated box, which {fault}")
                continue
            with found.listing("no box"):
                boxes.append(_box(box, where))
    if root.tag != "annotations" or not (by_name or root.find("version") is not None):
        raise LabelsError(f'{path} is no XML of CVAT\'s: export as "CVAT for images 1.1"')
    return by_name


def _refuse_labels(root: ElementTree.Element, path: Path, given: Path) -> None:
    """Raises LabelsError where two labels have one name, or other lists of the same folder contradict them."""
    lists = [
        tuple(label.findtext("name", "") for label in labels.iterfind("label") if label.find("parent") is None)
        for labels in root.iter("labels")
    ]
    for names in lists:
        refuse_repeated_names(path, names)
    if given.is_dir():
        class_lists_below(given, ClassList(path, lists[0]) if lists and lists[0] else None)


def _box(element: ElementTree.Element, where: str) -> Box:
    x1, y1, x2, y2 = (number(element.get(key), f"{where}: {key}") for key in _CORNERS)
    return Box(element.get("label", ""), (x1, y1, x2, y2), where)
