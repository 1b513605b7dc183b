"""Networks of the library: from a configuration, with initial weights, or out of a checkpoint."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from raylearn.detectors.base import CheckpointFacts
from raylearn.detectors.checkpoints import (
    facts_of,
    first_line,
    load_matching,
    open_tensors,
    refuse_no_weights,
    tensors_in,
    write_checkpoint,
)
from raylearn.detectors.families.transformers import FORMAT
from raylearn.detectors.families.transformers.folders import config_text
from raylearn.detectors.families.transformers.isolation import isolate_transformers
from raylearn.errors import CheckpointError, DetectorError, nearest

isolate_transformers()

from safetensors import SafetensorError  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoConfig, AutoModelForObjectDetection  # noqa: E402
from transformers.conversion_mapping import get_model_conversion_mapping  # noqa: E402
from transformers.core_model_loading import WeightRenaming, rename_source_key  # noqa: E402

MODEL_TYPES = ("d_fine", "deformable_detr", "rt_detr", "rt_detr_v2")
"""Those with one sigmoid score per query and class, and boxes relative to the canvas."""

_SOFTMAX = ("detr", "table-transformer", "yolos")
_OF_ONE_SIZE = ("anchor_image_size", "eval_size")  # what a configuration prepares for canvases of one size only


def build_model(model: str, class_names: Sequence[str]) -> Any:
    """An untrained network, drawn from torch's random state.

    Args:
        model: see `config_text`.
        class_names: what its head scores, whatever the configuration says.

    Raises:
        DetectorError: a type that cannot be used here, or a configuration of which no network can be made.
    """
    text = config_text(model)
    fields = _fields(text)
    model_type = fields.pop("model_type", None)
    if model_type in _SOFTMAX:
        raise DetectorError(
            f"detector.model {model_type!r} scores by a softmax over the classes and 'no object', which this family "
            f"does not support: use one of {', '.join(MODEL_TYPES)}"
        )
    if model_type not in MODEL_TYPES:
        raise DetectorError(
            f"detector.model {model_type!r} cannot be used here: {nearest(str(model_type), MODEL_TYPES)}"
        )
    fields.pop("num_labels", None)  # follows from the names
    names = dict(enumerate(class_names))
    fields |= {name: None for name in _OF_ONE_SIZE if name in fields}
    try:
        config = AutoConfig.for_model(model_type, **{**fields, "id2label": names, "label2id": {}})
        network = AutoModelForObjectDetection.from_config(config, dtype=torch.float32)
    except ImportError as error:
        raise DetectorError(
            f"detector.model {model_type!r} cannot be built: {first_line(error).partition(' but ')[0]}, which is not "
            "installed; a folder whose config.json names another backbone_config, such as resnet, needs none"
        ) from error
    except Exception as error:  # of the library's validation, or of whatever a layer stumbled over
        raise DetectorError(f"detector.model {model_type!r} cannot be built: {first_line(error)}") from error
    return network


def load_weights(network: Any, path: Path) -> tuple[int, int]:
    """Copies the tensors of a file whose name and shape fit: .safetensors, a state dict, or a raylearn checkpoint.

    Returns:
        How many fitted, and how many the network has.

    Raises:
        CheckpointError: no such file, a torn one, or nothing in it fits.
    """
    refuse_no_weights(path)
    # Files keep the names of older releases; the library renames them when it loads one.
    renamings = [change for change in get_model_conversion_mapping(network) if isinstance(change, WeightRenaming)]
    weights = {rename_source_key(name, renamings, [])[0]: tensor for name, tensor in _tensors(path).items()}
    # Of tensors that layers share, a file may hold one name: it stands for all, or another's old value would win.
    own = network.state_dict()
    given = {own[name].data_ptr(): tensor for name, tensor in weights.items() if name in own}
    shared = {name: given[w.data_ptr()] for name, w in own.items() if name not in weights and w.data_ptr() in given}
    return load_matching(network, {**weights, **shared}, path)


def save_model(network: Any, path: Path, class_names: tuple[str, ...], image_size: int) -> None:
    """Writes a checkpoint that `open_model` opens."""
    config = network.config
    weights = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    more = {"config": config.to_json_string()}
    write_checkpoint(path, FORMAT, config.model_type, class_names, image_size, weights, more)


def open_model(path: Path) -> tuple[Any, CheckpointFacts]:
    """The trained network of a checkpoint that `save_model` wrote, and what is known of it.

    Raises:
        CheckpointError: no file, a torn one, or of another kind.
    """
    content = open_tensors(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no detector of the family transformers: give a checkpoint of raylearn's")
    facts = facts_of(content, path)
    try:
        with torch.random.fork_rng(devices=[]):
            network = build_model(content["config"], facts.class_names)
        network.load_state_dict(content["state_dict"])
    except (KeyError, TypeError, RuntimeError, AttributeError, DetectorError) as error:
        raise CheckpointError(f"{path} is no whole checkpoint: {first_line(error)}") from error
    return network, facts


def _fields(text: str) -> dict[str, Any]:
    if not text.lstrip().startswith("{"):
        return {"model_type": text}
    try:
        fields: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise DetectorError(f"detector.model begins as a JSON configuration, but is none: {error}") from error
    return fields


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    with path.open("rb") as file:
        start = file.read(9)
    if not start.endswith(b"{") or len(start) < 9:  # safetensors begin with a length and a JSON object
        return tensors_in(open_tensors(path), FORMAT, path)
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be opened as safetensors: {first_line(error)}") from error
    return tensors
