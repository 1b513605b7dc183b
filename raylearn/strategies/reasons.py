"""Why an image was asked for, beside its score: what it is like among the labelled images, and what it will cost."""

from collections.abc import Sequence

import numpy as np

from raylearn.measures.novelty import squares_to_groups, unit_distances, unit_vectors
from raylearn.strategies.base import Candidates, Context, Reason
from raylearn.strategies.costs import confidence_sums, predicted_boxes


def reasons(image_ids: Sequence[str], candidates: Candidates, context: Context) -> tuple[Reason, ...]:
    """For each of these candidates.

    The distance of an image to a labelled one is the mean, over its boxes, of the distance from the box's embedding to
    the nearest of that image's boxes, in [0, 1]; where either has no boxes, the distance between the embeddings of the
    images. Boxes are those of `expected_boxes`.
    """
    position = {image_id: index for index, image_id in enumerate(candidates.image_ids)}
    chosen = candidates.take(np.array([position[image_id] for image_id in image_ids], np.int64))
    boxes = predicted_boxes(confidence_sums(candidates), context.labelled)
    expected = [float(boxes[position[image_id]]) for image_id in image_ids]
    nearest = _nearest(chosen, context)
    return tuple(Reason(*near, number) for near, number in zip(nearest, expected, strict=True))


def _nearest(chosen: Candidates, context: Context) -> list[tuple[str | None, float | None]]:
    """The nearest labelled image of each, and its distance; None where there is none, or no embeddings."""
    nothing: list[tuple[str | None, float | None]] = [(None, None)] * len(chosen.image_ids)
    seen = context.labelled.seen if context.labelled else None
    if seen is None or not len(seen.image_ids):
        return nothing
    if (
        seen.box_embeddings is None
        or seen.image_embeddings is None
        or chosen.box_embeddings is None
        or chosen.image_embeddings is None
    ):
        return nothing
    references, images = unit_vectors(seen.box_embeddings), unit_vectors(seen.image_embeddings)
    own_boxes, own_images = unit_vectors(chosen.box_embeddings), unit_vectors(chosen.image_embeddings)
    with_boxes = np.flatnonzero(np.diff(seen.offsets))
    starts = seen.offsets[:-1][with_boxes]
    found: list[tuple[str | None, float | None]] = []
    for index, (start, end) in enumerate(zip(chosen.offsets[:-1], chosen.offsets[1:], strict=True)):
        distances = unit_distances(squares_to_groups(own_images[index : index + 1], images, np.arange(len(images))))[0]
        if end > start and len(with_boxes):
            of_boxes = unit_distances(squares_to_groups(own_boxes[start:end], references, starts))
            distances[with_boxes] = of_boxes.mean(axis=0)
        best = int(distances.argmin())
        found.append((str(seen.image_ids[best]), float(distances[best])))
    return found
