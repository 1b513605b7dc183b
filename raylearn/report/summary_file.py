"""summary.csv: what the report's table of verdicts says, for other programs."""

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from raylearn.report.statistics import ArmStatistics

SUMMARY_FILE = "summary.csv"
COLUMNS = (
    "arm",
    "query_size",
    "outcome",
    "seeds",
    "mean",
    "control",
    "difference",
    "low",
    "high",
    "p",
    "verdict",
)


def write_summary(arms: Sequence[ArmStatistics], run_folder: Path) -> Path:
    """Writes summary.csv, at once: a row for every arm, outcome and control; numbers with six digits."""
    path = run_folder / SUMMARY_FILE
    aside = run_folder / f".{SUMMARY_FILE}.unfinished"
    with aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(summary_rows(arms))
    os.replace(aside, path)
    return path


def summary_rows(arms: Sequence[ArmStatistics]) -> Iterator[dict[str, str]]:
    """The rows, as text; what does not apply is empty."""
    for arm in arms:
        named = {"arm": arm.label, "query_size": str(arm.key.query_size or "")}
        for outcome, by_seed in arm.outcomes.items():
            measured = {**named, "outcome": outcome, "seeds": str(len(by_seed))}
            measured |= {"mean": _number(float(np.mean(list(by_seed.values()))))} if by_seed else {}
            compared = [difference for difference in arm.differences if difference.outcome == outcome]
            for difference in compared:
                low, high = difference.interval or (None, None)
                yield {
                    **measured,
                    "control": difference.control,
                    "difference": _number(difference.mean),
                    "low": _number(low),
                    "high": _number(high),
                    "p": _number(difference.p),
                    "verdict": difference.verdict,
                }
            if not compared:
                yield measured
        if arm.reach:
            for unit in ("images", "boxes"):
                seeds = f"{arm.reach.num_reached} of {arm.reach.num_seeds}"
                yield {**named, "outcome": f"{unit} to 90 %", "seeds": seeds, "mean": _number(getattr(arm.reach, unit))}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
