"""summary.csv: what the report's table of verdicts says, for other programs."""

import csv
import io
from collections.abc import Iterator, Sequence

import numpy as np

from raylearn.reporting.statistics import ArmStatistics

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


def summary_text(arms: Sequence[ArmStatistics]) -> str:
    """The file's text: a row for every arm, outcome and control; numbers with six digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(summary_rows(arms))
    return text.getvalue()


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
