"""What a strategy makes of a ledger read part by part: as little as it has to keep of it, until all has been read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Protocol

import numpy as np
import pyarrow as pa

from raylearn.errors import QueryError, TooFewError
from raylearn.measures.sampling import positions_within, tie_order
from raylearn.plugins import told_of
from raylearn.strategies import (
    Candidates,
    Context,
    ImageScoring,
    Query,
    Reason,
    Shortlisting,
    Strategy,
    Summarising,
    Tie,
    ask,
    checked_query,
    select_within,
)


@dataclass(frozen=True, eq=False)
class LedgerPart:
    """Readable images of a ledger, without those that were left out.

    Args:
        image_ids, uris: (N,) of Arrow.
        offsets: (N + 1,) int64; image i owns detections offsets[i] to offsets[i + 1].
        class_scores: (D, K) float32.
        box_embeddings: (D, E) float16; None where they were not read.
        image_embeddings: (N, F) float16; None where they were not read.
        groups: (N,) the group of each image; None where there are no groups.
    """

    image_ids: pa.ChunkedArray
    uris: pa.ChunkedArray
    offsets: np.ndarray
    class_scores: np.ndarray
    box_embeddings: np.ndarray | None = None
    image_embeddings: np.ndarray | None = None
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def candidates(self) -> Candidates:
        """As a strategy is asked about them."""
        ids = self.image_ids.to_pylist()
        return Candidates(ids, self.offsets, self.class_scores, self.box_embeddings, self.image_embeddings, self.groups)

    def take(self, positions: np.ndarray) -> "LedgerPart":
        """These images only, in this order."""
        rows = Candidates(
            np.empty(len(self), object),  # ids go their own way, without becoming Python's
            self.offsets,
            self.class_scores,
            self.box_embeddings,
            self.image_embeddings,
            self.groups,
        ).take(positions)
        return LedgerPart(
            self.image_ids.take(positions),
            self.uris.take(positions),
            rows.offsets,
            rows.class_scores,
            rows.box_embeddings,
            rows.image_embeddings,
            rows.groups,
        )

    @classmethod
    def joined(cls, parts: Sequence["LedgerPart"]) -> "LedgerPart":
        """All images of at least one part, in order."""
        if len(parts) == 1:
            return parts[0]
        counts = np.concatenate([np.diff(part.offsets) for part in parts])
        return cls(
            pa.chunked_array([chunk for part in parts for chunk in part.image_ids.chunks], pa.string()),
            pa.chunked_array([chunk for part in parts for chunk in part.uris.chunks], pa.string()),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            np.concatenate([part.class_scores for part in parts]),
            _joined([part.box_embeddings for part in parts]),
            _joined([part.image_embeddings for part in parts]),
            _joined([part.groups for part in parts]),
        )


def _joined(arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
    there = [array for array in arrays if array is not None]
    return np.concatenate(there) if there else None


@dataclass(frozen=True)
class QueriedImage:
    """One image of a query.

    Args:
        rank: from 1, the most wanted first.
        score: the number it was ranked by.
        classes: predicted class -> detections of it, the most frequent first.
        reason: what else is known of it.
    """

    rank: int
    image_id: str
    uri: str
    score: float
    num_detections: int
    classes: Mapping[str, int]
    reason: Reason = field(default_factory=Reason)

    @classmethod
    def of(
        cls, rank: int, image_id: str, uri: str, score: float, class_ids: np.ndarray, names: Sequence[str]
    ) -> "QueriedImage":
        """Counts (n,) predicted classes by their names."""
        counts = np.bincount(class_ids, minlength=len(names))
        classes = {names[k]: int(counts[k]) for k in np.argsort(-counts, kind="stable") if counts[k]}
        return cls(rank, image_id, uri, score, len(class_ids), classes)


class Collector(Protocol):
    """Reads a ledger for a strategy: `look` at each part in a thread, then `add`, part after part."""

    def look(self, part: LedgerPart) -> np.ndarray:
        """What the strategy makes of a part by itself, one row per image."""
        ...

    def add(self, part: LedgerPart, seen: np.ndarray) -> None:
        """Keeps what will be needed of a part, given what `look` saw in it."""
        ...

    def ids(self) -> set[str]:
        """Of the query, once all parts were added."""
        ...

    def images(self, names: Sequence[str]) -> tuple[QueriedImage, ...]:
        """The query, once all parts were added; `names` are those of the classes."""
        ...

    @property
    def tie(self) -> Tie | None:
        """At the border of the query, once all parts were added; None where there is none, or where nobody knows."""
        ...


def collector_of(strategy: Strategy, size: int, context: Context) -> Collector:
    """The collector that keeps least for a strategy's kind."""
    if isinstance(strategy, ImageScoring):
        return _Best(strategy, size, context)
    if isinstance(strategy, Shortlisting):
        return _Shortlist(strategy, size, context)
    if isinstance(strategy, Summarising):
        return _Summaries(strategy, size, context)
    return _Gathered(strategy, size, context)


