"""How far embeddings are from others: what tells the new from the near-duplicate.

All of it is float32 and works block by block, so its memory does not grow with the number of pairs.
"""

import numpy as np

_ROWS, _REFERENCES = 4096, 512
"""Of one block of products: 8 MiB, so that it is still in the cache when its maximum is taken."""


def unit_vectors(embeddings: np.ndarray) -> np.ndarray:
    """Each embedding divided by its length; one of zeros stays as it is.

    Args:
        embeddings: (D, E) finite numbers; D may be 0.

    Returns:
        (D, E) float32.

    Raises:
        ValueError: another shape, or an embedding that is not finite.
    """
    if embeddings.ndim != 2:
        raise ValueError(f"expected embeddings of shape (D, E), got {embeddings.shape}")
    vectors = embeddings.astype(np.float32)
    lengths = np.sqrt(_squares(vectors))[:, None]
    refuse_not_finite(lengths)
    np.divide(vectors, lengths, out=vectors, where=lengths > 0)
    return vectors


def refuse_not_finite(embeddings: np.ndarray) -> None:
    """Raises ValueError for (D, E) embeddings, or something of each, where one is NaN or infinite."""
    broken = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(broken):
        raise ValueError(f"{len(broken)} of {len(embeddings)} embeddings are not finite, the first is row {broken[0]}")


def nearest_squares(vectors: np.ndarray, references: np.ndarray) -> np.ndarray:
    """The squared Euclidean distance of each vector to the nearest reference.

    Args:
        vectors: (D, E) float32; D may be 0.
        references: (R, E) float32; R may be 0.

    Returns:
        (D,) float32 >= 0; infinite where there are no references.
    """
    closest = np.full(len(vectors), -np.inf, np.float32)
    halves = _squares(references)[:, None] / 2
    for first in range(0, len(vectors), _ROWS):
        rows = slice(first, first + _ROWS)
        for start in range(0, len(references), _REFERENCES):
            some = slice(start, start + _REFERENCES)
            # |x - r|^2 = |x|^2 - 2 (x.r - |r|^2 / 2); references go down, so that the maximum is over whole rows
            products = references[some] @ vectors[rows].T
            products -= halves[some]
            np.maximum(closest[rows], products.max(axis=0), out=closest[rows])
    return np.maximum(_squares(vectors) - 2 * closest, np.float32(0))


def squares_to_groups(vectors: np.ndarray, references: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The squared Euclidean distance of each vector to the nearest reference of each group.

    Args:
        vectors: (D, E) float32.
        references: (R, E) float32, group after group.
        starts: (G,) rising positions in `references` where groups begin, the first 0 or none; no group is empty.

    Returns:
        (D, G) float32 >= 0.
    """
    products = vectors @ references.T - _squares(references) / 2
    closest = np.maximum.reduceat(products, starts, axis=1) if len(starts) else products[:, :0]
    return np.asarray(np.maximum(_squares(vectors)[:, None] - 2 * closest, np.float32(0)))


class Nearest:
    """The squared distance of each vector to the nearest of a growing set, brought up to date where it is asked for.

    Args:
        vectors: (D, E) float32.
        references: (R, E) float32, the set to begin with; R may be 0.
    """

    def __init__(self, vectors: np.ndarray, references: np.ndarray) -> None:
        self._vectors = vectors
        self._squares = nearest_squares(vectors, references)
        self._added: list[np.ndarray] = []
        self._known = np.zeros(len(vectors), np.int64)  # how many of `_added` each square knows of

    def add(self, references: np.ndarray) -> None:
        """(R, E) float32, more of the set; R may be 0."""
        self._added.append(references)

    def squares(self, rows: np.ndarray) -> np.ndarray:
        """(n,) float32 of these vectors, by their positions (n,); see `nearest_squares`. They never rise."""
        unknown = self._added[int(self._known[rows].min(initial=len(self._added))) :]
        if unknown:
            near = nearest_squares(self._vectors[rows], np.concatenate(unknown))
            self._squares[rows] = np.minimum(self._squares[rows], near)
            self._known[rows] = len(self._added)
        return np.asarray(self._squares[rows])


def unit_distances(squares: np.ndarray) -> np.ndarray:
    """Squared distances of unit vectors as distances in [0, 1]: half the Euclidean one; 1 is opposite, or no neighbour.

    Args:
        squares: of `nearest_squares` or `squares_to_groups`, between `unit_vectors`.

    Returns:
        float64 of the same shape in [0, 1], in steps of a thousandth.
    """
    # float32 and the float16 of embeddings leave a box some .0005 from itself, by which batch it was scored in; in
    # steps of a thousandth that is 0, so a duplicate is worth nothing, and not next to nothing
    return np.asarray(np.minimum(np.round(np.sqrt(squares.astype(np.float64)) / 2, 3), 1.0))


def novelty(embeddings: np.ndarray, references: np.ndarray) -> np.ndarray:
    """How far each embedding is from the nearest reference, by direction.

    Args:
        embeddings: (D, E) finite numbers, of which a block at a time is made float32; D may be 0.
        references: (R, E) of `unit_vectors`; R may be 0.

    Returns:
        (D,) float64 in [0, 1], see `unit_distances`; 1 where there are no references.

    Raises:
        ValueError: see `unit_vectors`.
    """
    found = np.ones(len(embeddings))
    for first in range(0, len(embeddings) if len(references) else 0, _ROWS):
        rows = slice(first, first + _ROWS)
        found[rows] = unit_distances(nearest_squares(unit_vectors(embeddings[rows]), references))
    return found


def farthest_first(vectors: np.ndarray, limit: int) -> np.ndarray:
    """Few vectors that stand for many: each is the one farthest from those before it.

    Gonzalez, Clustering to minimize the maximum intercluster distance, 1985: no choice of so many leaves the farthest
    vector less than half as far from its nearest one.

    Args:
        vectors: (D, E) float32; D may be 0.
        limit: how many at most.

    Returns:
        (min(D, limit),) int64 positions; the first is the one farthest from the mean, all of them in order of input
        where there are no more than `limit`.
    """
    if len(vectors) <= limit:
        return np.arange(len(vectors))
    chosen = [int(nearest_squares(vectors, vectors.mean(axis=0, keepdims=True)).argmax())]
    squares = np.full(len(vectors), np.inf, np.float32)
    while len(chosen) < limit:
        np.minimum(squares, nearest_squares(vectors, vectors[chosen[-1:]]), out=squares)
        chosen.append(int(squares.argmax()))
    return np.array(chosen)


def _squares(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("ij,ij->i", vectors, vectors))
