"""The tables of a run: results.parquet and queries.parquet."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raylearn.data.dataset import Dataset
from raylearn.strategies import AXES, Reason, options_text
from raylearn.sweep.grid import Trial
from raylearn.sweep.trial import TrialRound

RESULTS_SCHEMA = pa.schema(
    [
        ("trial", pa.string()),
        ("strategy", pa.string()),
        ("uncertainty", pa.string()),
        ("aggregation", pa.string()),
        ("weighting", pa.string()),
        ("probabilities", pa.string()),
        ("query_size", pa.int64()),
        ("seed", pa.int64()),
        ("round", pa.int64()),
        ("num_images", pa.int64()),
        ("num_boxes", pa.int64()),
        ("map50_95", pa.float64()),
        ("map50", pa.float64()),
        ("class_ap", pa.list_(pa.float64())),
        ("class_counts", pa.list_(pa.int64())),
        ("labelled_ids_hash", pa.string()),
        ("checkpoint", pa.string()),
        ("reused", pa.bool_()),
        ("train_seconds", pa.float64()),
        ("score_seconds", pa.float64()),
        ("share_without_detections", pa.float64()),
        ("options", pa.string()),
    ]
)
QUERIES_SCHEMA = pa.schema(
    [
        ("trial", pa.string()),
        ("round", pa.int64()),
        ("rank", pa.int64()),
        ("image_id", pa.string()),
        ("score", pa.float64()),
        ("nearest", pa.string()),
        ("distance", pa.float64()),
        ("predicted_boxes", pa.float64()),
        ("boxes", pa.int64()),
    ]
)


def result_row(trial: Trial, finished: TrialRound, num_classes: int, reused: bool) -> dict[str, Any]:
    """One row of results.parquet. `reused`: a row before it has the same training."""
    arm, pool, model, measured = trial.arm, finished.pool, finished.model, finished.evaluation.facts
    passed = finished.scores.unlabelled.facts if finished.scores else None
    return {
        "trial": trial.name,
        "strategy": arm.strategy.name,
        **{axis: arm.strategy.axes.get(axis) for axis in AXES},
        "query_size": arm.query_size,
        "seed": trial.seed,
        "round": finished.index,
        "num_images": len(pool.labelled),
        "num_boxes": pool.num_boxes,
        "map50_95": measured["map50_95"],
        "map50": measured["map50"],
        "class_ap": measured["class_ap"],
        "class_counts": pool.class_counts(num_classes).tolist(),
        "labelled_ids_hash": labelled_ids_hash(pool.labelled),
        "checkpoint": model.key,
        "reused": reused,
        "train_seconds": model.facts["seconds"],
        "score_seconds": passed["seconds"] if passed else None,
        "share_without_detections": _share_without_detections(passed) if passed else None,
        "options": options_text(arm.strategy),
    }


def labelled_ids_hash(image_ids: Iterable[str]) -> str:
    """SHA-256 of a set of image ids, in hex; their order does not matter."""
    return hashlib.sha256("\0".join(sorted(image_ids)).encode()).hexdigest()


def _share_without_detections(passed: Mapping[str, Any]) -> float | None:
    """Of the images of a scoring pass; None of a pass that did not count them."""
    count = passed.get("num_without_detections")
    return None if count is None else count / passed["num_images"]


def query_rows(trial: Trial, finished: TrialRound) -> list[dict[str, Any]]:
    """The rows of queries.parquet for one round: what it newly labelled, best first; rank counts from 1.

    `nearest` is the labelled image most like it and `distance` how far that is, where embeddings were kept;
    `predicted_boxes` is what the detector made of it before, `boxes` what was paid; null where nobody knows.
    """
    query, labelled = finished.query, finished.pool.labelled
    if query is None:
        return []
    known = query.reasons or (Reason(),) * len(query.image_ids)
    return [
        {
            "trial": trial.name,
            "round": finished.index,
            "rank": rank,
            "image_id": image_id,
            "score": score,
            "nearest": reason.nearest,
            "distance": reason.distance,
            "predicted_boxes": reason.boxes,
            "boxes": len(labelled[image_id]) if image_id in labelled else None,
        }
        for rank, (image_id, score, reason) in enumerate(
            zip(query.image_ids, query.scores, known, strict=True), start=1
        )
    ]


def dataset_facts(dataset: Dataset) -> dict[str, Any]:
    """What run.json says of a data set."""
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "num_pool": len(dataset.pool),
        "num_test": len(dataset.test),
        "class_names": list(dataset.class_names),
        "notes": list(dataset.notes),
    }


def write_tables(
    rounds: Mapping[Trial, Sequence[TrialRound]], num_classes: int, run_folder: Path
) -> list[dict[str, Any]]:
    """Writes both tables, each at once; returns the rows of results.parquet."""
    results: list[dict[str, Any]] = []
    trainings: set[str] = set()
    for trial, finished in rounds.items():
        for done in finished:
            results.append(result_row(trial, done, num_classes, reused=done.model.key in trainings))
            trainings.add(done.model.key)
    queries = [row for trial, finished in rounds.items() for done in finished for row in query_rows(trial, done)]
    for name, rows, schema in (("results", results, RESULTS_SCHEMA), ("queries", queries, QUERIES_SCHEMA)):
        temporary = run_folder / f".{name}.parquet.unfinished"
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)
        os.replace(temporary, run_folder / f"{name}.parquet")
    return results
