"""Embeddings: what a network saw, in few enough numbers that a ledger of millions of images can keep them."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch

from raylearn.detectors.base import BOX_EMBEDDING, IMAGE_EMBEDDING, Detections
from raylearn.errors import DivergedError

_SEED = 17
_LARGEST = float(np.finfo(np.float16).max)


def with_embeddings(
    detections: Sequence[Detections], box_features: torch.Tensor, image_features: torch.Tensor
) -> list[Detections]:
    """The detections of a batch, each with the embeddings of its boxes and of its image.

    Args:
        detections: of N images.
        box_features: (D, width) of their boxes, image after image.
        image_features: (N, another width).

    Raises:
        DivergedError: a feature is not a finite number.
    """
    ends = np.cumsum([len(found) for found in detections])
    of_boxes = np.split(embed(box_features, BOX_EMBEDDING), ends[:-1])
    of_images = embed(image_features, IMAGE_EMBEDDING)
    return [
        replace(found, box_embeddings=boxes, image_embedding=image)
        for found, boxes, image in zip(detections, of_boxes, of_images, strict=True)
    ]


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
