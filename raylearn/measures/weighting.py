"""How much each detection counts: a factor looked up by its predicted class, to favour classes seen little so far."""

import numpy as np

from raylearn.errors import QueryError, nearest
from raylearn.measures.uncertainty import check_class_scores

WEIGHTINGS = ("none", "inverse_frequency", "inverse_sqrt")


def class_weights(class_counts: np.ndarray, name: str, cap: float | None = None) -> np.ndarray:
    """The weight of each class, from the boxes labelled so far.

    `none` is 1, capped or not. `inverse_frequency` is w_c = (sum_j n_j + K) / (n_c + 1), the instance weights of
    Brust et al. 2019, arXiv 1809.09875; `inverse_sqrt` its square root. Balanced counts give equal weights.

    Args:
        class_counts: (K,) ground-truth boxes per class in the currently labelled set, never in the pool; K >= 1.
        name: one of `WEIGHTINGS`.
        cap: upper limit on a weight, > 0; None is no limit.

    Returns:
        (K,) float64 > 0; finite for a class that has not been labelled yet. `inverse_frequency` is above 1 with two
        or more classes, and at most sum_j n_j + K.

    Raises:
        ValueError: another shape, or counts that are negative or not finite.
        QueryError: an unknown name, or a cap that is not above 0.
    """
    if name not in WEIGHTINGS:
        raise QueryError(f"unknown weighting {name!r}: {nearest(name, WEIGHTINGS)}")
    if cap is not None and not cap > 0:
        raise QueryError(f"the cap on class weights is {cap}: it must be above 0, or left out")
    counts = np.asarray(class_counts, dtype=np.float64)
    if counts.ndim != 1 or not len(counts):
        raise ValueError(f"class counts (K,) with K >= 1 wanted, got shape {counts.shape}")
    if not (np.isfinite(counts).all() and counts.min() >= 0):
        raise ValueError(f"class counts must be numbers >= 0, got {counts}")
    if name == "none":
        return np.ones(len(counts))
    weights = (counts.sum() + len(counts)) / (counts + 1)
    if name == "inverse_sqrt":
        weights = np.sqrt(weights)
    return np.asarray(weights if cap is None else np.minimum(weights, cap))


def detection_weights(class_scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weight of each detection: that of its own predicted class.

    Args:
        class_scores: (D, K) in [0, 1]; D may be 0. The predicted class has the highest score, the first among equals.
        weights: (K,) of `class_weights`.

    Returns:
        (D,) float64.

    Raises:
        ValueError: shapes that do not fit, or a score that is NaN or outside [0, 1].
    """
    check_class_scores(class_scores)
    if weights.shape != class_scores.shape[1:]:
        raise ValueError(f"class scores of {class_scores.shape[1]} classes, but weights of shape {weights.shape}")
    return np.asarray(weights[class_scores.argmax(axis=1)], dtype=np.float64)
