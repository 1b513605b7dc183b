"""Whole experiments on a real Ray, small ones."""

import base64
import contextlib
import io
import itertools
import json
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest

from raylearn.config import Experiment
from raylearn.data.lock import locked
from raylearn.data.storage import Folder
from raylearn.errors import RunFailedError
from raylearn.reporting.gallery import GALLERY_FILE
from raylearn.scoring.ledger import Ledger
from raylearn.sweep.grid import num_rounds, trials
from raylearn.sweep.results import result_row
from raylearn.sweep.runner import open_dataset
from raylearn.sweep.trial import Bench, run_trial
from raylearn.work.jobs import Job
from raylearn.work.resources import WorkResources
from raylearn.work.store import Artifact, DiskStore
from tests.small_sweep import CONTENT, ONE_ARM, assert_same_trials, command_of, results_of, rows_of, run_sweep
from tests.unit.test_cli import complaints


def test_more_trials_than_cores_run_to_their_end(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    experiment = Experiment.model_validate(CONTENT)
    wanted = trials(experiment)
    assert len(wanted) > (os.cpu_count() or 1)
    rows = rows_of(folder, "results")
    assert len(rows) == sum(num_rounds(experiment, trial.arm) for trial in wanted)
    assert {row["trial"] for row in rows} == {trial.name for trial in wanted}
    assert (folder / "report.html").stat().st_size > 10_000


def test_pictures_have_the_colours_of_their_images(finished: tuple[Path, str]) -> None:
    experiment, folder = Experiment.model_validate(CONTENT), finished[0]
    uris = {image.image_id: image.uri for image in open_dataset(experiment, folder / "data").images()}
    pictures = json.loads((folder / GALLERY_FILE).read_text())["images"]
    assert pictures
    for image_id, picture in pictures.items():
        shown = PIL.Image.open(io.BytesIO(base64.b64decode(picture["jpeg"])))
        mean = np.asarray(PIL.Image.open(uris[image_id]).convert("RGB")).mean((0, 1))
        assert np.ptp(mean) > 20, "a grey image tells nothing"
        np.testing.assert_allclose(np.asarray(shown).mean((0, 1)), mean, atol=3)


def test_every_arm_starts_from_the_same_model_and_pays_the_same(finished: tuple[Path, str]) -> None:
    rows = rows_of(finished[0], "results")
    arms = [row for row in rows if row["strategy"] != "full_data"]
    assert len({row["checkpoint"] for row in arms if row["round"] == 0}) == 1
    assert sum(not row["reused"] for row in arms if row["round"] == 0) == 1
    for round_index, num_images in enumerate((8, 12, 16)):
        assert {row["num_images"] for row in arms if row["round"] == round_index} == {num_images}
    assert all(sum(row["class_counts"]) == row["num_boxes"] for row in rows)


def test_what_is_queried_is_unlabelled_pool_and_never_the_test_split(finished: tuple[Path, str]) -> None:
    queries = rows_of(finished[0], "queries")
    assert queries
    assert all(row["image_id"].startswith("pool/") for row in queries)
    for trial in {row["trial"] for row in queries}:
        asked = [row["image_id"] for row in queries if row["trial"] == trial]
        assert len(asked) == len(set(asked)) == 8


def test_the_share_of_images_without_detections_is_that_of_the_ledgers(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    ledgers = [Ledger.read(Folder(str(path))) for path in (folder / "store/ledger").iterdir()]
    shares = {float(np.mean(np.diff(ledger.offsets) == 0)) for ledger in ledgers}
    told = {row["share_without_detections"] for row in rows_of(folder, "results") if row["score_seconds"] is not None}
    assert told
    assert told <= shares


def test_progress_has_a_line_per_round_and_no_flood(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    rows = pq.read_table(folder / "results.parquet").num_rows
    assert rows < len(printed.splitlines()) < rows + 20  # with the answer and the table of arms
    assert "trained" in printed
    assert "left" in printed
    assert "\x1b[" not in printed


def test_a_second_run_makes_nothing_and_gives_the_same_tables(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    before = {name: (folder / name).read_bytes() for name in ("results.parquet", "queries.parquet")}
    printed = run_sweep(CONTENT, folder)
    assert " 0 made now" in printed
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_tensorboard_finds_the_curve_of_every_trial_by_its_name(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    for trial in trials(Experiment.model_validate(CONTENT)):
        (events,) = (folder / "tune" / trial.name).glob("events.out.tfevents.*")
        assert b"ray/tune/map50_95" in events.read_bytes()


@pytest.mark.usefixtures("local_ray")
def test_sharing_changes_no_number(finished: tuple[Path, str], tmp_path: Path) -> None:
    """Trials that make everything themselves, with no store to share by, have the rows of those that shared."""
    folder, _ = finished
    experiment = Experiment.model_validate(CONTENT)
    bench = Bench.of(experiment, open_dataset(experiment, folder / "data"))
    shared = results_of(folder)
    made = itertools.count()

    def alone(job: Job) -> Artifact:
        own = Folder.at(tmp_path / str(next(made)))
        facts = json.loads(json.dumps(dict(job.run(own, WorkResources(1, 0, 1, None)))))  # as a store gives them back
        return Artifact(job.key, own, {**facts, "seconds": 0})

    for trial in trials(experiment):
        if trial.arm.strategy == "uncertainty":
            for done in itertools.islice(run_trial(trial, bench, alone), 2):
                row = result_row(trial, done, num_classes=6, reused=False)
                (theirs,) = (r for r in shared if (r["trial"], r["round"]) == (trial.name, done.index))
                differing = {name for name in theirs if row[name] != theirs[name]}
                assert differing <= {"reused"}


def test_another_experiment_makes_nothing_that_a_shared_store_holds(finished: tuple[Path, str], tmp_path: Path) -> None:
    store = finished[0] / "store"
    other = {**CONTENT, "name": "other", "arms": {**CONTENT["arms"], "controls": ["random"]}}
    with locked(store), pytest.raises(AssertionError, match=rf"{store} is in use by .*{os.getpid()}"):
        run_sweep(other, tmp_path / "other", "--store", str(store))
    assert " 0 made now" in run_sweep(other, tmp_path / "other", "--store", str(store))
    assert not (tmp_path / "other" / "store").exists()
    assert {row["trial"] for row in rows_of(tmp_path / "other", "results")} < {
        row["trial"] for row in rows_of(finished[0], "results")
    }


def test_a_damaged_run_json_is_written_anew_and_results_of_another_data_set_are_not_written_over(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished[0], tmp_path / "small"))
    whole = json.loads((folder / "run.json").read_text())
    for damaged in ('{"name": "sm', '{"dataset": 5}'):
        (folder / "run.json").write_text(damaged)
        printed = run_sweep({**CONTENT, "question": "Which?"}, folder)
        assert " 0 made now" in printed
        assert "note: run.json of an earlier run cannot be read, and is written anew" in printed
    started = json.loads((folder / "run.json").read_text())["started"]
    run_sweep({**CONTENT, "question": "Which arm?"}, folder)
    there = json.loads((folder / "run.json").read_text())
    assert there["dataset"] == whole["dataset"]
    assert (there["question"], there["started"]) == ("Which arm?", started)
    (folder / "run.json").write_text(json.dumps({**there, "dataset": {**there["dataset"], "fingerprint": "0"}}))
    done = subprocess.run(command_of(CONTENT, folder), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = complaints(done.stderr).splitlines()
    assert "holds results of other images or labels than reef has now: give another folder with --out" in line


def test_a_run_that_is_killed_and_loses_half_a_checkpoint_goes_on_with_other_resources_to_the_same_end(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    """Same seed, same data, same versions: same query, also from another folder, and with trackers."""
    folder = tmp_path / "small"
    with subprocess.Popen(command_of(ONE_ARM, folder), cwd=tmp_path, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        told = list(_until(driver.stdout, 2, "trained on"))
        driver.kill()
    assert len(told) == 2
    torn = next((folder / "store" / "training").glob("*/checkpoint.pt"))
    torn.write_bytes(torn.read_bytes()[:1000])
    scored = set((folder / "store/ledger").glob("*"))
    other = {**ONE_ARM, "resources": {"scoring_actors": 2, "max_trials_at_once": 2}, "tracking": ["mlflow", "wandb"]}
    printed = run_sweep(other, folder, WANDB_MODE="offline", MLFLOW_TRACKING_URI="")
    wanted, made = (int(number) for number in re.findall(r"(\d+) (?:wanted|made now)", printed))
    distinct = len({row["checkpoint"] for row in rows_of(folder, "results")})
    assert made <= distinct - 1 < wanted
    assert DiskStore(folder / "store").find("training", torn.parent.name)
    assert set((folder / "store/ledger").glob("*")) > scored  # it scored too
    assert_same_trials(folder, finished[0])
    _trackers_were_told(folder)


def _trackers_were_told(folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database:
        told = database.execute(
            "select runs.name, metrics.value from metrics join runs using (run_uuid) where key = 'map50_95'"
        ).fetchall()
    measured = [(row["trial"], row["map50_95"]) for row in rows_of(folder, "results")]
    assert sorted(told) == sorted(measured)
    assert len(list(folder.glob("wandb/offline-run-*/*.wandb"))) == len({trial for trial, _ in measured})


def _until(lines: Iterable[str], count: int, word: str) -> Iterator[str]:
    for line in lines:
        if word in line:
            yield line
            count -= 1
        if not count:
            return


def test_a_diverged_trial_is_listed_and_the_others_finish(tmp_path: Path) -> None:
    content = {**CONTENT, "training": {"epochs": 3, "batch_size": 8, "options": {"box": 1.5e38}}}
    content["arms"] = {"query_size": [8], "controls": ["random"]}
    with pytest.raises(AssertionError, match="diverged") as failed:
        run_sweep(content, tmp_path / "diverged")
    message = str(failed.value)
    assert "round 0" in message
    assert RunFailedError.__name__ not in message
    assert "Traceback" not in message
