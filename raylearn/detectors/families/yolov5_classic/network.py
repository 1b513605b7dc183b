"""A YOLOv5 network as its yaml describes it."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from raylearn.detectors.families.yolov5_classic import layers
from raylearn.errors import DetectorError

_WITH_CHANNELS = {
    kind.__name__: kind
    for kind in (
        layers.Bottleneck,
        layers.BottleneckCSP,
        layers.C3,
        layers.C3Ghost,
        layers.C3TR,
        layers.Conv,
        layers.Focus,
        layers.GhostConv,
        layers.SPP,
        layers.SPPF,
    )
}
_REPEATED_INSIDE = (layers.C3, layers.BottleneckCSP)
_PLAIN = {"nn.MaxPool2d": nn.MaxPool2d, "nn.Upsample": nn.Upsample, "nn.ZeroPad2d": nn.ZeroPad2d}
_OTHER_HEADS = frozenset({"Segment", "Classify"})
_MOST_REPEATS = 100  # more than any yaml asks for; a damaged one is not to build for hours


class Network(nn.Module):  # type: ignore[misc]
    """From images to the raw maps of the head, one for each stride.

    Args:
        yaml: depth_multiple, width_multiple, and backbone and head as rows of [from, number, module, arguments].
        num_outputs: channels of each map: anchors x (5 + classes).

    Raises:
        DetectorError: a module that is not known here, or a head that does not give boxes alone.
        KeyError, IndexError, TypeError, ValueError: it is not such a yaml.
    """

    def __init__(self, yaml: Mapping[str, Any], num_outputs: int) -> None:
        super().__init__()
        self.model = nn.Sequential()
        self._sources: list[list[int]] = []
        channels = {-1: 3}  # of the output of each layer; -1 is the image
        for position, (source, number, name, arguments) in enumerate([*yaml["backbone"], *yaml["head"]]):
            sources = [source] if isinstance(source, int) else list(source)
            self._sources.append([position + index if index < 0 else index for index in sources])
            inputs = [channels[index] for index in self._sources[-1]]
            repeats = max(round(number * yaml["depth_multiple"]), 1) if number > 1 else 1
            layer, channels[position] = _layer(
                str(name), inputs, repeats, list(arguments), float(yaml["width_multiple"]), num_outputs
            )
            self.model.append(layer)
        if not isinstance(self.model[-1], layers.Detect):
            raise ValueError("its last layer is not Detect")
        self._last_use = {index: position for position, used in enumerate(self._sources) for index in used}

    def forward(self, images: torch.Tensor) -> Any:
        """(n, 3, height, width) in [0, 1] to a list of (n, num_outputs, height / stride, width / stride)."""
        outputs = {-1: images}
        for position, (layer, sources) in enumerate(zip(self.model, self._sources, strict=True)):
            found = [outputs[index] for index in sources]
            takes_many = isinstance(layer, layers.Concat | layers.Detect)
            outputs[position] = layer(found if takes_many else found[0])
            for index in set(sources):
                if self._last_use[index] == position:
                    del outputs[index]  # otherwise a large batch would keep the maps of all layers at once
        return outputs[position]

    def fuse(self) -> None:
        """Makes one convolution of each that a normalisation follows; for evaluation only."""
        for module in self.modules():
            if isinstance(module, layers.Conv):
                module.fuse()


def _layer(
    name: str, inputs: list[int], repeats: int, arguments: list[Any], width: float, num_outputs: int
) -> tuple[Any, int]:
    """One row of a yaml: the module, and how many channels it gives."""
    if repeats > _MOST_REPEATS:
        raise ValueError(f"{name} is repeated {repeats} times")
    if name in _WITH_CHANNELS:
        kind: Any = _WITH_CHANNELS[name]
        outputs, *rest = arguments
        if outputs != num_outputs:
            outputs = math.ceil(outputs * width / 8) * 8
        if issubclass(kind, _REPEATED_INSIDE):
            return kind(inputs[0], outputs, repeats, *rest), outputs
        repeated = [kind(inputs[0], outputs, *rest) for _ in range(repeats)]
        return repeated[0] if repeats == 1 else nn.Sequential(*repeated), outputs
    if name == "Concat" and arguments == [1]:
        return layers.Concat(), sum(inputs)
    if name == "Detect":
        return layers.Detect(num_outputs, inputs), num_outputs
    if name in _PLAIN:
        return _PLAIN[name](*(None if value == "None" else value for value in arguments)), inputs[0]
    if name in _OTHER_HEADS:
        raise DetectorError(f"its head is {name}, not Detect: give a checkpoint that was trained for detection")
    raise DetectorError(
        f"its module {name} is not one of the yolov5 repository's detectors: "
        f"known are Concat, Detect, {', '.join(sorted((*_WITH_CHANNELS, *_PLAIN)))}"
    )
