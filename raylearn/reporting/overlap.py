"""How much what arms asked for has in common: where that is nearly all, they cannot differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raylearn.errors import RunFolderError
from raylearn.reporting.summary import Arm, one_line


@dataclass(frozen=True, eq=False)
class Overlap:
    """Arms of one query size.

    Args:
        arms: that asked for images.
        shares: (A, A) in [0, 1]: the share of the images asked for in all rounds that two arms have in common with the
            same seed, the mean over seeds; 1 on the diagonal.
        by_chance: the same for two arms that choose independently and at random from the pool, or None.
    """

    query_size: int
    arms: tuple[Arm, ...]
    shares: np.ndarray
    by_chance: float | None


def read_asked(path: Path) -> dict[str, set[str]]:
    """Trial -> ids of all images it asked for, from queries.parquet.

    Raises:
        RunFolderError: it cannot be read.
    """
    try:
        rows = pq.read_table(path, columns=["trial", "image_id"]).to_pydict()
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise RunFolderError(f"{path} cannot be read ({one_line(error)}): run 'raylearn run' again") from error
    asked: dict[str, set[str]] = {}
    for trial, image_id in zip(rows["trial"], rows["image_id"], strict=True):
        asked.setdefault(str(trial), set()).add(str(image_id))
    return asked


def overlaps(
    arms: Sequence[Arm], asked: Mapping[str, set[str]], num_pool: int | None, initial_size: int | None
) -> list[Overlap]:
    """For each query size with two arms or more.

    Args:
        arms: of a summary.
        asked: of `read_asked`.
        num_pool, initial_size: images of the pool, and of those the ones that no arm had to ask for.
    """
    found = []
    for size in sorted({arm.key.query_size for arm in arms if arm.key.query_size}):
        own = tuple(arm for arm in arms if arm.key.query_size == size and any(trial in asked for trial in arm.trials))
        if len(own) < 2:
            continue
        shares = np.array([[_share(one, other, asked) for other in own] for one in own])
        counts = [len(asked[trial]) for arm in own for trial in arm.trials if trial in asked]
        free = (num_pool or 0) - (initial_size or 0)
        by_chance = float(np.mean(counts)) / free if num_pool and initial_size and free > 0 else None
        found.append(Overlap(size, own, shares, by_chance))
    return found


def _share(one: Arm, other: Arm, asked: Mapping[str, set[str]]) -> float:
    ours, theirs = (dict(zip(arm.seeds, arm.trials, strict=True)) for arm in (one, other))
    pairs = [
        (asked[ours[seed]], asked[theirs[seed]])
        for seed in ours.keys() & theirs.keys()
        if ours[seed] in asked and theirs[seed] in asked
    ]
    return float(np.mean([len(a & b) / max(len(a), len(b)) for a, b in pairs])) if pairs else float("nan")
