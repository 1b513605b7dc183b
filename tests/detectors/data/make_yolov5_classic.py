"""Writes yolov5_classic.json: what the original YOLOv5 repository finds on twenty photographs, one of them cropped too,
and what networks of all its modules give.

Run by hand, in an environment of its own, since the repository's packages do not go with raylearn's:

    python -m venv v5 && v5/bin/pip install yolov5==7.0.14 ultralytics matplotlib
    v5/bin/python tests/detectors/data/make_yolov5_classic.py SHARED > tests/detectors/data/yolov5_classic.json

`yolov5` on PyPI is the repository, v7.0, as a package. SHARED is the folder that holds weights/ and data/. The steps
are those of the repository's detect.py: attempt_load (which fuses), letterbox, non_max_suppression, scale_boxes.
"""

import hashlib
import json
import math
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch

CHECKPOINT = "weights/yolov5n_v6_classic.pt"
IMAGE_SIZE, CONFIDENCE, IOU, MAX_DETECTIONS = 640, 0.05, 0.45, 300
PACKAGED = (
    "ultralytics/assets/bus.jpg",
    "ultralytics/assets/zidane.jpg",
    "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
)
ANCHORS = [[10, 13, 16, 30], [30, 61, 62, 45]]
ARCHITECTURES = {
    "of v5": {
        "nc": 2,
        "depth_multiple": 0.67,
        "width_multiple": 0.25,
        "anchors": ANCHORS,
        "backbone": [
            [-1, 1, "Focus", [64, 3]],
            [-1, 1, "Conv", [64, 3, 2]],
            [-1, 3, "BottleneckCSP", [64]],
            [-1, 1, "Conv", [128, 3, 2]],
            [-1, 3, "C3", [128]],
            [-1, 1, "Conv", [256, 3, 2]],
            [-1, 1, "SPP", [256, [5, 9, 13]]],
        ],
        "head": [
            [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
            [[-1, 4], 1, "Concat", [1]],
            [-1, 1, "Conv", [128, 1, 1]],
            [-1, 3, "Bottleneck", [128, False]],
            [[-1, 6], 1, "Detect", ["nc", "anchors"]],
        ],
    },
    "variants": {
        "nc": 2,
        "depth_multiple": 0.67,
        "width_multiple": 0.25,
        "anchors": ANCHORS,
        "backbone": [
            [-1, 1, "Conv", [64, 6, 2, 2]],
            [-1, 1, "GhostConv", [64, 3, 2]],
            [-1, 3, "C3Ghost", [64]],
            [-1, 1, "nn.ZeroPad2d", [[0, 1, 0, 1]]],
            [-1, 1, "nn.MaxPool2d", [2, 2, 0]],
            [-1, 1, "Conv", [128, 3, 2]],
            [-1, 3, "C3TR", [128]],
            [-1, 1, "SPPF", [128, 5]],
        ],
        "head": [[[4, 7], 1, "Detect", ["nc", "anchors"]]],
    },
}
CROPPED = ("ultralytics/assets/zidane.jpg", 1080)  # to 3:2, of which the letterbox at 640 has an odd number of rows


def main(shared: Path) -> None:
    from yolov5.models import experimental

    load = torch.load
    torch.load = lambda *args, **kwargs: load(*args, **{**kwargs, "weights_only": False})  # as torch did before 2.6
    experimental.attempt_download = str  # the file is here; they would ask a hub for it first
    sys.path.insert(0, str(Path(experimental.__file__).parents[1]))  # where the checkpoint's `models.yolo` is
    model = experimental.attempt_load(str(shared / CHECKPOINT), device="cpu")
    photographs = []
    names = [*PACKAGED, *_spread(shared, "data/bccd_voc", 8), *_spread(shared, "data/robosub", 9)]
    for name, columns in [*((name, None) for name in names), CROPPED]:
        data = _path(name, shared).read_bytes()
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :columns]
        found = {canvas: _detect(model, image, canvas == "rectangle") for canvas in ("square", "rectangle")}
        photographs.append({"name": name, "sha256": hashlib.sha256(data).hexdigest(), "columns": columns, **found})
    head = {
        "made_by": "make_yolov5_classic.py",
        "versions": {name: version(name) for name in ("yolov5", "torch", "torchvision", "opencv-python")},
        "checkpoint": CHECKPOINT,
        "settings": {"image_size": IMAGE_SIZE, "confidence": CONFIDENCE, "iou": IOU, "max_detections": MAX_DETECTIONS},
        "rows": "x1, y1, x2, y2, confidence, class id",
    }
    networks = [{"name": name, "yaml": yaml, "raw": _raw(yaml)} for name, yaml in ARCHITECTURES.items()]
    parts = {"photographs": photographs, "networks": networks}
    for name, rows in parts.items():
        lines = ",\n  ".join(json.dumps(row) for row in rows)
        parts[name] = f'"{name}": [\n  {lines}\n]'
    print(json.dumps(head)[:-1] + f",\n{parts['photographs']},\n{parts['networks']}}}")


