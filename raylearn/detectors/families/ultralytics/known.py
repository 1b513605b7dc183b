"""What surely can be trained, by its names and numbers alone: to ask Ultralytics takes the import of torch, seconds."""

import re
from collections.abc import Mapping
from typing import Any

_MODELS = re.compile(r"yolo(v5|v8|11)[nsmlx]")
_FRACTIONS = frozenset(
    ("bgr", "cls_pw", "cutmix", "fliplr", "flipud", "hsv_h", "hsv_s", "hsv_v", "lr0", "lrf", "mixup", "momentum")
).union(("mosaic", "perspective", "scale", "translate", "warmup_momentum", "weight_decay"))
_NUMBERS = frozenset(("box", "cls", "dfl", "warmup_epochs"))
_WHOLE = frozenset(("batch", "close_mosaic", "epochs", "nbs"))
_OPTIMIZERS = ("auto", "SGD", "Adam", "AdamW")

OTHER_TASKS = {
    "ClassificationModel": "classification",
    "OBBModel": "rotated-box",
    "PoseModel": "pose",
    "SegmentationModel": "segmentation",
}
"""What models of Ultralytics' are trained for that are no detectors, by their class."""


def surely_trains(model: str, training: Mapping[str, Any]) -> bool:
    """Whether Ultralytics takes this architecture and these arguments; False where only it can say."""
    return _MODELS.fullmatch(model) is not None and all(map(_fits, training, training.values()))


def _fits(name: str, value: Any) -> bool:
    if name == "optimizer":
        return value in _OPTIMIZERS
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if name in _WHOLE:
        return isinstance(value, int) and value >= 1
    return (name in _FRACTIONS and 0 <= value <= 1) or (name in _NUMBERS and 0 <= value <= 100)
