"""By what an image adds to every class, for what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from raylearn.errors import QueryError
from raylearn.measures.clusters import cluster_centres, cluster_of
from raylearn.measures.coverage import greedy_coverage
from raylearn.measures.novelty import farthest_first, novelty, unit_vectors
from raylearn.measures.sampling import by_tie_order
from raylearn.strategies.base import Context, Labelled, Needs, Query, ScoredImages, Summarising
from raylearn.strategies.costs import confidence_sums, predicted_boxes
from raylearn.strategies.embeddings import box_embeddings
from raylearn.strategies.options import check_costs, check_range
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

    With clusters, the classes of the sum are pairs of a predicted class and a cluster of box embeddings, so that much
    of one kind adds less. The centres are those of k-means on the labelled boxes; the labelled boxes of a class are
    shared out among its pairs as its detections in the labelled images are.

    Feature-based submodular functions: Wei, Iyer and Bilmes, Submodularity in Data Subset Selection and Active
    Learning, ICML 2015; gain per cost and its limits: Leskovec et al., Cost-effective Outbreak Detection in Networks,
    KDD 2007.

    Args:
        uncertainty, probabilities: of one detection; see `Uncertainty`.
        alpha: 0 to 2; 0 ignores boxes, 1 is gain per cost.
        image_cost: a, at least .001, what an image costs without its boxes.
        box_cost: b >= 0, what a box costs, in the same unit.
        clusters: the most clusters; 0 is none.

    Raises:
        QueryError: see `Uncertainty`; or a number out of its range.
    """

    uncertainty: str = "entropy"
    probabilities: str = "background"
    alpha: float = 1.0
    image_cost: float = 1.0
    box_cost: float = 1.0
    clusters: int = 0

    name: ClassVar[str] = "coverage"
    needs: ClassVar[Needs] = "labelled embeddings"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._scoring  # noqa: B018  refuses what it cannot be made of
        check_costs(self.alpha, self.image_cost, self.box_cost)
        check_range("clusters", self.clusters, 0)
        if not isinstance(self.clusters, int):
            raise QueryError(f"clusters is {self.clusters!r}: it must be a whole number")

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
        """(N, C + 1): m_c of every class, or pair of class and cluster; then the sum of the confidences."""
        embeddings = box_embeddings(images)
        references = embeddings[:0] if context.labelled is None else _landmarks(context.labelled)
        masses = self.detection_scores(images.class_scores, context) * novelty(embeddings, references)
        kinds, num_kinds = self._kinds(images, context.labelled)
        num_images = len(images.offsets) - 1
        cells = np.repeat(np.arange(num_images), np.diff(images.offsets)) * num_kinds + kinds
        by_kind = np.bincount(cells, masses, num_images * num_kinds).reshape(num_images, num_kinds)
        return np.column_stack([by_kind, confidence_sums(images)]).astype(np.float32)

    def choose(
        self, image_ids: Sequence[str] | np.ndarray, summaries: np.ndarray, size: int, context: Context
    ) -> Query:
        order = by_tie_order(image_ids, context.seed)
        found = summaries[order]
        costs = (self.image_cost + self.box_cost * predicted_boxes(found[:, -1], context.labelled)) ** self.alpha
        picks, gains = greedy_coverage(found[:, :-1], self._covered(context), costs, size)
        return Query(tuple(str(image_ids[order[i]]) for i in picks), tuple(gains))

    def _kinds(self, images: ScoredImages, labelled: Labelled | None) -> tuple[np.ndarray, int]:
        """(D,) what each detection is counted as, and of how many: its predicted class, or that and its cluster."""
        classes, num_classes = images.class_scores.argmax(axis=1), images.class_scores.shape[1]
        if labelled is None or not self.clusters:
            return classes, num_classes
        centres = _centres(labelled, self.clusters)
        if not len(centres):
            return classes, num_classes
        clusters = cluster_of(unit_vectors(box_embeddings(images)), centres)
        return classes * len(centres) + clusters, num_classes * len(centres)

    def _covered(self, context: Context) -> np.ndarray:
        """(C,) the labelled boxes of every kind."""
        if not self.clusters or context.labelled is None:
            return context.class_counts
        kinds, num_kinds = self._kinds(context.labelled.seen, context.labelled)
        seen = np.bincount(kinds, minlength=num_kinds).reshape(len(context.class_counts), -1)
        totals = seen.sum(axis=1, keepdims=True)
        shares = np.where(totals > 0, seen / np.maximum(totals, 1), 1 / seen.shape[1])
        return np.asarray(context.class_counts[:, None] * shares).ravel()


# cached: a pool is read part by part, with the same labelled images
@lru_cache(maxsize=1)
def _landmarks(labelled: Labelled) -> np.ndarray:
    vectors = unit_vectors(box_embeddings(labelled.seen))
    return np.asarray(vectors[farthest_first(vectors, LANDMARKS)])


@lru_cache(maxsize=1)
def _centres(labelled: Labelled, clusters: int) -> np.ndarray:
    return cluster_centres(unit_vectors(box_embeddings(labelled.seen)), clusters)
