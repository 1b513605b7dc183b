"""By chance."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raylearn.measures.sampling import check_size, random_generator, seeded_order
from raylearn.strategies.base import Candidates, Context, ImageScoring, Query, ScoredImages

_PURPOSE = "random query"


@dataclass(frozen=True)
class Random(ImageScoring):
    """Asks for images drawn by chance: the control that any other strategy has to beat."""

    name: ClassVar[str] = "random"
    is_control: ClassVar[bool] = True

    def select(self, candidates: Candidates, size: int, context: Context) -> Query:
        """The first images of one random order of the whole pool.

        So random arms of different query sizes have labelled the same images wherever their budgets meet, and share
        those trainings.
        """
        ids = candidates.image_ids
        check_size(size, len(ids))
        chosen = seeded_order(ids, context.seed, _PURPOSE)[:size]
        return Query(tuple(str(ids[i]) for i in chosen), (0.0,) * size)

    def image_scores(self, images: ScoredImages, context: Context) -> np.ndarray:  # noqa: ARG002
        """All equal, so that the hash of seed and id decides."""
        return np.zeros(len(images.offsets) - 1)

    def tie_seed(self, seed: int) -> int:
        """Another than that of other strategies, which would else choose the same among images of equal score."""
        return int(random_generator(seed, _PURPOSE).integers(2**62))
