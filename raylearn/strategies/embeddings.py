"""The embeddings that strategies compare: of candidates, and of what is labelled."""

import numpy as np

from raylearn.errors import QueryError
from raylearn.strategies.base import Context, ScoredImages


def box_embeddings(images: ScoredImages) -> np.ndarray:
    """(D, E). Raises QueryError where the scoring pass kept none."""
    return _there(images.box_embeddings)


def image_embeddings(images: ScoredImages) -> np.ndarray:
    """(N, F). Raises QueryError where the scoring pass kept none."""
    return _there(images.image_embeddings)


def labelled_box_embeddings(context: Context, like: np.ndarray) -> np.ndarray:
    """(B, E) of the detections in labelled images, (0, E) where nothing is labelled; `like` is (_, E)."""
    return like[:0] if context.labelled is None else box_embeddings(context.labelled.seen)


def labelled_image_embeddings(context: Context, like: np.ndarray) -> np.ndarray:
    """(L, F) of the labelled images, (0, F) where nothing is labelled; `like` is (_, F)."""
    return like[:0] if context.labelled is None else image_embeddings(context.labelled.seen)


def _there(found: np.ndarray | None) -> np.ndarray:
    if found is None:
        raise QueryError(
            "this strategy compares embeddings, and these images have none: score them with embeddings, or choose "
            "another strategy"
        )
    return found
