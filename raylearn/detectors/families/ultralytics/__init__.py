"""YOLOv5 and the other Ultralytics detectors whose head gives a score for every class: the default family.

Ultralytics is AGPL-3.0. This module imports nothing of it; its functions do.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raylearn.detectors.base import CheckpointFacts, Detector, DetectorSettings, Engine
from raylearn.detectors.checkpoint_contents import Contents
from raylearn.detectors.families.ultralytics.known import OTHER_TASKS, surely_trains
from raylearn.detectors.family import Family

FORMAT = "raylearn-yolo-1"
"""What marks a checkpoint that `fit` wrote."""


def _build(
    model: str,
    settings: DetectorSettings,
    training: Mapping[str, Any],
    device: str,
    num_threads: int | None,
    engine: Engine,
) -> Detector:
    from raylearn.detectors.families.ultralytics.detector import YoloDetector

    return YoloDetector(model, settings, training, device, num_threads, engine)


def _check(model: str, training: Mapping[str, Any], initial_weights: Path | None) -> None:
    if initial_weights is None and surely_trains(model, training):
        return
    from raylearn.detectors.checkpoints import load_matching
    from raylearn.detectors.families.ultralytics.detector import (
        build_model,
        check_arguments,
        check_freeze,
        read_weights,
    )

    built = build_model(model, num_classes=1)
    check_arguments(training)
    check_freeze(training.get("freeze"), len(built.model), initial_weights is not None)
    if initial_weights is not None:
        load_matching(built, read_weights(initial_weights), initial_weights)


def _taken(model: str, num_classes: int, initial_weights: Path) -> tuple[int, int]:
    from raylearn.detectors.checkpoints import load_matching
    from raylearn.detectors.families.ultralytics.detector import build_model, read_weights

    return load_matching(build_model(model, num_classes), read_weights(initial_weights), initial_weights)


def _read_checkpoint(path: Path) -> CheckpointFacts:
    from raylearn.detectors.families.ultralytics.detector import open_model

    return open_model(path)[1]


def recognises(contents: Contents) -> bool:
    """Whether a file is a checkpoint that `fit` wrote, or holds a whole model of Ultralytics'."""
    return FORMAT in contents.strings or any(name.startswith("ultralytics.nn.") for name in contents.classes)


def _other_task(contents: Contents) -> str:
    return next((task for name, task in OTHER_TASKS.items() if f"ultralytics.nn.tasks.{name}" in contents.classes), "")


FAMILY = Family(
    name="ultralytics",
    models="an Ultralytics detection architecture: yolov5n, yolov8s, yolo11m, ...",
    class_scores="sigmoid",
    suppression="per class",
    build=_build,
    check=_check,
    read_checkpoint=_read_checkpoint,
    recognises=recognises,
    taken=_taken,
    other_task=_other_task,
    # Those of its arguments that change what is learned, and nothing about files, devices or reporting.
    training_options=frozenset(
        {
            "amp",
            "bgr",
            "box",
            "close_mosaic",
            "cls",
            "cls_pw",
            "cos_lr",
            "cutmix",
            "degrees",
            "dfl",
            "fliplr",
            "flipud",
            "freeze",
            "hsv_h",
            "hsv_s",
            "hsv_v",
            "lr0",
            "lrf",
            "mixup",
            "momentum",
            "mosaic",
            "multi_scale",
            "nbs",
            "optimizer",
            "perspective",
            "scale",
            "shear",
            "translate",
            "warmup_bias_lr",
            "warmup_epochs",
            "warmup_momentum",
            "weight_decay",
        }
    ),
    packages=("torch", "torchvision", "ultralytics"),
    training_packages=("opencv-python", "torch", "ultralytics"),
    backends=("torch", "openvino"),
    embeddings=True,
    device_canvases=True,
    is_default=True,
)
