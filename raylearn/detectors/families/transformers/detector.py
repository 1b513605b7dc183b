"""The detectors of transformers behind the Detector protocol."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raylearn.detectors.base import Detections, DetectorSettings, Engine, TrainingSet
from raylearn.detectors.families.transformers.models import build_model, load_weights, open_model, save_model
from raylearn.detectors.families.transformers.pixels import pixel_values
from raylearn.detectors.families.transformers.training import read_options, train_model
from raylearn.detectors.letterbox import to_original
from raylearn.errors import DetectorError, DivergedError, nearest

_PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TransformersDetector:
    """One query of the network is at most one detection, with its scores for all classes.

    The library's own post-processing takes the best pairs of query and class, so a query can come twice, each time with
    one score. Here it comes once. There is no suppression: `settings.iou` has no meaning.

    Args:
        model: a model type, a folder with a config.json, or the text of one.
        settings: what decides the detections of a trained model.
        training: see `raylearn.detectors.families.transformers.training.Options`.
        device: "cpu" or "cuda:0".
        num_threads: threads on the CPU; None leaves torch's own choice.
        engine: what runs the trained network.

    Raises:
        DetectorError: a backend or precision that is not to be had here.
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
        self.settings = settings
        self.class_names: tuple[str, ...] = ()
        self._model = model
        self._training = dict(training or {})
        self._device = torch.device(device)
        self._num_threads = num_threads
        self._engine = engine or Engine()
        self._network: Any = None
        _refuse_engine(self._engine, self._device)

    def fit(
        self, train: TrainingSet, *, initial_weights: Path | None, seed: int, checkpoint: Path
    ) -> dict[str, object]:
        """Trains with the library's own loss; see Detector.fit. Random states stay as they were."""
        self._prepare_device()
        report: dict[str, object] = {}
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(seed)
            network = build_model(self._model, train.class_names)
            if initial_weights is not None:
                matched, total = load_weights(network, initial_weights)
                report = {"tensors_matched": matched, "tensors_total": total}
            image_size = self.settings.image_size
            train_model(network.to(self._device), train, read_options(self._training), image_size, seed)
        save_model(network, checkpoint, train.class_names, image_size)
        return report

    def load(self, checkpoint: Path) -> None:
        """Makes `predict` use this checkpoint; its own architecture and classes count.

        Raises:
            CheckpointError: the file is torn, or of another family.
        """
        network, facts = open_model(checkpoint)
        self._prepare_device()
        self.class_names = facts.class_names
        self._network = network.to(self._device).eval()
        if self._engine.precision != "fp32":
            _reduce_backbone(self._network, _PRECISIONS[self._engine.precision], self._device)

    def predict(self, canvases: np.ndarray, sizes: np.ndarray) -> list[Detections]:
        """Detections of each image; see Detector.predict. Threads may call it at once."""
        if self._network is None:
            raise RuntimeError("load a checkpoint before predict")
        # Not inference_mode: the library keeps anchors for later networks, and a training cannot save those of it.
        with torch.no_grad():
            found = self._network(pixel_values(canvases, self._network.config, self._device))
            boxes, class_scores = found.pred_boxes.cpu().numpy(), found.logits.sigmoid().cpu().numpy()
        # Looked at before the threshold, which NaN would not pass: a diverged model is no model without detections.
        if not (np.isfinite(boxes).all() and np.isfinite(class_scores).all()):
            raise DivergedError(
                "the detector gave a box or a score that is not a finite number: its training diverged, or its "
                f"numbers are too large for {self._engine.precision}"
            )
        return [
            self._keep(of_image, scores, canvases.shape[1:3], (width, height))
            for of_image, scores, (width, height) in zip(boxes, class_scores, sizes.tolist(), strict=True)
        ]

    def _keep(
        self, boxes: np.ndarray, class_scores: np.ndarray, canvas: tuple[int, ...], size: tuple[int, int]
    ) -> Detections:
        """The most confident queries of one image, given with (n, 4) cxcywh boxes in fractions of its canvas."""
        confidences = class_scores.max(axis=1)
        order = np.argsort(-confidences, kind="stable")[: self.settings.max_detections]
        kept = order[confidences[order] > self.settings.confidence]
        centres, halves = boxes[kept, :2], boxes[kept, 2:] / 2
        corners = np.concatenate([centres - halves, centres + halves], axis=1) * (*canvas[::-1], *canvas[::-1])
        return Detections(to_original(corners, canvas, size), class_scores[kept])

    def _prepare_device(self) -> None:
        if self._device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # otherwise convolutions keep ten bits of each number
        elif self._num_threads is not None:
            torch.set_num_threads(self._num_threads)


def check_training(model: str, training: Mapping[str, Any], initial_weights: Path | None) -> None:
    """See raylearn.detectors.family.Check."""
    read_options(training)
    with torch.random.fork_rng(devices=[]):
        network = build_model(model, ["any"])
    if initial_weights is not None:
        load_weights(network, initial_weights)


def weights_taken(model: str, num_classes: int, initial_weights: Path) -> tuple[int, int]:
    """See raylearn.detectors.family.Taken."""
    with torch.random.fork_rng(devices=[]):
        network = build_model(model, [f"class {number}" for number in range(num_classes)])
    return load_weights(network, initial_weights)


def _refuse_engine(engine: Engine, device: torch.device) -> None:
    if engine.backend != "torch":
        raise DetectorError(f"backend {engine.backend!r} does not run detectors of the family transformers: use torch")
    if engine.precision not in _PRECISIONS:
        raise DetectorError(f"unknown precision {engine.precision!r}: {nearest(engine.precision, _PRECISIONS)}")
    if engine.precision == "fp16" and device.type == "cpu":
        raise DetectorError("precision fp16 needs a GPU: use fp32 or bf16 on a CPU")


def _reduce_backbone(network: Any, precision: torch.dtype, device: torch.device) -> None:
    """Runs the backbone, most of the work, in fewer bits; queries and boxes stay in fp32."""
    backbone = network.model.backbone
    whole = backbone.forward

    def forward(pixels: torch.Tensor, mask: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        with torch.autocast(device.type, precision):
            return [(features.float(), places) for features, places in whole(pixels, mask)]

    backbone.forward = forward
