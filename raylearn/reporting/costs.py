"""What labelling cost: boxes that were expected and boxes that were paid, and both in hours."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raylearn.errors import RunFolderError
from raylearn.reporting.summary import Arm, one_line

_COLUMNS = ["trial", "round", "predicted_boxes", "boxes"]


@dataclass(frozen=True)
class Cost:
    """Seconds that people take, as the experiment file has them."""

    image: float
    box: float

    def hours(self, num_images: float, num_boxes: float) -> float:
        return (self.image * num_images + self.box * num_boxes) / 3600

    @classmethod
    def of(cls, section: Any) -> "Cost":
        """Raises ValueError for what is no section of an experiment file."""
        if not isinstance(section, Mapping) or not {"image", "box"} <= section.keys():
            raise ValueError("cost needs image and box")
        seconds = [float(section[key]) for key in ("image", "box")]
        if not all(math.isfinite(value) and value >= 0 for value in seconds):
            raise ValueError(f"cost of {seconds} seconds")
        return cls(*seconds)


@dataclass(frozen=True)
class Paid:
    """One query, or the mean of several.

    Args:
        num_images: that were asked for.
        predicted: boxes that the detector expected in them; None where it was not asked.
        boxes: that people drew in them; None where nobody knows.
    """

    num_images: float
    predicted: float | None
    boxes: float | None


def read_paid(path: Path) -> dict[tuple[str, int], Paid]:
    """Trial and round -> what was asked for, from queries.parquet; nothing from one of before boxes were in it.

    Raises:
        RunFolderError: it cannot be read.
    """
    try:
        if not set(_COLUMNS) <= set(pq.read_schema(path).names):
            return {}
        queries: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
        for row in pq.read_table(path, columns=_COLUMNS).to_pylist():
            queries.setdefault((str(row["trial"]), int(row["round"])), []).append(row)
        return {
            query: Paid(len(rows), _sum(rows, "predicted_boxes"), _sum(rows, "boxes"))
            for query, rows in queries.items()
        }
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        raise RunFolderError(f"{path} cannot be read ({one_line(error)}): run 'raylearn run' again") from error


def paid_by_round(
    arms: Sequence[Arm], paid: Mapping[tuple[str, int], Paid]
) -> Iterator[tuple[Arm, Sequence[tuple[int, Paid]]]]:
    """Each arm that asked, with its rounds: means over its trials."""
    for arm in arms:
        rounds: dict[int, list[Paid]] = {}
        for (trial, number), query in paid.items():
            if trial in arm.trials:
                rounds.setdefault(number, []).append(query)
        if rounds:
            yield arm, [(number, _mean(queries)) for number, queries in sorted(rounds.items())]


def _sum(rows: Sequence[Mapping[str, Any]], column: str) -> float | None:
    values = [row[column] for row in rows]
    return None if None in values else float(sum(values))


def _mean(queries: Sequence[Paid]) -> Paid:
    """Of predicted boxes and of paid ones only where every query has them, so that the two can be compared."""
    predicted = [query.predicted for query in queries if query.predicted is not None]
    boxes = [query.boxes for query in queries if query.boxes is not None]
    return Paid(
        float(np.mean([query.num_images for query in queries])),
        float(np.mean(predicted)) if len(predicted) == len(queries) else None,
        float(np.mean(boxes)) if len(boxes) == len(queries) else None,
    )
