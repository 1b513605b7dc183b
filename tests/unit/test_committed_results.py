"""What stands in experiments/results/ is what its own results.parquet says."""

import json
import shutil
from pathlib import Path

import pytest

from raylearn.config import Experiment
from raylearn.config_files import load_experiment
from raylearn.reporting.page import write_report
from raylearn.reporting.summary import read_rounds
from raylearn.sweep.grid import num_rounds, trials

RESULTS = Path(__file__).resolve().parents[2] / "experiments" / "results"
FOLDERS = sorted(path.name for path in RESULTS.iterdir() if path.is_dir())


def test_there_are_results():
    assert len(FOLDERS) >= 3


@pytest.mark.parametrize("name", FOLDERS)
def test_the_summary_can_be_computed_again(name, tmp_path):
    for file in ("results.parquet", "queries.parquet", "experiment.yaml", "run.json"):
        shutil.copyfile(RESULTS / name / file, tmp_path / file)
    write_report(tmp_path)
    assert (tmp_path / "summary.csv").read_text() == (RESULTS / name / "summary.csv").read_text()


@pytest.mark.parametrize("name", FOLDERS)
def test_every_trial_of_the_experiment_came_to_its_end(name):
    experiment: Experiment = load_experiment(RESULTS / name / "experiment.yaml")
    rounds = {(row.trial, row.round) for row in read_rounds(RESULTS / name / "results.parquet")}
    assert rounds == {
        (trial.name, index) for trial in trials(experiment) for index in range(num_rounds(experiment, trial.arm))
    }
    run = json.loads((RESULTS / name / "run.json").read_text())
    assert not run["failed"]
    assert run["trainings"]["wanted"] == len(rounds)


@pytest.mark.parametrize("name", FOLDERS)
def test_how_it_was_run_is_written_down(name):
    text = (RESULTS / name / "README.md").read_text()
    for word in ("commit", "machine", "hours", "raylearn run"):
        assert word in text.lower()
