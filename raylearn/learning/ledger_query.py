"""Queries from a finished ledger, read part by part, so that it may be larger than memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raylearn.data.storage import Folder
from raylearn.detectors.base import Detections
from raylearn.errors import LedgerError, QueryError
from raylearn.measures.aggregation import AGGREGATIONS
from raylearn.measures.sampling import tie_order
from raylearn.measures.uncertainty import UNCERTAINTIES
from raylearn.measures.weighting import WEIGHTINGS
from raylearn.scoring.ledger import flat, map_parts, offsets_of, read_facts
from raylearn.strategies import (
    Candidates,
    Context,
    ImageScoring,
    Query,
    Strategy,
    Uncertainty,
    asking,
    checked,
    controls,
    make_strategy,
)

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

    @classmethod
    def of(
        cls, rank: int, image_id: str, uri: str, score: float, class_ids: np.ndarray, names: Sequence[str]
    ) -> "QueriedImage":
        """Counts (n,) predicted classes by their names."""
        counts = np.bincount(class_ids, minlength=len(names))
        classes = {names[k]: int(counts[k]) for k in np.argsort(-counts, kind="stable") if counts[k]}
        return cls(rank, image_id, uri, score, len(class_ids), classes)


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
    strategy: Strategy,
    size: int,
    *,
    seed: int,
    class_counts: Mapping[str, int] | None = None,
    exclude: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> LedgerQuery:
    """The `size` images that a strategy wants most.

    Args:
        folder: of a finished ledger.
        strategy: how images are chosen.
        size: how many.
        seed: decides what chance decides, the order of images of equal score included.
        class_counts: boxes per class in the currently labelled images, by name; some strategies need it.
        exclude: ids that are labelled already, or not wanted for another reason.
        progress: told how many parts are done, of how many.

    Raises:
        LedgerError: no finished ledger, or a damaged one.
        QueryError: more images than there are, or class counts that are missing or of other classes.
    """
    (best,), totals, names = _best_of_each(folder, [strategy], size, seed, class_counts, exclude, progress)
    return LedgerQuery(best.images(names), totals.candidates, totals.errors, totals.excluded)


def compare_strategies(
    folder: Folder,
    strategies: Sequence[Strategy],
    size: int,
    *,
    seed: int,
    class_counts: Mapping[str, int] | None = None,
    exclude: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> np.ndarray:
    """How much the queries of several strategies have in common, from one reading of the ledger; see `query_ledger`.

    Returns:
        (A, A) float64 in [0, 1]: the share of images that two queries have in common; 1 on the diagonal.
    """
    bests, _, _ = _best_of_each(folder, strategies, size, seed, class_counts, exclude, progress)
    chosen = [best.ids() for best in bests]
    return np.array([[len(one & other) / size for other in chosen] for one in chosen])


def _best_of_each(
    folder: Folder,
    strategies: Sequence[Strategy],
    size: int,
    seed: int,
    class_counts: Mapping[str, int] | None,
    exclude: Sequence[str],
    progress: Callable[[int, int], None],
) -> tuple[list["_Best | _Gathered"], "_Totals", list[str]]:
    """What each strategy chooses, from one reading; what was read; and the class names."""
    if size < 1:
        raise QueryError(f"a query of {size} images: ask for one at least")
    facts = read_facts(folder)
    names = class_names(facts, folder)
    bests: list[_Best | _Gathered] = []
    for strategy in strategies:
        strategy.refuse_unmet_needs()
        strategy.refuse_classes(len(names))
        context = Context(seed, counts_by_class(class_counts, names, strategy))
        if isinstance(strategy, ImageScoring):
            bests.append(_Best(strategy, size, context))
        else:
            bests.append(_Gathered(strategy, size, context, len(names)))
    totals = _Totals()
    look = partial(_look_at_part, bests=bests, left_out=_strings(exclude))
    for done, (part, seen, part_totals) in enumerate(map_parts(folder, facts, _COLUMNS, look), start=1):
        for best, own in zip(bests, seen, strict=True):
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


def all_choices(probabilities: str, weighted: bool, weight_cap: float | None = None) -> list[Strategy]:
    """Every uncertainty with every aggregation and, if `weighted`, weighting; then the controls that ask."""
    weightings = WEIGHTINGS if weighted else WEIGHTINGS[:1]
    grid = product(UNCERTAINTIES, AGGREGATIONS, weightings)
    chosen = [Uncertainty(*axes, probabilities, weight_cap if axes[-1] != WEIGHTINGS[0] else None) for axes in grid]
    return [*chosen, *(make_strategy(name) for name in controls() if name in asking())]


def class_names(facts: Mapping[str, Any], folder: Folder) -> list[str]:
    """Of a ledger, in the order of class ids.

    Raises:
        LedgerError: it does not say; ledgers inside a run's store belong to their run.
    """
    names = facts.get("class_names")
    if not isinstance(names, list):
        raise LedgerError(f"{folder} does not name its classes: query a ledger that `raylearn score` made")
    return names


def counts_by_class(class_counts: Mapping[str, int] | None, names: Sequence[str], strategy: Strategy) -> np.ndarray:
    """(K,) boxes per class in the order of the ledger's classes.

    Raises:
        QueryError: the strategy needs counts and there are none, or their classes are not the ledger's.
    """
    if class_counts is None:
        if strategy.needs_class_counts:
            raise QueryError(
                f"{strategy.label} needs the boxes labelled so far: give --class-counts, a data set or JSON"
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


def _strings(values: Sequence[str]) -> pa.Array:
    return pa.array(sorted(set(values)), pa.string())


def _look_at_part(
    table: pa.Table, bests: Sequence["_Best | _Gathered"], left_out: pa.Array
) -> tuple[LedgerPart, list[np.ndarray], _Totals]:
    """A part of a ledger without what cannot be asked for, and what each collector makes of it, in a thread."""
    readable = table.filter(pc.equal(table["status"], "ok"))
    kept = readable.filter(pc.invert(pc.is_in(readable["image_id"], left_out))) if len(left_out) else readable
    totals = _Totals(kept.num_rows, table.num_rows - readable.num_rows, readable.num_rows - kept.num_rows)
    class_scores = kept["class_scores"]
    part = LedgerPart(kept["image_id"], kept["uri"], offsets_of(class_scores), flat(class_scores))
    return part, [best.look(part) for best in bests], totals


def _check_size(size: int, totals: _Totals) -> None:
    if size > totals.candidates:
        raise QueryError(
            f"a query of {size:,} images, but the ledger has {totals.candidates:,} that can be asked for "
            f"({totals.errors:,} could not be read, {totals.excluded:,} are excluded): lower --size"
        )


class _Best:
    """The images of the highest scores so far, in order, and what is to be told of them."""

    def __init__(self, strategy: ImageScoring, size: int, context: Context) -> None:
        self._strategy, self._context, self._size = strategy, context, size
        self._seed = strategy.tie_seed(context.seed)
        self._ids: list[str] = []
        self._uris: list[str] = []
        self._classes: list[np.ndarray] = []
        self._scores = np.empty(0)
        self._ties = np.empty(0, np.uint64)

    def look(self, part: LedgerPart) -> np.ndarray:
        """(N,) image scores of a part."""
        scores = self._strategy.image_scores(part, self._context)
        if scores.shape != (len(part),) or not np.isfinite(scores).all():
            raise QueryError(
                f"{self._strategy.label} gave scores of shape {scores.shape} for {len(part)} images, or one that is "
                "not a finite number"
            )
        return scores

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
        rows = zip(self._ids, self._uris, self._scores.tolist(), self._classes, strict=True)
        return tuple(QueriedImage.of(rank, *row, names) for rank, row in enumerate(rows, start=1))


class _Gathered:
    """All images of a ledger, for a strategy that weighs them against each other: it chooses when all are there."""

    def __init__(self, strategy: Strategy, size: int, context: Context, num_classes: int) -> None:
        self._strategy, self._size, self._context = strategy, size, context
        self._parts: list[LedgerPart] = []
        self._no_scores = np.empty((0, num_classes), np.float32)

    def look(self, part: LedgerPart) -> np.ndarray:  # noqa: ARG002
        """Nothing: a part says nothing of the whole."""
        return np.empty(0)

    def add(self, part: LedgerPart, _: np.ndarray) -> None:
        self._parts.append(part)

    @cached_property
    def _candidates(self) -> Candidates:
        ids = [image_id for part in self._parts for image_id in part.image_ids.to_pylist()]
        counts = np.concatenate([np.diff(part.offsets) for part in self._parts])
        scores = np.concatenate([self._no_scores, *(part.class_scores for part in self._parts)])
        return Candidates(ids, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), scores)

    @cached_property
    def _query(self) -> Query:
        return checked(self._strategy.select(self._candidates, self._size, self._context), self._candidates, self._size)

    def ids(self) -> set[str]:
        return set(self._query.image_ids)

    def images(self, names: Sequence[str]) -> tuple[QueriedImage, ...]:
        candidates = self._candidates
        position = {image_id: index for index, image_id in enumerate(candidates.image_ids)}
        uris = [uri for part in self._parts for uri in part.uris.to_pylist()]
        told = []
        for rank, (image_id, score) in enumerate(zip(self._query.image_ids, self._query.scores, strict=True), start=1):
            index = position[image_id]
            start, end = candidates.offsets[index], candidates.offsets[index + 1]
            class_ids = candidates.class_scores[start:end].argmax(axis=1)
            told.append(QueriedImage.of(rank, image_id, uris[index], score, class_ids, names))
        return tuple(told)


def _classes_of(part: LedgerPart, image: int) -> np.ndarray:
    """(n,) the predicted class of each detection of one image."""
    class_ids: np.ndarray = part.class_scores[part.offsets[image] : part.offsets[image + 1]].argmax(axis=1)
    return class_ids.astype(np.int32)
