"""By distance between whole images: the k-centre control from the literature."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raylearn.measures.greedy import lazy_greedy
from raylearn.measures.novelty import Nearest, refuse_not_finite
from raylearn.measures.sampling import by_tie_order
from raylearn.strategies.base import Context, Needs, Query, ScoredImages, Summarising
from raylearn.strategies.embeddings import image_embeddings, labelled_image_embeddings


@dataclass(frozen=True)
class CoreSet(Summarising):
    """Asks, again and again, for the image farthest from all labelled and chosen ones: k-centre greedy.

    Sener and Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, ICLR 2018, arXiv
    1708.00489: its greedy choice, a 2-approximation, without the mixed integer programme that improves it. Distances
    are Euclidean between image embeddings as they are. Where nothing is labelled, the first image is the first by hash.
    """

    name: ClassVar[str] = "core_set"
    needs: ClassVar[Needs] = "labelled embeddings"
    is_control: ClassVar[bool] = True

    def summaries(self, images: ScoredImages, context: Context) -> np.ndarray:  # noqa: ARG002
        """(N, F): the image embeddings."""
        return image_embeddings(images).astype(np.float32)

    def choose(
        self, image_ids: Sequence[str] | np.ndarray, summaries: np.ndarray, size: int, context: Context
    ) -> Query:
        order = by_tie_order(image_ids, context.seed)
        vectors = summaries[order]
        labelled = labelled_image_embeddings(context, vectors).astype(np.float32)
        for embeddings in (vectors, labelled):
            refuse_not_finite(embeddings)
        nearest = Nearest(vectors, labelled)

        def distances(positions: np.ndarray) -> np.ndarray:
            return np.asarray(np.sqrt(nearest.squares(positions)))

        def choose(position: int) -> None:
            nearest.add(vectors[position : position + 1])

        picks, farthest = lazy_greedy(distances, choose, len(vectors), size)
        if np.isinf(farthest[0]):  # from nothing; chance chose it
            farthest[0] = farthest[1] if size > 1 else 0.0
        return Query(tuple(str(image_ids[order[i]]) for i in picks), tuple(farthest))
