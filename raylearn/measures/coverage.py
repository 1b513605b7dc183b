"""What images add to what is labelled, class by class, for what they cost."""

import numpy as np

from raylearn.measures.greedy import lazy_greedy


def greedy_coverage(
    masses: np.ndarray, covered: np.ndarray, costs: np.ndarray, size: int, known: np.ndarray | None = None
) -> tuple[list[int], list[float]]:
    """The images that, one by one, add most for their cost.

    gain(x | S) = sum_c [log(1 + n_c + m_c(x)) - log(1 + n_c)] / cost(x), n_c the labelled and chosen mass of class c.
    Its sum over a query is submodular in the images: with equal costs, the greedy choice is at least 1 - 1/e of the
    best one (Nemhauser, Wolsey and Fisher 1978). Where groups of images are given, such as frames of one clip, the gain
    is divided by 1 + k, k the labelled and chosen images of the group.

    Args:
        masses: (N, C) numbers >= 0, what an image has of each class.
        covered: (C,) numbers >= 0, the mass that is labelled.
        costs: (N,) numbers > 0.
        size: 1 to N.
        known: (N, 2) int64: the group of each image, from 0, and how many of it are labelled; None for no groups.

    Returns:
        Positions in the order of the picks, the first among equals, and the gain of each, never rising.
    """
    held = 1.0 + covered
    groups, of_group = (None, np.zeros(0, np.int64)) if known is None else (known[:, 0], _by_group(known))

    def gains(positions: np.ndarray) -> np.ndarray:
        found = np.log1p(masses[positions] / held).sum(axis=1) / costs[positions]
        if groups is not None:
            found /= 1 + of_group[groups[positions]]
        # float32: the same classes in another order differ in the last bits of float64
        return np.asarray(found, np.float32)

    def choose(position: int) -> None:
        held[:] += masses[position]
        if groups is not None:
            of_group[groups[position]] += 1

    return lazy_greedy(gains, choose, len(masses), size)


def _by_group(known: np.ndarray) -> np.ndarray:
    """(G,) labelled images of each group."""
    counts = np.zeros(known[:, 0].max(initial=-1) + 1, np.int64)
    counts[known[:, 0]] = known[:, 1]
    return counts
