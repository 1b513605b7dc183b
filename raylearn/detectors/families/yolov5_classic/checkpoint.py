"""From a checkpoint of the YOLOv5 repository to a network of raylearn's own."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from raylearn.detectors.base import CheckpointFacts
from raylearn.detectors.checkpoints import first_line
from raylearn.detectors.families.yolov5_classic import layers
from raylearn.detectors.families.yolov5_classic.archive import Archive, StandIn
from raylearn.detectors.families.yolov5_classic.head import AnchorDecoder
from raylearn.detectors.families.yolov5_classic.network import Network
from raylearn.errors import CheckpointError, DetectorError

_DETECTORS = ("Model", "DetectionModel")
_OTHER_TASKS = ("SegmentationModel", "ClassificationModel")
_HEAD_BUFFERS = ("anchors", "anchor_grid")
_SIZES = {(0.33, 0.25): "n", (0.33, 0.5): "s", (0.67, 0.75): "m", (1.0, 1.0): "l", (1.33, 1.25): "x"}
_SETTINGS = ("kernel_size", "stride", "padding", "dilation", "groups", "mode", "scale_factor", "num_heads", "add")
"""What decides what a module computes, beside its class, its weights and the yaml's widths."""


@dataclass(frozen=True)
class OpenedModel:
    """A trained network in fp32, what makes boxes of its maps, and what its checkpoint says of itself."""

    network: Network
    decoder: AnchorDecoder
    facts: CheckpointFacts


def open_model(path: Path) -> OpenedModel:
    """Opens a checkpoint of the repository; nothing in it is run.

    Raises:
        CheckpointError: no file, a torn one, or not such a checkpoint.
        DetectorError: it does not detect, or is made of modules that are not known here.
    """
    with Archive(path) as archive:
        content = archive.content if isinstance(archive.content, dict) else {"model": archive.content}
        # the moving average of the weights is what the repository itself evaluates
        model = content.get("ema") or content.get("model")
        if isinstance(model, StandIn) and model.class_name in _OTHER_TASKS:
            raise DetectorError(f"{path} is a {model.class_name}, not a detector: give one trained for detection")
        if not isinstance(model, StandIn) or model.class_name not in _DETECTORS:
            raise CheckpointError(
                f"{path} holds no detector: give best.pt or last.pt as the yolov5 repository wrote it"
            )
        try:
            return _opened(archive, model, _image_size(content.get("opt")))
        except DetectorError as error:
            raise DetectorError(f"{path} cannot be used: {error}") from error
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise CheckpointError(
                f"{path} is not a whole checkpoint of the yolov5 repository: {type(error).__name__} {first_line(error)}"
            ) from error


def _opened(archive: Archive, model: StandIn, image_size: int | None) -> OpenedModel:
    for name in ("yaml", "names"):
        if name not in model.state:
            raise CheckpointError(
                f"{archive.path} is of the yolov5 repository, but without its {name}: give best.pt as train.py wrote it"
            )
    yaml, class_names = model.state["yaml"], _class_names(model.state["names"])
    if yaml["nc"] != len(class_names):
        raise ValueError(f"{len(class_names)} class names, but {yaml['nc']} classes")
    modules = dict(_modules(model))
    head_path = f"model.{len(yaml['backbone']) + len(yaml['head']) - 1}"
    head = modules[head_path]
    if head.class_name != "Detect":
        raise DetectorError(f"its head is {head.class_name}, not Detect: give a checkpoint trained for detection")
    anchors = archive.tensor(head.state["_buffers"]["anchors"])
    decoder = AnchorDecoder(anchors, archive.tensor(head.state["stride"]))
    not_weights = {f"{head_path}.{buffer}" for buffer in _HEAD_BUFFERS}
    stored = {name: value for name, value in _tensors(modules) if name not in not_weights}
    network = _network(yaml, anchors.shape[1] * (5 + len(class_names)), modules, stored)
    _refuse_other_strides(network, decoder.strides)
    network.load_state_dict({name: archive.tensor(value) for name, value in stored.items()}, assign=True)
    network.float().requires_grad_(False)
    return OpenedModel(network, decoder, CheckpointFacts(_name(model.state, len(anchors)), class_names, image_size))


