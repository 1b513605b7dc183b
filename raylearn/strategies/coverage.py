"""By what an image adds to every class, for what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from raylearn.measures.coverage import greedy_coverage
from raylearn.measures.novelty import farthest_first, novelty, unit_vectors
from raylearn.measures.sampling import by_tie_order
from raylearn.strategies.base import Context, Labelled, Needs, Query, ScoredImages, Summarising
from raylearn.strategies.costs import confidence_sums, predicted_boxes
from raylearn.strategies.embeddings import box_embeddings
from raylearn.strategies.options import check_costs
from raylearn.strategies.uncertainty import Uncertainty

LANDMARKS = 512
"""The most labelled boxes that novelty is measured from: it decides how long a pool of millions takes."""


@dataclass(frozen=True)
class Coverage(Summarising):
    """Asks for images that show much that is uncertain and new, of classes little covered so far, per predicted cost.

    gain(x | S) = sum_c [log(1 + n_c + m_c) - log(1 + n_c)] / (a + b E[boxes])^alpha

    n_c are the labelled boxes of class c and what the chosen images bring; m_c is the sum, over the boxes of x
    predicted as c, of uncertainty x novelty. Novelty is the distance in [0, 1] from the box's embedding to that of the
    nearest labelled box, 1 with nothing labelled (`raylearn.measures.novelty`). Of more than 512 labelled boxes, 512
    stand for all: each is the one farthest from those before it, so novelty is too high by at most the distance of the
    next one. E[boxes] is what the detector sees, as far as it was right on the labelled images
    (`raylearn.measures.expected_boxes`).

    Feature-based submodular functions: Wei, Iyer and Bilmes, Submodularity in Data Subset Selection and Active
    Learning, ICML 2015; gain per cost and its limits: Leskovec et al., Cost-effective Outbreak Detection in Networks,
    KDD 2007.

    Args:
        uncertainty, probabilities: of one detection; see `Uncertainty`.
        alpha: 0 to 2; 0 ignores boxes, 1 is gain per cost.
        image_cost: a, at least .001, what an image costs without its boxes.
        box_cost: b >= 0, what a box costs, in the same unit.

    Raises:
        QueryError: see `Uncertainty`; or a number out of its range.
    """

    uncertainty: str = "entropy"
    probabilities: str = "background"
    alpha: float = 1.0
    image_cost: float = 1.0
    box_cost: float = 1.0

    name: ClassVar[str] = "coverage"
    needs: ClassVar[Needs] = "labelled embeddings"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._scoring  # noqa: B018  refuses what it cannot be made of
        check_costs(self.alpha, self.image_cost, self.box_cost)

    @property
    def _scoring(self) -> Uncertainty:
        return Uncertainty(self.uncertainty, probabilities=self.probabilities)

    @property
    def needs_class_counts(self) -> bool:
        return True

    def refuse_classes(self, num_classes: int) -> None:
        self._scoring.refuse_classes(num_classes)

    def detection_scores(self, class_scores: np.ndarray, context: Context) -> np.ndarray:
        return self._scoring.detection_scores(class_scores, context)

    def summaries(self, images: ScoredImages, context: Context) -> np.ndarray:
        """(N, K + 1): m_c of every class, then the sum of the confidences."""
        scores, embeddings = images.class_scores, box_embeddings(images)
        references = embeddings[:0] if context.labelled is None else _landmarks(context.labelled)
        masses = self.detection_scores(scores, context) * novelty(embeddings, references)
        num_images, num_classes = len(images.offsets) - 1, scores.shape[1]
        image_of = np.repeat(np.arange(num_images), np.diff(images.offsets))
        cells = image_of * num_classes + scores.argmax(axis=1)
        by_class = np.bincount(cells, masses, num_images * num_classes).reshape(num_images, num_classes)
        return np.column_stack([by_class, confidence_sums(images)]).astype(np.float32)

    def choose(
        self, image_ids: Sequence[str] | np.ndarray, summaries: np.ndarray, size: int, context: Context
    ) -> Query:
        order = by_tie_order(image_ids, context.seed)
        found = summaries[order]
        costs = (self.image_cost + self.box_cost * predicted_boxes(found[:, -1], context.labelled)) ** self.alpha
        picks, gains = greedy_coverage(found[:, :-1], context.class_counts, costs, size)
        return Query(tuple(str(image_ids[order[i]]) for i in picks), tuple(gains))


@lru_cache(maxsize=1)  # a pool is read part by part, with the same labelled images
def _landmarks(labelled: Labelled) -> np.ndarray:
    vectors = unit_vectors(box_embeddings(labelled.seen))
    return np.asarray(vectors[farthest_first(vectors, LANDMARKS)])
