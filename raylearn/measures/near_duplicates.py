"""Groups of vectors that are nearly the same, without comparing all of them with all others."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from raylearn.measures.clusters import cluster_of

NEAR = 0.02
"""Images at most so far apart are near-duplicates unless another distance is given; measured in docs/log.md."""
_STEP = 0.001
"""Distances are in steps of it; see `raylearn.measures.novelty.unit_distances`."""
_ROWS = 1024
"""Of one block of comparisons: 4 MiB of products."""
_ITERATIONS, _PER_CENTRE = 5, 32
_ROUNDING = 1e-5
"""Of float32 products of unit vectors, with a margin: it makes borders a little wider than they need to be."""


def near_duplicates(
    vectors: np.ndarray, distance: float, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> np.ndarray:
    """Which vectors belong together: those at most `distance` apart, and those that a chain of such pairs links.

    Exact. The vectors are divided among the nearest of sqrt(N) centres of k-means. Two vectors of two clusters
    can only be near where both are near the plane between the clusters' centres, so only vectors of the same cluster,
    and those at the borders of two, are compared. Where clusters are farther apart than `distance` these are few;
    where `distance` is as large as the spread of all vectors they are all.

    Args:
        vectors: (N, E) of `unit_vectors`; N may be 0.
        distance: in [0, 1], as `raylearn.measures.novelty.unit_distances` gives them.
        progress: told how many clusters are done, of how many.

    Returns:
        (N,) int64 the first position of each vector's group, its own where it is alone.
    """
    reach = 2 * (distance + _STEP / 2)  # Euclidean; what is rounded to `distance` is still within
    groups = _Groups(len(vectors))
    centres = _centres(vectors)
    own = cluster_of(vectors, centres) if len(centres) else np.empty(0, np.int64)
    order = np.argsort(own, kind="stable")
    starts = np.searchsorted(own[order], np.arange(len(centres) + 1))
    clusters = [order[start:end] for start, end in pairwise(starts)]
    halves = (centres**2).sum(axis=1) / 2
    for cluster, members in enumerate(clusters):
        _join_near(vectors, members, members, reach, groups)
        widths = reach * np.sqrt(((centres - centres[cluster]) ** 2).sum(axis=1)) + _ROUNDING
        for rows in _blocks(members):
            nearness = vectors[rows] @ centres.T - halves
            at_border = nearness[:, [cluster]] - nearness <= widths
            for other in np.flatnonzero(at_border[:, cluster + 1 :].any(axis=0)) + cluster + 1:
                theirs = clusters[other]
                apart = vectors[theirs] @ (centres[other] - centres[cluster]) - (halves[other] - halves[cluster])
                _join_near(vectors, rows[at_border[:, other]], theirs[apart <= widths[other]], reach, groups)
        progress(cluster + 1, len(clusters))
    return groups.roots(np.arange(len(vectors)))


def _centres(vectors: np.ndarray) -> np.ndarray:
    """(C, E) float32: of k-means on vectors taken at equal steps, so that many are where the vectors are many."""
    size = int(np.sqrt(len(vectors)))
    if not size:
        return vectors[:0]
    sample = vectors[_evenly(len(vectors), min(len(vectors), _PER_CENTRE * size))]
    centres = sample[_evenly(len(sample), size)]
    for _ in range(_ITERATIONS):
        cluster = cluster_of(sample, centres)
        counts = np.bincount(cluster, minlength=size)
        sums = np.stack([np.bincount(cluster, column, size) for column in sample.T], axis=1)
        centres = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres).astype(np.float32)
    return np.asarray(centres)


def _evenly(count: int, size: int) -> np.ndarray:
    return np.arange(size) * count // size


def _blocks(positions: np.ndarray) -> Iterator[np.ndarray]:
    return (positions[first : first + _ROWS] for first in range(0, len(positions), _ROWS))


def _join_near(vectors: np.ndarray, some: np.ndarray, others: np.ndarray, reach: float, groups: "_Groups") -> None:
    """Joins those of `some` and of `others`, positions both, that are within reach of each other."""
    for rows in _blocks(some):
        for columns in _blocks(others):
            roots = groups.roots(rows)
            # what is in one group already need not be compared, so thousands of frames of one still scene cost little
            common = np.partition(roots, len(roots) // 2)[len(roots) // 2]
            inside = roots == common
            _join_block(vectors, rows[~inside], columns, reach, groups)
            _join_block(vectors, rows[inside], columns[groups.roots(columns) != common], reach, groups)


def _join_block(vectors: np.ndarray, rows: np.ndarray, columns: np.ndarray, reach: float, groups: "_Groups") -> None:
    if not (len(rows) and len(columns)):
        return
    left, right = vectors[rows], vectors[columns]
    # |x - y|^2 <= reach^2
    least = ((left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1) - np.float32(reach**2)) / 2
    found, where = np.nonzero(left @ right.T >= least)
    if len(found):
        groups.join(rows[found], columns[where])


class _Groups:
    """Disjoint sets of N positions, joined many at a time; the root of a set is its lowest position."""

    def __init__(self, size: int) -> None:
        self._up = np.arange(size)

    def roots(self, positions: np.ndarray) -> np.ndarray:
        """(n,) the root of the set of each of (n,) positions."""
        found = self._up[positions]
        while True:
            above = self._up[found]
            if (above == found).all():
                return np.asarray(found)
            self._up[positions] = found = above  # halves all paths, so long chains are short the next time

    def join(self, some: np.ndarray, others: np.ndarray) -> None:
        """Makes one set of the two that some[i] and others[i] are in, for every i."""
        while True:
            one, other = self.roots(some), self.roots(others)
            apart = one != other
            if not apart.any():
                return
            some, others = one[apart], other[apart]
            # of many that a root is joined with the lowest, so that a star takes two rounds
            np.minimum.at(self._up, np.maximum(some, others), np.minimum(some, others))
