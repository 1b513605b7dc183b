"""torchvision's detection models by name: untrained, from initial weights, or from a checkpoint."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torchvision.models import detection
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from raylearn.detectors.base import CheckpointFacts
from raylearn.detectors.checkpoints import (
    facts_of,
    first_line,
    load_matching,
    open_tensors,
    refuse_no_weights,
    tensors_in,
)
from raylearn.detectors.families.torchvision import FORMAT, class_scores_of
from raylearn.errors import CheckpointError, DetectorError, nearest

# Name -> whether torchvision freezes the batch normalisation of its backbone when that has learned elsewhere.
MODELS = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": True,
    "fasterrcnn_mobilenet_v3_large_fpn": True,
    "fasterrcnn_resnet50_fpn": True,
    "fcos_resnet50_fpn": True,
    "retinanet_resnet50_fpn": True,
    "retinanet_resnet50_fpn_v2": False,
    "ssdlite320_mobilenet_v3_large": False,
}


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draws of torch within depend on `seed` alone, and those after it on nothing that happened within."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def build_model(name: str, num_classes: int, seed: int = 0) -> Any:
    """An untrained model, for canvases of any shape, which it takes as they are.

    A softmax head has `num_classes` + 1 columns, the first of them the background. A sigmoid head has `num_classes`,
    where torchvision's own trainings leave the first of one more unused.

    Args:
        seed: of its random weights.

    Raises:
        DetectorError: an unknown name.
    """
    if name not in MODELS:
        raise DetectorError(f"unknown detector.model {name!r} of family torchvision: {nearest(name, MODELS)}")
    num_columns = num_classes + (class_scores_of(name) == "softmax")
    with seeded(seed, torch.device("cpu")):
        model = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=num_columns)
    mean, std = model.transform.image_mean, model.transform.image_std
    model.transform = _NormaliseOnly(0, 0, mean, std)
    return model


class _NormaliseOnly(GeneralizedRCNNTransform):  # type: ignore[misc]
    """torchvision's way of getting images into a model, without the scaling: canvases have their size already."""

    def resize(self, image: torch.Tensor, target: Any = None) -> tuple[torch.Tensor, Any]:
        return image, target


def open_model(path: Path) -> tuple[Any, CheckpointFacts]:
    """The trained model of a checkpoint, and what it says of itself.

    Raises:
        CheckpointError: no file, a torn one, or no checkpoint of this family.
        DetectorError: of a model that is unknown here.
    """
    content = open_tensors(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of family torchvision: give one that its training wrote")
    facts = facts_of(content, path)
    model = build_model(facts.model, len(facts.class_names))
    try:
        model.load_state_dict(content["state_dict"])
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path} is no whole checkpoint: {first_line(error)}") from error
    return model, facts


def load_initial_weights(model: Any, name: str, path: Path) -> tuple[int, int]:
    """Copies what fits of a file: a checkpoint of this family, or a state dict of torchvision's, detector or backbone.

    Where torchvision would freeze the batch normalisation of a backbone that has learned elsewhere, so does this.

    Returns:
        How many tensors fitted, and how many the model has.

    Raises:
        CheckpointError: no file, a torn one, one that is not made of plain tensors, or nothing in it fits.
    """
    refuse_no_weights(path)
    own = model.state_dict()
    weights = tensors_in(open_tensors(path), FORMAT, path)
    weights = {key if key in own else _name_here(name, key): tensor for key, tensor in weights.items()}
    counts = load_matching(model, weights, path)
    if MODELS[name]:
        _freeze_batch_norm(model, {key for key in own if key in weights and weights[key].shape == own[key].shape})
    return counts


def _name_here(name: str, key: str) -> str:
    """What a detector calls a tensor that an older torchvision's detector, or a classifier's backbone, calls `key`."""
    for old, new in _OLDER_NAMES.items():
        if found := re.fullmatch(old, key):
            return found.expand(new)
    if found := re.fullmatch(_OLDER_RETINANET, key):
        return f"{found[1]}{int(found[2]) // 2}.0.{found[3]}"
    if not name.startswith("ssdlite"):
        return "backbone.body." + key.removeprefix("features.")
    # SSDlite cuts the backbone in two, within the block that makes its first feature map.
    block = re.fullmatch(r"features\.(\d+)\.(.*)", key)
    if block is None:
        return key
    number, rest = int(block[1]), block[2]
    if number < _SSDLITE_CUT:
        return f"backbone.features.0.{number}.{rest}"
    if number > _SSDLITE_CUT:
        return f"backbone.features.1.{number - _SSDLITE_CUT}.{rest}"
    if rest.startswith("block.0."):
        return f"backbone.features.0.{number}.{rest.removeprefix('block.0.')}"
    return f"backbone.features.1.0.{rest.removeprefix('block.')}"


_SSDLITE_CUT = 13
# torchvision renamed these once, and goes on reading files with the older names.
_OLDER_NAMES = {
    r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)": r"\1.0.\2",
    r"(rpn\.head\.conv)\.(weight|bias)": r"\1.0.0.\2",
}
_OLDER_RETINANET = r"(head\.(?:classification|regression)_head\.conv\.)([0246])\.(weight|bias)"


def _freeze_batch_norm(model: Any, loaded: set[str]) -> None:
    """Marks the layers of the backbone that came whole from elsewhere; see `train_mode`."""
    for prefix, layer in model.backbone.named_modules(prefix="backbone"):
        parts = ("weight", "bias", "running_mean", "running_var")
        if isinstance(layer, torch.nn.BatchNorm2d) and loaded.issuperset(f"{prefix}.{part}" for part in parts):
            layer.requires_grad_(False)


def train_mode(model: Any) -> None:
    """Training mode, but for frozen batch normalisation, which goes on as it learned elsewhere."""
    model.train()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d) and not layer.weight.requires_grad:
            layer.eval()


def state_of(model: Any) -> Mapping[str, torch.Tensor]:
    """The weights of a model, on the CPU."""
    return {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
