"""What a way of choosing is: a class that says what it needs, and turns candidates and a size into a query."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from raylearn.errors import QueryError
from raylearn.measures.sampling import top_n
from raylearn.plugins import told_of

Needs = Literal["nothing", "detections", "embeddings", "labelled embeddings"]


@dataclass(frozen=True)
class Query:
    """Images chosen in one round, best first, and the score each was chosen by (0 where chance chose)."""

    image_ids: tuple[str, ...]
    scores: tuple[float, ...]


class ScoredImages(Protocol):
    """The detections of N images: a ledger, a part of one, or candidates."""

    @property
    def offsets(self) -> np.ndarray:
        """(N + 1,) int64; image i owns detections offsets[i] to offsets[i + 1]."""
        ...

    @property
    def class_scores(self) -> np.ndarray:
        """(D, K) float32."""
        ...


@dataclass(frozen=True, eq=False)
class Candidates:
    """The images that may be chosen.

    Args:
        image_ids: N unique ids.
        offsets: (N + 1,) int64; image i owns detections offsets[i] to offsets[i + 1].
        class_scores: (D, K) float32 in [0, 1].
    """

    image_ids: Sequence[str] | np.ndarray
    offsets: np.ndarray
    class_scores: np.ndarray

    @classmethod
    def unseen(cls, image_ids: Sequence[str], num_classes: int) -> "Candidates":
        """Images that no detector has looked at, for strategies that need nothing."""
        offsets = np.zeros(len(image_ids) + 1, np.int64)
        return cls(image_ids, offsets, np.empty((0, num_classes), np.float32))

    @cached_property
    def predicted_counts(self) -> np.ndarray:
        """(N, K) int64: detections of each predicted class in each image."""
        num_images, num_classes = len(self.image_ids), self.class_scores.shape[1]
        images = np.repeat(np.arange(num_images), np.diff(self.offsets))
        cells = images * num_classes + (self.class_scores.argmax(axis=1) if len(self.class_scores) else 0)
        return np.bincount(cells, minlength=num_images * num_classes).reshape(num_images, num_classes)


def ask(strategy: "Strategy", candidates: Candidates, size: int, context: "Context") -> Query:
    """What a strategy selects, after a look at whether it is a query: those of other packages are not ours to trust.

    Raises:
        InputError: the strategy raised something.
        QueryError: another number of images, one twice, one that is not a candidate, or a score that is not finite.
    """
    with told_of(f"strategy {strategy.name}"):
        return _checked(strategy.select(candidates, size, context), candidates, size)


def _checked(query: Query, candidates: Candidates, size: int) -> Query:
    if not isinstance(query, Query):
        raise QueryError(f"a strategy was asked for {size} images and gave a {type(query).__name__}, not a Query")
    ids = query.image_ids
    strange = set(ids) - set(candidates.image_ids)
    if len(ids) != size or len(set(ids)) != size or strange:
        wrong = f"{min(strange, key=str)!r} is not a candidate" if strange else f"{len(set(ids))} different images"
        raise QueryError(f"a strategy was asked for {size} images and gave {len(ids)}: {wrong}")
    if len(query.scores) != size or not np.isfinite(query.scores).all():
        raise QueryError(f"a strategy gave {len(query.scores)} scores for {size} images, or one that is not finite")
    return query


@dataclass(frozen=True, eq=False)
class Context:
    """What a query depends on beside its candidates.

    Args:
        seed: of the trial; decides what chance decides, the order of equal scores included.
        class_counts: (K,) ground-truth boxes per class in the currently labelled images.
    """

    seed: int
    class_counts: np.ndarray


@dataclass(frozen=True)
class Strategy(ABC):
    """A way of choosing. A subclass is a frozen dataclass whose fields are its options, checked when it is made.

    Class attributes:
        name: as experiment files and `--strategy` name it.
        needs: what its candidates must come with; "nothing" spares the scoring pass.
        is_control: whether it is there to be compared with, and not to be beaten by chance.
        asks: whether it chooses at all; one that does not trains once on the whole pool.
    """

    name: ClassVar[str]
    needs: ClassVar[Needs] = "nothing"
    is_control: ClassVar[bool] = False
    asks: ClassVar[bool] = True

    @abstractmethod
    def select(self, candidates: Candidates, size: int, context: Context) -> Query:
        """The images to label next, the most wanted first.

        The same candidates in another order give the same query.

        Args:
            candidates: unlabelled images, at least one.
            size: how many; 1 to N.
            context: what else decides.

        Raises:
            QueryError: `size` below 1 or above N, or an option that has no meaning for these classes.
        """

    @property
    def own_options(self) -> dict[str, Any]:
        """The options that are not the defaults."""
        plain = {
            field.name: field.default if field.default_factory is MISSING else field.default_factory()
            for field in fields(self)
        }
        return {name: value for name, default in plain.items() if (value := getattr(self, name)) != default}

    @property
    def axes(self) -> dict[str, str]:
        """The options that are columns of results.parquet."""
        return {}

    @property
    def words(self) -> tuple[str, ...]:
        """What the names of its trials are made of; each fit for a file name."""
        options = (f"{name}_{value}" for name, value in self.own_options.items())
        return (self.name, *(re.sub(r"[^A-Za-z0-9._]+", "_", option) for option in options))

    @property
    def label(self) -> str:
        """For people: short, and different for other options."""
        return " ".join([self.name, *(f"{name}={value}" for name, value in self.own_options.items())])

    @property
    def needs_pass(self) -> bool:
        """Whether a detector has to look at the images first."""
        return self.needs != "nothing"

    def refuse_unmet_needs(self) -> None:
        """Raises QueryError where it needs what no scoring pass gives."""
        if self.needs not in ("nothing", "detections"):
            raise QueryError(f"strategy {self.name} needs {self.needs}, which ledgers do not hold: choose another")

    @property
    def needs_class_counts(self) -> bool:
        """Whether the boxes labelled so far decide its query."""
        return False

    def refuse_classes(self, num_classes: int) -> None:  # noqa: B027  most have a meaning for any number
        """Raises QueryError where its options have no meaning for so many classes."""

    def detection_scores(self, class_scores: np.ndarray, context: Context) -> np.ndarray:  # noqa: ARG002
        """(D,) float64: how much each of (D, K) detections counts for its image; 1 where each counts the same."""
        return np.ones(len(class_scores))


class ImageScoring(Strategy):
    """A strategy that gives each image a number, whatever the other images are: the highest are chosen.

    So it can read a pool of any size part by part, and keep the best.
    """

    @abstractmethod
    def image_scores(self, images: ScoredImages, context: Context) -> np.ndarray:
        """(N,) finite float64, in the order of the images; higher is asked for first."""

    def tie_seed(self, seed: int) -> int:
        """What orders images of equal score, by a hash with their ids."""
        return seed

    def select(self, candidates: Candidates, size: int, context: Context) -> Query:
        """The images of the highest scores; see Strategy.select."""
        scores = self.image_scores(candidates, context)
        chosen = top_n(candidates.image_ids, scores, size, self.tie_seed(context.seed))
        ids = candidates.image_ids
        return Query(tuple(str(ids[i]) for i in chosen), tuple(float(scores[i]) for i in chosen))
