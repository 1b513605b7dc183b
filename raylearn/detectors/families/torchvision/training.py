"""One training of a torchvision model with its own losses, on canvases kept in memory."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from raylearn.data.dataset import GroundTruth, Image
from raylearn.data.images import content_hash, decode, read_bytes
from raylearn.detectors.base import TrainingSet
from raylearn.detectors.families.torchvision import class_scores_of
from raylearn.detectors.families.torchvision.models import seeded, state_of, train_mode
from raylearn.detectors.families.torchvision.network import compute_layers_in
from raylearn.detectors.families.torchvision.options import TrainingOptions, fewest_per_step
from raylearn.detectors.letterbox import letterbox, to_canvas
from raylearn.errors import DatasetError, DetectorError, DivergedError, RaylearnError
from raylearn.progress import steps

_GREY = 114  # of the letterbox
_SMALLEST_SIDE = 1.0  # canvas pixels: what augmentation leaves of a box beyond the edge is not learned from
_LARGEST_GRADIENT = 10.0  # as in Ultralytics' trainer

Example = tuple[tv_tensors.Image, dict[str, torch.Tensor]]


def train_model(
    model: Any,
    name: str,
    train: TrainingSet,
    options: TrainingOptions,
    image_size: int,
    seed: int,
    device: torch.device,
) -> Mapping[str, torch.Tensor]:
    """Trains `model` in place and returns its weights.

    Raises:
        DatasetError: an image changed since the run began.
        DetectorError: too few images, or a precision, that this model does not train with.
        DivergedError: the loss or a weight is not finite.
        RaylearnError: the batch did not fit into a GPU's memory.
    """
    if options.amp == "bf16" and device.type == "cpu" and name.startswith("ssdlite"):
        # torch 2.14's gradient of a depthwise convolution now and then is NaN there, where a feature map is one pixel.
        raise DetectorError(f"training.options.amp=bf16 needs a GPU for {name}: leave it out on a CPU")
    fewest = fewest_per_step(name)
    if len(train.images) < fewest:
        raise DetectorError(f"{name} does not train on one image: raise initial_size to 2 or more")
    steps_per_epoch = min(math.ceil(len(train.images) / options.batch), len(train.images) // fewest)
    # The first class of a softmax head is the background.
    examples = examples_of(train, image_size, first_class=int(class_scores_of(name) == "softmax"))
    model = model.to(device, memory_format=torch.channels_last)
    train_mode(model)
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # otherwise a GPU's convolutions keep ten bits of each number
        torch.backends.cudnn.deterministic = True
    compute_layers_in(model, options.amp, device)
    optimizer = _optimizer(model, options)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _rate_by_step(options, steps_per_epoch))
    with seeded(seed, device):
        for batch in batches(examples, options, steps_per_epoch):
            try:
                _step(model, batch, optimizer, device)
            except torch.OutOfMemoryError as error:
                raise RaylearnError(
                    f"batch_size {options.batch} does not fit into memory: lower training.batch_size, or raise "
                    "resources.gpus_per_task if trainings share a GPU"
                ) from error
            schedule.step()
    weights = state_of(model)
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise DivergedError("the training diverged: a weight is not finite; lower training.options.lr0")
    return weights


def _step(model: Any, batch: list[Example], optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    images = [image.to(device).float() / 255 for image, _ in batch]
    targets = [{key: value.to(device) for key, value in target.items()} for _, target in batch]
    loss = sum(model(images, targets).values())
    if not torch.isfinite(loss):
        raise DivergedError("the training diverged: its loss is not finite; lower training.options.lr0")
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), _LARGEST_GRADIENT)
    optimizer.step()


def examples_of(train: TrainingSet, image_size: int, first_class: int) -> list[Example]:
    """The labelled images as canvases, in the order of their ids.

    Args:
        image_size: side of the canvases, pixels.
        first_class: the label of the class that is 0 in the data set.

    Raises:
        DatasetError: an image changed since the run began.
    """
    images = sorted(train.images, key=lambda image: image.image_id)
    return [_example(image, train.truth[image.image_id], image_size, first_class) for image in images]


def _example(image: Image, truth: GroundTruth, image_size: int, first_class: int) -> Example:
    data = read_bytes(image.uri)
    if content_hash(data) != image.content_hash:
        raise DatasetError(f"image {image.uri!r} changed since the run began: start a new run")
    pixels = decode(data)
    canvas = letterbox(pixels, image_size)
    boxes = to_canvas(truth.boxes, canvas.shape[:2], (pixels.shape[1], pixels.shape[0])).astype(np.float32)
    target = {
        "boxes": tv_tensors.BoundingBoxes(torch.from_numpy(boxes), format="XYXY", canvas_size=canvas.shape[:2]),
        "labels": torch.from_numpy(truth.class_ids + first_class),
    }
    return tv_tensors.Image(torch.from_numpy(canvas).permute(2, 0, 1).contiguous()), target


def batches(examples: list[Example], options: TrainingOptions, steps_per_epoch: int) -> Iterator[list[Example]]:
    """Of all epochs, shuffled and augmented; those of an epoch differ by one image at most."""
    augment = _augmentation(options)
    for epoch in range(options.epochs):
        steps("epoch", epoch, options.epochs)
        for positions in np.array_split(torch.randperm(len(examples)).numpy(), steps_per_epoch):
            yield [augment(*examples[position]) for position in positions]


def _augmentation(options: TrainingOptions) -> v2.Compose:
    steps: list[Any] = [v2.RandomHorizontalFlip(options.fliplr), v2.RandomVerticalFlip(options.flipud)]
    if options.photometric:
        steps.append(v2.RandomPhotometricDistort(p=options.photometric))
    if options.scale or options.translate:
        steps.append(
            v2.RandomAffine(
                degrees=0,
                translate=(options.translate, options.translate),
                scale=(1 - options.scale, 1 + options.scale),
                interpolation=v2.InterpolationMode.BILINEAR,
                fill=_GREY,
            )
        )
    return v2.Compose([*steps, v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes(min_size=_SMALLEST_SIDE)])


def _optimizer(model: Any, options: TrainingOptions) -> torch.optim.Optimizer:
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in learned if parameter.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [parameter for parameter in learned if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    if options.optimizer == "SGD":
        return torch.optim.SGD(groups, options.lr0, options.momentum, nesterov=options.momentum > 0, fused=True)
    return torch.optim.AdamW(groups, options.lr0, betas=(options.momentum, 0.999), fused=True)


def _rate_by_step(options: TrainingOptions, steps_per_epoch: int) -> Any:
    num_steps, num_warm_up = options.epochs * steps_per_epoch, options.warmup_epochs * steps_per_epoch

    def rate(step: int) -> float:
        done = step / num_steps
        left = (1 + math.cos(math.pi * done)) / 2 if options.cos_lr else 1 - done
        return (options.lrf + (1 - options.lrf) * left) * min(1.0, (step + 1) / max(1.0, num_warm_up))

    return rate
