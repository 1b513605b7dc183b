"""A handful of images, which the command scores itself: what it leaves is what an actor would have left."""

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from raylearn.data.dataset import Dataset
from raylearn.data.storage import Folder
from raylearn.detectors.checkpoints import write_checkpoint
from raylearn.scoring import pool_scoring
from raylearn.scoring.ledger import Ledger
from raylearn.scoring.pool_scoring import score_pool
from raylearn.scoring.request import ScoreRequest


@pytest.fixture
def request_(reef: Dataset, tmp_path: Path) -> ScoreRequest:
    """Five frames, and a detector that has learned nothing, but finds something everywhere."""
    from raylearn.detectors.families.ultralytics.detector import build_model

    torch.manual_seed(0)
    checkpoint, pool = tmp_path / "checkpoint.pt", tmp_path / "pool.txt"
    weights = build_model("yolov5n", reef.num_classes).state_dict()
    write_checkpoint(checkpoint, "raylearn-yolo-1", "yolov5n", reef.class_names, 64, weights)
    pool.write_text("".join(f"{image.uri}\n" for image in reef.pool[:5]))
    return ScoreRequest(str(pool), checkpoint, root=Path("/"), confidence=0, max_detections=20)


def test_a_handful_is_scored_without_ray_to_the_same_bytes(
    request_: ScoreRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: Any) -> None:
        raise AssertionError("Ray was started")

    here, there = tmp_path / "here", tmp_path / "there"
    with monkeypatch.context() as patch:
        patch.setattr(pool_scoring, "ray_session", forbidden)
        score_pool(request_, str(here), address=None, console=Console())
    assert len(Ledger.read(Folder(str(here))).boxes) > 50
    monkeypatch.setattr(pool_scoring, "_needs_no_ray", lambda *_: False)
    score_pool(request_, str(there), address=None, console=Console())
    names = sorted(path.name for path in here.iterdir() if not path.name.startswith("."))
    assert names == ["checkpoint.pt", "ledger.json", "manifest.parquet", "part-00000.parquet", "plan.json", "pool.json"]
    for name in names:
        assert (here / name).read_bytes() == (there / name).read_bytes(), name