class _TopRows:
    """The images of the highest scores so far, at most so many of each group."""

    def __init__(self, size: int, seed: int, limit: int | None) -> None:
        self._size, self._seed, self._limit = size, seed, limit
        self._parts: list[LedgerPart] = []
        self._scores, self._ties = np.empty(0), np.empty(0, np.uint64)
        self._threshold = -np.inf
        self._dropped = 0  # images of the threshold's own score that did not make it

    def add(self, part: LedgerPart, scores: np.ndarray) -> None:
        wanted = np.flatnonzero(scores >= self._threshold)
        if self._limit is None and len(wanted) > self._size:
            cut = np.partition(scores[wanted], -self._size)[-self._size]
            wanted = wanted[scores[wanted] >= cut]
        if not len(wanted):
            return
        rows = part.take(wanted)
        self._parts.append(rows)
        self._scores = np.concatenate([self._scores, scores[wanted]])
        self._ties = np.concatenate([self._ties, tie_order(rows.image_ids.to_pylist(), self._seed)])
        if len(self._scores) > 2 * self._size:  # not at each part, so that a large query costs no more than its sorting
            self._cut()

    def _cut(self) -> None:
        rows = LedgerPart.joined(self._parts)
        order = np.lexsort((self._ties, -self._scores))
        allowed = positions_within(order, rows.groups, self._limit)
        best = allowed[: self._size]
        lost = self._scores[allowed[self._size :]]
        self._parts = [rows.take(best)]
        self._scores, self._ties = self._scores[best], self._ties[best]
        if len(best) == self._size:
            before, self._threshold = self._threshold, self._scores[-1]
            self._dropped *= before == self._threshold
            self._dropped += int(np.count_nonzero(lost == self._threshold))

    def ranked(self) -> tuple[LedgerPart, np.ndarray]:
        """The images, best first, and their scores."""
        self._cut()
        return self._parts[0], self._scores

    @property
    def tie(self) -> Tie | None:
        """At the border of what `ranked` gave."""
        return Tie.at_border(self._scores, int(np.count_nonzero(self._scores == self._scores[-1])) + self._dropped)


def _told(rows: LedgerPart, scores: Sequence[float], names: Sequence[str]) -> tuple[QueriedImage, ...]:
    class_ids = rows.class_scores.argmax(axis=1) if len(rows.class_scores) else np.empty(0, np.int64)
    return tuple(
        QueriedImage.of(rank, image_id, uri, float(score), class_ids[start:end], names)
        for rank, (image_id, uri, score, start, end) in enumerate(
            zip(
                rows.image_ids.to_pylist(),
                rows.uris.to_pylist(),
                scores,
                rows.offsets[:-1],
                rows.offsets[1:],
                strict=True,
            ),
            start=1,
        )
    )


def _image_scores(strategy: ImageScoring | Shortlisting, part: LedgerPart, context: Context) -> np.ndarray:
    with told_of(f"strategy {strategy.name}"):
        scores = np.asarray(strategy.image_scores(part, context), dtype=np.float64)
    if scores.shape != (len(part),) or not np.isfinite(scores).all():
        raise QueryError(
            f"{strategy.label} gave scores of shape {scores.shape} for {len(part)} images, or one that is "
            "not a finite number"
        )
    return scores


class _Best:
    """For a strategy that gives each image a number: the best."""

    def __init__(self, strategy: ImageScoring, size: int, context: Context) -> None:
        self._strategy, self._context, self._size = strategy, context, size
        self._top = _TopRows(size, strategy.tie_seed(context.seed), strategy.max_per_group)

    def look(self, part: LedgerPart) -> np.ndarray:
        return _image_scores(self._strategy, part, self._context)

    def add(self, part: LedgerPart, seen: np.ndarray) -> None:
        self._top.add(part, seen)

    @cached_property
    def _ranked(self) -> tuple[LedgerPart, np.ndarray]:
        rows, scores = self._top.ranked()
        _refuse_too_few(len(rows), self._size, self._strategy)
        return rows, scores

    def ids(self) -> set[str]:
        return set(self._ranked[0].image_ids.to_pylist())

    @property
    def tie(self) -> Tie | None:
        return self._top.tie if self._strategy.needs_pass and len(self._ranked[0]) else None

    def images(self, names: Sequence[str]) -> tuple[QueriedImage, ...]:
        rows, scores = self._ranked
        return _told(rows, scores.tolist(), names)


def _refuse_too_few(found: int, size: int, strategy: Strategy) -> None:
    if found < size:
        raise TooFewError(
            f"a query of {size} images, but groups of at most {strategy.max_per_group} images each give {found}: raise "
            "max_per_group, or lower --size",
            found,
        )


