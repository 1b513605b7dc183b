"""Checkpoints of the original YOLOv5 repository (github.com/ultralytics/yolov5, v5 to v7): scored, not trained.

Nothing of that repository is needed or imported: the network and its head are raylearn's own.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raylearn.detectors.base import CheckpointFacts, Detector, DetectorSettings, Engine
from raylearn.detectors.checkpoint_contents import Contents
from raylearn.detectors.family import Family
from raylearn.errors import DetectorError

NO_TRAINING = (
    "detector.family yolov5-classic scores checkpoints and cannot train: train in the yolov5 repository, then use "
    "`raylearn score --checkpoint best.pt`; or train here with another detector.family"
)

_MODEL = re.compile(r"(yolov5\.)?models\.yolo\.")  # the second name is that of the package on PyPI


def _build(
    model: str,  # noqa: ARG001  a checkpoint says itself what it is
    settings: DetectorSettings,
    training: Mapping[str, Any],  # noqa: ARG001
    device: str,
    num_threads: int | None,
    engine: Engine,
) -> Detector:
    from raylearn.detectors.families.yolov5_classic.detector import ClassicDetector

    return ClassicDetector(settings, device, num_threads, engine)


def _check(model: str, training: Mapping[str, Any], initial_weights: Path | None) -> None:  # noqa: ARG001
    raise DetectorError(NO_TRAINING)


def _read_checkpoint(path: Path) -> CheckpointFacts:
    from raylearn.detectors.families.yolov5_classic.checkpoint import open_model

    return open_model(path).facts


def _recognises(contents: Contents) -> bool:
    return any(map(_MODEL.match, contents.classes))


FAMILY = Family(
    name="yolov5-classic",
    models="none: it scores checkpoints of the original YOLOv5 repository, and does not train",
    class_scores="sigmoid",
    suppression="per class",
    build=_build,
    check=_check,
    read_checkpoint=_read_checkpoint,
    recognises=_recognises,
    training_options=frozenset(),
    packages=("torch", "torchvision"),
    training_packages=(),
    no_training=NO_TRAINING,
)