def _network(
    yaml: Mapping[str, Any], num_outputs: int, modules: Mapping[str, StandIn], stored: Mapping[str, Any]
) -> Network:
    """The network of a checkpoint, without memory for its weights: those that were trained are put in their place."""
    with torch.device("meta"):
        network = Network(yaml, num_outputs)
        for path, module in network.named_modules():
            if isinstance(module, layers.Conv) and f"{path}.bn.weight" not in stored:
                module.without_normalisation()
    _take_settings(network, modules)
    network.eval()
    return network


def _refuse_other_strides(network: Network, strides: list[int]) -> None:
    side = 2 * max(strides)
    found = [side / level.shape[-1] for level in network(torch.empty(1, 3, side, side, device="meta"))]
    if found != strides:
        raise ValueError(f"strides {found} by its yaml, {strides} by its head")


def _modules(root: StandIn) -> Iterator[tuple[str, StandIn]]:
    """Every module by its path, as torch's named_modules."""
    waiting, seen = [("", root)], set()
    while waiting:
        path, module = waiting.pop()
        yield path, module
        children = module.state["_modules"]
        # An activation is shared by many layers; what is larger and comes twice would make the walk endless.
        if children and id(module) in seen:
            raise ValueError(f"{path} is in it twice")
        seen.add(id(module))
        waiting += [(f"{path}.{name}".lstrip("."), child) for name, child in children.items() if child is not None]


def _tensors(modules: Mapping[str, StandIn]) -> Iterator[tuple[str, Any]]:
    """What a state dict would hold."""
    for path, module in modules.items():
        for kind in ("_parameters", "_buffers"):
            for name, value in module.state[kind].items():
                if value is not None:
                    yield f"{path}.{name}", value


def _take_settings(network: Network, modules: Mapping[str, StandIn]) -> None:
    """Compares what a state dict does not hold with what was trained, and takes over the one number that is free.

    Raises:
        DetectorError: the modules in the checkpoint are others than its yaml gives here.
    """
    for path, own in network.named_modules():
        trained = modules.get(path)
        if path == "" or (trained is None and isinstance(own, nn.Identity)):
            continue
        if trained is None or trained.class_name != type(own).__name__:
            other = trained.class_name if trained else "nothing"
            raise DetectorError(f"its {path} is {other}, where the yolov5 repository has {type(own).__name__}")
        for name in _SETTINGS:
            if name in trained.state and trained.state[name] != getattr(own, name, trained.state[name]):
                raise DetectorError(f"its {path} has {name} {trained.state[name]}, not {getattr(own, name)}")
        if isinstance(own, nn.BatchNorm2d):
            own.eps = float(trained.state["eps"])


def _class_names(names: Any) -> tuple[str, ...]:
    """From a list, or since v7 from a dictionary of ids."""
    ordered = [names[index] for index in range(len(names))]
    return tuple(str(name) for name in ordered)


def _image_size(options: Any) -> int | None:
    """What it was trained at, from the options of train.py, which are in checkpoints since v7."""
    found = options.state if isinstance(options, StandIn) else options
    size = found.get("imgsz") if isinstance(found, dict) else None
    return size if isinstance(size, int) else None


def _name(state: Mapping[str, Any], num_levels: int) -> str:
    if isinstance(state.get("yaml_file"), str):
        return Path(state["yaml_file"]).stem
    size = _SIZES.get((state["yaml"]["depth_multiple"], state["yaml"]["width_multiple"]), "")
    return f"yolov5{size}{'6' if size and num_levels == 4 else ''}"
