"""Runs an experiment: what the store lacks is made on Ray, and what it has is written down."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

import raylearn
from raylearn.cluster.session import ray_session
from raylearn.config import Experiment
from raylearn.config_files import dump_file
from raylearn.data.dataset import Dataset
from raylearn.data.formats import read_dataset
from raylearn.data.lock import held
from raylearn.data.reef import ReefSettings, read_reef
from raylearn.data.shared_images import with_images_in
from raylearn.data.storage import Folder
from raylearn.detectors import family_named, weights_taken
from raylearn.errors import RunFailedError, RunFolderError
from raylearn.learning.training import check_detector_of
from raylearn.plugins import versions_of
from raylearn.progress import doing
from raylearn.scoring.progress import say
from raylearn.sweep.gallery import write_gallery
from raylearn.sweep.grid import Trial, num_rounds, trials
from raylearn.sweep.plan import SweepPlan, plan_sweep
from raylearn.sweep.pool_map import write_map
from raylearn.sweep.results import dataset_facts, write_tables
from raylearn.sweep.run_folder import (
    EXPERIMENT_FILE,
    GALLERY_FILE,
    MAP_FILE,
    RUN_FILE,
    earlier_record,
    on_disk,
    refuse_another,
    refuse_another_dataset,
)
from raylearn.sweep.tracking import refuse_missing_trackers
from raylearn.sweep.trial import Bench, TrialRound, run_trial
from raylearn.sweep.tune_trials import run_trials
from raylearn.wording import counted
from raylearn.work.jobs import NotMadeError, made_before
from raylearn.work.store import Store


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Args:
        trainings_wanted: rounds of all trials.
        trainings_made: how many trainings were done this time.
        trainings_reused: rounds in the tables whose training was shared, or found in the store.
        failed: trial name -> cause.
    """

    trainings_wanted: int
    trainings_made: int
    trainings_reused: int
    failed: Mapping[str, str]


def open_dataset(experiment: Experiment, folder: Path) -> Dataset:
    """Reads the experiment's data set; the embedded one is generated below `folder` first."""
    section = experiment.dataset
    if section.format == "reef":
        return read_reef(ReefSettings(**section.reef.model_dump()), folder)
    assert section.path is not None  # the model sees to it
    return read_dataset(section.path, section.format, **section.reading)


def run_experiment(
    experiment: Experiment,
    run_folder: Folder,
    *,
    store_folder: Folder | None = None,
    address: str | None,
    command: str,
    console: Console,
) -> Outcome:
    """Runs what is not yet in the store, then writes results.parquet, queries.parquet and run.json.

    Args:
        experiment: what to run.
        run_folder: for the tables, on a disk or at an address; the same again goes on.
        store_folder: what was made by other experiments too; by default `store` in the run folder. At an address, the
            images are put into it too, so that no node needs the driver's disk.
        address: of a Ray cluster; None is RAY_ADDRESS, or a private Ray.
        command: as it was typed.
        console: for progress.

    Raises:
        InputError: the experiment cannot be run as it is written, or a folder is not free for it.
        RunFailedError: no trial came to its end.
    """
    started = datetime.now(UTC)
    refuse_missing_trackers(experiment)
    address = address or os.environ.get("RAY_ADDRESS")
    run_folder = Folder.at(run_folder.address)
    store_folder = Folder.at((store_folder or run_folder.below("store")).address)
    if store_folder == run_folder:
        raise RunFolderError(f"--store and --out are both {run_folder}: give the store a folder of its own")
    store = Store.at(store_folder)
    with held(run_folder), held(store_folder), on_disk(run_folder) as files:
        bench = _set_up(experiment, run_folder, store_folder, files, console)
        store.clear_unfinished()
        wanted = trials(experiment)
        with doing("looking for what is finished"):
            rounds = _replayed(wanted, bench, store)
        missing = [trial for trial in wanted if trial not in rounds]
        say(console, _plan_line(bench, wanted, missing))
        if missing:
            with doing("checking the detector"):
                check_detector_of(experiment)
            _tell_weights_taken(bench, console)
        # not before: an experiment that is refused must not hold the folder against its corrected form
        for folder in (Folder.at(files), run_folder):  # at an address the files follow at the end, after a kill never
            folder.replace(EXPERIMENT_FILE, dump_file(experiment).encode())
        trained = 0
        failed: dict[str, str] = {}
        if missing:
            with ray_session(address):
                trained, failed = run_trials(missing, bench, store, run_folder, console, address)
            with doing("collecting the results"):
                rounds |= _replayed(missing, bench, store)
        finished = {trial: rounds[trial] for trial in wanted if trial in rounds}
        failed = {trial.name: "ended without a result" for trial in wanted if trial not in finished} | failed
        if not finished:
            raise RunFailedError(f"all {len(wanted)} trials failed; {wanted[0].name}: {failed[wanted[0].name]}")
        with doing("writing tables and pictures"):
            rows = write_tables(finished, bench.dataset.num_classes, files)
            if missing or not (files / GALLERY_FILE).exists():
                write_gallery(finished, bench, files / GALLERY_FILE)
            if missing or not (files / MAP_FILE).exists():
                write_map(finished, files / MAP_FILE)
        record = earlier_record(files)
        if record is None and (files / RUN_FILE).exists():
            say(console, f"note: {RUN_FILE} of an earlier run cannot be read, and is written anew")
        if missing or record is None:
            record = _run_facts(bench, rows, failed, started, command, address)
        else:  # a run that only looked did not make these results
            record["question"] = experiment.question
        Folder.at(files).replace(RUN_FILE, json.dumps(record, indent=1).encode())
    return Outcome(
        sum(num_rounds(experiment, trial.arm) for trial in wanted), trained, max(0, len(rows) - trained), failed
    )


