"""By calibrated uncertainty and then by matching objects: a two-stage control from the literature."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raylearn.measures.aggregation import aggregate
from raylearn.measures.matching import matching_distances, medoids
from raylearn.measures.sampling import random_generator
from raylearn.measures.uncertainty import uncertainty
from raylearn.strategies.base import Candidates, Context, Needs, Query, ScoredImages, Shortlisting
from raylearn.strategies.embeddings import box_embeddings
from raylearn.strategies.options import check_range


@dataclass(frozen=True)
class Ppal(Shortlisting):
    """Asks for images that stand for the clusters of the most uncertain ones.

    Yang, Huang and Crowley, Plug and Play Active Learning for Object Detection, CVPR 2024, arXiv 2211.11612. An image
    score is the sum, over the detections, of the binary entropy of the confidence x w_c, with
    w_c = 1 + alpha beta log(1 + (e^(1 / alpha) - 1) d_c) and d_c the difficulty of the predicted class. Of the
    delta x size images of the highest scores, those are asked for that k-means++ gives as the centres, by the
    category-conditioned matching distance of their boxes (`raylearn.measures.matching`), highest score first.

    It departs from the paper in three places. There the difficulty of a class is a moving average, over the training,
    of how badly its boxes are classified and placed; here it is 1 - the mean confidence of the detections of that
    class in the labelled images (1 where there are none), because no training keeps the other. Objects are compared
    by the embeddings of the ledger. And the boxes that count are those of the scoring pass, at its confidence.

    The distances between all pairs of the shortlist are in memory, so it is for queries of some thousands at most.

    Args:
        delta: how many times the size of the query are compared; at least 1.
        alpha: at least .01, how fast w_c rises with difficulty.
        beta: >= 0; w_c is at most 1 + beta.

    Raises:
        QueryError: a number out of its range.
    """

    delta: float = 4
    alpha: float = 0.3
    beta: float = 0.2

    name: ClassVar[str] = "ppal"
    needs: ClassVar[Needs] = "labelled embeddings"
    is_control: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("delta", self.delta, 1)
        check_range("alpha", self.alpha, 0.01)
        check_range("beta", self.beta, 0)

    def shortlist_size(self, size: int) -> int:
        return round(self.delta * size)

    def detection_scores(self, class_scores: np.ndarray, context: Context) -> np.ndarray:
        confidences = class_scores.max(axis=1, keepdims=True)
        weights = self._class_weights(class_scores.shape[1], context)
        return np.asarray(uncertainty(confidences, "entropy", "independent") * weights[class_scores.argmax(axis=1)])

    def image_scores(self, images: ScoredImages, context: Context) -> np.ndarray:
        return aggregate(self.detection_scores(images.class_scores, context), images.offsets, "sum")

    def choose(self, candidates: Candidates, scores: np.ndarray, size: int, context: Context) -> Query:
        class_scores = candidates.class_scores
        distances = matching_distances(
            candidates.offsets, class_scores.argmax(axis=1), class_scores.max(axis=1), box_embeddings(candidates)
        )
        first = int(random_generator(context.seed, "ppal's first centre").integers(len(scores)))
        centres = medoids(distances, size, first)
        ids = candidates.image_ids
        return Query(tuple(str(ids[i]) for i in centres), tuple(float(scores[i]) for i in centres))

    def _class_weights(self, num_classes: int, context: Context) -> np.ndarray:
        """(K,) from 1 to 1 + beta."""
        seen = np.empty((0, num_classes)) if context.labelled is None else context.labelled.seen.class_scores
        classes = seen.argmax(axis=1)
        counts = np.bincount(classes, minlength=num_classes)
        sums = np.bincount(classes, seen.max(axis=1), num_classes)
        difficulty = 1 - sums / np.maximum(counts, 1)
        return np.asarray(1 + self.alpha * self.beta * np.log1p(np.expm1(1 / self.alpha) * difficulty))
