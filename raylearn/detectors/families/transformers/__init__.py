"""RT-DETR, RT-DETRv2, D-FINE and Deformable DETR of Hugging Face's transformers: detectors without suppression.

This module imports nothing of the library; its functions do.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raylearn.detectors.base import CheckpointFacts, Detector, DetectorSettings, Engine
from raylearn.detectors.checkpoint_contents import Contents
from raylearn.detectors.family import Family

FORMAT = "raylearn-transformers-1"
"""What marks a checkpoint that `fit` wrote."""


def _build(
    model: str,
    settings: DetectorSettings,
    training: Mapping[str, Any],
    device: str,
    num_threads: int | None,
    engine: Engine,
) -> Detector:
    from raylearn.detectors.families.transformers.detector import TransformersDetector

    return TransformersDetector(model, settings, training, device, num_threads, engine)


def _check(model: str, training: Mapping[str, Any], initial_weights: Path | None) -> None:
    from raylearn.detectors.families.transformers.detector import check_training

    check_training(model, training, initial_weights)


def _taken(model: str, num_classes: int, initial_weights: Path) -> tuple[int, int]:
    from raylearn.detectors.families.transformers.detector import weights_taken

    return weights_taken(model, num_classes, initial_weights)


def _read_checkpoint(path: Path) -> CheckpointFacts:
    from raylearn.detectors.families.transformers.models import open_model

    return open_model(path)[1]


def _recognises(contents: Contents) -> bool:
    return FORMAT in contents.strings


def _resolve(model: str) -> str:
    from raylearn.detectors.families.transformers.folders import config_text

    return config_text(model)


FAMILY = Family(
    name="transformers",
    models="rt_detr, rt_detr_v2, d_fine or deformable_detr, or a local folder with the config.json of one",
    class_scores="sigmoid",
    suppression="none",
    build=_build,
    check=_check,
    read_checkpoint=_read_checkpoint,
    recognises=_recognises,
    taken=_taken,
    training_options=frozenset(
        {"cos_lr", "fliplr", "lr0", "lrf", "max_grad_norm", "warmup_epochs", "weight_decay"},
    ),
    packages=("torch", "transformers"),
    training_packages=("opencv-python", "scipy", "torch", "transformers"),
    resolve=_resolve,
)