def sawtooth(shape: tuple[int, ...], phase: int) -> torch.Tensor:
    """Numbers from -1 to 1 that are the same wherever they are made."""
    count = math.prod(shape)
    return ((torch.arange(count, dtype=torch.float64) * 37 + phase * 11) % 101 / 50 - 1).float().reshape(shape)


def fill(network: torch.nn.Module) -> None:
    """Weights by their names alone: what two networks of one architecture then give is the same."""
    named = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith(".anchors")}
    for phase, (name, tensor) in enumerate(sorted(named.items())):
        if name.endswith(("running_var", "bn.weight")):
            tensor.copy_(1 + sawtooth(tensor.shape, phase) / 4)
        elif tensor.is_floating_point():
            fan_in = max(math.prod(tensor.shape[1:]), 4)
            # so that the numbers neither vanish in convolutions nor grow where positions attend to each other
            tensor.copy_(sawtooth(tensor.shape, phase) * (3 if tensor.ndim == 4 else 1) / math.sqrt(fan_in))


def _raw(yaml: dict[str, object]) -> list[list[float]]:
    """Some of the numbers of each map, before they are decoded."""
    from yolov5.models.yolo import DetectionModel

    model = DetectionModel(yaml)
    fill(model)
    model.train()  # the head then gives its maps
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    with torch.no_grad():
        maps = model(sawtooth((1, 3, 64, 96), 0))
    return [[round(value, 4) for value in level.flatten()[::7].tolist()] for level in maps]


def _spread(shared: Path, folder: str, number: int) -> list[str]:
    """Evenly spread over the JPEGs of a folder."""
    names = sorted(str(path.relative_to(shared)) for path in (shared / folder).rglob("*.jpg"))
    return [names[index * len(names) // number] for index in range(number)]


def _path(name: str, shared: Path) -> Path:
    package, _, rest = name.partition("/")
    spec = find_spec(package) if name in PACKAGED else None
    return Path(spec.origin).parent / rest if spec else shared / name


def _detect(model: torch.nn.Module, image: np.ndarray, rectangle: bool) -> list[list[float]]:
    from yolov5.utils.augmentations import letterbox
    from yolov5.utils.general import non_max_suppression, scale_boxes

    canvas = letterbox(image, IMAGE_SIZE, stride=32, auto=rectangle)[0]
    batch = torch.from_numpy(np.ascontiguousarray(canvas[..., ::-1].transpose(2, 0, 1)))[None].float() / 255
    with torch.no_grad():
        raw = model(batch)[0]
        (found,) = non_max_suppression(raw, CONFIDENCE, IOU, max_det=MAX_DETECTIONS)
    found[:, :4] = scale_boxes(canvas.shape[:2], found[:, :4], image.shape)
    return [[*(round(value, 2) for value in row[:4]), round(row[4], 5), int(row[5])] for row in found.tolist()]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
