"""Tasks as annotation tools hold them, and what each tool exports of one; not by raylearn's own writers."""

import csv
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

from raylearn.handoff.exchange import Record, SentImage

CLASSES = ("crab", "eel", "blue star", "No")


@dataclass
class Drawn:
    """A box as a tool holds it: corners in the order in which it was drawn."""

    class_name: str
    corners: tuple[float, float, float, float]
    rotation: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Shown:
    """An image as a tool holds it."""

    name: str
    image_id: str
    width: int
    height: int
    boxes: list[Drawn]
    state: str = "submitted"


@dataclass
class Task:
    images: list[Shown]
    classes: list[str]


def label_studio(task: Task, folder: Path) -> Path:
    tasks = []
    for image in task.images:
        result = [
            {
                "type": "rectanglelabels",
                "original_width": image.width,
                "original_height": image.height,
                "image_rotation": box.rotation if index % 2 else 0,
                "value": {
                    "x": 100 * box.corners[0] / image.width,
                    "y": 100 * box.corners[1] / image.height,
                    "width": 100 * (box.corners[2] - box.corners[0]) / image.width,
                    "height": 100 * (box.corners[3] - box.corners[1]) / image.height,
                    "rotation": 0 if index % 2 else box.rotation,
                    "rectanglelabels": [box.class_name],
                },
            }
            for index, box in enumerate(image.boxes)
        ]
        given = {"submitted": [{"result": result}], "skipped": [{"result": result, "was_cancelled": True}]}
        tasks.append(
            {
                "data": {"name": image.name, "image_id": image.image_id},
                "annotations": given.get(image.state, []),
                "drafts": [{"result": result}] if image.state == "draft" else [],
            }
        )
    (folder / "export.json").write_text(json.dumps(tasks))
    return folder / "export.json"


def cvat(task: Task, folder: Path) -> Path:
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    for number, image in enumerate(task.images):
        size = {"width": str(image.width), "height": str(image.height)}
        element = ElementTree.SubElement(root, "image", {"id": str(number), "name": image.name, **size})
        for box in image.boxes:
            corners = dict(zip(("xtl", "ytl", "xbr", "ybr"), (f"{c:.2f}" for c in box.corners), strict=True))
            rotation = {"rotation": f"{box.rotation:.2f}"} if box.rotation else {}
            ElementTree.SubElement(element, "box", {"label": box.class_name, **corners, **rotation})
    ElementTree.ElementTree(root).write(folder / "export.xml")
    return folder / "export.xml"


def coco(task: Task, folder: Path) -> Path:
    ids = {name: number for number, name in enumerate(task.classes, start=1)}
    ids |= {box.class_name: 99 for image in task.images for box in image.boxes if box.class_name not in ids}
    annotations = [
        {
            "image_id": number,
            "category_id": ids[box.class_name],
            "bbox": [box.corners[0], box.corners[1], box.corners[2] - box.corners[0], box.corners[3] - box.corners[1]],
            "attributes": {"occluded": False, "rotation": box.rotation},
            **box.extra,
        }
        for number, image in enumerate(task.images, start=7)
        for box in image.boxes
    ]
    content = {
        "images": [
            {"id": number, "file_name": image.name, "width": image.width, "height": image.height}
            for number, image in enumerate(task.images, start=7)
        ],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
        "annotations": annotations,
    }
    (folder / "export.json").write_text(json.dumps(content))
    return folder / "export.json"


def yolo(task: Task, folder: Path) -> Path:
    others = {box.class_name for image in task.images for box in image.boxes} - set(task.classes)
    names = [*task.classes, *sorted(others)]
    (folder / "data.yaml").write_text(yaml.safe_dump({"names": names}))
    (folder / "labels").mkdir()
    for image in task.images:
        rows = []
        for box in image.boxes:
            x1, y1, x2, y2 = box.corners
            centre = (x1 + x2) / 2 / image.width, (y1 + y2) / 2 / image.height
            size = (x2 - x1) / image.width, (y2 - y1) / image.height
            rows.append(f"{names.index(box.class_name)} " + " ".join(f"{value:.9f}" for value in (*centre, *size)))
        (folder / "labels" / f"{Path(image.name).stem}.txt").write_text("\n".join(rows))
    return folder


def csv_boxes(task: Task, folder: Path) -> Path:
    with (folder / "boxes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "image_id", "class", "x1", "y1", "x2", "y2", "rotation"])
        for image in task.images:
            for box in image.boxes:
                writer.writerow([image.name, image.image_id, box.class_name, *box.corners, box.rotation])
            if not image.boxes:
                writer.writerow([image.name, image.image_id, "", "", "", "", "", ""])
    return folder / "boxes.csv"


EXPORTERS = {"label-studio": label_studio, "cvat": cvat, "coco": coco, "yolo": yolo, "csv": csv_boxes}


def handed_out(images: list[Shown], folder: Path) -> Record:
    """The record of a hand-out of these images; their bytes are one file's."""
    address, content = folder / "image", b"bytes"
    address.write_bytes(content)
    return Record(
        CLASSES,
        tuple(
            SentImage(
                rank,
                0.0,
                i.image_id,
                str(address),
                i.name,
                i.name,
                i.width,
                i.height,
                hashlib.sha256(content).hexdigest(),
            )
            for rank, i in enumerate(images, start=1)
        ),
    )
