"""Detectors that the original YOLOv5 repository trained, run by a network of raylearn's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raylearn.detectors.base import Detections, DetectorSettings, Engine, TrainingSet
from raylearn.detectors.families.yolov5_classic import NO_TRAINING
from raylearn.detectors.families.yolov5_classic.checkpoint import open_model
from raylearn.detectors.families.yolov5_classic.head import AnchorDecoder, to_original
from raylearn.detectors.suppression import nms_operator, suppress
from raylearn.errors import DetectorError, DivergedError

_RECTANGLE_STRIDE = 32  # which a canvas "rectangle" is padded to a multiple of
_MOST_CANDIDATES = 30_000  # per image that go into suppression, as in the repository


class ClassicDetector:
    """The yolov5-classic family behind the Detector protocol.

    Args:
        settings: what decides the detections.
        device: "cpu" or "cuda:0".
        num_threads: threads on the CPU; None leaves torch's own choice.
        engine: what runs the network.
    """

    def __init__(
        self,
        settings: DetectorSettings,
        device: str = "cpu",
        num_threads: int | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.settings = settings
        self._device = torch.device(device)
        self._num_threads = num_threads
        self._engine = engine or Engine()
        self._decoder: AnchorDecoder | None = None
        self._run: Callable[[np.ndarray], list[torch.Tensor]] | None = None
        self.class_names: tuple[str, ...] = ()

    def fit(
        self,
        train: TrainingSet,  # noqa: ARG002
        *,
        initial_weights: Path | None,  # noqa: ARG002
        seed: int,  # noqa: ARG002
        checkpoint: Path,  # noqa: ARG002
    ) -> dict[str, object]:
        """Raises DetectorError: the repository trains these models."""
        raise DetectorError(NO_TRAINING)

    def load(self, checkpoint: Path) -> None:
        """Makes `predict` use this checkpoint; its own architecture and classes count.

        Raises:
            CheckpointError: the file is torn, or not of the repository.
            DetectorError: it does not detect, its grid does not fit the canvas, or the engine is not to be had.
        """
        nms_operator()  # predict needs it, and its first images are not to wait for it

        opened = open_model(checkpoint)
        stride = max(opened.decoder.strides)
        self._refuse_other_grid(stride)
        if self._num_threads is not None and self._device.type == "cpu":
            torch.set_num_threads(self._num_threads)
        opened.network.fuse()
        run = _start(opened.network.to(self._device), self._engine, self._device)
        with torch.inference_mode():
            run(np.zeros((1, 2 * stride, 2 * stride, 3), dtype=np.uint8))  # what torch does once, it does here
        self._run, self._decoder, self.class_names = run, opened.decoder, opened.facts.class_names

    def predict(self, canvases: np.ndarray, sizes: np.ndarray) -> list[Detections]:
        """Detections of each image; see Detector.predict. Threads may call it at once."""
        if self._run is None or self._decoder is None:
            raise RuntimeError("load a checkpoint before predict")
        with torch.inference_mode():
            maps = self._run(canvases)
            # Looked at before the threshold, which NaN would not pass: a diverged model is no model without detections.
            if not all(torch.isfinite(level).all() for level in maps):
                raise DivergedError(
                    "the detector gave a box or a score that is not a finite number: its training diverged, or its "
                    f"numbers are too large for {self._engine.precision}"
                )
            found = self._decoder.candidates(maps, self.settings.confidence)
            counts = torch.bincount(found.images, minlength=len(canvases)).tolist()
            boxes, class_scores = found.boxes.cpu().split(counts), found.class_scores.cpu().split(counts)
            return [
                self._suppress(own_boxes, own_scores, canvases.shape[1:3], (width, height))
                for own_boxes, own_scores, (width, height) in zip(boxes, class_scores, sizes.tolist(), strict=True)
            ]

    def _suppress(
        self, boxes: torch.Tensor, class_scores: torch.Tensor, canvas: tuple[int, ...], size: tuple[int, int]
    ) -> Detections:
        if len(boxes) > _MOST_CANDIDATES:
            first = class_scores.amax(1).argsort(descending=True, stable=True)[:_MOST_CANDIDATES]
            boxes, class_scores = boxes[first], class_scores[first]
        kept = suppress(boxes, class_scores, self.settings.iou, self.settings.max_detections, canvas)
        return Detections(to_original(boxes[kept].numpy(), canvas, size), class_scores[kept].numpy())

    def _refuse_other_grid(self, stride: int) -> None:
        size = self.settings.image_size
        if size % stride:
            raise DetectorError(
                f"image size {size} does not fit the checkpoint: give a multiple of {stride}, its stride"
            )
        if self.settings.canvas == "rectangle" and stride > _RECTANGLE_STRIDE:
            raise DetectorError(f"canvas rectangle does not fit the checkpoint, whose stride is {stride}: use square")


def _start(network: Any, engine: Engine, device: torch.device) -> Callable[[np.ndarray], list[torch.Tensor]]:
    """From (n, height, width, 3) uint8 RGB canvases to the maps of the head."""
    if engine.backend != "torch":
        raise DetectorError(f"backend {engine.backend!r} does not run yolov5-classic models: use torch")
    wanted = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[engine.precision]
    if wanted is torch.float16 and device.type == "cpu":
        raise DetectorError("precision fp16 needs a GPU: use fp32 or bf16 on a CPU")
    if wanted is torch.float32:
        torch.backends.cudnn.allow_tf32 = False  # otherwise a GPU's convolutions keep ten bits of each number
    stored = torch.float16 if wanted is torch.float16 else torch.float32  # bf16 is autocast
    network = network.to(dtype=stored, memory_format=torch.channels_last)

    def run(canvases: np.ndarray) -> list[torch.Tensor]:
        batch = torch.from_numpy(canvases)
        if device.type == "cuda":
            batch = batch.pin_memory().to(device, non_blocking=True)
        images = batch.permute(0, 3, 1, 2).to(stored) / 255
        with torch.autocast(device.type, torch.bfloat16, enabled=wanted is torch.bfloat16):
            maps: list[torch.Tensor] = network(images)
        return maps

    return run
