"""What runs a YOLO network: torch on a CPU or a GPU, or OpenVINO on a CPU."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from raylearn.detectors import openvino_is_installed
from raylearn.detectors.base import Engine
from raylearn.detectors.embeddings import pooled
from raylearn.errors import DetectorError, nearest


@dataclass(frozen=True, eq=False)
class Raw:
    """What a network gives for n canvases.

    Args:
        predictions: (n, 4 + K, anchors) float32: xywh boxes in canvas pixels, and class scores.
        pooled: (n, C) float32 of the maps that go into the head; None without embeddings.
        class_features: of each level (n, c, height, width), what the last convolution of the class branch is given;
            empty without embeddings.
    """

    predictions: torch.Tensor
    pooled: torch.Tensor | None = None
    class_features: tuple[torch.Tensor, ...] = ()


Canvases = Any
"""(n, height, width, 3) uint8 RGB: a numpy array, or a tensor on the device of the network."""

RawModel = Callable[[Canvases], Raw]


def start_engine(
    model: Any, engine: Engine, device: torch.device, num_threads: int | None, embeddings: bool = False
) -> RawModel:
    """Prepares a fused network in evaluation mode.

    Args:
        model: Ultralytics' DetectionModel.
        engine: what runs it.
        device: where.
        num_threads: on a CPU; None leaves the engine's own choice.
        embeddings: whether to give what embeddings are made of too.

    Raises:
        DetectorError: a precision or backend that is not to be had here, or not with embeddings.
    """
    known = {"torch": _torch_engine, "openvino": _openvino_engine}
    if engine.backend not in known:
        raise DetectorError(f"unknown backend {engine.backend!r}: {nearest(engine.backend, known)}")
    if embeddings:
        engine.refuse_embeddings()
    network = _UpToTheHead(model, embeddings)
    return known[engine.backend](network, engine.precision, device, num_threads)


def _torch_engine(network: "_UpToTheHead", precision: str, device: torch.device, _num_threads: int | None) -> RawModel:
    wanted = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    if wanted is torch.float16 and device.type == "cpu":
        raise DetectorError("precision fp16 needs a GPU: use fp32 or bf16 on a CPU")
    if wanted is torch.float32:
        torch.backends.cudnn.allow_tf32 = False  # otherwise a GPU's convolutions keep ten bits of each number
    # channels_last is how the pixels lie already, and what both oneDNN and cuDNN are fastest with.
    network = network.to(memory_format=torch.channels_last)
    if wanted is torch.float16:
        network.half_but_for_the_decoder()

    def run(canvases: Canvases) -> Raw:
        batch = torch.from_numpy(canvases) if isinstance(canvases, np.ndarray) else canvases
        if batch.device != device:
            batch = batch.pin_memory().to(device, non_blocking=True)
        images = batch.permute(0, 3, 1, 2).to(torch.float16 if wanted is torch.float16 else torch.float32) / 255
        with torch.autocast(device.type, torch.bfloat16, enabled=wanted is torch.bfloat16):
            outputs = network(images)
        return network.decode(outputs, canvases.shape[1:3])

    return run


class _UpToTheHead(torch.nn.Module):  # type: ignore[misc]
    """A network up to where boxes are decoded: convolutions only, so one conversion serves canvases of any shape."""

    def __init__(self, model: Any, embeddings: bool) -> None:
        super().__init__()
        self.model = model
        self._head = model.model[-1]
        self._embeddings = embeddings
        self._class_features: list[torch.Tensor] = []  # of one call, until it returns
        # Kept, as the head would drop one grid for the next while another thread's boxes are still made with it.
        self._grids: dict[tuple[int, ...], tuple[Any, ...]] = {}
        if embeddings:
            for branch in self._head.cv3:
                branch[-1].register_forward_pre_hook(lambda _, given: self._class_features.append(given[0]))

    def half_but_for_the_decoder(self) -> None:
        self.half()
        self._head.dfl.float()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Boxes and scores as the decoder wants them; with embeddings, `pooled` and `class_features` of Raw too."""
        self._class_features = []  # a call that ran out of memory may have left some
        self._head.training = True  # of the head alone: it then gives what goes into the decoder, and does not decode
        found = self.model(images)
        found = found.get("one2many", found)
        if not self._embeddings:
            return found["boxes"], found["scores"]
        class_features, self._class_features = self._class_features, []
        return found["boxes"], found["scores"], pooled(found["feats"]), *class_features

    def decode(self, outputs: Sequence[torch.Tensor], canvas: tuple[int, ...]) -> Raw:
        """What the network gave, with boxes decoded; in fp32, since eleven bits are half a pixel of a box."""
        boxes, scores, *seen = outputs
        # Of the feature maps the decoder wants the shapes only.
        maps = [
            torch.empty(1, 1, canvas[0] // int(stride), canvas[1] // int(stride), device=boxes.device)
            for stride in self._head.stride
        ]
        head = self._head
        if canvas in self._grids:
            head.shape, head.anchors, head.strides = self._grids[canvas]
        raw = head._inference({"boxes": boxes.float(), "scores": scores.float(), "feats": maps})
        if canvas not in self._grids:
            if raw.is_cuda:
                torch.cuda.current_stream().synchronize()  # before a stream of another thread reads the grid
            self._grids[canvas] = head.shape, head.anchors, head.strides
        return Raw(raw, seen[0], tuple(seen[1:])) if self._embeddings else Raw(raw)


def _openvino_engine(
    network: "_UpToTheHead", precision: str, device: torch.device, num_threads: int | None
) -> RawModel:
    if not openvino_is_installed():
        raise DetectorError('backend openvino is not installed: pip install "raylearn[openvino]", or use torch')
    if device.type != "cpu":
        raise DetectorError("backend openvino runs on CPUs: leave --gpus-per-actor out, or use torch")
    # Otherwise each conversion is reported to its makers; without the package, OpenVINO takes a stub of its own.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino as ov

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

    def run(canvases: Canvases) -> Raw:
        outputs = [torch.from_numpy(np.array(output)) for output in compiled(canvases).values()]
        return network.decode(outputs, canvases.shape[1:3])

    return run
