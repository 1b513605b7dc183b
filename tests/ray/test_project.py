"""A project with a scripted annotator, on photographs: the simulation's cycle, in steps that can be cut short.

Its steps use a Ray that stays up between them, as on a cluster.
"""

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from raylearn.cli import main
from raylearn.data.dataset import Dataset, Image
from raylearn.data.formats import read_dataset
from raylearn.data.lock import locked
from raylearn.data.pool import initial_set
from raylearn.handoff import coco
from raylearn.handoff.exchange import PreAnnotation, SentImage
from raylearn.measures.sampling import random_generator
from tests.conftest import SHARED
from tests.scripted_annotator import annotate
from tests.small_sweep import rows_of, run_sweep

BCCD = SHARED / "data" / "bccd_voc"
READING = {"format": "voc", "path": str(BCCD), "pool": ["val"], "test": ["test"], "bad_boxes": "drop"}
SETTINGS: dict[str, Any] = {
    "detector": {"image_size": 64},
    "training": {"epochs": 2, "batch_size": 4, "options": {"mosaic": 0.0}},
    "scoring": {"confidence": 0.0, "max_detections": 20},
}
SIMULATION = {
    "name": "simulation",
    "dataset": READING,
    **SETTINGS,
    "initial_size": 8,
    "budget": 8,
    "arms": {"uncertainty": ["entropy"], "query_size": [4], "controls": []},
    "seeds": [3],
}
pytestmark = [
    pytest.mark.usefixtures("standing_ray"),
    pytest.mark.skipif(not BCCD.is_dir(), reason=f"the BCCD photographs are not in {BCCD}"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def bccd() -> Dataset:
    return read_dataset(BCCD, "voc", pool=["val"], test=["test"], bad_boxes="drop")


@pytest.fixture(scope="module")
def simulation(standing_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001
    folder = tmp_path_factory.mktemp("simulation") / "run"
    run_sweep(SIMULATION, folder)
    return folder


@pytest.fixture(scope="module")
def desk(bccd: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user has: a list of the pool, a few labelled images, a project file."""
    desk = tmp_path_factory.mktemp("desk")
    with (desk / "pool.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", "uri"])
        writer.writerows((image.image_id, image.uri) for image in bccd.pool)
    drawn = set(initial_set(bccd, 8, random_generator(3, "initial set")))
    labelled = [image for image in bccd.pool if image.image_id in drawn]
    _write_coco(desk / "labelled", "initial", labelled, bccd)
    _write_coco(desk / "labelled", "none", bccd.test[:1], bccd)
    content = {
        "name": "blood",
        "pool": "pool.csv",
        "root": str(BCCD.resolve()),
        "held_out": READING,
        "labelled": {"format": "coco", "path": "labelled", "pool": ["initial.json"], "test": ["none.json"]},
        "query": {"size": 4},
        "seed": 3,
        **SETTINGS,
    }
    (desk / "blood.yaml").write_text(json.dumps(content))
    return desk


def _write_coco(folder: Path, name: str, images: Any, dataset: Dataset) -> None:
    folder.mkdir(exist_ok=True)
    sent, boxes = [], {}
    for rank, image in enumerate(images, start=1):
        own = Path(image.image_id).name
        shutil.copyfile(image.uri, folder / own)
        sent.append(_sent(rank, own, image))
        truth = dataset.truth[image.image_id]
        boxes[image.image_id] = PreAnnotation(truth.boxes, truth.class_ids, None)
    (folder / f"{name}.json").write_text(json.dumps(coco.content(sent, boxes, dataset.class_names)))


def _sent(rank: int, name: str, image: Image) -> SentImage:
    return SentImage(rank, 0, image.image_id, image.uri, name, name, image.width, image.height, image.content_hash)


def step(desk: Path, *arguments: str, code: int = 0) -> str:
    """A step as a person types it, in this process, which has its imports; what it printed, or its error."""
    out, err = io.StringIO(), io.StringIO()
    before = signal.getsignal(signal.SIGTERM)
    with (
        contextlib.chdir(desk),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main(["project", *arguments])
    assert ended.value.code == code, out.getvalue() + err.getvalue()
    assert "Traceback" not in err.getvalue()
    assert signal.getsignal(signal.SIGTERM) is before  # and not Ray's
    return err.getvalue() if code else out.getvalue()


def kill(desk: Path, *arguments: str, when: Callable[[], bool]) -> None:
    """Begins a step and ends it with kill -9."""
    program = str(Path(sys.executable).with_name("raylearn"))
    with subprocess.Popen([program, "project", *arguments], cwd=desk, stdout=subprocess.DEVNULL) as begun:
        while begun.poll() is None and not when():
            time.sleep(0.01)
        begun.kill()
    assert begun.returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def two_rounds(standing_ray: None, desk: Path, bccd: Dataset) -> Path:  # noqa: ARG001
    """A project after two rounds; in the first, training and query were killed in their middle and done again."""
    step(desk, "init", "blood", "blood.yaml")
    unfinished = desk / "blood/store/unfinished"
    for index in (1, 2):
        if index == 1:
            kill(desk, "train", "blood", when=lambda: any(unfinished.glob("*")))
            assert not list(desk.glob("blood/store/training/*"))
        step(desk, "train", "blood")
        if index == 1:
            kill(desk, "query", "blood", when=lambda: any(unfinished.glob("*/manifest.parquet")))
            assert not list(desk.glob("blood/queries/*/*"))
        step(desk, "query", "blood")
        handout = desk / "blood" / "queries" / f"round-{index:03d}" / "label-studio"
        export = str(annotate(handout, dict(bccd.truth), bccd.class_names, handout.with_name("export.json")))
        printed = step(desk, "import", "blood", export)
        assert f"round {index}: 4 images" in printed
    printed = step(desk, "train", "blood")
    assert "16 of 87 images labelled" in printed
    assert "next is `raylearn project query" in printed
    return desk / "blood"


def test_two_rounds_with_people_are_the_simulations_two_rounds(two_rounds: Path, simulation: Path) -> None:
    theirs = rows_of(simulation, "queries")
    for index in (1, 2):
        query = pq.read_table(two_rounds / "queries" / f"round-{index:03d}" / "query.parquet").to_pylist()
        assert [(row["image_id"], row["score"]) for row in query] == [
            (row["image_id"], row["score"]) for row in theirs if row["round"] == index
        ]
    decisive = ("round", "num_images", "num_boxes", "class_counts", "labelled_ids_hash", "checkpoint", "map50_95")
    ours, theirs = (
        [{name: row[name] for name in decisive} for row in rows_of(folder, "results")]
        for folder in (two_rounds, simulation)
    )
    assert ours == theirs


def test_every_step_done_again_changes_nothing(two_rounds: Path, desk: Path) -> None:
    before = _content(two_rounds)
    assert "next is `raylearn project query" in step(desk, "init", "blood", "blood.yaml")
    assert "next is `raylearn project query" in step(desk, "train", "blood")
    export = two_rounds / "queries/round-002/export.json"
    assert "round 2: 4 images" in step(desk, "import", "blood", str(export))
    assert "next is" in step(desk, "status", "blood")
    assert _content(two_rounds) == before


def test_labels_of_another_round_and_other_settings_are_refused(two_rounds: Path, desk: Path) -> None:
    before = _content(two_rounds)
    printed = step(desk, "import", "blood", str(two_rounds / "queries/round-001/export.json"), code=2)
    assert "was not asked for" in printed
    assert "project with other settings" in step(desk, "init", "blood", "blood.yaml", "seed=4", code=2)
    assert "is no project" in step(desk, "status", "elsewhere", code=2)
    assert _content(two_rounds) == before


def test_a_round_can_be_taken_back_and_done_again(two_rounds: Path, desk: Path) -> None:
    results = rows_of(two_rounds, "results")
    printed = step(desk, "undo", "blood")
    assert "labels of round 2 taken back" in printed
    assert "label what is in" in printed
    assert "12 of 87 images labelled" in step(desk, "status", "blood")
    step(desk, "import", "blood", str(two_rounds / "queries/round-002/export.json"))
    step(desk, "train", "blood")  # finds what was trained before
    assert rows_of(two_rounds, "results") == results


def test_a_report_can_be_written_of_a_project(two_rounds: Path, desk: Path, bccd: Dataset) -> None:
    program = str(Path(sys.executable).with_name("raylearn"))
    subprocess.run([program, "report", "blood"], cwd=desk, check=True, capture_output=True)
    text = (two_rounds / "report.html").read_text()
    for row in pq.read_table(two_rounds / "queries/round-002/query.parquet").to_pylist():
        assert row["image_id"] in text
        assert f"labelled: {len(bccd.truth[row['image_id']])} boxes" in text


def test_status_can_be_asked_while_another_step_works(two_rounds: Path, desk: Path) -> None:
    with locked(two_rounds):
        assert "is in use by" in step(desk, "train", "blood", code=2)
        assert "16 of 87 images labelled" in step(desk, "status", "blood")


def _content(folder: Path) -> dict[str, bytes]:
    """Every file but the lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock" and not os.path.islink(path)
    }
