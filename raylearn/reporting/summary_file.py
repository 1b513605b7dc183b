"""summary.csv: what the report says of differences, for other programs.

Only rows of the primary outcome and control have p and verdict: those of every other are estimates, with plain 95 %
intervals. `detectable` stands beside a p: the smallest difference that would have been found (see power.py).
`query_unit` says whether `query_size` is of images or of boxes.
"""

import csv
import io
from collections.abc import Iterator, Sequence

import numpy as np

from raylearn.reporting.power import sensitivity
from raylearn.reporting.statistics import ArmStatistics, Difference

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
    "detectable",
    "query_unit",
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
    sizes = {arm.key.query_size for arm in arms}
    could = {size: found.smallest if (found := sensitivity(arms, [size])) else None for size in sizes}
    for arm in arms:
        named = {"arm": arm.label, "query_size": str(arm.key.query_size or "")}
        if arm.key.query_size:
            named["query_unit"] = "boxes" if arm.key.pays_boxes else "images"
        for outcome, by_seed in arm.outcomes.items():
            measured = {**named, "outcome": outcome, "seeds": str(len(by_seed))}
            measured |= {"mean": _number(float(np.mean(list(by_seed.values()))))} if by_seed else {}
            compared = [difference for difference in arm.differences if difference.outcome == outcome]
            for difference in compared:
                yield measured | _compared(difference, could[arm.key.query_size])
            if not compared:
                yield measured
        if arm.reach:
            for unit in ("images", "boxes"):
                seeds = f"{arm.reach.num_reached} of {arm.reach.num_seeds}"
                yield {**named, "outcome": f"{unit} to 90 %", "seeds": seeds, "mean": _number(getattr(arm.reach, unit))}


def _compared(difference: Difference, detectable: float | None) -> dict[str, str]:
    low, high = difference.interval or (None, None)
    return {
        "control": difference.control,
        "difference": _number(difference.mean),
        "low": _number(low),
        "high": _number(high),
        "p": _number(difference.p),
        "verdict": difference.verdict or "",
        "detectable": _number(detectable) if difference.p is not None else "",
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
