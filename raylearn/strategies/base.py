"""What a way of choosing is: a class that says what it needs, and turns candidates and a size into a query."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from raylearn.errors import QueryError
from raylearn.measures.aggregation import rows_of
from raylearn.measures.sampling import check_size, positions_within, top_n

Needs = Literal["nothing", "detections", "embeddings", "labelled embeddings"]


@dataclass(frozen=True)
class Reason:
    """What is known of a chosen image beside its score; None where nothing is.

    Args:
        nearest: the labelled image that is most like it.
        distance: in [0, 1], to that image.
        boxes: that people will draw in it, by what the detector sees.
        note: what the score does not tell, such as that chance chose it; "" where it tells all.
    """

    nearest: str | None = None
    distance: float | None = None
    boxes: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Tie:
    """Images of one score at the border of a query: a hash of seed and id decided which of them are in it.

    Args:
        score: of each of them.
        num_chosen: that are in the query, at least 1.
        num_images: that have it, chosen or not; more than `num_chosen`.
    """

    score: float
    num_chosen: int
    num_images: int

    @classmethod
    def at_border(cls, chosen: np.ndarray, num_images: int) -> "Tie | None":
        """The tie of a query, if it has one.

        Args:
            chosen: (n,) scores of the query, highest first, n >= 1.
            num_images: candidates whose score is the last of them.
        """
        num_chosen = int(np.count_nonzero(chosen == chosen[-1]))
        return cls(float(chosen[-1]), num_chosen, num_images) if num_images > num_chosen else None

    @classmethod
    def at_cut(cls, scores: Sequence[float], size: int, tie: "Tie | None") -> "Tie | None":
        """The tie at the border of the first `size` images of a query of these scores, highest first, and this tie."""
        border = scores[size - 1]
        num_images = tie.num_images if tie and tie.score == border else scores.count(border)
        return cls.at_border(np.array(scores[:size]), num_images)


@dataclass(frozen=True)
class Query:
    """Images chosen in one round, best first.

    Args:
        image_ids: N of them.
        scores: (N,) the number each was chosen by; 0 where chance chose.
        reasons: (N,) what else is known of them; none where no detector looked.
        tie: at its border; None where there is none, or where nobody knows.
    """

    image_ids: tuple[str, ...]
    scores: tuple[float, ...]
    reasons: tuple[Reason, ...] = ()
    tie: Tie | None = None


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

    @property
    def box_embeddings(self) -> np.ndarray | None:
        """(D, E) float16 or float32; None where the scoring pass kept none."""
        ...

    @property
    def image_embeddings(self) -> np.ndarray | None:
        """(N, F) float16 or float32; None where the scoring pass kept none."""
        ...


@dataclass(frozen=True, eq=False)
class Candidates:
    """The images that may be chosen.

    Args:
        image_ids: N unique ids.
        offsets: (N + 1,) int64; image i owns detections offsets[i] to offsets[i + 1].
        class_scores: (D, K) float32 in [0, 1].
        box_embeddings: (D, E) float16 or float32, what the detector sees in each box; None where nobody asked for it.
        image_embeddings: (N, F) float16 or float32, what it sees in each image; None where nobody asked for it.
        groups: (N,) the clip, folder or the like that each image is of; None where there are no groups.
    """

    image_ids: Sequence[str] | np.ndarray
    offsets: np.ndarray
    class_scores: np.ndarray
    box_embeddings: np.ndarray | None = None
    image_embeddings: np.ndarray | None = None
    groups: np.ndarray | None = None

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

    def take(self, positions: np.ndarray) -> "Candidates":
        """These images only, in this order."""
        offsets, rows = rows_of(positions, self.offsets)
        return Candidates(
            [self.image_ids[position] for position in positions],
            offsets,
            self.class_scores[rows],
            None if self.box_embeddings is None else self.box_embeddings[rows],
            None if self.image_embeddings is None else self.image_embeddings[positions],
            None if self.groups is None else self.groups[positions],
        )


@dataclass(frozen=True, eq=False)
class Labelled:
    """The labelled images: what the detector sees in them, and what people said.

    Args:
        seen: of L images.
        true_counts: (L, K) int64 ground-truth boxes of each; None where they are not known image by image.
    """

    seen: Candidates
    true_counts: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Context:
    """What a query depends on beside its candidates.

    Args:
        seed: of the trial; decides what chance decides, the order of equal scores included.
        class_counts: (K,) ground-truth boxes per class in the currently labelled images.
        labelled: the currently labelled images, for a strategy that needs labelled embeddings.
        true_counts: (N, K) int64 ground-truth boxes of each candidate, for a strategy of simulations only.
        labelled_in_group: group -> its labelled images, for a strategy of simulations only; groups with none may be
            missing.
    """

    seed: int
    class_counts: np.ndarray
    labelled: Labelled | None = None
    true_counts: np.ndarray | None = None
    labelled_in_group: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Strategy(ABC):
    """A way of choosing. A subclass is a frozen dataclass whose fields are its options, checked when it is made.

    Class attributes:
        name: as experiment files and `--strategy` name it.
        needs: what its candidates must come with; "nothing" spares the scoring pass.
        is_control: whether it is there to be compared with, and not to be beaten by chance.
        asks: whether it chooses at all; one that does not trains once on the whole pool.
        simulation_only: whether it looks at labels that nobody has paid for, which only a simulation can show it.

    Args:
        max_per_group: the most images of one group, such as the frames of one clip, in a query; None is no limit.
    """

    name: ClassVar[str]
    needs: ClassVar[Needs] = "nothing"
    is_control: ClassVar[bool] = False
    asks: ClassVar[bool] = True
    simulation_only: ClassVar[bool] = False

    max_per_group: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        limit = self.max_per_group
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise QueryError(f"max_per_group is {limit!r}: it must be a whole number of 1 or more, or left out")

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
            option.name: option.default if option.default_factory is MISSING else option.default_factory()
            for option in fields(self)
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

    @property
    def needs_embeddings(self) -> bool:
        """Whether the scoring pass has to keep embeddings."""
        return self.needs in ("embeddings", "labelled embeddings")

    @property
    def needs_labelled(self) -> bool:
        """Whether the detector has to look at the labelled images too."""
        return self.needs == "labelled embeddings"

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
        tie = Tie.at_border(scores[chosen], int(np.count_nonzero(scores == scores[chosen[-1]])))
        return Query(tuple(str(ids[i]) for i in chosen), tuple(float(scores[i]) for i in chosen), tie=tie)


class Shortlisting(Strategy):
    """A strategy that gives each image a number, and weighs the best of them against each other.

    So it can read a pool of any size part by part, and keep its shortlist.
    """

    @abstractmethod
    def shortlist_size(self, size: int) -> int:
        """How many of the images of the highest scores are looked at for a query of `size`; at least `size`."""

    @abstractmethod
    def image_scores(self, images: ScoredImages, context: Context) -> np.ndarray:
        """(N,) finite float64, in the order of the images; higher is more promising."""

    @abstractmethod
    def choose(self, candidates: Candidates, scores: np.ndarray, size: int, context: Context) -> Query:
        """The query, out of a shortlist.

        Args:
            candidates: the shortlist, highest score first, equal scores by the hash of seed and id.
            scores: (N,) float64 of the shortlist.
            size: 1 to N.
            context: what else decides.
        """

    def select(self, candidates: Candidates, size: int, context: Context) -> Query:
        """See Strategy.select."""
        check_size(size, len(candidates.image_ids))
        scores = np.asarray(self.image_scores(candidates, context), dtype=np.float64)
        wanted = min(self.shortlist_size(size), len(scores))
        best = top_n(candidates.image_ids, scores, len(scores), context.seed)
        best = positions_within(best, candidates.groups, self.max_per_group)[:wanted]
        check_size(size, len(best))
        return self.choose(candidates.take(best), scores[best], size, context)


class Summarising(Strategy):
    """A strategy that needs to keep few numbers of each image to weigh all of them against each other.

    So it can read a pool of any size part by part, and keep those numbers.
    """

    @abstractmethod
    def summaries(self, images: ScoredImages, context: Context) -> np.ndarray:
        """(N, F) float32, in the order of the images: all that `choose` has to know of them."""

    @abstractmethod
    def choose(
        self, image_ids: Sequence[str] | np.ndarray, summaries: np.ndarray, size: int, context: Context
    ) -> Query:
        """The query, out of N images and their (N, F) summaries; the same images in another order give the same."""

    def select(self, candidates: Candidates, size: int, context: Context) -> Query:
        """See Strategy.select."""
        check_size(size, len(candidates.image_ids))
        return self.choose(candidates.image_ids, self.summaries(candidates, context), size, context)
