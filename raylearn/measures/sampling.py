"""Which images are asked for: the highest scores, or a random draw; and where all randomness comes from."""

import hashlib
from collections.abc import Sequence

import numpy as np

from raylearn.errors import QueryError
from raylearn.measures.aggregation import check_offsets

ImageIds = Sequence[str] | np.ndarray


def top_n(image_ids: ImageIds, scores: np.ndarray, size: int, seed: int) -> np.ndarray:
    """The positions of the `size` highest scores, highest first.

    Equal scores are ordered by a hash of seed and image id, never by their order in the input: neighbouring files
    are often frames of one video.

    Args:
        image_ids: N unique ids.
        scores: (N,) finite numbers.
        size: how many; 1 to N.
        seed: decides the order of equal scores, and nothing else.

    Returns:
        (size,) int64 positions in `image_ids`.

    Raises:
        ValueError: as many ids as scores are wanted, or a score is NaN or infinite.
        QueryError: `size` below 1, or above N.
    """
    if scores.shape != (len(image_ids),):
        raise ValueError(f"{len(image_ids)} image ids, but scores of shape {scores.shape}")
    check_size(size, len(image_ids))
    broken = np.flatnonzero(~np.isfinite(scores))
    if len(broken):
        raise ValueError(
            f"{len(broken)} of {len(scores)} image scores are not finite numbers, "
            f"the first is {scores[broken[0]]} of image {str(image_ids[broken[0]])!r}"
        )
    threshold = np.partition(scores, -size)[-size]
    candidates = np.flatnonzero(scores >= threshold)
    _, groups, counts = np.unique(scores[candidates], return_inverse=True, return_counts=True)
    # hashed only where it can matter: a million hashes take a second
    tied = np.flatnonzero(counts[groups] > 1)
    order = np.zeros(len(candidates), dtype=np.uint64)
    order[tied] = tie_order([image_ids[position] for position in candidates[tied]], seed)
    return candidates[np.lexsort((order, -groups))[:size]]


def positions_within(order: np.ndarray, groups: np.ndarray | None, limit: int | None) -> np.ndarray:
    """Those of an order that are among the first `limit` of their group.

    Args:
        order: (n,) positions, best first.
        groups: (N,) of every position; may be None where there is no limit.
        limit: None for none.

    Raises:
        QueryError: a limit without groups.
    """
    if limit is None:
        return order
    if groups is None:
        raise QueryError(
            "max_per_group needs groups, and these images have none: a data set names them in groups.csv, `raylearn "
            "query` with --group-by"
        )
    _, own = np.unique(groups[order].astype(str), return_inverse=True)
    by_group = np.argsort(own, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(own[by_group]) != 0])
    rank = np.empty(len(order), np.int64)
    rank[by_group] = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    return order[rank < limit]


def tie_order(image_ids: ImageIds, seed: int) -> np.ndarray:
    """(N,) uint64: of images of equal score, the one with the lower number is asked for first."""
    return np.array([_hash64(f"{seed}/{image_id}") for image_id in image_ids], dtype=np.uint64)


def by_tie_order(image_ids: ImageIds, seed: int) -> np.ndarray:
    """(N,) int64: all positions in an order that depends on the ids and the seed alone; see `tie_order`."""
    return np.argsort(tie_order(image_ids, seed), kind="stable")


def draw_random(image_ids: ImageIds, size: int, rng: np.random.Generator) -> np.ndarray:
    """The positions of `size` images drawn without replacement, in random order.

    Which images are drawn depends on the set of ids and on `rng`, not on the order of the input.

    Args:
        image_ids: N unique ids.
        size: how many; 1 to N.
        rng: of `random_generator`.

    Returns:
        (size,) int64 positions in `image_ids`.

    Raises:
        QueryError: `size` below 1, or above N.
    """
    check_size(size, len(image_ids))
    by_id = np.array(sorted(range(len(image_ids)), key=image_ids.__getitem__), dtype=np.int64)
    return by_id[rng.choice(len(by_id), size, replace=False)]


def seeded_order(image_ids: ImageIds, seed: int, purpose: str) -> np.ndarray:
    """All positions in a random order; of two ids, which one is first depends on them and the seed alone.

    So the first n of a set are, in the same order, among the first of any larger set.

    Args:
        image_ids: N unique ids.
        seed: decides the order.
        purpose: what is ordered, such as "pool order".

    Returns:
        (N,) int64.
    """
    return np.argsort(seeded_hashes(image_ids, seed, purpose), kind="stable")


def seeded_hashes(image_ids: ImageIds, seed: int, purpose: str) -> np.ndarray:
    """(N,) uint64 by which `seeded_order` puts ids in order."""
    return np.array([_hash64(f"{purpose}/{seed}/{image_id}") for image_id in image_ids], dtype=np.uint64)


def box_counts(offsets: np.ndarray) -> np.ndarray:
    """The number of detections of each image: the score of the `box_count` control.

    Args:
        offsets: (N+1,) integers from 0, never falling; N may be 0.

    Returns:
        (N,) float64 >= 0.

    Raises:
        ValueError: offsets that divide no array.
    """
    check_offsets(offsets)
    return np.diff(offsets).astype(np.float64)


def random_generator(seed: int, purpose: str, round_index: int = 0) -> np.random.Generator:
    """The one way this project draws: a stream of its own for every seed, purpose and round.

    Args:
        seed: of the trial; >= 0.
        purpose: what is drawn, such as "initial set".
        round_index: >= 0.

    Returns:
        A generator whose numbers depend on these three only, in every process.

    Raises:
        ValueError: a negative seed or round.
    """
    if seed < 0 or round_index < 0:
        raise ValueError(f"seed and round must be >= 0, got seed {seed} and round {round_index}")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_hash64(purpose), round_index)))


def check_size(size: int, num_images: int) -> None:
    """Raises QueryError if so many images cannot be asked for."""
    if size < 1:
        raise QueryError(f"query of {size} images: query_size must be at least 1")
    if size > num_images:
        raise QueryError(f"query of {size} images, but only {num_images} are unlabelled: lower query_size or budget")


def _hash64(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
