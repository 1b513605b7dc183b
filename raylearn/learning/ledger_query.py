"""Queries from a finished ledger, read part by part, so that it may be larger than memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raylearn.config import Aggregation, Arm, Probabilities, Uncertainty, Weighting
from raylearn.data.storage import Folder
from raylearn.detectors.base import Detections
from raylearn.errors import LedgerError, QueryError
from raylearn.learning.selection import image_scores
from raylearn.query.sampling import random_generator, tie_order
from raylearn.scoring.ledger import flat, map_parts, offsets_of, read_facts

_COLUMNS = ("image_id", "uri", "status", "class_scores")


@dataclass(frozen=True, eq=False)
class LedgerPart:
    """The readable images of one part of a ledger, without those that were left out.

    Args:
        image_ids, uris: (N,) of Arrow.
        offsets: (N + 1,) int64; image i owns detections offsets[i] to offsets[i + 1].
        class_scores: (D, K) float32.
    """

    image_ids: pa.ChunkedArray
    uris: pa.ChunkedArray
    offsets: np.ndarray
    class_scores: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True)
class QueriedImage:
    """One image of a query.

    Args:
        rank: from 1, the most wanted first.
        score: the number it was ranked by.
        classes: predicted class -> detections of it, the most frequent first.
    """

    rank: int
    image_id: str
    uri: str
    score: float
    num_detections: int
    classes: Mapping[str, int]


@dataclass(frozen=True)
class LedgerQuery:
    """The answer to one query.

    Args:
        images: the most wanted first.
        num_candidates: images that could have been chosen.
        num_errors: images of the ledger that could not be read when it was made, and so were not looked at.
        num_excluded: images of the ledger that were left out because they were named.
    """

    images: tuple[QueriedImage, ...]
    num_candidates: int
    num_errors: int
    num_excluded: int


def query_ledger(
    folder: Folder,
    arm: Arm,
    size: int,
    *,
    seed: int,
    class_counts: Mapping[str, int] | None = None,
    weight_cap: float | None = None,
    exclude: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> LedgerQuery:
    """The `size` images that an arm wants most.

    Args:
        folder: of a finished ledger.
        arm: how images are ranked; `random` ranks them by a hash of seed and id.
        size: how many.
        seed: orders images of equal score.
        class_counts: boxes per class in the currently labelled images, by name; weightings other than none need it.
        weight_cap: upper limit of a class weight.
        exclude: ids that are labelled already, or not wanted for another reason.
        progress: told how many parts are done, of how many.

    Raises:
        LedgerError: no finished ledger, or a damaged one.
        QueryError: more images than there are, or class counts that are missing or of other classes.
    """
    (best,), totals, names = _best_of_each(folder, [arm], size, seed, class_counts, weight_cap, exclude, progress)
    return LedgerQuery(best.images(names), totals.candidates, totals.errors, totals.excluded)


def compare_arms(
    folder: Folder,
    arms: Sequence[Arm],
    size: int,
    *,
    seed: int,
    class_counts: Mapping[str, int] | None = None,
    weight_cap: float | None = None,
    exclude: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> np.ndarray:
    """How much the queries of several arms have in common, from one reading of the ledger; see `query_ledger`.

    Returns:
        (A, A) float64 in [0, 1]: the share of images that the queries of two arms have in common; 1 on the diagonal.
    """
    bests, _, _ = _best_of_each(folder, arms, size, seed, class_counts, weight_cap, exclude, progress)
    chosen = [best.ids() for best in bests]
    return np.array([[len(one & other) / size for other in chosen] for one in chosen])


def _best_of_each(
    folder: Folder,
    arms: Sequence[Arm],
    size: int,
    seed: int,
    class_counts: Mapping[str, int] | None,
    weight_cap: float | None,
    exclude: Sequence[str],
    progress: Callable[[int, int], None],
) -> tuple[list["_Best"], "_Totals", list[str]]:
    """The best images of each arm, from one reading; what was read; and the class names."""
    facts = read_facts(folder)
    names = class_names(facts, folder)
    counts = [counts_by_class(class_counts, names, arm) for arm in arms]
    bests = [_Best(size, _tie_seed(arm, seed)) for arm in arms]
    totals = _Totals()
    score = partial(
        _score_part, arms=list(zip(arms, counts, strict=True)), weight_cap=weight_cap, left_out=_strings(exclude)
    )
    for done, (part, scores, part_totals) in enumerate(map_parts(folder, facts, _COLUMNS, score), start=1):
        for best, own in zip(bests, scores, strict=True):
            best.add(part, own)
        totals += part_totals
        progress(done, facts["num_parts"])
    _check_size(size, totals)
    return bests, totals, names


def detections_of(folder: Folder, image_ids: Sequence[str]) -> dict[str, tuple[tuple[int, int], Detections]]:
    """Image id -> (width, height) and detections of images of a finished ledger.

    Raises:
        LedgerError: no finished ledger, a damaged one, or one that lacks an image.
    """
    facts = read_facts(folder)
    wanted = _strings(image_ids)

    def look(table: pa.Table) -> dict[str, tuple[tuple[int, int], Detections]]:
        kept = table.filter(pc.is_in(table["image_id"], wanted))
        offsets = offsets_of(kept["class_scores"])
        boxes, scores = flat(kept["boxes"]), flat(kept["class_scores"])
        rows = zip(*(kept[name].to_pylist() for name in ("image_id", "width", "height")), strict=True)
        return {
            image_id: ((width, height), Detections(boxes[start:end], scores[start:end]))
            for (image_id, width, height), start, end in zip(rows, offsets[:-1], offsets[1:], strict=True)
        }

    columns = ("image_id", "width", "height", "boxes", "class_scores")
    found = {image_id: seen for part in map_parts(folder, facts, columns, look) for image_id, seen in part.items()}
    missing = sorted(set(image_ids) - found.keys())
    if missing:
        raise LedgerError(f"{folder} has no image {missing[0]!r}")
    return found


def all_arms(size: int, probabilities: Probabilities, weighted: bool) -> list[Arm]:
    """Every uncertainty with every aggregation and, if `weighted`, weighting; then the controls."""
    weightings: tuple[Weighting, ...] = get_args(Weighting) if weighted else ("none",)
    grid = product(get_args(Uncertainty), get_args(Aggregation), weightings)
    arms = [Arm("uncertainty", *axes, probabilities, size) for axes in grid]
    return [*arms, Arm("random", query_size=size), Arm("box_count", query_size=size)]


def class_names(facts: Mapping[str, Any], folder: Folder) -> list[str]:
    """Of a ledger, in the order of class ids.

    Raises:
        LedgerError: it does not say; ledgers inside a run's store belong to their run.
    """
    names = facts.get("class_names")
    if not isinstance(names, list):
        raise LedgerError(f"{folder} does not name its classes: query a ledger that `raylearn score` made")
    return names


def counts_by_class(class_counts: Mapping[str, int] | None, names: Sequence[str], arm: Arm) -> np.ndarray:
    """(K,) boxes per class in the order of the ledger's classes.

    Raises:
        QueryError: the arm needs counts and there are none, or their classes are not the ledger's.
    """
    if class_counts is None:
        if arm.weighting not in (None, "none"):
            raise QueryError(
                f"weighting {arm.weighting} needs the boxes labelled so far: give --class-counts, a data set or JSON"
            )
        return np.zeros(len(names), dtype=np.int64)
    unknown = [name for name in class_counts if name not in names]
    missing = [name for name in names if name not in class_counts]
    if unknown or missing:
        wrong = f"{unknown[0]!r} is no class of the ledger" if unknown else f"{missing[0]!r} has no count"
        raise QueryError(f"class counts: {wrong}; its classes are {', '.join(names)}")
    return np.array([class_counts[name] for name in names], dtype=np.int64)


@dataclass(frozen=True)
class _Totals:
    candidates: int = 0
    errors: int = 0
    excluded: int = 0

    def __add__(self, other: "_Totals") -> "_Totals":
        return _Totals(self.candidates + other.candidates, self.errors + other.errors, self.excluded + other.excluded)


def _tie_seed(arm: Arm, seed: int) -> int:
    """Chance has a seed of its own, or it would choose what other arms choose among images of equal score."""
    return int(random_generator(seed, "random query").integers(2**62)) if arm.strategy == "random" else seed


def _strings(values: Sequence[str]) -> pa.Array:
    return pa.array(sorted(set(values)), pa.string())


def _score_part(
    table: pa.Table, arms: Sequence[tuple[Arm, np.ndarray]], weight_cap: float | None, left_out: pa.Array
) -> tuple[LedgerPart, list[np.ndarray], _Totals]:
    """A part of a ledger without what cannot be asked for, and its image scores by each arm with its class counts."""
    readable = table.filter(pc.equal(table["status"], "ok"))
    kept = readable.filter(pc.invert(pc.is_in(readable["image_id"], left_out))) if len(left_out) else readable
    totals = _Totals(kept.num_rows, table.num_rows - readable.num_rows, readable.num_rows - kept.num_rows)
    class_scores = kept["class_scores"]
    part = LedgerPart(kept["image_id"], kept["uri"], offsets_of(class_scores), flat(class_scores))
    scores = [
        # all equal where chance is to choose, so that the hash of seed and id decides
        np.zeros(len(part)) if arm.strategy == "random" else image_scores(arm, part, counts, weight_cap)
        for arm, counts in arms
    ]
    return part, scores, totals


def _check_size(size: int, totals: _Totals) -> None:
    if size > totals.candidates:
        raise QueryError(
            f"a query of {size:,} images, but the ledger has {totals.candidates:,} that can be asked for "
            f"({totals.errors:,} could not be read, {totals.excluded:,} are excluded): lower --size"
        )


class _Best:
    """The images of the highest scores so far, in order, and what is to be told of them."""

    def __init__(self, size: int, seed: int) -> None:
        if size < 1:
            raise QueryError(f"a query of {size} images: ask for one at least")
        self._size, self._seed = size, seed
        self._ids: list[str] = []
        self._uris: list[str] = []
        self._classes: list[np.ndarray] = []
        self._scores = np.empty(0)
        self._ties = np.empty(0, np.uint64)

    def add(self, part: LedgerPart, scores: np.ndarray) -> None:
        wanted = self._promising(scores)
        ids = part.image_ids.take(wanted).to_pylist()
        uris = part.uris.take(wanted).to_pylist()
        own = np.concatenate([self._scores, scores[wanted]])
        ties = np.concatenate([self._ties, tie_order(ids, self._seed)])
        best = np.lexsort((ties, -own))[: self._size]
        before = len(self._ids)
        self._ids = [self._ids[i] if i < before else ids[i - before] for i in best]
        self._uris = [self._uris[i] if i < before else uris[i - before] for i in best]
        self._classes = [self._classes[i] if i < before else _classes_of(part, wanted[i - before]) for i in best]
        self._scores, self._ties = own[best], ties[best]

    def _promising(self, scores: np.ndarray) -> np.ndarray:
        """Positions of what can come in: once there are enough, only what is not below the lowest of them."""
        threshold = self._scores[-1] if len(self._scores) == self._size else -np.inf
        wanted = np.flatnonzero(scores >= threshold)
        if len(wanted) > self._size:
            cut = np.partition(scores[wanted], -self._size)[-self._size]
            wanted = wanted[scores[wanted] >= cut]
        return wanted

    def ids(self) -> set[str]:
        return set(self._ids)

    def images(self, names: Sequence[str]) -> tuple[QueriedImage, ...]:
        told = []
        for rank, (image_id, uri, score, class_ids) in enumerate(
            zip(self._ids, self._uris, self._scores.tolist(), self._classes, strict=True), start=1
        ):
            counts = np.bincount(class_ids, minlength=len(names))
            classes = {names[k]: int(counts[k]) for k in np.argsort(-counts, kind="stable") if counts[k]}
            told.append(QueriedImage(rank, image_id, uri, score, len(class_ids), classes))
        return tuple(told)


def _classes_of(part: LedgerPart, image: int) -> np.ndarray:
    """(n,) the predicted class of each detection of one image."""
    class_ids: np.ndarray = part.class_scores[part.offsets[image] : part.offsets[image + 1]].argmax(axis=1)
    return class_ids.astype(np.int32)
