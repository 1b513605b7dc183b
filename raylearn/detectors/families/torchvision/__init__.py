"""Detectors of torchvision (BSD-3): Faster R-CNN, FCOS, RetinaNet and SSDlite.

This module imports nothing of torchvision; its functions do.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raylearn.detectors.base import CheckpointFacts, Detector, DetectorSettings, Engine
from raylearn.detectors.checkpoint_contents import Contents
from raylearn.detectors.families.torchvision.options import TrainingOptions
from raylearn.detectors.family import ClassScores, Family

FORMAT = "raylearn-torchvision-1"
"""What marks a checkpoint that `fit` wrote."""

SOFTMAX_MODELS = ("fasterrcnn", "ssd")
"""How the names of models begin whose head has a column for the background."""


def class_scores_of(model: str) -> ClassScores:
    """What a row of class scores of a model is."""
    return "softmax" if model.startswith(SOFTMAX_MODELS) else "sigmoid"


def _build(
    model: str,
    settings: DetectorSettings,
    training: Mapping[str, Any],
    device: str,
    num_threads: int | None,
    engine: Engine,
) -> Detector:
    from raylearn.detectors.families.torchvision.detector import TorchvisionDetector

    return TorchvisionDetector(model, settings, training, device, num_threads, engine)


def _check(model: str, training: Mapping[str, Any], initial_weights: Path | None) -> None:
    from raylearn.detectors.families.torchvision.models import build_model, load_initial_weights

    built = build_model(model, num_classes=1)
    TrainingOptions.of(training, model)
    if initial_weights is not None:
        load_initial_weights(built, model, initial_weights)


def _taken(model: str, num_classes: int, initial_weights: Path) -> tuple[int, int]:
    from raylearn.detectors.families.torchvision.models import build_model, load_initial_weights

    return load_initial_weights(build_model(model, num_classes), model, initial_weights)


def _read_checkpoint(path: Path) -> CheckpointFacts:
    from raylearn.detectors.families.torchvision.models import open_model

    return open_model(path)[1]


def _recognises(contents: Contents) -> bool:
    return FORMAT in contents.strings


FAMILY = Family(
    name="torchvision",
    models="a detection model of torchvision: ssdlite320_mobilenet_v3_large, fasterrcnn_resnet50_fpn, ...",
    class_scores=class_scores_of,
    suppression="per class",
    build=_build,
    check=_check,
    read_checkpoint=_read_checkpoint,
    recognises=_recognises,
    taken=_taken,
    training_options=TrainingOptions.names(),
    packages=("torch", "torchvision"),
    training_packages=("opencv-python", "torch", "torchvision"),
    embeddings=True,
)
