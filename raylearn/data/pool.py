"""The pool: which images are labelled, which are not, and who labels them."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from raylearn.data.dataset import Dataset, GroundTruth, Image
from raylearn.errors import QueryError


@dataclass(frozen=True)
class Pool:
    """An immutable partition of images into labelled and unlabelled.

    It carries the ground truth of the labelled images and of no other, so nothing that is given a pool can look at a
    label that was not paid for.
    """

    images: tuple[Image, ...]
    labelled: Mapping[str, GroundTruth]

    def __post_init__(self) -> None:
        unknown = self.labelled.keys() - {image.image_id for image in self.images}
        if unknown:
            raise QueryError(f"image {min(unknown)!r} is not in the pool")

    @cached_property
    def labelled_images(self) -> tuple[Image, ...]:
        return tuple(image for image in self.images if image.image_id in self.labelled)

    @cached_property
    def unlabelled_images(self) -> tuple[Image, ...]:
        return tuple(image for image in self.images if image.image_id not in self.labelled)

    @property
    def num_boxes(self) -> int:
        """Boxes of the labelled images: with their number, the budget spent."""
        return sum(len(truth) for truth in self.labelled.values())

    def class_counts(self, num_classes: int) -> np.ndarray:
        """(num_classes,) int64: boxes per class in the labelled images."""
        counts = np.zeros(num_classes, dtype=np.int64)
        for truth in self.labelled.values():
            counts += np.bincount(truth.class_ids, minlength=num_classes)
        return counts

    def label(self, labels: Mapping[str, GroundTruth]) -> "Pool":
        """The pool with these images labelled too.

        Raises:
            QueryError: an image is labelled already, or not in the pool.
        """
        again = self.labelled.keys() & labels.keys()
        if again:
            raise QueryError(f"image {min(again)!r} is labelled already")
        return Pool(self.images, {**self.labelled, **labels})


class Oracle(Protocol):
    """Whoever labels images."""

    def label(self, image_ids: Iterable[str]) -> dict[str, GroundTruth]:
        """The ground truth of each of these images."""
        ...


@dataclass(frozen=True)
class SimulatedOracle:
    """Answers from ground truth that was withheld."""

    truth: Mapping[str, GroundTruth]

    def label(self, image_ids: Iterable[str]) -> dict[str, GroundTruth]:
        return {image_id: self.truth[image_id] for image_id in image_ids}


def initial_set(dataset: Dataset, size: int, rng: np.random.Generator) -> list[str]:
    """Draws the class-balanced set that round 0 trains on.

    Classes take turns, the one with the fewest boxes drawn so far first; on its turn a class picks one random image
    that shows it. When no class can pick any more, the rest is drawn from all that is left.

    Args:
        dataset: only its pool is drawn from.
        size: number of images, 1 to the size of the pool.
        rng: the only source of chance; file order has no influence.

    Returns:
        Image ids in drawing order.

    Raises:
        QueryError: the pool has fewer images.
    """
    image_ids = sorted(image.image_id for image in dataset.pool)
    if size > len(image_ids):
        raise QueryError(f"an initial set of {size} images, but the pool has {len(image_ids)}: lower initial_size")
    order = [image_ids[i] for i in rng.permutation(len(image_ids))]
    queues = _queues([dataset.truth[image_id].class_ids for image_id in order], dataset.num_classes)
    counts = np.zeros(dataset.num_classes, dtype=np.int64)
    taken = np.zeros(len(order), dtype=bool)
    drawn: list[str] = []
    while len(drawn) < size:
        turns = (queues[class_id] for class_id in np.argsort(counts, kind="stable"))
        position = next(found for queue in (*turns, queues[-1]) if (found := _first_left(queue, taken)) is not None)
        taken[position] = True
        drawn.append(order[position])
        counts += np.bincount(dataset.truth[order[position]].class_ids, minlength=dataset.num_classes)
    return drawn


def _queues(class_ids: Sequence[np.ndarray], num_classes: int) -> list[deque[int]]:
    """The rising positions of the images that show each class, and last of all images."""
    positions = np.repeat(np.arange(len(class_ids)), [len(own) for own in class_ids])
    classes = np.concatenate([np.empty(0, np.int64), *class_ids])
    of_classes = [deque(np.unique(positions[classes == number]).tolist()) for number in range(num_classes)]
    return [*of_classes, deque(range(len(class_ids)))]


def _first_left(queue: deque[int], taken: np.ndarray) -> int | None:
    """The first position of a queue that is not taken; those before it leave the queue."""
    while queue and taken[queue[0]]:
        queue.popleft()
    return queue[0] if queue else None
