"""How unlike the objects of images are, class by class; and few images that stand for many."""

import numpy as np

from raylearn.measures.novelty import unit_vectors

_ROWS = 256
_ITERATIONS = 100


def matching_distances(
    offsets: np.ndarray, classes: np.ndarray, confidences: np.ndarray, embeddings: np.ndarray
) -> np.ndarray:
    """Category-conditioned matching: each object is compared with the most similar object of its class.

    An object o of image a is d(o, b) = 1 - cos to the nearest object of its class in image b, 2 where b has none.
    d(a, b) is the mean over the objects of a, weighted by confidence, and the distance the mean of d(a, b) and
    d(b, a). Yang, Huang and Crowley, Plug and Play Active Learning for Object Detection, CVPR 2024, arXiv 2211.11612.
    Images without objects are at 0 from each other and at 2 from any other.

    Args:
        offsets: (N + 1,) int64; image i owns objects offsets[i] to offsets[i + 1].
        classes: (D,) the class of each object.
        confidences: (D,) numbers >= 0; where those of an image are all 0, its objects weigh the same.
        embeddings: (D, E) finite numbers.

    Returns:
        (N, N) float32 in [0, 2], symmetric with zeros on the diagonal.

    Raises:
        ValueError: see `unit_vectors`.
    """
    counts = np.diff(offsets)
    image_of = np.repeat(np.arange(len(counts)), counts)
    vectors = unit_vectors(embeddings)
    totals = np.bincount(image_of, confidences, len(counts))
    weights = np.where(totals[image_of] > 0, confidences, 1.0)
    weights = weights / np.bincount(image_of, weights, len(counts))[image_of]
    directed = np.full((len(counts), len(counts)), 2.0, np.float32)
    without = np.flatnonzero(counts == 0)
    directed[np.ix_(without, without)] = 0
    for class_id in np.unique(classes):
        own = np.flatnonzero(classes == class_id)
        images, starts = np.unique(image_of[own], return_index=True)
        for first in range(0, len(own), _ROWS):
            rows = own[first : first + _ROWS]
            nearest = np.maximum.reduceat(vectors[rows] @ vectors[own].T, starts, axis=1)
            # every image is at 2 until an object of the class is found in it
            closer = weights[rows, None] * (-1.0 - nearest)
            of, begin = np.unique(image_of[rows], return_index=True)
            directed[np.ix_(of, images)] += np.add.reduceat(closer, begin, axis=0)
    # the order of the classes decides the last bits
    distances = np.clip(np.round((directed + directed.T) / 2, 4), 0, 2)
    np.fill_diagonal(distances, 0)
    return np.asarray(distances, np.float32)


def medoids(distances: np.ndarray, size: int, first: int) -> np.ndarray:
    """The images that stand for the clusters of all: k-means, with the most central image of a cluster as its mean.

    The first centres are the given image and then each time the one farthest from the centres so far.

    Args:
        distances: (N, N) >= 0, symmetric with zeros on the diagonal.
        size: 1 to N.
        first: a position.

    Returns:
        (size,) rising positions.
    """
    chosen = [first]
    nearest = distances[first].copy()
    while len(chosen) < size:
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
        np.minimum(nearest, distances[chosen[-1]], out=nearest)
    centres = np.array(chosen)
    for _ in range(_ITERATIONS):
        cluster = distances[:, centres].argmin(axis=1)
        cluster[centres] = np.arange(size)  # a centre that equals another one keeps its cluster
        members = np.split(np.argsort(cluster, kind="stable"), np.cumsum(np.bincount(cluster, minlength=size))[:-1])
        moved = np.array([of[distances[np.ix_(of, of)].sum(axis=1, dtype=np.float64).argmin()] for of in members])
        if (moved == centres).all():
            break
        centres = moved
    return np.sort(centres)
