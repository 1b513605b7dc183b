"""From the detections of an image to one number: its image score.

Detections are ragged: the values of all images in one array, and `offsets` (N+1,) that say which are whose;
image i owns values[offsets[i]:offsets[i+1]].
"""

import numpy as np

from raylearn.errors import QueryError, nearest

AGGREGATIONS = ("sum", "max", "mean")


def aggregate(values: np.ndarray, offsets: np.ndarray, name: str) -> np.ndarray:
    """One number per image from the values of its detections; 0 for an image without detections.

    Args:
        values: (D,) one number per detection, such as its weighted uncertainty; D may be 0. NaN stays NaN.
        offsets: (N+1,) integers from 0 to D, never falling; N may be 0.
        name: one of `AGGREGATIONS`.

    Returns:
        (N,) float64. For values in [0, 1], `max` and `mean` are in [0, 1], `sum` in [0, num detections].

    Raises:
        ValueError: values that are not (D,), or offsets that do not divide them.
        QueryError: an unknown name.
    """
    if name not in AGGREGATIONS:
        raise QueryError(f"unknown aggregation {name!r}: {nearest(name, AGGREGATIONS)}")
    if values.ndim != 1:
        raise ValueError(f"values (D,) wanted, got shape {values.shape}")
    check_offsets(offsets)
    if offsets[-1] != len(values):
        raise ValueError(f"offsets end at {offsets[-1]}, but there are {len(values)} values")
    counts = np.diff(offsets)
    filled = counts > 0
    # reduceat gives an empty segment its neighbour's value; without them each segment ends where the next one starts
    starts = offsets[:-1][filled]
    reduction = np.maximum if name == "max" else np.add
    scores = np.zeros(len(counts))
    scores[filled] = reduction.reduceat(values.astype(np.float64), starts)
    if name == "mean":
        scores[filled] /= counts[filled]
    return scores


def rows_of(images: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The detections of some images only, one image after the other.

    Args:
        images: (n,) positions.
        offsets: (N+1,) integers from 0, never falling.

    Returns:
        (n + 1,) int64, the offsets of these images, and (d,) int64, the positions of their detections.
    """
    counts = np.diff(offsets)[images]
    own = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return own, np.repeat(offsets[:-1][images] - own[:-1], counts) + np.arange(own[-1])


def check_offsets(offsets: np.ndarray) -> None:
    """Refuses what divides no array: ValueError unless `offsets` are (N+1,) integers from 0 that never fall."""
    if offsets.ndim != 1 or not len(offsets) or not np.issubdtype(offsets.dtype, np.signedinteger):
        raise ValueError(f"offsets (N+1,) of int64 wanted, got shape {offsets.shape} of {offsets.dtype}")
    if offsets[0] != 0:
        raise ValueError(f"offsets must start at 0, got {offsets[0]}")
    falls = np.flatnonzero(np.diff(offsets) < 0)
    if len(falls):
        image = falls[0]
        raise ValueError(f"offsets fall at image {image}: from {offsets[image]} to {offsets[image + 1]}")
