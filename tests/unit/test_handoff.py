"""Out to annotation tools and back: nothing is lost on the way, and nothing wrong comes in."""

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylearn.data.dataset import GroundTruth
from raylearn.data.formats import read_dataset
from raylearn.data.storage import Folder
from raylearn.detectors.base import Detections
from raylearn.errors import LabelsError, QueryError
from raylearn.handoff.exchange import Record, Tool
from raylearn.handoff.export import export_query
from raylearn.handoff.labels import import_labels, write_labels
from raylearn.learning.collectors import QueriedImage
from raylearn.learning.ledger_query import detections_of
from raylearn.scoring.ledger import add_part, rows, write_facts
from tests.unit.test_cli import call, refused

TOOLS = get_args(Tool)
PRECISION = {"label-studio": 0.0, "cvat": 0.00501, "coco": 0.0, "yolo": 1e-5, "csv": 0.0}  # pixels
CLASSES = ("crab", "=SUM(A1)", 'eel "long", <b>')
IDS = ("a.jpg", "b/a.jpg", "with space, comma.jpg", "ünï\ncode.jpg", "-dash=.png")
SIZE = (96, 64)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    for number, image_id in enumerate(IDS):
        path = tmp_path / "pool" / image_id
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", SIZE, (number, 9, 9)).save(path)
    return tmp_path / "pool"


