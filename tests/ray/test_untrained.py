"""A detector that has learned nothing, through every command: each says that what it hands out means nothing."""

import io
import json
from contextlib import chdir, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from raylearn.data.dataset import Dataset
from raylearn.detectors.checkpoints import write_checkpoint
from raylearn.handoff.dataset_folder import write_dataset
from raylearn.strategies.meaning import DRAWN
from tests.unit.test_cli import call

IMAGES = 12
ALL = f"warning: {IMAGES} of {IMAGES} images have no detections: this ranking is arbitrary; lower --confidence or train"
RUN: dict[str, Any] = {
    "name": "untrained",
    "dataset": {"format": "reef", "reef": {"num_pool": 24, "num_test": 4}},
    "detector": {"image_size": 64, "initial_weights": "untrained.pt"},
    "training": {"epochs": 1, "batch_size": 8, "options": {"mosaic": 0.0}},
    "initial_size": 8,
    "budget": 4,
    "arms": {"uncertainty": ["entropy"], "query_size": [4], "controls": []},
    "seeds": [0],
}
pytestmark = pytest.mark.usefixtures("standing_ray")


@pytest.fixture(scope="module")
def desk(reef: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint, a list of frames that lie elsewhere, a few of them labelled, and others held out."""
    from raylearn.detectors.families.ultralytics.detector import build_model

    desk = tmp_path_factory.mktemp("desk")
    torch.manual_seed(0)
    weights = build_model("yolov5n", reef.num_classes).state_dict()
    write_checkpoint(desk / "untrained.pt", "raylearn-yolo-1", "yolov5n", reef.class_names, 64, weights)
    (desk / "pool.txt").write_text("".join(f"{image.uri}\n" for image in reef.pool[:IMAGES]))
    few = replace(reef, pool=reef.pool[:4], test=reef.test[:4])
    truth = {image.image_id: reef.truth[image.image_id] for image in few.images()}
    write_dataset(replace(few, truth=truth), "yolo", desk / "set", about={}, about_images={})
    project = {
        "name": "untrained",
        "pool": "pool.txt",
        "held_out": {"format": "yolo", "path": "set", "pool": ["train"], "test": ["val"]},
        "labelled": {"format": "yolo", "path": "set", "pool": ["train"], "test": ["val"]},
        "query": {"size": 3, "format": "csv"},
        "detector": {"image_size": 64},
    }
    for name, content in (("project", project), ("run", RUN)):
        (desk / f"{name}.yaml").write_text(json.dumps(content))
    return desk


@pytest.fixture(autouse=True)
def at_the_desk(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)


@pytest.fixture(scope="module")
def scored(desk: Path, standing_ray: None) -> str:  # noqa: ARG001
    """What `score` printed."""
    with chdir(desk), redirect_stdout(io.StringIO()) as out:
        assert call("score", "pool.txt", "--checkpoint", "untrained.pt", "--out", "ledger", "--root", "/") == 0
    return out.getvalue()


def test_score_says_so(scored: str) -> None:
    assert f"{IMAGES} images, no errors, 0 detections" in scored
    assert ALL in scored
    facts = json.loads(Path("ledger/ledger.json").read_text())
    assert facts["num_without_detections"] == IMAGES


@pytest.mark.usefixtures("scored")
def test_query_says_so_and_marks_every_image(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("query", "ledger", "--size", "4", "--out", "query") == 0
    said = capsys.readouterr().out
    assert ALL in said
    assert "4 of the query's 4 images have no detections, all drawn at random" in said
    assert pq.read_table("query/query.parquet")["note"].to_pylist() == [DRAWN] * 4


@pytest.mark.usefixtures("scored")
def test_compare_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("compare", "ledger", "--size", "4") == 0
    assert ALL in capsys.readouterr().out


def test_run_says_so_at_its_end_and_on_its_page_and_what_it_took_at_its_start(
    capsys: pytest.CaptureFixture[str], desk: Path
) -> None:
    assert call("run", "run.yaml", "--out", "run") == 0
    start, end = capsys.readouterr().out.split("report:")
    assert start.index("tensors taken") < start.index("round 0")
    nothing = "Nothing can be compared: mAP50-95 is 0 in every round of every arm"
    doubt = "In 1 of 1 scored query more than half of the images had no detections, in 1 of them all of the images"
    for told in (end, (desk / "run/report.html").read_text()):
        assert nothing in told
        assert doubt in told
    assert end.rstrip().splitlines()[-1].startswith("entropy · sum")  # the table of arms
    gallery = json.loads((desk / "run/gallery.json").read_text())
    (asked,) = (query for query in gallery["queries"] if query["scored"])
    assert {image["note"] for image in asked["images"]} == {DRAWN}
    assert asked["num_groups"] >= 1
    assert f"4 images from {asked['num_groups']} clip" in (desk / "run/report.html").read_text()


def test_a_project_says_so(capsys: pytest.CaptureFixture[str], reef: Dataset) -> None:
    assert call("project", "init", "project", "project.yaml") == 2
    assert "allow that with --root DIR" in capsys.readouterr().err
    root = str(Path(reef.pool[0].uri).parents[1])
    assert call("project", "init", "project", "project.yaml", "--root", root) == 0
    assert call("project", "train", "project", "--checkpoint", "untrained.pt") == 0
    assert "mAP50-95 is 0 in every round" in capsys.readouterr().out
    assert call("project", "query", "project") == 0
    said = capsys.readouterr().out
    assert "warning: 8 of 8 images have no detections: this ranking is arbitrary; lower scoring.confidence" in said
    assert "3 of the query's 3 images have no detections, all drawn at random" in said
    assert pq.read_table("project/queries/round-001/query.parquet")["note"].to_pylist() == [DRAWN] * 3
