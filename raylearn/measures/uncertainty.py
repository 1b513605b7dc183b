"""How uncertain each detection is: one number in [0, 1] from its class scores, higher is more uncertain.

Two choices decide it: the formula (`UNCERTAINTIES`), and how class scores are read as probabilities
(`PROBABILITIES`). K is the number of classes, k the length of a probability vector.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from raylearn.errors import QueryError, nearest

PROBABILITIES = ("background", "conditional", "independent")


def uncertainty(class_scores: np.ndarray, name: str, probabilities: str) -> np.ndarray:
    """The uncertainty of each detection.

    `background` and `conditional` apply the formula to the rows of `probability_vectors`. `independent` reads the K
    scores as K Bernoullis, as a sigmoid head is trained, and has definitions of its own, s1 >= s2 the highest scores:

    - `least_confidence` 1 - s1; 1 where all scores are 0.
    - `margin` 1 - (s1 - s2), s2 = 0 with one class; 1 where the two are equal, so also where all scores are 0.
    - `margin_squared` its square; 1 in the same place.
    - `entropy` the mean binary entropy over classes, in bits; 1 where every score is 1/2, 0 where all scores are 0.

    Args:
        class_scores: (D, K) in [0, 1], K >= 1; D may be 0.
        name: one of `UNCERTAINTIES`.
        probabilities: one of `PROBABILITIES`.

    Returns:
        (D,) float64 in [0, 1]; higher is more uncertain.

    Raises:
        ValueError: another shape, or a score that is NaN or outside [0, 1].
        QueryError: an unknown name, or `conditional` with one class.
    """
    if name not in UNCERTAINTIES:
        raise QueryError(f"unknown uncertainty {name!r}: {nearest(name, UNCERTAINTIES)}")
    if probabilities != "independent":
        return UNCERTAINTIES[name].of_vectors(probability_vectors(class_scores, probabilities))
    of_bernoullis = UNCERTAINTIES[name].of_bernoullis
    if of_bernoullis is None:
        raise QueryError(f"uncertainty {name!r} is not defined for probabilities 'independent': use 'background'")
    check_class_scores(class_scores)
    return of_bernoullis(class_scores.astype(np.float64))


def probability_vectors(class_scores: np.ndarray, convention: str) -> np.ndarray:
    """The class scores of each detection as one distribution.

    `background` is (s_1..s_K, max(0, 1 - sum s)), renormalised where the scores sum to more than 1: k = K + 1, the
    last column is "no object". `conditional` is s / sum s: k = K; uniform where all scores are 0.

    Args:
        class_scores: (D, K) in [0, 1], K >= 1; D may be 0.
        convention: `background` or `conditional`.

    Returns:
        (D, k) float64, rows summing to 1.

    Raises:
        ValueError: another shape, or a score that is NaN or outside [0, 1].
        QueryError: an unknown convention; `independent`, which has no such vector; `conditional` with one class.
    """
    check_class_scores(class_scores)
    if convention not in PROBABILITIES:
        raise QueryError(f"unknown probabilities {convention!r}: {nearest(convention, PROBABILITIES)}")
    if convention == "independent":
        raise QueryError(
            "probabilities 'independent' are K Bernoullis and no vector: use 'background' or 'conditional'"
        )
    num_classes = class_scores.shape[1]
    if convention == "conditional" and num_classes == 1:
        raise QueryError(
            "probabilities 'conditional' make every detection of a one-class detector certain, whatever its score: "
            "use 'background' or 'independent'"
        )
    scores = class_scores.astype(np.float64)
    totals = scores.sum(axis=1, keepdims=True)
    vectors: np.ndarray
    if convention == "background":
        vectors = np.hstack([scores, np.maximum(0.0, 1.0 - totals)]) / np.maximum(1.0, totals)
    else:
        uniform = np.full(scores.shape, 1 / num_classes)
        vectors = np.divide(scores, totals, out=uniform, where=totals > 0)
    return vectors


def least_confidence(probabilities: np.ndarray) -> np.ndarray:
    """1 - p1, p1 the highest probability of each detection.

    Args:
        probabilities: (D, k) rows summing to 1, k >= 2; D may be 0.

    Returns:
        (D,) in [0, 1 - 1/k]; the maximum is that of the uniform distribution.

    Raises:
        ValueError: another shape, or rows that are no distribution.
    """
    return _within_unit(1.0 - _distributions(probabilities).max(axis=1))


def margin(probabilities: np.ndarray) -> np.ndarray:
    """1 - (p1 - p2), p1 >= p2 the two highest probabilities of each detection.

    Args:
        probabilities: (D, k) rows summing to 1, k >= 2; D may be 0.

    Returns:
        (D,) in [0, 1]; the maximum wherever the two highest are equal.

    Raises:
        ValueError: another shape, or rows that are no distribution.
    """
    return _within_unit(_one_minus_gap(_distributions(probabilities)))


def margin_squared(probabilities: np.ndarray) -> np.ndarray:
    """(1 - (p1 - p2))^2, the "1-vs-2" of Brust et al. 2019, arXiv 1809.09875.

    Args:
        probabilities: (D, k) rows summing to 1, k >= 2; D may be 0.

    Returns:
        (D,) in [0, 1]; the maximum wherever the two highest are equal.

    Raises:
        ValueError: another shape, or rows that are no distribution.
    """
    return margin(probabilities) ** 2


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Shannon entropy of each detection, divided by log k; 0 log 0 = 0.

    Args:
        probabilities: (D, k) rows summing to 1, k >= 2; D may be 0.

    Returns:
        (D,) in [0, 1]; the maximum is that of the uniform distribution.

    Raises:
        ValueError: another shape, or rows that are no distribution.
    """
    vectors = _distributions(probabilities)
    return _within_unit((0.0 - _x_log_x(vectors).sum(axis=1)) / np.log(vectors.shape[1]))


