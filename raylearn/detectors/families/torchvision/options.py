"""What `training.options` may hold, with the names that the Ultralytics family has for the same things."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from raylearn.errors import ConfigError, nearest

OPTIMIZERS = ("AdamW", "SGD")
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class TrainingOptions:
    """How a detector is trained.

    Args:
        epochs: passes over the labelled images.
        batch: images per step; the steps of an epoch share evenly what does not divide. SSDlite has no step of one
            image: of an odd number in twos, one step has three.
        optimizer: "AdamW" or "SGD", which has Nesterov's momentum.
        lr0: learning rate after the warm-up.
        lrf: share of it that the last step has.
        cos_lr: falls along a cosine instead of a line.
        momentum: of SGD; AdamW's first beta.
        weight_decay: of weights; biases and normalisation have none.
        warmup_epochs: in which the rate rises from nothing.
        fliplr: share of images that are mirrored left to right.
        flipud: share of images that are turned upside down.
        scale: images are scaled by a factor between 1 - scale and 1 + scale.
        translate: images are moved by up to this share of the canvas.
        photometric: share of images whose brightness, contrast, saturation and hue are changed.
        amp: "bf16" computes the network's layers in bf16, on CPUs too, but for SSDlite; "fp32", the default, does not.
    """

    epochs: int = 1
    batch: int = 1
    optimizer: str = "AdamW"
    lr0: float = 0.001
    lrf: float = 0.01
    cos_lr: bool = False
    momentum: float = 0.9
    weight_decay: float = 0.0005
    warmup_epochs: float = 1.0
    fliplr: float = 0.5
    flipud: float = 0.0
    scale: float = 0.0
    translate: float = 0.0
    photometric: float = 0.0
    amp: str = "fp32"

    @classmethod
    def names(cls) -> frozenset[str]:
        """Of the options; `epochs` and `batch` have keys of their own in an experiment file."""
        return frozenset(field.name for field in fields(cls)) - {"epochs", "batch"}

    @classmethod
    def of(cls, arguments: Mapping[str, Any], model: str) -> "TrainingOptions":
        """Raises ConfigError for an option that is unknown, of another kind, or out of its range."""
        for name in arguments:
            if name not in cls.names() | {"epochs", "batch"}:
                raise ConfigError(f"training.options: unknown option {name!r}: {nearest(name, cls.names())}")
        values = {field.name: _checked(field.name, arguments.get(field.name, field.default)) for field in fields(cls)}
        if values["batch"] < fewest_per_step(model):
            raise ConfigError(
                f"training.batch_size 1 does not train {model}, whose last feature map is one pixel that batch "
                "normalisation compares between images: raise it"
            )
        return cls(**values)


def fewest_per_step(model: str) -> int:
    """Images that a training step of a model needs."""
    return 2 if model.startswith("ssdlite") else 1


_SHARE = (0.0, 1.0)
_RANGES = {
    "epochs": (1, 100_000),
    "batch": (1, 100_000),
    "lr0": (1e-9, 10.0),
    "lrf": _SHARE,
    "momentum": (0.0, 0.999),
    "weight_decay": _SHARE,
    "warmup_epochs": (0.0, 1000.0),
    "fliplr": _SHARE,
    "flipud": _SHARE,
    "scale": (0.0, 0.9),
    "translate": (0.0, 0.9),
    "photometric": _SHARE,
}
_CHOICES = {"optimizer": OPTIMIZERS, "amp": PRECISIONS}


def _checked(name: str, value: Any) -> Any:
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise ConfigError(f"training.options: {name} is {value!r}: {nearest(str(value), _CHOICES[name])}")
        return value
    if name == "cos_lr":
        if not isinstance(value, bool):
            raise ConfigError(f"training.options: {name} is {value!r}, but must be true or false")
        return value
    low, high = _RANGES[name]
    kinds = (int,) if isinstance(low, int) else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        what = "a whole number" if kinds == (int,) else "a number"
        raise ConfigError(f"training.options: {name} is {value!r}, but must be {what} from {low:g} to {high:g}")
    return value
