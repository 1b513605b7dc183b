"""CVAT: the form "CVAT for images 1.1" out and back (docs.cvat.ai, XML annotation format)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from raylearn.errors import LabelsError
from raylearn.handoff.exchange import Box, PreAnnotation, Returned, SentImage, number

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


def read(path: Path, images: Mapping[str, SentImage]) -> Returned:
    """Boxes from its XML; an image without any is one that shows nothing, as CVAT lists all images of a task.

    Raises:
        LabelsError: no such XML; a shape that is no upright box.
    """
    from defusedxml import DefusedXmlException  # type: ignore[import-untyped]
    from defusedxml.ElementTree import parse  # type: ignore[import-untyped]

    if path.is_dir():
        path = path / ANNOTATIONS_FILE
    try:
        root = parse(path).getroot()
    except OSError as error:
        raise LabelsError(f"{path} cannot be read ({error.strerror}): give the XML that CVAT exported") from error
    except (ElementTree.ParseError, DefusedXmlException, ValueError) as error:
        raise LabelsError(f"{path} is no XML of CVAT's: {error}") from error
    found: dict[str, list[Box]] = {}
    for element in root.iter("image"):
        name = element.get("name", "")
        where = f"{path}: {name}"
        if name in found:
            raise LabelsError(f"{where} stands twice: keep one of them")
        image = images.get(name)
        size = {"width": image.width, "height": image.height} if image else {}
        for key, wanted in size.items():
            if element.get(key, str(wanted)) != str(wanted):
                raise LabelsError(f"{where} was labelled at another size, {key} {element.get(key)} and not {wanted}")
        other = next((child.tag for child in element if child.tag in _SHAPES), None)
        if other:
            raise LabelsError(f"{where} has a {other}, which is no box")
        found[name] = [_box(box, where) for box in element.iter("box")]
    if root.tag != "annotations" or not (found or root.find("version") is not None):
        raise LabelsError(f'{path} is no XML of CVAT\'s: export as "CVAT for images 1.1"')
    return found


def _box(element: ElementTree.Element, where: str) -> Box:
    if number(element.get("rotation", "0"), f"{where}: rotation"):
        raise LabelsError(f"{where} has a rotated box: set its rotation to 0")
    x1, y1, x2, y2 = (number(element.get(key), f"{where}: {key}") for key in _CORNERS)
    return Box(element.get("label", ""), (x1, y1, x2, y2), where)
