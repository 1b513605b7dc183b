"""Loader workers of a training: their number changes how fast it is, and nothing else."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from raylearn.data.dataset import Dataset
from raylearn.detectors.base import DetectorSettings, TrainingSet
from raylearn.detectors.families.ultralytics import training as yolo_training
from raylearn.detectors.families.ultralytics.detector import YoloDetector, build_model
from raylearn.detectors.families.ultralytics.loader import SeededDataset, TrainingLoader
from raylearn.detectors.families.ultralytics.training import train_model
from raylearn.errors import DivergedError, RaylearnError

# Four epochs of three batches; the mosaic is closed, and the workers are started anew, at the third epoch.
ARGUMENTS: dict[str, Any] = {
    "epochs": 4,
    "batch": 4,
    "nbs": 4,
    "imgsz": 64,
    "mosaic": 1.0,
    "close_mosaic": 2,
    "mixup": 0.5,
    "multi_scale": 0.5,
    "optimizer": "AdamW",
    "device": "cpu",
}


def _train(reef: Dataset, num_workers: int, seed: int = 0, **arguments: object) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)  # of the head, which fit seeds
    train = TrainingSet(reef.class_names, reef.pool[:10], reef.truth)
    model = build_model("yolov5n", len(reef.class_names))
    trained = train_model(
        model, train, {**ARGUMENTS, "seed": seed, **arguments}, lambda: torch.set_num_threads(1), num_workers
    )
    return dict(trained.state_dict())


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def _children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


@pytest.fixture(scope="module")
def alone(reef: Dataset) -> dict[str, torch.Tensor]:
    return _train(reef, num_workers=0)


@pytest.fixture
def seen_workers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many child processes there were at each batch."""
    counts: list[int] = []
    preprocess = yolo_training._Trainer.preprocess_batch

    def count(self: Any, batch: dict[str, Any]) -> dict[str, Any]:
        counts.append(len(_children()))
        return preprocess(self, batch)

    monkeypatch.setattr(yolo_training._Trainer, "preprocess_batch", count)
    return counts


@pytest.mark.parametrize(("num_workers", "started"), [(0, 0), (1, 1), (3, 3), (8, 3)])
def test_any_number_of_workers_gives_the_same_weights_and_none_outlives_the_training(
    num_workers: int, started: int, reef: Dataset, alone: dict[str, torch.Tensor], seen_workers: list[int]
) -> None:
    assert _equal(alone, _train(reef, num_workers))
    assert seen_workers == [started] * 12
    assert not _children()


def test_another_seed_gives_other_weights(reef: Dataset, alone: dict[str, torch.Tensor]) -> None:
    assert not _equal(alone, _train(reef, num_workers=0, seed=1))


def test_too_little_memory_to_keep_the_images_changes_no_weight(
    reef: Dataset, alone: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics by itself would then draw a mosaic's images from those that the process has read lately."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=0, total=1))
    assert _equal(alone, _train(reef, num_workers=2))


def test_no_worker_outlives_a_training_that_diverges(reef: Dataset, seen_workers: list[int]) -> None:
    with pytest.raises(DivergedError):
        _train(reef, num_workers=2, box=1e38)
    assert 2 in seen_workers
    assert not _children()


def test_a_lost_worker_is_told_and_the_others_end_too(reef: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill_one(_: object, batch: dict[str, Any]) -> dict[str, Any]:
        os.kill(_children()[0].pid, signal.SIGKILL)
        time.sleep(30)  # torch raises from its handler of SIGCHLD, wherever the process is: here
        return batch

    monkeypatch.setattr(yolo_training._Trainer, "preprocess_batch", kill_one)
    with pytest.raises(RaylearnError, match="a loader worker was lost") as told:
        _train(reef, num_workers=2)
    assert "resources.training_cpus" in str(told.value)
    assert not _children()


class _Draws:
    """A dataset whose item is what the three global generators give, and its own index."""

    rect = False
    labels = ()
    collate_fn = staticmethod(list)

    def close_mosaic(self, hyp: object) -> None: ...

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[int, float, float, float]:
        return index, random.random(), np.random.random(), torch.rand(()).item()


def test_a_draw_depends_on_seed_epoch_and_image_and_not_on_what_was_drawn_before() -> None:
    dataset = SeededDataset(_Draws(), seed=7)
    items = [dataset[number] for number in range(10)]
    assert [item[0] for item in items] == [0, 1, 2, 3, 4] * 2
    assert [dataset[number] for number in reversed(range(10))] == items[::-1]
    assert all(len({item[position] for item in items}) == 10 for position in (1, 2, 3))
    assert not set(SeededDataset(_Draws(), seed=8)[0][1:]) & set(items[0][1:])


@pytest.mark.parametrize("draw", [random.random, np.random.random, lambda: torch.rand(()).item()])
def test_drawing_leaves_the_random_state_of_the_process_as_it_was(draw: Any) -> None:
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    first = draw()
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    SeededDataset(_Draws(), seed=7)[0]
    assert draw() == first


def _loader(dataset: _Draws, num_workers: int, trainer: Any) -> TrainingLoader:
    return TrainingLoader(
        dataset, 2, seed=0, num_workers=num_workers, current_epoch=lambda: trainer.epoch, pin_memory=False
    )


def _epochs(loader: TrainingLoader) -> Iterator[list[int]]:
    while True:
        yield [item[0] for batch in loader for item in batch]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_that_is_reset_goes_on_at_the_trainers_epoch(num_workers: int) -> None:
    trainer = SimpleNamespace(epoch=0)
    loader = _loader(_Draws(), num_workers, trainer)
    epochs = _epochs(loader)
    orders = [next(epochs) for _ in range(4)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    trainer.epoch = 2
    loader.reset()
    assert [next(epochs), next(epochs)] == orders[2:]
    loader.close()


def test_rectangles_keep_the_order_that_their_batches_are_made_of() -> None:
    dataset = _Draws()
    dataset.rect = True
    epochs = _epochs(_loader(dataset, 0, SimpleNamespace(epoch=0)))
    assert [next(epochs), next(epochs)] == [[0, 1, 2, 3, 4]] * 2


@pytest.mark.parametrize(
    ("device", "num_threads", "num_workers"), [("cpu", 3, 0), ("cuda:0", 3, 3), ("cuda:0", None, 0)]
)
def test_the_cpus_of_a_training_load_images_where_a_gpu_trains(
    device: str,
    num_threads: int | None,
    num_workers: int,
    reef: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def train(*arguments: Any) -> torch.nn.Module:
        asked.append(arguments[-1])
        return torch.nn.Linear(1, 1)

    monkeypatch.setattr(yolo_training, "train_model", train)
    settings = DetectorSettings(64, confidence=0, iou=1, max_detections=1)
    detector = YoloDetector("yolov5n", settings, {}, device, num_threads)
    images = TrainingSet(reef.class_names, reef.pool[:2], reef.truth)
    detector.fit(images, initial_weights=None, seed=0, checkpoint=tmp_path / "x.pt")
    assert asked == [num_workers]
