"""How much queries overlap, as a table for a terminal and a CSV file."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from raylearn.config import Arm
from raylearn.data.storage import not_writable

_COLUMN = 5


def show_comparison(arms: Sequence[Arm], overlaps: np.ndarray, size: int, csv_file: Path | None) -> str:
    """A table of (A, A) shares in per cent; the same with names in every column is written to `csv_file`.

    Raises:
        InputError, StorageError: the file cannot be written.
    """
    names = [arm_name(arm) for arm in arms]
    if csv_file is not None:
        try:
            with csv_file.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["arm", *names])
                writer.writerows([name, *map(float, row)] for name, row in zip(names, overlaps, strict=True))
        except OSError as error:
            raise not_writable(csv_file, error) from error
    width = max(map(len, names))
    header = " " * (width + 4) + "".join(f"{number:>{_COLUMN}}" for number in range(1, len(arms) + 1))
    lines = [f"images that two queries of {size:,} have in common, per cent", header]
    for number, (name, row) in enumerate(zip(names, overlaps, strict=True), start=1):
        shares = "".join(f"{100 * share:>{_COLUMN}.0f}" for share in row[:number])
        lines.append(f"{number:>3} {name:<{width}}{shares}")
    return "\n".join(lines)


def arm_name(arm: Arm) -> str:
    """An arm without its query size: its axes, as far as they are not the defaults."""
    if arm.strategy != "uncertainty":
        return arm.strategy
    axes = [arm.uncertainty, arm.aggregation, arm.weighting, arm.probabilities]
    return " ".join(str(axis) for axis in axes if axis not in ("none", "background"))
