"""Images with detections and embeddings, drawn by chance from few values so that many of them tie."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from raylearn.strategies import Candidates, Context, Labelled

CLASSES = 3


def seen(images: Sequence[Sequence[tuple[Sequence[float], Sequence[float]]]], of_images=None, prefix="") -> Candidates:
    """Images `a`, `b`, ... of detections: class scores and box embedding of each."""
    offsets = np.concatenate([[0], np.cumsum([len(image) for image in images])]).astype(np.int64)
    boxes = [box for image in images for box in image]
    of_images = [[1.0, 0.0]] * len(images) if of_images is None else of_images
    return Candidates(
        [f"{prefix}{chr(97 + i)}" for i in range(len(images))],
        offsets,
        np.array([scores for scores, _ in boxes], np.float32).reshape(len(boxes), -1 if boxes else CLASSES),
        np.array([embedding for _, embedding in boxes], np.float16).reshape(len(boxes), -1 if boxes else 2),
        np.array(of_images, np.float16),
    )


def random_pool(rng: np.random.Generator, num_images: int, prefix: str = "pool") -> Candidates:
    counts = rng.integers(0, 4, num_images)
    num_boxes = int(counts.sum())
    return Candidates(
        [f"{prefix}/{i}.jpg" for i in range(num_images)],
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        rng.choice([0.0, 0.25, 0.5, 1.0], (num_boxes, CLASSES)).astype(np.float32),
        rng.integers(-1, 3, (num_boxes, 3)).astype(np.float16),
        rng.integers(-1, 3, (num_images, 4)).astype(np.float16),
    )


def random_context(rng: np.random.Generator, num_candidates: int) -> Context:
    labelled = random_pool(rng, int(rng.integers(0, 6)), "labelled")
    counts = rng.integers(0, 4, (len(labelled.image_ids), CLASSES))
    known = Labelled(labelled, counts if rng.integers(2) else None)
    return Context(
        int(rng.integers(2**40)),
        rng.integers(0, 5, CLASSES),
        known if rng.integers(4) else None,
        rng.integers(0, 4, (num_candidates, CLASSES)),
    )


def reordered(candidates: Candidates, context: Context, order: np.ndarray) -> tuple[Candidates, Context]:
    assert context.true_counts is not None
    return candidates.take(order), replace(context, true_counts=context.true_counts[order])
