"""How much queries overlap, as a table for a terminal and a CSV file."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from raylearn.data.storage import not_writable

_COLUMN = 5


def show_comparison(names: Sequence[str], overlaps: np.ndarray, size: int, csv_file: Path | None) -> str:
    """A table of (A, A) shares in per cent; the same with names in every column is written to `csv_file`.

    Args:
        names: of the strategies, for people.
        overlaps: (A, A) in [0, 1].
        size: of each query.
        csv_file: None writes none.

    Raises:
        InputError, StorageError: the file cannot be written.
    """
    if csv_file is not None:
        try:
            with csv_file.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["arm", *names])
                writer.writerows([name, *map(float, row)] for name, row in zip(names, overlaps, strict=True))
        except OSError as error:
            raise not_writable(csv_file, error) from error
    width = max(map(len, names))
    header = " " * (width + 4) + "".join(f"{number:>{_COLUMN}}" for number in range(1, len(names) + 1))
    lines = [f"images that two queries of {size:,} have in common, per cent", header]
    for number, (name, row) in enumerate(zip(names, overlaps, strict=True), start=1):
        shares = "".join(f"{100 * share:>{_COLUMN}.0f}" for share in row[:number])
        lines.append(f"{number:>3} {name:<{width}}{shares}")
    return "\n".join(lines)
