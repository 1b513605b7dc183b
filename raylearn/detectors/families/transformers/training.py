"""One training with the library's own loss."""

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raylearn.data.dataset import GroundTruth, Image
from raylearn.data.images import content_hash, decode, read_bytes
from raylearn.detectors.base import TrainingSet
from raylearn.detectors.families.transformers.pixels import pixel_values
from raylearn.detectors.letterbox import letterbox, to_canvas
from raylearn.errors import ConfigError, DatasetError, DivergedError
from raylearn.measures.sampling import random_generator
from raylearn.progress import steps

_NUM_READING_THREADS = 4

Labels = list[dict[str, torch.Tensor]]
"""Of each image: class_labels (n,) int64, and boxes (n, 4) cxcywh in fractions of the canvas, as the library has it."""


class Options(BaseModel):
    """Training arguments. Those that Ultralytics has too mean the same.

    The defaults of the optimizer are those that RT-DETR and D-FINE were trained with, in batches of 16.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: int = Field(100, ge=1, description="passes over the labelled images")
    batch: int = Field(16, ge=1, description="images per step; the last of an epoch may have fewer")
    lr0: float = Field(1e-4, gt=0, description="learning rate of AdamW after the warm-up")
    lrf: float = Field(0.01, ge=0, le=1, description="the last learning rate, as a fraction of lr0")
    cos_lr: bool = Field(False, description="goes from one to the other along a cosine, not a line")
    warmup_epochs: float = Field(1.0, ge=0, description="in which the learning rate rises from zero")
    weight_decay: float = Field(1e-4, ge=0, description="of AdamW; biases and norms have none")
    max_grad_norm: float = Field(0.1, gt=0, description="longer gradients of a step are cut to this length")
    fliplr: float = Field(0.5, ge=0, le=1, description="probability that an image is mirrored")


def read_options(training: Mapping[str, Any]) -> Options:
    """Raises ConfigError for an option that is unknown or out of range."""
    try:
        return Options(**training)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"training.options.{first['loc'][0]}: {first['msg']}, got {first['input']!r}") from error


def train_model(network: Any, train: TrainingSet, options: Options, image_size: int, seed: int) -> None:
    """Trains a network in place.

    Args:
        network: on its device. What it draws, as for its denoising, comes from torch's random state.
        train: at least one image.
        options: how.
        image_size: side of the square canvas, pixels.
        seed: of the order of images and their mirroring.

    Raises:
        DatasetError: an image that changed since the run began.
        DivergedError: the loss or a gradient is not finite.
    """
    optimizer = torch.optim.AdamW(_groups(network, options.weight_decay), lr=options.lr0)
    steps_per_epoch = math.ceil(len(train.images) / options.batch)
    # at the end of each step, so that the first one of a warm-up learns already
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate((step + 1) / steps_per_epoch, options))
    network.train()
    for step, (canvases, labels) in enumerate(_batches(train, options, image_size, seed)):
        pixels = pixel_values(canvases, network.config, network.device)
        loss = _loss(network, pixels, [{k: v.to(network.device) for k, v in one.items()} for one in labels], step)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), options.max_grad_norm)
        if not torch.isfinite(norm):
            raise _diverged("a gradient", step)
        optimizer.step()
        schedule.step()
    if not all(torch.isfinite(tensor).all() for tensor in network.state_dict().values()):
        raise _diverged("a weight", step)


def _groups(network: Any, weight_decay: float) -> list[dict[str, Any]]:
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _rate(epoch: float, options: Options) -> float:
    """The learning rate at a (fractional) epoch, as a fraction of lr0."""
    done = min(epoch / options.epochs, 1.0)
    left = (1 + math.cos(math.pi * done)) / 2 if options.cos_lr else 1 - done
    rate = left * (1 - options.lrf) + options.lrf
    return rate * min(1.0, epoch / options.warmup_epochs) if options.warmup_epochs else rate


def _loss(network: Any, pixels: torch.Tensor, labels: Labels, step: int) -> torch.Tensor:
    try:
        loss: torch.Tensor = network(pixel_values=pixels, labels=labels).loss
    except ValueError as error:
        # The library's loss refuses boxes of NaN before it can become NaN itself.
        if "(corner) format" in str(error):
            raise _diverged("a box", step) from error
        raise
    if not torch.isfinite(loss):
        raise _diverged("the loss", step)
    return loss


def _diverged(what: str, step: int) -> DivergedError:
    return DivergedError(f"the training diverged: {what} of step {step} is not finite; lower training.options.lr0")


def _batches(train: TrainingSet, options: Options, image_size: int, seed: int) -> Iterator[tuple[np.ndarray, Labels]]:
    """Every epoch's batches; the next is read while one is trained on."""
    images = sorted(train.images, key=lambda image: image.image_id)
    generator = random_generator(seed, "transformers training")
    with ThreadPoolExecutor(_NUM_READING_THREADS, thread_name_prefix="read") as threads:
        ahead = []
        for epoch in range(options.epochs):
            steps("epoch", epoch, options.epochs)
            order = generator.permutation(len(images))
            mirrored = generator.random(len(images)) < options.fliplr
            for start in range(0, len(order), options.batch):
                chunk = [images[i] for i in order[start : start + options.batch]]
                flips = mirrored[start : start + options.batch]
                ahead.append(
                    [
                        threads.submit(_example, image, train.truth[image.image_id], image_size, bool(flip))
                        for image, flip in zip(chunk, flips, strict=True)
                    ]
                )
                if len(ahead) > 1:
                    yield _together([future.result() for future in ahead.pop(0)])
        yield _together([future.result() for future in ahead.pop()])


def _together(examples: list[tuple[np.ndarray, dict[str, torch.Tensor]]]) -> tuple[np.ndarray, Labels]:
    return np.stack([canvas for canvas, _ in examples]), [labels for _, labels in examples]


def _example(
    image: Image, truth: GroundTruth, image_size: int, flip: bool
) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
    data = read_bytes(image.uri)
    if content_hash(data) != image.content_hash:
        raise DatasetError(f"image {image.uri!r} changed since the run began: start a new run")
    canvas = letterbox(decode(data), image_size)
    size = (image.width, image.height)
    left, top, right, bottom = to_canvas(truth.boxes, canvas.shape[:2], size).T / image_size
    if flip:
        canvas, left, right = canvas[:, ::-1], 1 - right, 1 - left
    boxes = np.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], axis=1)
    labels = {
        "class_labels": torch.from_numpy(truth.class_ids.astype(np.int64)),
        "boxes": torch.from_numpy(boxes.astype(np.float32)),
    }
    return canvas, labels
