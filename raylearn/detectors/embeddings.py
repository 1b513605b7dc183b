"""Embeddings: what a network saw, in few enough numbers that a ledger of millions of images can keep them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch

from raylearn.detectors.base import BOX_EMBEDDING, IMAGE_EMBEDDING, Detections
from raylearn.errors import DivergedError

_SEED = 17
_LARGEST = float(np.finfo(np.float16).max)


def with_embeddings(
    detections: Sequence[Detections], of_boxes: np.ndarray, image_features: torch.Tensor
) -> list[Detections]:
    """The detections of a batch, each with the embeddings of its boxes and of its image.

    Args:
        detections: of N images.
        of_boxes: (D, BOX_EMBEDDING) float16, image after image.
        image_features: (N, width), such as `pooled` gives them.

    Raises:
        DivergedError: a feature is not a finite number.
    """
    ends = np.cumsum([len(found) for found in detections])
    of_images = embed(image_features, IMAGE_EMBEDDING)
    return [
        replace(found, box_embeddings=boxes, image_embedding=image)
        for found, boxes, image in zip(detections, np.split(of_boxes, ends[:-1]), of_images, strict=True)
    ]


def pooled(maps: Iterable[torch.Tensor]) -> torch.Tensor:
    """(n, all channels) float32: maps of (n, channels, height, width), each averaged over its cells."""
    return torch.cat([level.mean((2, 3), dtype=torch.float32) for level in maps], 1)


def embed_at(
    levels: Sequence[torch.Tensor], images: torch.Tensor, anchors: torch.Tensor, per_cell: int = 1
) -> np.ndarray:
    """The embeddings of k boxes, each of what a head that looks at cells is given in the cell of the box's anchor.

    Args:
        levels: of each level (n, channels, height, width).
        images: (k,) int64 position of the image that each box is in.
        anchors: (k,) int64 position of its anchor among those of all levels.
        per_cell: anchors of a cell, which follow each other.

    Returns:
        (k, BOX_EMBEDDING) float16.

    Raises:
        DivergedError: a feature is not a finite number.
    """
    embeddings = np.empty((len(anchors), BOX_EMBEDDING), np.float16)
    start = 0
    for level in levels:
        cells = level.flatten(2)
        end = start + cells.shape[2] * per_cell
        own = torch.nonzero((anchors >= start) & (anchors < end))[:, 0]
        found = cells[images[own], :, (anchors[own] - start) // per_cell]
        embeddings[own.cpu().numpy()] = embed(found, BOX_EMBEDDING)
        start = end
    return embeddings


def embed(features: torch.Tensor, numbers: int) -> np.ndarray:
    """The embeddings of n feature vectors, by a random orthogonal projection.

    Args:
        features: (n, width) of any floating type, on any device.
        numbers: of an embedding.

    Returns:
        (n, numbers) float16; what is too large for it is the largest that it holds.

    Raises:
        DivergedError: a feature is not a finite number.
    """
    projected = (features.float() @ _on_device(features.shape[1], numbers, features.device)).cpu().numpy()
    if not np.isfinite(projected).all():
        raise DivergedError("the detector gave a feature that is not a finite number: its training diverged")
    embeddings: np.ndarray = projected.clip(-_LARGEST, _LARGEST).astype(np.float16)
    return embeddings


@cache
def projection(width: int, numbers: int) -> np.ndarray:
    """The matrix that makes embeddings of features, the same in every process.

    Its longer side's vectors are orthonormal: a uniformly random subspace, of which Johnson and Lindenstrauss
    (Extensions of Lipschitz mappings into a Hilbert space, 1984) show that it keeps the ratios of distances nearly; all
    distances shrink by about the square root of numbers / width. Features of fewer numbers than an embedding keep
    their distances exactly.

    Args:
        width: numbers of a feature vector.
        numbers: of an embedding.

    Returns:
        (width, numbers) float32.
    """
    drawn = np.random.default_rng((_SEED, width, numbers)).standard_normal((max(width, numbers), min(width, numbers)))
    orthonormal, upper = np.linalg.qr(drawn)
    # QR leaves the sign of each column open; with these signs the draw is uniform (Mezzadri, arXiv math-ph/0609050).
    orthonormal *= np.sign(np.diag(upper))
    matrix: np.ndarray = orthonormal if width >= numbers else orthonormal.T
    return np.ascontiguousarray(matrix, dtype=np.float32)


@cache
def _on_device(width: int, numbers: int, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(projection(width, numbers)).to(device)
