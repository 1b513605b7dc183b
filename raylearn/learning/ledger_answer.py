"""The answer to a query of a ledger, and what it does not mean."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from raylearn.learning.collectors import QueriedImage
from raylearn.strategies import Tie
from raylearn.strategies.meaning import doubt_of_pool, doubts_of_query, notes

CONFIDENCE = "--confidence"
"""The setting of `raylearn score` below which detections are not kept."""
GroupOf = Callable[[str], str]
"""Image id -> its group."""


@dataclass(frozen=True)
class Totals:
    """What was read of a ledger, in images.

    Args:
        candidates: that could be chosen.
        errors: that could not be read when the ledger was made.
        excluded: that were left out because they were named.
        without_detections: candidates in which the detector found nothing.
    """

    candidates: int = 0
    errors: int = 0
    excluded: int = 0
    without_detections: int = 0

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(
            self.candidates + other.candidates,
            self.errors + other.errors,
            self.excluded + other.excluded,
            self.without_detections + other.without_detections,
        )


@dataclass(frozen=True)
class LedgerQuery:
    """The answer to one query.

    Args:
        images: the most wanted first.
        num_candidates: images that could have been chosen.
        num_errors: images of the ledger that could not be read when it was made, and so were not looked at.
        num_excluded: images of the ledger that were left out because they were named.
        num_without_detections: candidates in which the detector found nothing.
        tie: at the border of the query; None where there is none, or where nobody knows.
        num_groups: groups, such as clips, that the images are of; None where no groups were given.
        is_ranked: whether detections decided, and not chance alone.
        is_scored: whether each image was ranked by a number of its own, whatever the others are.
    """

    images: tuple[QueriedImage, ...]
    num_candidates: int
    num_errors: int
    num_excluded: int
    num_without_detections: int = 0
    tie: Tie | None = None
    num_groups: int | None = None
    is_ranked: bool = True
    is_scored: bool = False

    @property
    def doubts(self) -> list[str]:
        """What the ranking does not mean, in sentences; see raylearn.strategies.meaning."""
        if not self.is_ranked:
            return []
        pool = doubt_of_pool(self.num_without_detections, self.num_candidates, CONFIDENCE)
        found, scores = [i.num_detections for i in self.images], [i.score for i in self.images]
        own = doubts_of_query(found, self.tie, scores, CONFIDENCE)
        return [pool, *own] if pool else own

    def first(self, size: int, group_of: GroupOf | None) -> "LedgerQuery":
        """The same, cut after so many images."""
        images = self.images[:size]
        tie = self.tie
        if self.is_ranked and self.is_scored:
            tie = Tie.at_cut([image.score for image in self.images], size, tie)
        own = marked(images, tie) if self.is_ranked else images
        return replace(self, images=own, tie=tie, num_groups=groups_in(images, group_of))


def marked(images: Sequence[QueriedImage], tie: Tie | None) -> tuple[QueriedImage, ...]:
    """The images of a query with their notes; see raylearn.strategies.meaning."""
    marks = notes([image.num_detections for image in images], tie, [image.score for image in images])
    return tuple(
        replace(image, reason=replace(image.reason, note=mark)) for image, mark in zip(images, marks, strict=True)
    )


def groups_in(images: Sequence[QueriedImage], group_of: GroupOf | None) -> int | None:
    """Of how many groups they are; None where there are no groups."""
    return None if group_of is None else len({group_of(image.image_id) for image in images})
