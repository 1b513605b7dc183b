"""Detectors; each family is imported only where it is used, since that brings torch along."""

from collections.abc import Mapping
from typing import Any

from raylearn.detectors.base import Detector, DetectorSettings


def build_detector(
    model: str,
    settings: DetectorSettings,
    training: Mapping[str, Any] | None = None,
    device: str = "cpu",
    num_threads: int | None = None,
) -> Detector:
    """The detector of this name; see raylearn.detectors.yolo.YoloDetector for the arguments."""
    from raylearn.detectors.yolo import YoloDetector

    return YoloDetector(model, settings, training, device, num_threads)


def check_detector(model: str, training: Mapping[str, Any]) -> None:
    """Raises DetectorError if the model is unknown or gives no class scores, ConfigError for impossible arguments."""
    from raylearn.detectors.yolo import build_model, check_arguments

    build_model(model, num_classes=1)
    check_arguments(training)
