"""Clusters of embeddings: k-means, block by block."""

import numpy as np

from raylearn.measures.novelty import farthest_first

_ROWS = 4096
_ITERATIONS = 20


def cluster_of(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(D,) int64: the nearest of (C, E) centres to each of (D, E) vectors, the first among equals; C at least 1."""
    halves = np.einsum("ij,ij->i", centres, centres)[:, None] / 2
    found = np.zeros(len(vectors), np.int64)
    for first in range(0, len(vectors), _ROWS):
        rows = slice(first, first + _ROWS)
        found[rows] = (centres @ vectors[rows].T - halves).argmax(axis=0)
    return found


def cluster_centres(vectors: np.ndarray, size: int) -> np.ndarray:
    """The centres that k-means finds, from the vectors of `farthest_first`, so without chance.

    Args:
        vectors: (D, E) float32; D may be 0.
        size: how many at most.

    Returns:
        (min(D, size), E) float32, each the mean of the vectors nearest to it, or what it was where there are none.
    """
    centres = vectors[farthest_first(vectors, size)]
    for _ in range(_ITERATIONS if len(centres) else 0):
        cluster = cluster_of(vectors, centres)
        counts = np.bincount(cluster, minlength=len(centres))
        sums = np.stack([np.bincount(cluster, column, len(centres)) for column in vectors.T], axis=1)
        moved = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres).astype(np.float32)
        if (moved == centres).all():
            break
        centres = moved
    return np.asarray(centres)
