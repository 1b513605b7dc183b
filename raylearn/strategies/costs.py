"""What labelling images is expected to take."""

import numpy as np

from raylearn.measures.aggregation import aggregate
from raylearn.measures.expected_boxes import expected_boxes
from raylearn.strategies.base import Labelled, ScoredImages


def confidence_sums(images: ScoredImages) -> np.ndarray:
    """(N,) the sum of the highest class scores of each image's detections."""
    return aggregate(images.class_scores.max(axis=1, initial=0), images.offsets, "sum")


def predicted_boxes(sums: np.ndarray, labelled: Labelled | None) -> np.ndarray:
    """(N,) boxes that people will draw in images of these `confidence_sums`; see `expected_boxes`."""
    if labelled is None or labelled.true_counts is None:
        return expected_boxes(sums, sums[:0], None)
    return expected_boxes(sums, confidence_sums(labelled.seen), labelled.true_counts.sum(axis=1))