def seen_in(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4) and class scores (n, 3) of an image; the third image has none."""
    rng = np.random.default_rng(number)
    count = 0 if number == 2 else number + 2
    corners = np.sort(rng.random((count, 2, 2)), axis=1) * SIZE
    scores = np.full((count, 3), 0.01, np.float32)
    scores[np.arange(count), np.arange(count) % 3] = 0.3 + 0.6 * rng.random(count)
    return corners.reshape(-1, 4).astype(np.float32), scores


@pytest.fixture
def ledger(pool: Path, tmp_path: Path) -> Folder:
    folder = Folder.at(tmp_path / "ledger")
    columns: dict[str, Any] = {
        "image_id": list(IDS),
        "uri": [str(pool / image_id) for image_id in IDS],
        "width": [SIZE[0]] * len(IDS),
        "height": [SIZE[1]] * len(IDS),
        "status": ["ok"] * len(IDS),
        "error_kind": [""] * len(IDS),
        "error": [""] * len(IDS),
    }
    found = [Detections(*seen_in(number)) for number in range(len(IDS))]
    add_part(folder, 0, "hand-made", rows(columns, found, 3))
    write_facts(folder, {"num_parts": 1, "num_images": len(IDS), "class_names": list(CLASSES)})
    return folder


@pytest.fixture
def query(pool: Path) -> list[QueriedImage]:
    """All images, the last first."""
    return [
        QueriedImage(rank, image_id, str(pool / image_id), 1 / rank, 0, {})
        for rank, image_id in enumerate(reversed(IDS), start=1)
    ]


def export(ledger: Folder, query: list[QueriedImage], tool: Tool, folder: Path, **how: Any) -> Path:
    return export_query(query, detections_of(ledger, list(IDS)), CLASSES, tool, folder, **how)


@pytest.fixture(params=TOOLS)
def tool(request: pytest.FixtureRequest) -> Tool:
    name: Tool = request.param
    return name


@pytest.fixture
def handout(ledger: Folder, query: list[QueriedImage], tool: Tool, tmp_path: Path) -> Path:
    return export(ledger, query, tool, tmp_path / "handout")


def exported_by(tool: str, handout: Path) -> Path:
    """What the tool would export if a person had accepted everything: in its documented form."""
    if tool == "label-studio":
        tasks = json.loads((handout / "tasks.json").read_text())
        for number, task in enumerate(tasks, start=1):
            (prediction,) = task.pop("predictions")
            regions = [{k: v for k, v in region.items() if k != "score"} for region in prediction["result"]]
            submitted = {"id": number, "completed_by": 1, "was_cancelled": False, "ground_truth": False}
            task |= {"id": number, "annotations": [{**submitted, "result": regions}], "predictions": [], "drafts": []}
        (handout / "export.json").write_text(json.dumps(tasks))
        return handout / "export.json"
    return {
        "cvat": handout / "annotations.xml",
        "coco": handout / "annotations/instances_default.json",
        "yolo": handout,
        "csv": handout / "boxes.csv",
    }[tool]


def truth_of(image_id: str) -> GroundTruth:
    boxes, scores = seen_in(IDS.index(image_id))
    return GroundTruth(boxes, scores.argmax(axis=1))


# There and back


def test_what_comes_back_unchanged_is_what_went_out(tool: Tool, handout: Path) -> None:
    found = import_labels(exported_by(tool, handout), tool, Record.read(handout))
    assert list(found.truth) == list(reversed(IDS))
    assert not found.missing
    assert not found.repeated
    for image_id, truth in found.truth.items():
        assert truth.class_ids.tolist() == truth_of(image_id).class_ids.tolist()
        assert np.abs(truth.boxes - truth_of(image_id).boxes).max(initial=0) <= PRECISION[tool]


@pytest.mark.parametrize("tool", ["label-studio", "csv"])
def test_labels_of_another_hand_off_are_not_taken_for_this_ones_by_a_name(tool, ledger, query, tmp_path):
    path = exported_by(tool, export(ledger, query, tool, tmp_path / "first"))
    others = [replace(image, image_id=f"other/{image.image_id}") for image in query]
    found = detections_of(ledger, list(IDS))
    later = {image.image_id: found[image.image_id.removeprefix("other/")] for image in others}
    handout = export_query(others, later, CLASSES, tool, tmp_path / "second")
    with pytest.raises(LabelsError, match="of another hand-off"):
        import_labels(path, tool, Record.read(handout))


def test_a_local_path_is_an_address_that_label_studio_can_ask_for(ledger, query, tmp_path):
    folder = tmp_path / "a b#c&d"
    folder.mkdir()
    odd = folder / "1+2%3.png"
    shutil.copyfile(query[0].uri, odd)
    handout = export(ledger, [replace(query[0], uri=str(odd))], "label-studio", tmp_path / "handout", copies=False)
    (task,) = json.loads((handout / "tasks.json").read_text())
    address = urlsplit(task["data"]["image"])
    assert (address.path, address.fragment) == ("/data/local-files/", "")
    assert parse_qs(address.query) == {"d": [str(odd).lstrip("/")]}


def test_a_query_that_cannot_be_handed_out_writes_nothing(tmp_path, capsys, ledger):
    out = tmp_path / "q"
    command = ("query", str(ledger), "--out", str(out))
    assert call(*command, "--size", "1", "--format", "csv") == 0
    capsys.readouterr()
    before = (out / "query.csv").read_bytes()
    refused(capsys, *command, "--size", "2", "--format", "csv")
    refused(capsys, *command, "--size", "2", "--format", "cvat", "--images", "uri")
    assert (out / "query.csv").read_bytes() == before


def test_the_order_is_the_rank(tool: Tool, handout: Path) -> None:
    images = Record.read(handout).images
    assert [image.rank for image in images] == [1, 2, 3, 4, 5]
    if tool == "label-studio":  # which shows the lowest score first
        tasks = json.loads((handout / "tasks.json").read_text())
        by_score = sorted(tasks, key=lambda task: task["predictions"][0]["score"])
        assert [task["data"]["image_id"] for task in by_score] == list(reversed(IDS))
    elif (handout / "images").exists():
        listed = sorted(path.name for path in (handout / "images").iterdir())
        assert listed == [image.name for image in images]


def test_copies_have_the_bytes_and_names_that_any_tool_can_carry(
    ledger: Folder, query: list[QueriedImage], tool: Tool, tmp_path: Path
) -> None:
    folder = export(ledger, query, tool, tmp_path / "copies", copies=True)
    for image in Record.read(folder).images:
        assert re.fullmatch(r"[1-5]_[A-Za-z0-9._-]+\.(jpg|png)", image.name)
        assert (folder / image.address).read_bytes() == Path(image.uri).read_bytes()


@pytest.mark.parametrize("tool", ["cvat", "yolo"])
def test_tools_that_need_copies_say_so(ledger, query, tool, tmp_path):
    with pytest.raises(QueryError, match=f"^{tool} knows images by their files' names alone"):
        export(ledger, query, tool, tmp_path / "x", copies=False)


def test_detections_below_the_threshold_are_no_pre_annotations(ledger, query, tmp_path):
    folder = export(ledger, query, "coco", tmp_path / "x", confidence=0.6)
    scores = [
        a["score"] for a in json.loads((folder / "annotations/instances_default.json").read_text())["annotations"]
    ]
    wanted = np.concatenate([seen_in(number)[1].max(axis=1) for number in range(len(IDS))])
    assert sorted(scores) == sorted(wanted[wanted >= 0.6].astype(float).tolist())


def test_an_image_that_is_gone_leaves_no_half_export(ledger, query, tool, tmp_path, pool):
    (pool / IDS[0]).unlink()
    with pytest.raises(Exception, match=r"a\.jpg"):
        export(ledger, query, tool, tmp_path / "x")
    assert {path.name for path in tmp_path.iterdir()} == {"pool", "ledger"}


def test_labels_are_a_coco_data_set_of_image_ids(tool: Tool, handout: Path, pool: Path) -> None:
    record = Record.read(handout)
    found = import_labels(exported_by(tool, handout), tool, record)
    write_labels(found, record, pool / "labels.json")
    names = [{"id": k, "name": name} for k, name in enumerate(CLASSES, start=1)]
    PIL.Image.new("RGB", SIZE).save(pool / "test.png")
    held_out = {"images": [{"id": 1, "file_name": "test.png"}], "annotations": [], "categories": names}
    (pool / "test.json").write_text(json.dumps(held_out))
    dataset = read_dataset(pool, "coco", pool=["labels.json"], test=["test.json"])
    assert dataset.class_names == CLASSES
    assert {image.image_id for image in dataset.pool} == set(IDS)
    for image_id in IDS:
        assert np.abs(dataset.truth[image_id].boxes - found.truth[image_id].boxes).max(initial=0) < 1e-5
        assert dataset.truth[image_id].class_ids.tolist() == found.truth[image_id].class_ids.tolist()


# A person's edits: in the first image a box moved, one deleted, one added, one of another class

MOVED, ADDED = (1.25, 2.5, 30.75, 40.0), (8.0, 8.0, 24.0, 16.0)


def edit_label_studio(path: Path) -> None:
    tasks = json.loads(path.read_text())
    regions = tasks[0]["annotations"][0]["result"]
    width, height = SIZE

    def value(x1: float, y1: float, x2: float, y2: float) -> dict[str, Any]:
        return {
            "x": 100 * x1 / width,
            "y": 100 * y1 / height,
            "width": 100 * (x2 - x1) / width,
            "height": 100 * (y2 - y1) / height,
        }

    regions[0]["value"] |= value(*MOVED)
    del regions[1]
    regions[1]["value"]["rectanglelabels"] = [CLASSES[0]]
    regions.append({**regions[0], "id": "new", "value": {**value(*ADDED), "rotation": 0, "rectanglelabels": ["crab"]}})
    path.write_text(json.dumps(tasks))


def edit_cvat(path: Path) -> None:
    tree = ElementTree.parse(path)
    image = next(tree.getroot().iter("image"))
    boxes = list(image.iter("box"))
    corners = ("xtl", "ytl", "xbr", "ybr")
    boxes[0].attrib |= {key: f"{corner:.2f}" for key, corner in zip(corners, MOVED, strict=True)}
    boxes[2].set("label", CLASSES[0])
    image.remove(boxes[1])
    new = {key: f"{corner:.2f}" for key, corner in zip(corners, ADDED, strict=True)}
    ElementTree.SubElement(image, "box", {"label": "crab", "source": "manual", "occluded": "0", **new})
    tree.write(path)


def edit_coco(path: Path) -> None:
    content = json.loads(path.read_text())
    own = [annotation for annotation in content["annotations"] if annotation["image_id"] == 1]

    def xywh(x1: float, y1: float, x2: float, y2: float) -> list[float]:
        return [x1, y1, x2 - x1, y2 - y1]

    own[0]["bbox"] = xywh(*MOVED)
    own[2]["category_id"] = 1
    content["annotations"].remove(own[1])
    content["annotations"].append({"id": 999, "image_id": 1, "category_id": 1, "bbox": xywh(*ADDED), "iscrowd": 0})
    path.write_text(json.dumps(content))


def edit_yolo(path: Path) -> None:
    file = min((path / "labels").iterdir())
    lines = file.read_text().splitlines()

    def row(class_id: str, x1: float, y1: float, x2: float, y2: float) -> str:
        width, height = SIZE
        return f"{class_id} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} {(y2 - y1) / height}"

    edited = [row(lines[0][0], *MOVED), "0" + lines[2][1:], *lines[3:], row("0", *ADDED)]
    file.write_text("\n".join(edited) + "\n")


def edit_csv(path: Path) -> None:
    table = list(csv.DictReader(io.StringIO(path.read_text())))
    own = [row for row in table if row["rank"] == "1"]
    own[0] |= dict(zip(("x1", "y1", "x2", "y2"), map(str, MOVED), strict=True))
    own[2]["class"] = "crab"
    table.remove(own[1])
    table.append({**own[0], "class": "crab", **dict(zip(("x1", "y1", "x2", "y2"), map(str, ADDED), strict=True))})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


EDITS: dict[str, Callable[[Path], None]] = {
    "label-studio": edit_label_studio,
    "cvat": edit_cvat,
    "coco": edit_coco,
    "yolo": edit_yolo,
    "csv": edit_csv,
}


def test_a_persons_edits_come_back_exactly(tool: Tool, handout: Path) -> None:
    path = exported_by(tool, handout)
    EDITS[tool](path)
    found = import_labels(path, tool, Record.read(handout)).truth
    before, after = truth_of(IDS[-1]), found[IDS[-1]]
    assert after.class_ids.tolist() == [before.class_ids[0], 0, *before.class_ids[3:], 0]
    wanted = np.array([MOVED, *before.boxes[2:], ADDED])
    assert np.abs(after.boxes - wanted).max() <= max(PRECISION[tool], 1e-5)
    assert np.array_equal(after.boxes[[0, -1]], np.float32([MOVED, ADDED]))
    for image_id in IDS[:-1]:
        assert np.abs(found[image_id].boxes - truth_of(image_id).boxes).max(initial=0) <= PRECISION[tool]


# What is refused, and how

LISTED: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "an image that was not asked for": (
        "other.jpg was not asked for",
        lambda coco: coco["images"].append({"id": 9, "file_name": "other.jpg"}),
    ),
    "an image without labels": ("1_-dash_.png has no labels", lambda coco: _without_image(coco, 1)),
    "an unknown class": ("unknown class 'crap': did you mean 'crab'?", lambda coco: _rename(coco, "crab", "crap")),
    "a box of no area": ("has zero area", lambda coco: coco["annotations"][0].update(bbox=[4, 4, 0, 5])),
    "a box outside": ("pixels out of it", lambda coco: coco["annotations"][0].update(bbox=[90, 4, 10, 5])),
    "a number that is none": ("'x' is no number", lambda coco: coco["annotations"][0].update(bbox=["x", 4, 10, 5])),
    "a crowd": ("is a crowd region", lambda coco: coco["annotations"][0].update(iscrowd=1)),
    "an image that stands twice": (
        "lists an image twice",
        lambda coco: coco["images"].append(coco["images"][0] | {"id": 7}),
    ),
}


def _without_image(coco: dict[str, Any], image_id: int) -> None:
    coco["images"] = [image for image in coco["images"] if image["id"] != image_id]
    coco["annotations"] = [one for one in coco["annotations"] if one["image_id"] != image_id]


def _rename(coco: dict[str, Any], old: str, new: str) -> None:
    for category in coco["categories"]:
        category["name"] = new if category["name"] == old else category["name"]


@pytest.mark.parametrize("fault", LISTED)
def test_labels_that_cannot_be_taken_over_are_refused_with_the_reason(fault, ledger, query, tmp_path):
    handout = export(ledger, query, "coco", tmp_path / "handout")
    path = exported_by("coco", handout)
    content = json.loads(path.read_text())
    message, plant = LISTED[fault]
    plant(content)
    path.write_text(json.dumps(content))
    with pytest.raises(LabelsError, match=re.escape(message)):
        import_labels(path, "coco", Record.read(handout))


def test_an_image_that_changed_since_is_refused(tool: Tool, handout: Path, pool: Path) -> None:
    PIL.Image.new("RGB", SIZE, (200, 0, 0)).save(pool / "a.jpg")
    (pool / "b/a.jpg").unlink()
    with pytest.raises(LabelsError, match="nothing was imported") as caught:
        import_labels(exported_by(tool, handout), tool, Record.read(handout))
    assert len(caught.value.problems) == 2
    assert any(f"a.jpg: the image at {pool / 'a.jpg'} is not the one" in problem for problem in caught.value.problems)


@pytest.mark.parametrize(("missing", "labelled"), [("skip", 4), ("background", 5)])
def test_missing_labels_are_left_out_or_show_nothing_when_that_is_said(missing, labelled, ledger, query, tmp_path):
    handout = export(ledger, query, "yolo", tmp_path / "handout")
    min((handout / "labels").iterdir()).unlink()
    found = import_labels(handout, "yolo", Record.read(handout), missing)
    assert found.missing == [IDS[-1]]
    assert len(found.truth) == labelled
    assert missing == "skip" or len(found.truth[IDS[-1]]) == 0


WRONG_SHAPES = {
    "label-studio": [
        ('"rotation": 0', '"rotation": 12', "rotated rectangle"),
        ('"rectanglelabels": ["crab"]', '"rectanglelabels": ["crab", "eel"]', "no rectangle of one label"),
        ('"rectanglelabels"', '"polygonlabels"', "no rectangle of one label"),
        ('"original_width": 96', '"original_width": 97', "labelled at another size"),
        ('"was_cancelled": false', '"was_cancelled": true', "has no labels"),
        ('"name"', '"title"', "not of Label Studio's JSON export: no 'name'"),
    ],
    "cvat": [
        ("<box ", "<polygon ", "has a polygon, which is no box"),
        ('occluded="0"', 'rotation="30.0"', "has a rotated box"),
        ('width="96"', 'width="48"', "labelled at another size"),
        ("</annotations>", "", "no XML of CVAT's"),
        ('xtl="', 'xtl="NaN', "is no number"),
    ],
    "yolo": [("0 ", "7 ", "class 7, but the names are of 0 to 2"), (" 0.", " 0 0.", "columns, but a box has 5")],
    "csv": [(",x1,", ",left,", "has no column x1"), (",crab,", ",,", "a box without a class")],
}


@pytest.mark.parametrize(
    ("tool", "old", "new", "message"), [(tool, *case) for tool, cases in WRONG_SHAPES.items() for case in cases]
)
def test_what_is_no_upright_box_of_one_class_is_refused(tool, old, new, message, ledger, query, tmp_path):
    handout = export(ledger, query, tool, tmp_path / "handout")
    path = exported_by(tool, handout)
    file = min((path / "labels").iterdir()) if tool == "yolo" else path
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new).replace("</polygon ", "</"))
    with pytest.raises(LabelsError, match=re.escape(message)):
        import_labels(path, tool, Record.read(handout))


@given(
    content=st.binary(max_size=60)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["data", "name", "annotations", "images", "categories", "bbox"]), inner)
        ),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode())
)
@pytest.mark.parametrize("name", TOOLS)
def test_whatever_is_given_as_labels_ends_in_an_error_of_raylearns(name, content, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    path = folder / ("labels.txt" if name == "yolo" else "labels")
    path.write_bytes(content)
    (folder / "classes.txt").write_text("crab\n")
    record = Record(("crab",), ())
    with suppress(LabelsError):
        assert not import_labels(path, name, record).truth


# The commands


@pytest.mark.usefixtures("ledger")
def test_query_and_import_are_commands(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call("query", "ledger", "--size", "5", "--out", "q", "--format", tool) == 0
    assert f"handout: q/{tool}" in capsys.readouterr().out
    path = exported_by(tool, tmp_path / "q" / tool)
    done = call("labels", "import", str(path), "--format", tool, "--handout", f"q/{tool}", "--out", "first.json")
    assert done == 0
    assert "5 images with 16 boxes" in capsys.readouterr().out
    assert refused(capsys, "query", "ledger", "--size", "5", "--out", "q", "--format", tool).endswith(
        f"q/{tool} is there already: remove it, or give another --out"
    )


@pytest.mark.usefixtures("ledger")
def test_every_problem_is_listed_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call("query", "ledger", "--size", "5", "--out", "q", "--format", "yolo") == 0
    for file in sorted((tmp_path / "q/yolo/labels").iterdir())[:2]:
        file.unlink()
    capsys.readouterr()
    command = ("labels", "import", "q/yolo", "--format", "yolo", "--handout", "q/yolo", "--out", "first.json")
    assert call(*command) == 2
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2
    assert printed.err.endswith("(1 more); nothing was imported\n")
    assert not (tmp_path / "first.json").exists()
    assert "name the folder that `raylearn query --format` wrote" in refused(
        capsys, *command[:5], "--handout", "q", "--out", "first.json"
    )