def check_class_scores(class_scores: np.ndarray) -> None:
    """Refuses what cannot be class scores: ValueError, with the first row that is wrong."""
    if class_scores.ndim != 2 or class_scores.shape[1] == 0:
        raise ValueError(f"class scores (D, K) with K >= 1 wanted, got shape {class_scores.shape}")
    # one comparison per end that NaN fails too
    if class_scores.size and not (class_scores.min() >= 0 and class_scores.max() <= 1):
        wrong = np.flatnonzero(~((class_scores >= 0) & (class_scores <= 1)).all(axis=1))
        raise ValueError(
            f"class scores must be numbers in [0, 1]: {len(wrong)} of {len(class_scores)} detections have others, "
            f"the first is row {wrong[0]}: {class_scores[wrong[0]]}"
        )


def _distributions(probabilities: np.ndarray) -> np.ndarray:
    if probabilities.ndim != 2 or probabilities.shape[1] < 2:
        raise ValueError(f"probabilities (D, k) with k >= 2 wanted, got shape {probabilities.shape}")
    vectors = probabilities.astype(np.float64, copy=False)
    # 1e-5: a float32 softmax over thousands of classes is a distribution
    valid = (vectors >= 0).all(axis=1) & (np.abs(vectors.sum(axis=1) - 1) <= 1e-5)
    if not valid.all():
        row = int(valid.argmin())
        raise ValueError(f"row {row} is no distribution (entries >= 0 that sum to 1): {probabilities[row]}")
    return vectors


def _one_minus_gap(values: np.ndarray) -> np.ndarray:
    ordered = np.partition(values, -2, axis=1)
    return np.asarray(1.0 - (ordered[:, -1] - ordered[:, -2]))


def _x_log_x(values: np.ndarray) -> np.ndarray:
    return np.asarray(values * np.log(np.where(values > 0, values, 1.0)))


def _within_unit(values: np.ndarray) -> np.ndarray:
    # rounding leaves [0, 1] by some 1e-16
    return np.asarray(np.clip(values, 0.0, 1.0))


def _independent_margin(scores: np.ndarray) -> np.ndarray:
    # the column of zeros is s2 of a one-class detector, and never among the two highest otherwise
    return _one_minus_gap(np.pad(scores, ((0, 0), (0, 1))))


def _mean_binary_entropy(scores: np.ndarray) -> np.ndarray:
    nats = 0.0 - (_x_log_x(scores) + _x_log_x(1.0 - scores))
    return _within_unit(nats.mean(axis=1) / np.log(2))


@dataclass(frozen=True)
class Formula:
    """One uncertainty.

    Args:
        of_vectors: (D, k) probability vectors, rows summing to 1, k >= 2 -> (D,) in [0, 1].
        of_bernoullis: (D, K) independent class scores in [0, 1] -> (D,) in [0, 1]; None where it has no such reading.
    """

    of_vectors: Callable[[np.ndarray], np.ndarray]
    of_bernoullis: Callable[[np.ndarray], np.ndarray] | None = None


UNCERTAINTIES: dict[str, Formula] = {
    "least_confidence": Formula(least_confidence, lambda scores: 1.0 - scores.max(axis=1)),
    "margin": Formula(margin, _independent_margin),
    "margin_squared": Formula(margin_squared, lambda scores: _independent_margin(scores) ** 2),
    "entropy": Formula(entropy, _mean_binary_entropy),
}
