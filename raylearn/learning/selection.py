"""Which unlabelled images are scored in a round."""

from collections.abc import Sequence

from raylearn.errors import QueryError
from raylearn.measures.sampling import seeded_order


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
