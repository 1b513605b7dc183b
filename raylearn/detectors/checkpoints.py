"""What families have in common where they open and write .pt files; no code in a file is run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from raylearn.detectors.base import CheckpointFacts
from raylearn.errors import CheckpointError


def write_checkpoint(
    path: Path,
    form: str,
    model: str,
    class_names: tuple[str, ...],
    image_size: int,
    weights: Mapping[str, Any],
    more: Mapping[str, str] | None = None,
) -> None:
    """Writes a trained network as plain tensors, with what is needed to build it again.

    Args:
        form: what marks checkpoints of a family, such as "raylearn-yolo-1".
        weights: its state dict.
        more: what else its family needs to build it again, beside its name.
    """
    content = {"format": form, "model": model, "class_names": list(class_names), "image_size": image_size}
    torch.save({**content, **(more or {}), "state_dict": dict(weights)}, path)


def facts_of(content: Mapping[str, Any], path: Path) -> CheckpointFacts:
    """What a checkpoint that `write_checkpoint` wrote says of itself.

    Raises:
        CheckpointError: it lacks something.
    """
    try:
        return CheckpointFacts(content["model"], tuple(content["class_names"]), content.get("image_size"))
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is no whole checkpoint: {first_line(error)}") from error


def open_tensors(path: Path) -> Any:
    """The content of a .pt file of plain tensors.

    Raises:
        CheckpointError: no such file, a torn one, or one that is not made of plain tensors only.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} is not there: give a .pt file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of torch's unpickler, which knows many
        raise CheckpointError(f"{path} cannot be opened as a checkpoint: {first_line(error)}") from error


def tensors_in(content: Any, form: str, path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a checkpoint that `write_checkpoint` wrote, or in a file that is one itself.

    Raises:
        CheckpointError: it is something else.
    """
    if isinstance(content, dict) and content.get("format") == form:
        content = content.get("state_dict")
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise CheckpointError(f"{path} holds no state dict: give a checkpoint of this family, or name -> tensor")
    return content


def load_matching(model: Any, weights: Mapping[str, torch.Tensor], source: Path) -> tuple[int, int]:
    """Copies the tensors whose name and shape fit.

    Returns:
        How many fitted, and how many the model has.

    Raises:
        CheckpointError: none fitted.
    """
    own = model.state_dict()
    fitting = {name: w for name, w in weights.items() if name in own and own[name].shape == w.shape}
    if not fitting:
        raise CheckpointError(
            f"none of the {len(weights)} tensors of {source} fits the model, which has {len(own)}: "
            "give weights of the same architecture and size"
        )
    own.update({name: w.to(own[name].dtype) for name, w in fitting.items()})
    model.load_state_dict(own)
    return len(fitting), len(own)


def refuse_no_weights(path: Path) -> None:
    """Raises CheckpointError where initial weights are not there."""
    if not path.is_file():
        raise CheckpointError(f"initial weights {path} are not there: give a .pt file, or null to train from scratch")


def first_line(error: Exception) -> str:
    """Of a library's message, cut to what fits on a screen."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
