"""The query of one arm: from a ledger, or from chance, to images in order."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from raylearn.config import Arm
from raylearn.errors import QueryError
from raylearn.learning.cycle import Query
from raylearn.query.aggregation import aggregate
from raylearn.query.sampling import box_counts, check_size, seeded_order, top_n
from raylearn.query.uncertainty import uncertainty
from raylearn.query.weighting import class_weights, detection_weights


class ScoredImages(Protocol):
    """The detections of N images: a ledger, or a part of one."""

    @property
    def offsets(self) -> np.ndarray:
        """(N + 1,) int64; image i owns detections offsets[i] to offsets[i + 1]."""
        ...

    @property
    def class_scores(self) -> np.ndarray:
        """(D, K) float32."""
        ...


def image_scores(
    arm: Arm, images: ScoredImages, class_counts: np.ndarray, weight_cap: float | None = None
) -> np.ndarray:
    """The number each image is ranked by.

    Args:
        arm: of strategy uncertainty or box_count.
        images: of a scoring pass.
        class_counts: (K,) boxes per class in the currently labelled images.
        weight_cap: upper limit of a class weight.

    Returns:
        (N,) float64, in the order of the images; higher is asked for first.
    """
    if arm.strategy == "box_count":
        return box_counts(images.offsets)
    if not arm.aggregation:
        raise ValueError(f"strategy {arm.strategy!r} does not rank by scores")
    return aggregate(
        detection_scores(arm, images.class_scores, class_counts, weight_cap), images.offsets, arm.aggregation
    )


def detection_scores(
    arm: Arm, class_scores: np.ndarray, class_counts: np.ndarray, weight_cap: float | None = None
) -> np.ndarray:
    """(D,) float64: the weighted uncertainty of each detection, which `image_scores` aggregates.

    Args:
        arm: of strategy uncertainty.
        class_scores: (D, K) float32.
        class_counts, weight_cap: as in `image_scores`.
    """
    if not (arm.uncertainty and arm.weighting and arm.probabilities):
        raise ValueError(f"strategy {arm.strategy!r} does not look at single detections")
    per_detection = uncertainty(class_scores, arm.uncertainty, arm.probabilities)
    weights = class_weights(class_counts, arm.weighting, weight_cap)
    weighted: np.ndarray = per_detection * detection_weights(class_scores, weights)
    return weighted


def query_by_scores(image_ids: np.ndarray, scores: np.ndarray, size: int, seed: int) -> Query:
    """The images of the highest scores."""
    chosen = top_n(image_ids, scores, size, seed)
    return Query(tuple(str(image_ids[i]) for i in chosen), tuple(float(scores[i]) for i in chosen))


def query_at_random(image_ids: Sequence[str], size: int, seed: int) -> Query:
    """Images drawn by chance: the control.

    The seed puts the whole pool in one random order, and a query takes the first that are left. So random arms of
    different query sizes have labelled the same images wherever their budgets meet, and share those trainings.

    Args:
        image_ids: unlabelled ones.
        size: how many.
        seed: of the trial.

    Raises:
        QueryError: `size` below 1, or above the number of images.
    """
    check_size(size, len(image_ids))
    chosen = seeded_order(image_ids, seed, "random query")[:size]
    return Query(tuple(image_ids[i] for i in chosen), (0.0,) * size)


def scored_subset(image_ids: Sequence[str], pool_size: int | None, seed: int, round_index: int) -> list[str]:
    """The unlabelled images that are scored this round: all, or a random part.

    The seed and the round put all images in one order, of which an arm takes the first that it has not labelled: so the
    arms of a seed score nearly the same part.

    Raises:
        QueryError: the part would be empty.
    """
    if not image_ids:
        raise QueryError("no unlabelled image is left to score: lower budget")
    if pool_size is None or pool_size >= len(image_ids):
        return list(image_ids)
    order = seeded_order(image_ids, seed, f"scored subset of round {round_index}")
    return [image_ids[i] for i in sorted(order[:pool_size])]
