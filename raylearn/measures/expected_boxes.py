"""How many boxes people will draw in an image, which decides what it costs."""

import numpy as np


def expected_boxes(
    confidences: np.ndarray, labelled_confidences: np.ndarray, true_boxes: np.ndarray | None
) -> np.ndarray:
    """E_x = y (1 - lam + lam s_x / s_pool), s_x the sum of the confidences of an image's detections.

    y is the mean of the true boxes of the labelled images, and lam, the square of the correlation of s and true boxes
    over them, says how far to trust s. A detector that sees nothing yet has lam = 0 and expects y everywhere;
    believing its s would make every image look empty, so almost free. s_pool, the mean of s over these images and
    not over the labelled ones, is there because a detector is surer of what it was trained on.

    Args:
        confidences: (N,) s of each image; N at least 1.
        labelled_confidences: (L,) s of each labelled image.
        true_boxes: (L,) of each labelled image; None where nobody knows them.

    Returns:
        (N,) float64 >= 0 whose mean is y; s itself where no true boxes are known. lam is 0 with fewer than 3 labelled
        images, where s or the true boxes are all the same, and where more of one goes with less of the other.
    """
    sums = confidences.astype(np.float64)
    if true_boxes is None or not len(true_boxes):
        return sums
    mean, pool = float(true_boxes.mean()), float(sums.mean())
    relative = sums / pool if pool > 0 else np.ones(len(sums))
    trust = _correlation(labelled_confidences.astype(np.float64), true_boxes.astype(np.float64)) ** 2
    return np.asarray(mean * (1 - trust + trust * relative))


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Of Pearson, in [0, 1]: 0 where it is negative or there is none."""
    if len(one) < 3 or not np.ptp(one) or not np.ptp(other):
        return 0.0
    return float(np.clip(np.corrcoef(one, other)[0, 1], 0.0, 1.0))
