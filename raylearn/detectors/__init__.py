"""Detectors; each family is imported only where it is used, since that brings torch along."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from raylearn.detectors.base import CheckpointFacts, Detector, DetectorSettings, Engine


def build_detector(
    model: str,
    settings: DetectorSettings,
    training: Mapping[str, Any] | None = None,
    device: str = "cpu",
    num_threads: int | None = None,
    engine: Engine | None = None,
) -> Detector:
    """The detector of this name; see raylearn.detectors.yolo.YoloDetector for the arguments."""
    from raylearn.detectors.yolo import YoloDetector

    return YoloDetector(model, settings, training, device, num_threads, engine or Engine())


def read_checkpoint(path: Path) -> CheckpointFacts:
    """What a checkpoint of raylearn or Ultralytics holds; none of its code runs.

    Raises:
        CheckpointError: no file, a torn one, or no detector.
        DetectorError: its head gives no class scores.
    """
    from raylearn.detectors.yolo import open_model

    return open_model(path)[1]


def openvino_is_installed() -> bool:
    """Whether the backend openvino can be used by this Python."""
    return find_spec("openvino") is not None


def check_detector(model: str, training: Mapping[str, Any], initial_weights: Path | None = None) -> None:
    """Finds before any work what would stop a training.

    Raises:
        DetectorError: the model is unknown or gives no class scores.
        ConfigError: impossible training arguments.
        CheckpointError: initial weights that are none, or of which nothing fits.
    """
    from raylearn.detectors.yolo import build_model, check_arguments, load_matching, read_weights

    built = build_model(model, num_classes=1)
    check_arguments(training)
    if initial_weights is not None:
        load_matching(built, read_weights(initial_weights), initial_weights)
