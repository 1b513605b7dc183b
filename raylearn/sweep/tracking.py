"""Where the rounds of a sweep are told, beside the terminal and TensorBoard: MLflow, or Weights & Biases."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from raylearn.config import Experiment
from raylearn.errors import ConfigError


def refuse_missing_trackers(experiment: Experiment) -> None:
    """Raises ConfigError where the package of a tracker is not installed."""
    for name in experiment.tracking:
        if find_spec(name) is None:
            raise ConfigError(f'tracking: {name} is not installed: pip install "raylearn[{name}]"')


def tracker_callbacks(experiment: Experiment, scratch: Path) -> Sequence[Any]:
    """Tune's own callbacks of the trackers the experiment names; each trial is a run there, each round a step.

    Args:
        experiment: its name is the name of MLflow's experiment, or of the project of Weights & Biases.
        scratch: for what has no server: MLflow's files without MLFLOW_TRACKING_URI, those of an offline wandb.
    """
    callbacks: list[Any] = []
    if "mlflow" in experiment.tracking:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{scratch / 'mlflow.db'}"
        callbacks.append(MLflowLoggerCallback(tracking_uri=uri, experiment_name=experiment.name))
    if "wandb" in experiment.tracking:
        from ray.air.integrations.wandb import WandbLoggerCallback

        project = os.environ.get("WANDB_PROJECT") or experiment.name
        callbacks.append(WandbLoggerCallback(project=project, dir=str(scratch)))
    return callbacks
