"""A small sweep as a user runs it, and what it leaves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

CONTENT = {
    "name": "small",
    "dataset": {"format": "reef", "reef": {"num_pool": 40, "num_test": 12}},
    "detector": {"image_size": 64},
    "training": {"epochs": 1, "batch_size": 8, "options": {"mosaic": 0.0}},
    "scoring": {"confidence": 0.0},
    "initial_size": 8,
    "budget": 8,
    "arms": {
        "uncertainty": ["entropy", "margin"],
        "weighting": ["none", "inverse_frequency"],
        "query_size": [4],
        "controls": ["random", "box_count", "full_data"],
    },
    "seeds": [0],
}
ONE_ARM = {**CONTENT, "arms": {"uncertainty": ["entropy"], "query_size": [4], "controls": ["random"]}}
"""Two of the trials of CONTENT, five trainings of six."""


def command_of(content: dict[str, object], folder: Path, *arguments: str) -> list[str]:
    file = folder.with_suffix(".yaml")
    file.write_text(json.dumps(content))
    out = () if "--out" in arguments else ("--out", folder.name)
    return [str(Path(sys.executable).with_name("raylearn")), "run", str(file), *out, *arguments]


def run_sweep(content: dict[str, object], folder: Path, *arguments: str, **environment: str) -> str:
    """Runs the command as a user does and gives back what it printed."""
    done = subprocess.run(
        command_of(content, folder, *arguments),
        capture_output=True,
        text=True,
        timeout=280,
        cwd=folder.parent,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def rows_of(folder: Path, table: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = pq.read_table(folder / f"{table}.parquet").to_pylist()
    return rows


def results_of(folder: Path) -> list[dict[str, object]]:
    """The rows of results.parquet, but for how long things took."""
    return [
        {name: value for name, value in row.items() if not name.endswith("_seconds")}
        for row in rows_of(folder, "results")
    ]


def assert_same_trials(folder: Path, finished: Path) -> None:
    """Both runs tell the same of every trial of the first, but for which of them made what was shared."""
    ours = results_of(folder)
    trials = {row["trial"] for row in ours}
    theirs = [row for row in results_of(finished) if row["trial"] in trials]
    assert [{**row, "reused": None} for row in ours] == [{**row, "reused": None} for row in theirs]
    asked = [row for row in rows_of(finished, "queries") if row["trial"] in trials]
    assert asked
    assert rows_of(folder, "queries") == asked
