"""Checkpoints as the original YOLOv5 repository writes them, small ones and hostile ones."""

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from raylearn.detectors.families.yolov5_classic import layers
from raylearn.detectors.families.yolov5_classic.network import Network
from tests.detectors.data.make_yolov5_classic import fill

TINY: dict[str, Any] = {
    "nc": 2,
    "depth_multiple": 0.33,
    "width_multiple": 0.25,
    "anchors": [[10, 13, 16, 30], [30, 61, 62, 45]],
    "backbone": [[-1, 1, "Conv", [64, 6, 2, 2]], [-1, 1, "Conv", [64, 3, 2]], [-1, 1, "Conv", [64, 3, 2]]],
    "head": [[-1, 1, "Conv", [64, 3, 2]], [-1, 3, "C3", [64]], [[2, 4], 1, "Detect", ["nc", "anchors"]]],
}


class Model(nn.Module):
    """What a checkpoint has as `models.yolo.Model`."""

    def __init__(self, yaml: dict[str, Any], names: Any = None) -> None:
        super().__init__()
        network = Network(yaml, 2 * (5 + yaml["nc"]))
        fill(network)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.001
        self.model, self.yaml = network.model, yaml
        self.names = names or [f"class {index}" for index in range(yaml["nc"])]
        head = self.model[-1]
        head.stride = torch.tensor([8.0, 16.0])
        head.register_buffer("anchors", torch.tensor(yaml["anchors"]).view(2, -1, 2) / head.stride.view(-1, 1, 1))

    def fuse(self) -> "Model":
        """Layers as the repository's own `fuse` leaves them."""
        self.eval()
        for module in self.modules():
            if isinstance(module, layers.Conv):
                module.fuse()
                del module.bn
        return self


def save(path: Path, content: Any, rename: Mapping[str, str] | None = None) -> Path:
    """Saves as torch does, with the names of classes that the repository would have written.

    Args:
        rename: "module name" -> "module name" of further classes.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    names = {
        f"{__name__} Model": "models.yolo Model",
        f"{layers.__name__} Detect": "models.yolo Detect",
        **{f"{layers.__name__} {kind}": f"models.common {kind}" for kind in dir(layers) if kind[0].isupper()},
        **(rename or {}),
    }

    def renamed(pickled: bytes) -> bytes:
        for own, theirs in names.items():
            pickled = pickled.replace(_global(own), _global(theirs))
        return pickled

    path.write_bytes(buffer.getvalue())
    return edit(path, {"data.pkl": renamed})


def edit(path: Path, changes: Mapping[str, Callable[[bytes], bytes]]) -> Path:
    """Writes a zip anew, with some of its parts changed."""
    with zipfile.ZipFile(path) as archive:
        parts = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    return write(path, {name: changes.get(name, bytes)(data) for name, data in parts.items()})


def write(path: Path, parts: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(f"archive/{name}", data)
    return path


def _global(name: str) -> bytes:
    return b"c" + name.replace(" ", "\n").encode() + b"\n"
