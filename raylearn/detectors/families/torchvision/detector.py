"""torchvision's detectors behind the Detector protocol. This module is imported only where a detector is used."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raylearn.detectors.base import Detections, DetectorSettings, Engine, TrainingSet
from raylearn.detectors.checkpoints import write_checkpoint
from raylearn.detectors.embeddings import with_embeddings
from raylearn.detectors.families.torchvision import FORMAT
from raylearn.detectors.families.torchvision.models import build_model, load_initial_weights, open_model
from raylearn.detectors.families.torchvision.network import Network, kept
from raylearn.detectors.families.torchvision.options import TrainingOptions
from raylearn.detectors.letterbox import to_original
from raylearn.errors import DetectorError, nearest

_WARM_UP = 64  # pixels
_PRECISIONS = ("fp32", "fp16", "bf16")


class TorchvisionDetector:
    """A detection model of torchvision.

    Its detections are those that torchvision's own call gives for the canvas, each with all its class scores; of an
    anchor or a proposal that torchvision keeps for several classes, only the one of its highest class. See `kept`.

    Canvases of any size are taken as they are, without the scaling that torchvision puts before its models. At another
    size than 320 SSDlite's anchors keep their share of the canvas, and Faster R-CNN's, RetinaNet's and FCOS's their
    pixels.

    Args:
        model: by torchvision's name, such as ssdlite320_mobilenet_v3_large.
        settings: what decides the detections of a trained model.
        training: see TrainingOptions.
        device: "cpu" or "cuda:0".
        num_threads: threads on the CPU; None leaves torch's own choice.
        engine: what runs the trained network.

    Raises:
        DetectorError: a backend or precision that this family does not have.
    """

    def __init__(
        self,
        model: str,
        settings: DetectorSettings,
        training: Mapping[str, Any] | None = None,
        device: str = "cpu",
        num_threads: int | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.model_name = model
        self.settings = settings
        self._training = dict(training or {})
        self._device = torch.device(device)
        self._num_threads = num_threads
        self._engine = engine or Engine()
        self._network: Network | None = None
        self._one_at_a_time = threading.Lock()  # the models keep their anchors between calls
        self.class_names: tuple[str, ...] = ()
        if self._engine.backend != "torch":
            raise DetectorError(f"family torchvision has no backend {self._engine.backend!r}: use torch")
        if self._engine.precision not in _PRECISIONS:
            raise DetectorError(
                f"unknown precision {self._engine.precision!r}: {nearest(self._engine.precision, _PRECISIONS)}"
            )
        if self._engine.precision == "fp16" and self._device.type == "cpu":
            raise DetectorError("precision fp16 needs a GPU: use fp32 or bf16 on a CPU")

    def fit(
        self, train: TrainingSet, *, initial_weights: Path | None, seed: int, checkpoint: Path
    ) -> dict[str, object]:
        """Trains with the losses of torchvision's own model; see Detector.fit."""
        from raylearn.detectors.families.torchvision.training import train_model

        options = TrainingOptions.of(self._training, self.model_name)
        model = build_model(self.model_name, len(train.class_names), seed)
        report: dict[str, object] = {}
        if initial_weights is not None:
            matched, total = load_initial_weights(model, self.model_name, initial_weights)
            report = {"tensors_matched": matched, "tensors_total": total}
        self._limit_threads()
        image_size = self.settings.image_size
        weights = train_model(model, self.model_name, train, options, image_size, seed, self._device)
        write_checkpoint(checkpoint, FORMAT, self.model_name, train.class_names, image_size, weights)
        return report

    def load(self, checkpoint: Path) -> None:
        """Makes `predict` use this checkpoint; its own architecture and classes count.

        Raises:
            CheckpointError: the file is torn, or not a checkpoint of this family.
        """
        model, facts = open_model(checkpoint)
        self.class_names = facts.class_names
        self._limit_threads()
        if self._device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # otherwise a GPU's convolutions keep ten bits of each number
        # channels_last is how the pixels lie already, and what both oneDNN and cuDNN are fastest with.
        model = model.to(self._device, memory_format=torch.channels_last).eval()
        self._network = Network(
            model, self._engine.precision, self._device, self.settings.confidence, self.settings.embeddings
        )
        # What is done once, such as choosing kernels, is done here.
        self.predict(np.zeros((1, _WARM_UP, _WARM_UP, 3), np.uint8), np.array([[_WARM_UP, _WARM_UP]]))

    def predict(self, canvases: np.ndarray, sizes: np.ndarray) -> list[Detections]:
        """Detections of each image; see Detector.predict. Threads may call it at once."""
        if self._network is None:
            raise RuntimeError("load a checkpoint before predict")
        with torch.inference_mode():
            with self._one_at_a_time:
                candidates, features = self._network(canvases)
            found = [kept(image, self.settings.iou, self.settings.max_detections) for image in candidates]
            detections = [
                Detections(to_original(boxes, canvases.shape[1:3], (width, height)), class_scores)
                for (boxes, class_scores, _), (width, height) in zip(found, sizes.tolist(), strict=True)
            ]
            if features is None:
                return detections
            return with_embeddings(detections, features.of_boxes([rows for _, _, rows in found]), features.of_images)

    def _limit_threads(self) -> None:
        if self._num_threads is not None and self._device.type == "cpu":
            torch.set_num_threads(self._num_threads)