def _set_up(experiment: Experiment, run_folder: Folder, store_folder: Folder, files: Path, console: Console) -> Bench:
    """The data set and the initial weights, where every node can read them.

    Raises:
        InputError: the folder holds another run, or the experiment cannot be run on this data set.
    """
    refuse_another(run_folder, files, experiment)
    with doing("drawing the reef" if experiment.dataset.format == "reef" else "reading the data set"):
        dataset = open_dataset(experiment, files / "data")
    refuse_another_dataset(run_folder, files, dataset)
    if store_folder.path is None:
        dataset = with_images_in(dataset, store_folder.below("images"))
    for note in dataset.notes:
        say(console, f"note: {note}")
    bench = Bench.of(experiment, dataset)
    if store_folder.path is None and bench.initial_weights:
        return replace(bench, initial_weights=bench.initial_weights.put_into(store_folder.below("weights")))
    return bench


def _tell_weights_taken(bench: Bench, console: Console) -> None:
    detector = bench.experiment.detector
    if detector.initial_weights is not None:
        num_classes = bench.dataset.num_classes
        if line := weights_taken(detector.model, num_classes, detector.initial_weights, detector.family):
            say(console, line)


def plan_experiment(experiment: Experiment, run_folder: Folder, store_folder: Folder | None = None) -> SweepPlan:
    """What `run_experiment` would do, without doing it.

    Raises:
        InputError: the experiment cannot be run as it is written, or the folder holds another.
    """
    refuse_missing_trackers(experiment)
    with on_disk(run_folder) as files, TemporaryDirectory() as folder:
        refuse_another(run_folder, files, experiment)
        check_detector_of(experiment)
        dataset = open_dataset(experiment, Path(folder))
        refuse_another_dataset(run_folder, files, dataset)
    store = Store.at(store_folder or run_folder.below("store"))
    return plan_sweep(trials(experiment), Bench.of(experiment, dataset), store)


def _replayed(wanted: Sequence[Trial], bench: Bench, store: Store) -> dict[Trial, list[TrialRound]]:
    """The rounds of the trials that the store has whole."""
    return {trial: done for trial in wanted if (done := _replay(trial, bench, store)) is not None}


def _replay(trial: Trial, bench: Bench, store: Store) -> list[TrialRound] | None:
    """The trial's rounds from the store alone, or None where something is still to be made."""
    try:
        return list(run_trial(trial, bench, partial(made_before, store)))
    except NotMadeError:
        return None


def _plan_line(bench: Bench, wanted: Sequence[Trial], missing: Sequence[Trial]) -> str:
    experiment, dataset = bench.experiment, bench.dataset
    rounds = sum(num_rounds(experiment, trial.arm) for trial in wanted)
    found = f", {len(wanted) - len(missing)} of them finished already" if len(missing) < len(wanted) else ""
    return (
        f"{experiment.name}: {counted(len(wanted), 'trial')} of {counted(rounds, 'round')} in all{found}; "
        f"{dataset.name}: {counted(len(dataset.pool), 'image')} in the pool, {len(dataset.test):,} held out, "
        f"{counted(dataset.num_classes, 'class', 'classes')}"
    )


def _run_facts(
    bench: Bench,
    rows: Sequence[Mapping[str, Any]],
    failed: Mapping[str, str],
    started: datetime,
    command: str,
    address: str | None,
) -> dict[str, Any]:
    experiment, now = bench.experiment, datetime.now(UTC)
    packages = family_named(experiment.detector.family).packages
    different = len({row["checkpoint"] for row in rows})  # made by this command, an earlier one or another run
    return {
        "name": experiment.name,
        "question": experiment.question,
        "command": command,
        "started": started.isoformat(timespec="seconds"),
        "finished": now.isoformat(timespec="seconds"),
        "seconds": round((now - started).total_seconds(), 1),
        "raylearn": raylearn.__version__,
        "versions": {
            "python": platform.python_version(),
            **versions_of(dict.fromkeys(("ray", "torch", *packages, "numpy", "faster-coco-eval"))),
        },
        "machine": f"{os.cpu_count()} CPUs, {platform.machine()}, {platform.system()}",
        "address": address or "private Ray on this machine",
        "dataset": dataset_facts(bench.dataset),
        "initial_weights": bench.initial_weights.sha256 if bench.initial_weights else None,
        "trainings": {"wanted": len(rows), "different": different, "shared": len(rows) - different},
        "failed": [{"trial": trial, "cause": cause} for trial, cause in failed.items()],
    }
