"""Label Studio: tasks with predictions out, its JSON export back (labelstud.io/guide/tasks, /guide/export)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from raylearn.data.rotation import rotation_fault
from raylearn.data.storage import scheme_of
from raylearn.errors import LabelsError
from raylearn.handoff.class_lists import LABEL_CONFIG, class_lists_below
from raylearn.handoff.exchange import (
    RECORD_FILE,
    Box,
    Findings,
    PreAnnotation,
    Returned,
    SentImage,
    number,
    only_file,
    read_json,
    refuse_another,
    size_fault,
)

TASKS_FILE = "tasks.json"
CONFIG_FILE = LABEL_CONFIG
EXPORT_FILE = "export.json"
_NAMES = {"from_name": "label", "to_name": "image", "type": "rectanglelabels"}


def write(
    images: Sequence[SentImage], predictions: Mapping[str, PreAnnotation], class_names: Sequence[str], folder: Path
) -> None:
    """Writes tasks.json and label_config.xml.

    Label Studio's ordering by prediction score begins with the lowest, so a task's score is its rank over their number.
    Local images are addressed for its local file storage, with the export's folder as document root for copies, else /.
    """
    tasks = [
        {
            "data": {
                "image": _address(image.address),
                "name": image.name,
                "image_id": image.image_id,
                "rank": image.rank,
                "image_score": image.score,
            },
            "predictions": [
                {
                    "model_version": "raylearn",
                    "score": image.rank / len(images),
                    "result": list(_regions(image, predictions[image.image_id], class_names)),
                }
            ],
        }
        for image in images
    ]
    (folder / TASKS_FILE).write_text(json.dumps(tasks, indent=1), encoding="utf-8")
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in class_names)
    (folder / CONFIG_FILE).write_text(
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <RectangleLabels name="label" toName="image">\n{labels}  </RectangleLabels>\n</View>\n',
        encoding="utf-8",
    )


def _address(address: str) -> str:
    return address if scheme_of(address) else f"/data/local-files/?d={quote(address.lstrip('/'))}"


def _regions(image: SentImage, seen: PreAnnotation, class_names: Sequence[str]) -> Any:
    assert seen.confidences is not None
    for index, ((x1, y1, x2, y2), class_id, confidence) in enumerate(
        zip(seen.boxes.astype(float).tolist(), seen.class_ids, seen.confidences, strict=True)
    ):
        yield {
            "id": f"r{index}",
            **_NAMES,
            "original_width": image.width,
            "original_height": image.height,
            "image_rotation": 0,
            "score": float(confidence),
            "value": {
                "x": 100 * x1 / image.width,
                "y": 100 * y1 / image.height,
                "width": 100 * (x2 - x1) / image.width,
                "height": 100 * (y2 - y1) / image.height,
                "rotation": 0,
                "rectanglelabels": [class_names[class_id]],
            },
        }


def read(path: Path, images: Mapping[str, SentImage], found: Findings) -> Returned:
    """Boxes from its JSON export: of each task the one annotation that was submitted.

    A task with several annotations, and a region that is no upright rectangle of one label, go to the findings; so do
    drafts and skipped tasks, which say nothing of what an image shows.

    Raises:
        LabelsError: another form, or a labelling configuration beside it that names a class twice.
    """
    if path.is_dir():
        class_lists_below(path)
    path = only_file(path, EXPORT_FILE, (TASKS_FILE, RECORD_FILE))
    tasks = read_json(path, "give the file that Label Studio exported as JSON")
    if not isinstance(tasks, list):
        raise LabelsError(f"{path} is no list of tasks: export as JSON, not JSON-MIN or another form")
    boxes: dict[str, list[Box]] = {}
    for position, task in enumerate(tasks):
        if isinstance(task, dict) and "data" not in task and "image" in task:
            raise LabelsError(f"{path} is of the form JSON-MIN, which says too little: export as JSON")
        try:
            name = str(task["data"]["name"])
            submitted = [one for one in task["annotations"] if not one.get("was_cancelled")]
            drafts = list(task.get("drafts") or ())
        except (TypeError, KeyError, AttributeError) as error:
            advice = ": is it of another project?" if error.args == ("name",) else ""
            what = f"is not of Label Studio's JSON export: no {error}{advice}"
            raise LabelsError(f"{path}: task {position} {what}") from error
        where = f"{path}: {name}"
        with found.listing("another hand-off"):
            refuse_another(images.get(name), task["data"].get("image_id"), where)
        if len(submitted) > 1 or (submitted and name in boxes):
            found.add("several annotations", f"{where} has several annotations: keep one of them")
            boxes.setdefault(name, [])
        elif submitted:
            results = submitted[0].get("result")
            if not isinstance(results, list):
                found.add("no box", f"{where}: its annotation has no list of results")
                results = []
            boxes[name] = list(_boxes(results, images.get(name), where, found))
            if drafts:
                found.notes.append(
                    f"{where} has a draft beside its annotation, which was not submitted and is left out"
                )
        elif drafts:
            found.unfinished[name] = "it has a draft that was not submitted: submit it"
        elif task["annotations"]:
            found.unfinished[name] = "it was skipped: label and submit it"
    return boxes


def _boxes(results: Sequence[Any], image: SentImage | None, where: str, found: Findings) -> Iterator[Box]:
    for region in results:
        value = region.get("value") if isinstance(region, dict) else None
        fault = ""
        if isinstance(value, dict):
            fault = rotation_fault(value.get("rotation")) or rotation_fault(region.get("image_rotation"))
        if fault:
            found.add("rotated", f"{where} has a rotated rectangle, which {fault}")
            continue
        with found.listing("no box"):
            yield _box(region, image, where)


def _box(region: Any, image: SentImage | None, where: str) -> Box:
    value = region.get("value") if isinstance(region, dict) else None
    names = value.get("rectanglelabels") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(names, list) or len(names) != 1:
        raise LabelsError(f"{where} has a region that is no rectangle of one label: {region!r:.80}")
    width, height = (image.width, image.height) if image else (1, 1)
    if fault := size_fault(image, region.get("original_width"), region.get("original_height")):
        raise LabelsError(f"{where} {fault}")
    x, y, w, h = (number(value.get(key), f"{where}: {key}") for key in ("x", "y", "width", "height"))
    corners = (x * width / 100, y * height / 100, (x + w) * width / 100, (y + h) * height / 100)
    return Box(str(names[0]), corners, where)
