"""The exported set of a trial, trained on anew, gives the checkpoint of the trial's round, byte for byte."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

import raylearn
from raylearn.config import Experiment
from raylearn.data.formats import read_dataset
from raylearn.data.pool import Pool
from raylearn.data.storage import Folder
from raylearn.detectors.base import CHECKPOINT_FILE
from raylearn.learning.training import with_resolved_model
from raylearn.sweep.trial import Bench
from raylearn.work.resources import WorkResources
from tests.small_sweep import CONTENT, rows_of

TRIAL, ROUND = "entropy-sum-none-background-q4-s0", 2


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def checkpoint_of(run: Path) -> tuple[str, Path]:
    """The key of the round's training, and its checkpoint in the store of the run."""
    (key,) = {row["checkpoint"] for row in rows_of(run, "results") if (row["trial"], row["round"]) == (TRIAL, ROUND)}
    (file,) = (run / "store/training").glob(f"{key}*/{CHECKPOINT_FILE}")
    return str(key), file


@pytest.mark.parametrize("format", ["yolo", "coco", "voc"])
def test_an_exported_set_trains_to_the_checkpoint_of_its_round(
    finished: tuple[Path, str], tmp_path: Path, format: Any
) -> None:
    run, _ = finished
    key, file = checkpoint_of(run)
    out = raylearn.export(run, TRIAL, ROUND, format, tmp_path / "out").folder
    dataset = read_dataset(out, format)
    bench = Bench(with_resolved_model(Experiment.model_validate(CONTENT)), dataset, None)
    truth = {image.image_id: dataset.truth[image.image_id] for image in dataset.pool}
    job = bench.training(Pool(dataset.pool, truth), seed=0)
    assert (job.key == key) == (format != "voc"), "VOC renames the reef's images, and no other form does"
    made = Folder.at(tmp_path / "made")
    job.run(made, WorkResources(cpus=1, gpus=0, scoring_actors=1, cpu_slots=1))
    assert sha256(tmp_path / "made" / CHECKPOINT_FILE) == sha256(file)
