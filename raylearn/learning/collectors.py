"""What a strategy makes of a ledger read part by part: the best so far, or all of it for a look at the whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from raylearn.errors import QueryError
from raylearn.measures.sampling import tie_order
from raylearn.plugins import told_of
from raylearn.strategies import Candidates, Context, ImageScoring, Query, Strategy, ask


@dataclass(frozen=True, eq=False)
class LedgerPart:
    """The readable images of one part of a ledger, without those that were left out.

    Args:
        image_ids, uris: (N,) of Arrow.
        offsets: (N + 1,) int64; image i owns detections offsets[i] to offsets[i + 1].
        class_scores: (D, K) float32.
        box_embeddings: (D, E) float16; None where they were not read.
        image_embeddings: (N, F) float16; None where they were not read.
    """

    image_ids: pa.ChunkedArray
    uris: pa.ChunkedArray
    offsets: np.ndarray
    class_scores: np.ndarray
    box_embeddings: np.ndarray | None = None
    image_embeddings: np.ndarray | None = None

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


class Best:
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
        with told_of(f"strategy {self._strategy.name}"):
            scores = np.asarray(self._strategy.image_scores(part, self._context), dtype=np.float64)
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


class Gathered:
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
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        if not self._strategy.needs_embeddings:
            return Candidates(ids, offsets, scores)
        of_boxes = np.concatenate([part.box_embeddings for part in self._parts])
        of_images = np.concatenate([part.image_embeddings for part in self._parts])
        return Candidates(ids, offsets, scores, of_boxes, of_images)

    @cached_property
    def _query(self) -> Query:
        return ask(self._strategy, self._candidates, self._size, self._context)

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
