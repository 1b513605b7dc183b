"""By uncertainty and novelty: the uncertain images that are unlike what is labelled and unlike each other."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raylearn.measures.aggregation import aggregate, rows_of
from raylearn.measures.greedy import lazy_greedy
from raylearn.measures.novelty import Nearest, unit_distances, unit_vectors
from raylearn.strategies.base import Candidates, Context, Needs, Query, ScoredImages, Shortlisting
from raylearn.strategies.costs import confidence_sums, predicted_boxes
from raylearn.strategies.embeddings import (
    box_embeddings,
    image_embeddings,
    labelled_box_embeddings,
    labelled_image_embeddings,
)
from raylearn.strategies.options import check_range
from raylearn.strategies.uncertainty import Uncertainty


@dataclass(frozen=True)
class Diverse(Shortlisting):
    """Asks for uncertain images that are far from the labelled and the chosen ones.

    Of the beta x size images of the highest image scores, the one with the highest score^p x distance^q / (1 +
    E[boxes])^alpha is chosen again and again, equal ones by score and then by hash. The distance of an image is the
    mean, over its boxes, of the distance from the box's embedding to the nearest box of any labelled or chosen image;
    of an image without boxes, that of its own embedding to the nearest labelled or chosen image's. Both are between
    directions, in [0, 1] (`raylearn.measures.novelty.unit_distances`), and 1 where there is nothing to be near to.

    Farthest-first choice among the uncertain: the core set of Sener and Savarese, Active Learning for Convolutional
    Neural Networks, 2018, arXiv 1708.00489, with the image score of Brust, Kaeding and Denzler, 2019, arXiv
    1809.09875; on embeddings of objects, because whole images hide the rare ones (OFDS, arXiv 2412.10032). E[boxes] is
    what the detector sees, as far as it was right on the labelled images (`raylearn.measures.expected_boxes`).

    Args:
        uncertainty, aggregation, weighting, probabilities, weight_cap: of the image score; see `Uncertainty`. The mean,
            because a sum asks for crowded images, whatever they cost; weighted, because boxes of a class with few
            labels are worth more.
        beta: how many times the size of the query are looked at; at least 1.
        score_power: p, 0 to 10; 0 leaves the score to the shortlist alone.
        distance_power: q, 0 to 10; 0 is the plain ranking.
        alpha: 0 to 2; 0 ignores boxes, 1 is the worth of an image per box that is to be paid for it.

    Raises:
        QueryError: see `Uncertainty`; or a number out of its range.
    """

    uncertainty: str = "entropy"
    aggregation: str = "mean"
    weighting: str = "inverse_frequency"
    probabilities: str = "background"
    weight_cap: float | None = None
    beta: float = 10
    score_power: float = 1.0
    distance_power: float = 1.0
    alpha: float = 0.0

    name: ClassVar[str] = "diverse"
    needs: ClassVar[Needs] = "labelled embeddings"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._scoring  # noqa: B018  refuses what it cannot be made of
        check_range("beta", self.beta, 1)
        check_range("score_power", self.score_power, 0, 10)
        check_range("distance_power", self.distance_power, 0, 10)
        check_range("alpha", self.alpha, 0, 2)

    @property
    def _scoring(self) -> Uncertainty:
        return Uncertainty(self.uncertainty, self.aggregation, self.weighting, self.probabilities, self.weight_cap)

    @property
    def needs_class_counts(self) -> bool:
        return self._scoring.needs_class_counts

    def refuse_classes(self, num_classes: int) -> None:
        self._scoring.refuse_classes(num_classes)

    def detection_scores(self, class_scores: np.ndarray, context: Context) -> np.ndarray:
        return self._scoring.detection_scores(class_scores, context)

    def image_scores(self, images: ScoredImages, context: Context) -> np.ndarray:
        return self._scoring.image_scores(images, context)

    def shortlist_size(self, size: int) -> int:
        return round(self.beta * size)

    def choose(self, candidates: Candidates, scores: np.ndarray, size: int, context: Context) -> Query:
        distances = _Distances(candidates, context)
        costs = 1 + predicted_boxes(confidence_sums(candidates), context.labelled)
        wanted = scores**self.score_power / costs**self.alpha

        def products(positions: np.ndarray) -> np.ndarray:
            return np.asarray(wanted[positions] * distances.of(positions) ** self.distance_power)

        # the first of equal products is the one of the highest score, then of the lowest hash: so they come
        picks, values = lazy_greedy(products, distances.choose, len(scores), size)
        return Query(tuple(str(candidates.image_ids[i]) for i in picks), tuple(values))


class _Distances:
    """From images of a shortlist to the nearest labelled or chosen one."""

    def __init__(self, candidates: Candidates, context: Context) -> None:
        of_boxes, of_images = box_embeddings(candidates), image_embeddings(candidates)
        self.offsets, self.counts = candidates.offsets, np.diff(candidates.offsets)
        self.boxes, self.images = unit_vectors(of_boxes), unit_vectors(of_images)
        self.near_boxes = Nearest(self.boxes, unit_vectors(labelled_box_embeddings(context, of_boxes)))
        self.near_images = Nearest(self.images, unit_vectors(labelled_image_embeddings(context, of_images)))

    def choose(self, position: int) -> None:
        self.near_boxes.add(self.boxes[self.offsets[position] : self.offsets[position + 1]])
        self.near_images.add(self.images[position : position + 1])

    def of(self, positions: np.ndarray) -> np.ndarray:
        """(n,) in [0, 1] of these images, by their positions (n,)."""
        own, rows = rows_of(positions, self.offsets)
        found = aggregate(unit_distances(self.near_boxes.squares(rows)), own, "mean")
        without = self.counts[positions] == 0
        found[without] = unit_distances(self.near_images.squares(positions[without]))
        return found
