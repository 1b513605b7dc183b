"""What a trial had labelled by a round, found again from the run's tables and its data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import raylearn
from raylearn.config import Experiment
from raylearn.config_files import load_experiment
from raylearn.data.dataset import Dataset
from raylearn.data.pool import Pool
from raylearn.errors import ExportError, nearest
from raylearn.sweep.grid import trials
from raylearn.sweep.results import labelled_ids_hash
from raylearn.sweep.run_folder import EXPERIMENT_FILE, RUN_FILE, earlier_record
from raylearn.sweep.runner import open_dataset
from raylearn.sweep.trial import Bench

Rows = Sequence[Mapping[str, Any]]
RESULTS_COLUMNS = ("trial", "round", "seed", "checkpoint", "labelled_ids_hash")
QUERIES_COLUMNS = ("trial", "round", "image_id")


@dataclass(frozen=True)
class LabelledSet:
    """The labelled images of a trial in a round.

    Args:
        dataset: its pool are the labelled images alone; its test split is the run's.
        rounds: image id -> the round that it was labelled for.
        facts: which set it is, what it was made from, and the balance of its classes before and after.
        dataset_is_made: the images were generated, below the run's folder.
    """

    dataset: Dataset
    rounds: Mapping[str, int]
    facts: Mapping[str, Any]
    dataset_is_made: bool


def labelled_set(
    files: Path,
    results: Rows,
    queries: Rows,
    trial: str,
    round: int,
    *,
    overrides: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> LabelledSet:
    """Draws the initial set again and adds what was asked for.

    Args:
        files: of the run folder, on a disk.
        results, queries: rows of its tables, with RESULTS_COLUMNS and QUERIES_COLUMNS at least.
        trial, round: which set.
        overrides, settings: of the experiment's `dataset` section, where the data set has moved.

    Raises:
        ExportError: no such trial or round; or the data set is gone, or is not what the run had.
        InputError: the experiment or the data set cannot be read.
    """
    record = earlier_record(files)
    if record is None:
        raise ExportError(f"the run has no {RUN_FILE} that can be read: run its experiment again, which trains nothing")
    row = _row(results, trial, round, {failed["trial"]: failed["cause"] for failed in record.get("failed", ())})
    experiment = _experiment(files, overrides, settings or {})
    named = {found.name: found for found in trials(experiment)}
    if trial not in named:
        raise ExportError(f"the run has results of trial {trial}, but its {EXPERIMENT_FILE} has no such arm and seed")
    dataset = _dataset(experiment, files, record["dataset"]["fingerprint"])
    start = Bench(experiment, dataset, None).start_pool(named[trial])
    asked = {q["image_id"]: q["round"] for q in queries if q["trial"] == trial and q["round"] <= round}
    rounds = {**dict.fromkeys(start.labelled, 0), **asked}
    if labelled_ids_hash(rounds) != row["labelled_ids_hash"]:
        raise ExportError(
            f"the images found for {trial}, round {round} are not those that it trained on: queries.parquet is of "
            "another run, or the initial set was drawn by another version of raylearn or numpy"
        )
    pool = Pool(dataset.pool, {image_id: dataset.truth[image_id] for image_id in rounds})
    labelled = replace(dataset, pool=pool.labelled_images)
    return LabelledSet(labelled, rounds, _facts(experiment, dataset, pool, row), experiment.dataset.path is None)


def _row(results: Rows, trial: str, round: int, failed: Mapping[str, str]) -> Mapping[str, Any]:
    known = {row["round"]: row for row in results if row["trial"] == trial}
    if not known and trial in failed:
        raise ExportError(f"trial {trial} failed ({failed[trial]}): run the experiment again, which tries it again")
    if not known:
        raise ExportError(f"the run has no trial {trial!r}: {nearest(trial, {row['trial'] for row in results})}")
    if round not in known:
        there = f"rounds 0 to {max(known)}" if len(known) > 1 else "round 0 alone"
        raise ExportError(f"trial {trial} has {there}, and no round {round}")
    return known[round]


def _experiment(files: Path, overrides: Sequence[str], settings: Mapping[str, Any]) -> Experiment:
    path = files / EXPERIMENT_FILE
    experiment, changed = load_experiment(path), load_experiment(path, overrides, settings)
    if changed.model_copy(update={"dataset": experiment.dataset}) != experiment:
        raise ExportError("only where the data set lies can be replaced, as in dataset.path=/new/place")
    return changed


def _dataset(experiment: Experiment, files: Path, fingerprint: str) -> Dataset:
    path = experiment.dataset.path
    if path is not None and not path.exists():
        raise ExportError(f"the run's data set {path} is not there: if it has moved, add dataset.path=/new/place")
    dataset = open_dataset(experiment, files / "data")
    if dataset.fingerprint != fingerprint:
        raise ExportError(
            f"data set {dataset.name} has other images, labels or classes than when the run was made: put back what "
            "it was, or name a copy of it with dataset.path=/its/place"
        )
    return dataset


def _facts(experiment: Experiment, dataset: Dataset, pool: Pool, row: Mapping[str, Any]) -> dict[str, Any]:
    everything = Pool(dataset.pool, {image.image_id: dataset.truth[image.image_id] for image in dataset.pool})
    counts = zip(
        dataset.class_names,
        everything.class_counts(dataset.num_classes).tolist(),
        pool.class_counts(dataset.num_classes).tolist(),
        strict=True,
    )
    return {
        "raylearn": raylearn.__version__,
        "trial": row["trial"],
        "round": row["round"],
        "seed": row["seed"],
        "training": row["checkpoint"],
        "labelled_ids_hash": row["labelled_ids_hash"],
        "experiment": experiment.model_dump(mode="json"),
        "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint},
        "num_images": {"pool": len(dataset.pool), "exported": len(pool.labelled), "test": len(dataset.test)},
        "num_boxes": [{"class": name, "pool": before, "exported": after} for name, before, after in counts],
    }
