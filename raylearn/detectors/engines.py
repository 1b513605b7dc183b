"""What runs a YOLO network: torch on a CPU or a GPU, or OpenVINO on a CPU."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

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


def openvino_is_installed() -> bool:
    """Whether the backend openvino can be used by this Python."""
    return find_spec("openvino") is not None


def _torch_engine(model: Any, precision: str, device: torch.device, _num_threads: int | None) -> RawModel:
    wanted = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    if wanted is torch.float16 and device.type == "cpu":
        raise DetectorError("precision fp16 needs a GPU: use fp32 or bf16 on a CPU")
    # channels_last is how the pixels lie already, and what both oneDNN and cuDNN are fastest with.
    model = model.to(memory_format=torch.channels_last)
    if wanted is torch.float16:
        model = model.half()

    def run(canvases: np.ndarray) -> torch.Tensor:
        batch = torch.from_numpy(canvases)
        if device.type == "cuda":
            batch = batch.pin_memory().to(device, non_blocking=True)
        images = batch.permute(0, 3, 1, 2).to(torch.float16 if wanted is torch.float16 else torch.float32) / 255
        with torch.autocast(device.type, torch.bfloat16, enabled=wanted is torch.bfloat16):
            raw: torch.Tensor = model(images)[0]
        return raw.float()

    return run


class _HeadInputs(torch.nn.Module):  # type: ignore[misc]
    """A network up to where boxes are decoded: convolutions only, so one conversion serves canvases of any shape."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.model(images)[1]
        found = found.get("one2many", found)
        return found["boxes"], found["scores"]


def _openvino_engine(model: Any, precision: str, device: torch.device, num_threads: int | None) -> RawModel:
    if not openvino_is_installed():
        raise DetectorError('backend openvino is not installed: pip install "raylearn[openvino]", or use torch')
    if device.type != "cpu":
        raise DetectorError("backend openvino runs on CPUs: leave --gpus-per-actor out, or use torch")
    # Otherwise each conversion is reported to its makers; without the package, OpenVINO takes a stub of its own.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino as ov

    converted = ov.convert_model(_HeadInputs(model).eval(), example_input=torch.zeros(2, 3, 64, 64))
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
    head = model.model[-1]

    def run(canvases: np.ndarray) -> torch.Tensor:
        boxes, scores = (torch.from_numpy(np.array(output)) for output in compiled(canvases).values())
        height, width = canvases.shape[1:3]
        # Of the feature maps the decoder wants the shapes only.
        maps = [torch.empty(1, 1, height // int(stride), width // int(stride)) for stride in head.stride]
        raw: torch.Tensor = head._inference({"boxes": boxes, "scores": scores, "feats": maps})
        return raw

    return run
