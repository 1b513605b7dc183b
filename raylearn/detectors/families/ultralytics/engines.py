"""What runs a YOLO network: torch on a CPU or a GPU, or OpenVINO on a CPU."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from raylearn.detectors import openvino_is_installed
from raylearn.detectors.base import Engine
from raylearn.errors import DetectorError, nearest

RawModel = Callable[[np.ndarray], torch.Tensor]
"""(n, height, width, 3) uint8 RGB -> (n, 4 + K, anchors) float32: xywh boxes in canvas pixels, and class scores."""


def start_engine(model: Any, engine: Engine, device: torch.device, num_threads: int | None) -> RawModel:
    """Prepares a fused network in evaluation mode.

    Args:
        model: Ultralytics' DetectionModel.
        engine: what runs it.
        device: where.
        num_threads: on a CPU; None leaves the engine's own choice.

    Raises:
        DetectorError: a precision or backend that is not to be had here.
    """
    known = {"torch": _torch_engine, "openvino": _openvino_engine}
    if engine.backend not in known:
        raise DetectorError(f"unknown backend {engine.backend!r}: {nearest(engine.backend, known)}")
    return known[engine.backend](model, engine.precision, device, num_threads)


def _torch_engine(model: Any, precision: str, device: torch.device, _num_threads: int | None) -> RawModel:
    wanted = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    if wanted is torch.float16 and device.type == "cpu":
        raise DetectorError("precision fp16 needs a GPU: use fp32 or bf16 on a CPU")
    if wanted is torch.float32:
        torch.backends.cudnn.allow_tf32 = False  # otherwise a GPU's convolutions keep ten bits of each number
    # channels_last is how the pixels lie already, and what both oneDNN and cuDNN are fastest with.
    network = _UpToTheHead(model).to(memory_format=torch.channels_last)
    if wanted is torch.float16:
        network.half_but_for_the_decoder()

    def run(canvases: np.ndarray) -> torch.Tensor:
        batch = torch.from_numpy(canvases)
        if device.type == "cuda":
            batch = batch.pin_memory().to(device, non_blocking=True)
        images = batch.permute(0, 3, 1, 2).to(torch.float16 if wanted is torch.float16 else torch.float32) / 255
        with torch.autocast(device.type, torch.bfloat16, enabled=wanted is torch.bfloat16):
            boxes, scores = network(images)
        return network.decode(boxes, scores, canvases.shape[1:3])

    return run


class _UpToTheHead(torch.nn.Module):  # type: ignore[misc]
    """A network up to where boxes are decoded: convolutions only, so one conversion serves canvases of any shape."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self._head = model.model[-1]

    def half_but_for_the_decoder(self) -> None:
        self.half()
        self._head.dfl.float()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self._head.training = True  # of the head alone: it then gives what goes into the decoder, and does not decode
        found = self.model(images)
        found = found.get("one2many", found)
        return found["boxes"], found["scores"]

    def decode(self, boxes: torch.Tensor, scores: torch.Tensor, canvas: tuple[int, ...]) -> torch.Tensor:
        """What the network gave, as `RawModel` gives it; in fp32, since eleven bits are half a pixel of a box."""
        # Of the feature maps the decoder wants the shapes only.
        maps = [
            torch.empty(1, 1, canvas[0] // int(stride), canvas[1] // int(stride), device=boxes.device)
            for stride in self._head.stride
        ]
        raw: torch.Tensor = self._head._inference({"boxes": boxes.float(), "scores": scores.float(), "feats": maps})
        return raw


def _openvino_engine(model: Any, precision: str, device: torch.device, num_threads: int | None) -> RawModel:
    if not openvino_is_installed():
        raise DetectorError('backend openvino is not installed: pip install "raylearn[openvino]", or use torch')
    if device.type != "cpu":
        raise DetectorError("backend openvino runs on CPUs: leave --gpus-per-actor out, or use torch")
    # Otherwise each conversion is reported to its makers; without the package, OpenVINO takes a stub of its own.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino as ov

    network = _UpToTheHead(model)
    converted = ov.convert_model(network, example_input=torch.zeros(2, 3, 64, 64))
    converted.reshape([-1, 3, -1, -1])
    pixels = ov.preprocess.PrePostProcessor(converted)
    pixels.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    pixels.input().model().set_layout(ov.Layout("NCHW"))
    pixels.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
    settings = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}[precision],
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # actors side by side would all be pinned to the same cores
    }
    if num_threads:
        settings["INFERENCE_NUM_THREADS"] = num_threads
    compiled = ov.Core().compile_model(pixels.build(), "CPU", settings)

    def run(canvases: np.ndarray) -> torch.Tensor:
        boxes, scores = (torch.from_numpy(np.array(output)) for output in compiled(canvases).values())
        return network.decode(boxes, scores, canvases.shape[1:3])

    return run