class _Shortlist:
    """For a strategy that weighs the best against each other: the best, with all that is known of them."""

    def __init__(self, strategy: Shortlisting, size: int, context: Context) -> None:
        self._strategy, self._context, self._size = strategy, context, size
        self._top = _TopRows(strategy.shortlist_size(size), context.seed, strategy.max_per_group)

    def look(self, part: LedgerPart) -> np.ndarray:
        return _image_scores(self._strategy, part, self._context)

    def add(self, part: LedgerPart, seen: np.ndarray) -> None:
        self._top.add(part, seen)

    @cached_property
    def _chosen(self) -> tuple[LedgerPart, Query]:
        rows, scores = self._top.ranked()
        _refuse_too_few(len(rows), self._size, self._strategy)
        with told_of(f"strategy {self._strategy.name}"):
            query = self._strategy.choose(rows.candidates, scores, self._size, self._context)
            return rows, checked_query(query, rows.candidates.image_ids, self._size)

    def ids(self) -> set[str]:
        return set(self._chosen[1].image_ids)

    @property
    def tie(self) -> Tie | None:
        return self._chosen[1].tie

    def images(self, names: Sequence[str]) -> tuple[QueriedImage, ...]:
        rows, query = self._chosen
        return _told(rows.take(_positions(rows.candidates.image_ids, query)), query.scores, names)


class _Summaries:
    """For a strategy that needs a few numbers of each image: those numbers."""

    def __init__(self, strategy: Summarising, size: int, context: Context) -> None:
        self._strategy, self._context, self._size = strategy, context, size
        self._parts: list[LedgerPart] = []
        self._summaries: list[np.ndarray] = []

    def look(self, part: LedgerPart) -> np.ndarray:
        with told_of(f"strategy {self._strategy.name}"):
            summaries = np.asarray(self._strategy.summaries(part, self._context))
        if summaries.ndim != 2 or len(summaries) != len(part) or not np.isfinite(summaries).all():
            raise QueryError(
                f"{self._strategy.label} gave summaries of shape {summaries.shape} for {len(part)} images, or one that "
                "is not a finite number"
            )
        return summaries

    def add(self, part: LedgerPart, seen: np.ndarray) -> None:
        # Of the detections only what is told of a chosen image is kept: its predicted classes, as scores of one byte.
        predicted = np.zeros(part.class_scores.shape, np.bool_)
        predicted[np.arange(len(predicted)), part.class_scores.argmax(axis=1) if len(predicted) else []] = True
        self._parts.append(LedgerPart(part.image_ids, part.uris, part.offsets, predicted, groups=part.groups))
        self._summaries.append(seen)

    @cached_property
    def _chosen(self) -> tuple[LedgerPart, Query]:
        rows, summaries = LedgerPart.joined(self._parts), np.concatenate(self._summaries)
        self._summaries.clear()
        ids = rows.image_ids.to_pylist()

        def select(size: int) -> Query:
            with told_of(f"strategy {self._strategy.name}"):
                return checked_query(self._strategy.choose(ids, summaries, size, self._context), ids, size)

        return rows, select_within(select, self._size, ids, rows.groups, self._strategy)

    def ids(self) -> set[str]:
        return set(self._chosen[1].image_ids)

    @property
    def tie(self) -> Tie | None:
        return self._chosen[1].tie

    def images(self, names: Sequence[str]) -> tuple[QueriedImage, ...]:
        rows, query = self._chosen
        return _told(rows.take(_positions(rows.image_ids.to_pylist(), query)), query.scores, names)


class _Gathered:
    """For a strategy of which nothing is known: all images; it chooses when all are there."""

    def __init__(self, strategy: Strategy, size: int, context: Context) -> None:
        self._ask = partial(ask, strategy, size=size, context=context)
        self._parts: list[LedgerPart] = []

    def look(self, part: LedgerPart) -> np.ndarray:  # noqa: ARG002
        """Nothing: a part says nothing of the whole."""
        return np.empty(0)

    def add(self, part: LedgerPart, seen: np.ndarray) -> None:  # noqa: ARG002
        self._parts.append(part)

    @cached_property
    def _chosen(self) -> tuple[LedgerPart, Query]:
        rows = LedgerPart.joined(self._parts)
        return rows, self._ask(rows.candidates)

    def ids(self) -> set[str]:
        return set(self._chosen[1].image_ids)

    @property
    def tie(self) -> Tie | None:
        return self._chosen[1].tie

    def images(self, names: Sequence[str]) -> tuple[QueriedImage, ...]:
        rows, query = self._chosen
        return _told(rows.take(_positions(rows.candidates.image_ids, query)), query.scores, names)


def _positions(image_ids: Sequence[str] | np.ndarray, query: Query) -> np.ndarray:
    position = {image_id: index for index, image_id in enumerate(image_ids)}
    return np.array([position[image_id] for image_id in query.image_ids], np.int64)
