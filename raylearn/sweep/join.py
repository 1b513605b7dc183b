"""Runs of one experiment that differ in their seeds, put together: seeds added later, or on another machine."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raylearn.config import Experiment
from raylearn.config_files import dump_file, load_experiment
from raylearn.data.storage import Folder, reason_of
from raylearn.errors import ConfigError, RunFolderError
from raylearn.sweep.run_folder import (
    EXPERIMENT_FILE,
    GALLERY_FILE,
    MAP_FILE,
    RUN_FILE,
    earlier_record,
    first_difference,
    on_disk,
)

_TABLES = ("results.parquet", "queries.parquet")
_OF_A_PART = ("name", "command", "started", "finished", "seconds", "machine", "address")
# What may differ; where the data set and the weights lie says nothing of them, so their hashes are compared.
_FREE = ("name", "seeds", "dataset.path", "dataset.root", "detector.initial_weights")


@dataclass(frozen=True)
class _Part:
    """A run that is joined: its folder as it was named, and where its files are on a disk."""

    folder: Folder
    files: Path
    experiment: Experiment
    record: Mapping[str, Any]

    @property
    def decisive(self) -> dict[str, Any]:
        """What run.json says of what decides results."""
        weights = self.experiment.detector.initial_weights
        return {
            "raylearn": self.record.get("raylearn"),
            "versions": self.record.get("versions") or {},
            "data set fingerprint": self.record["dataset"]["fingerprint"],
            # a run of before has no hash of its weights
            "initial weights": self.record.get("initial_weights", str(weights) if weights else None),
        }


def join_runs(runs: Sequence[Folder], out: Folder, command: str) -> None:
    """Writes the tables, settings and record of all runs together, as if their seeds had been run at once.

    Args:
        runs: two or more folders, on a disk or at an address.
        out: a folder for the joined run; an earlier joined run there is replaced.
        command: how it was asked for, for the record.

    Raises:
        RunFolderError: a folder is not that of a run; two runs differ in what decides results, or share a seed; or
            `out` holds something else.
    """
    if len(runs) < 2:
        raise RunFolderError("give two or more runs to join")
    with ExitStack() as stack:
        parts = [_part(folder, stack.enter_context(on_disk(folder))) for folder in runs]
        for part in parts[1:]:
            _refuse_another_experiment(parts[0], part)
        _refuse_shared_seeds(parts)
        tables = {name: _joined_table(name, parts) for name in _TABLES}
        out = Folder.at(out.address)
        files = stack.enter_context(on_disk(out))
        _refuse_what_is_there(out, files)
        experiment = parts[0].experiment.model_copy(
            update={"seeds": tuple(sorted(seed for part in parts for seed in part.experiment.seeds))}
        )
        target = Folder.at(files)
        # first, so that after a kill the folder is known for what it is
        target.replace(RUN_FILE, json.dumps(_record(parts, command), indent=1).encode())
        target.replace(EXPERIMENT_FILE, dump_file(experiment).encode())
        for name, table in tables.items():
            temporary = files / f".{name}.unfinished"
            pq.write_table(table, temporary)
            os.replace(temporary, files / name)
        # the page says that its pictures are of the lowest seed
        by_seed = sorted(parts, key=lambda part: min(part.experiment.seeds))
        for name in (GALLERY_FILE, MAP_FILE):
            target.remove(name)
            there = next((path for part in by_seed if (path := part.files / name).is_file()), None)
            if there:
                target.replace(name, there.read_bytes())


def _part(folder: Folder, files: Path) -> _Part:
    for name in (*_TABLES, EXPERIMENT_FILE, RUN_FILE):
        if not (files / name).is_file():
            raise RunFolderError(f"no {name} in {folder}: it is not the folder of a finished run")
    record = earlier_record(files)
    if record is None or "trainings" not in record:
        raise RunFolderError(f"{folder}/{RUN_FILE} is not the record of a run: run it again")
    try:
        return _Part(folder, files, load_experiment(files / EXPERIMENT_FILE), record)
    except ConfigError as error:
        raise RunFolderError(f"{folder} cannot be joined: {error}") from error


def _refuse_another_experiment(first: _Part, other: _Part) -> None:
    one, another = (part.experiment.model_dump(mode="json") for part in (first, other))
    difference = first_difference(one, another, _FREE) or first_difference(first.decisive, other.decisive)
    if difference:
        raise RunFolderError(f"{first.folder} and {other.folder} are not of one experiment: {difference}")


def _refuse_shared_seeds(parts: Sequence[_Part]) -> None:
    owners: dict[int, Folder] = {}
    for part in parts:
        for seed in part.experiment.seeds:
            if seed in owners:
                raise RunFolderError(f"seed {seed} is in {owners[seed]} and in {part.folder}: join runs of other seeds")
            owners[seed] = part.folder


def _joined_table(name: str, parts: Sequence[_Part]) -> pa.Table:
    """All rows, run by run; a column that one of them is too old for is null there."""
    joined = None
    for part in parts:
        try:
            table = pq.read_table(part.files / name)
            joined = pa.concat_tables([joined, table], promote_options="default") if joined else table
        except (OSError, pa.ArrowException) as error:
            raise RunFolderError(f"{part.folder}/{name} cannot be joined ({reason_of(error)}): run it again") from error
    return joined


def _refuse_what_is_there(out: Folder, files: Path) -> None:
    record = earlier_record(files)
    taken = [name for name in (*_TABLES, EXPERIMENT_FILE, RUN_FILE) if (files / name).exists()]
    if taken and not (record and record.get("joined")):
        raise RunFolderError(f"{out} holds a {taken[0]} that is not of joined runs: give another folder with --out")


def _record(parts: Sequence[_Part], command: str) -> dict[str, Any]:
    first = parts[0].record
    counts = ("wanted", "different", "shared")  # with different seeds no training is the same
    return {
        **{key: first.get(key) for key in ("name", "question", "raylearn", "versions", "dataset", "initial_weights")},
        "command": command,
        "trainings": {key: sum(part.record["trainings"][key] for part in parts) for key in counts},
        "failed": [failure for part in parts for failure in part.record.get("failed") or []],
        "joined": [entry for part in parts for entry in _origins(part)],
    }


def _origins(part: _Part) -> list[dict[str, Any]]:
    """The runs that a part is made of: itself, or those that were joined before."""
    own = {"folder": str(part.folder), "seeds": list(part.experiment.seeds)}
    return part.record.get("joined") or [own | {key: part.record.get(key) for key in _OF_A_PART}]
