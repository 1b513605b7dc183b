"""The batches of a training: the same ones whether the training process loads them or any number of workers."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from raylearn.detectors.families.ultralytics.isolation import isolate_ultralytics
from raylearn.measures.sampling import random_generator

isolate_ultralytics()

from ultralytics.data.build import InfiniteDataLoader  # noqa: E402


class TrainingLoader(InfiniteDataLoader):  # type: ignore[misc]
    """Batches epoch after epoch, from the trainer's current epoch on whenever its workers are started anew.

    Ultralytics ends the workers when it closes the mosaic, and with them the batches that they had made in advance.

    Args:
        dataset: a training dataset of Ultralytics'.
        batch_size: images of a batch; the last one of an epoch may have fewer.
        seed: of the order and the augmentation.
        num_workers: processes that load; 0 loads in this one. There are never more of them than batches.
        current_epoch: the epoch that the trainer is in.
        pin_memory: puts batches where a GPU can fetch them by itself.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        *,
        seed: int,
        num_workers: int,
        current_epoch: Callable[[], int],
        pin_memory: bool,
    ) -> None:
        batch_size = min(batch_size, len(dataset))
        super().__init__(
            SeededDataset(dataset, seed),
            batch_size=batch_size,
            # with rectangles the dataset's own order decides which shape a batch has
            sampler=EpochOrder(len(dataset), seed, shuffle=not dataset.rect),
            num_workers=min(num_workers, -(-len(dataset) // batch_size)),
            collate_fn=dataset.collate_fn,
            pin_memory=pin_memory,
        )
        self._current_epoch = current_epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self.iterator is None:
            self.sampler.next_epoch = self._current_epoch()
        batches: Iterator[dict[str, Any]] = super().__iter__()
        return batches


class EpochOrder(Sampler):  # type: ignore[misc]
    """The order of the images, an epoch each time it is iterated, as numbers epoch * num_images + image.

    Args:
        num_images: of the dataset.
        seed: of the permutations, one for every epoch.
        shuffle: False keeps the dataset's own order.
    """

    def __init__(self, num_images: int, seed: int, *, shuffle: bool) -> None:
        self._num_images, self._seed, self._shuffle = num_images, seed, shuffle
        self.next_epoch = 0

    def __len__(self) -> int:
        return self._num_images

    def __iter__(self) -> Iterator[int]:
        epoch = self.next_epoch
        self.next_epoch += 1
        order = np.arange(self._num_images)
        if self._shuffle:
            random_generator(self._seed, "order of an epoch", epoch).shuffle(order)
        return iter((epoch * self._num_images + order).tolist())


class SeededDataset(Dataset):  # type: ignore[misc]
    """A training dataset of Ultralytics' whose augmentation of an image depends on seed, epoch and image alone.

    It is asked for the numbers of EpochOrder.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self._dataset, self._seed = dataset, seed
        # what the trainer asks of a dataset
        self.labels, self.close_mosaic = dataset.labels, dataset.close_mosaic

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, number: int) -> dict[str, Any]:
        with _seeded(int(random_generator(self._seed, "augmentation", number).integers(2**32))):
            item: dict[str, Any] = self._dataset[number % len(self)]
        return item


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds the three global generators that augmentations draw from, and leaves them as they were.

    The training process draws from them too, the sizes of `multi_scale` for one.
    """
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=()):
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPU as well
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
