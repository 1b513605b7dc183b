"""What images add to what is labelled, class by class, for what they cost."""

import numpy as np

from raylearn.measures.greedy import lazy_greedy


def greedy_coverage(
    masses: np.ndarray, covered: np.ndarray, costs: np.ndarray, size: int
) -> tuple[list[int], list[float]]:
    """The images that, one by one, add most for their cost.

    gain(x | S) = sum_c [log(1 + n_c + m_c(x)) - log(1 + n_c)] / cost(x), n_c the labelled and chosen mass of class c.
    Its sum over a query is submodular in the images: with equal costs, the greedy choice is at least 1 - 1/e of the
    best one (Nemhauser, Wolsey and Fisher 1978).

    Args:
        masses: (N, C) numbers >= 0, what an image has of each class.
        covered: (C,) numbers >= 0, the mass that is labelled.
        costs: (N,) numbers > 0.
        size: 1 to N.

    Returns:
        Positions in the order of the picks, the first among equals, and the gain of each, never rising.
    """
    held = 1.0 + covered

    def gains(positions: np.ndarray) -> np.ndarray:
        found = np.log1p(masses[positions] / held).sum(axis=1) / costs[positions]
        # float32: the same classes in another order differ in the last bits of float64
        return np.asarray(found, np.float32)

    def choose(position: int) -> None:
        held[:] += masses[position]

    return lazy_greedy(gains, choose, len(masses), size)
