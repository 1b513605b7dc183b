"""YOLOv5 and the other Ultralytics detectors whose head gives a score for every class.

Ultralytics is AGPL-3.0. This module is imported only where a detector is used.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raylearn.detectors.base import CheckpointFacts, Detections, DetectorSettings, Engine, TrainingSet
from raylearn.detectors.checkpoint_contents import contents_of, unknown_to_torch
from raylearn.detectors.checkpoints import (
    facts_of,
    first_line,
    load_matching,
    refuse_no_weights,
    tensors_in,
    write_checkpoint,
)
from raylearn.detectors.embeddings import embed_at, with_embeddings
from raylearn.detectors.families.ultralytics import FORMAT, recognises
from raylearn.detectors.families.ultralytics.engines import Canvases, RawModel, start_engine
from raylearn.detectors.families.ultralytics.isolation import isolate_ultralytics
from raylearn.detectors.families.ultralytics.known import OTHER_TASKS
from raylearn.detectors.suppression import nms_operator, suppress, suppress_batch
from raylearn.errors import CheckpointError, ConfigError, DetectorError, DivergedError, nearest

isolate_ultralytics()

from ultralytics.cfg import get_cfg  # noqa: E402
from ultralytics.nn.modules.head import Detect, v10Detect  # noqa: E402
from ultralytics.nn.tasks import DetectionModel, load_checkpoint  # noqa: E402
from ultralytics.utils.ops import scale_boxes, xywh2xyxy  # noqa: E402

_WARM_UP = 64  # pixels
_OPTIMIZERS = ("auto", "SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSProp")


class YoloDetector:
    """The Ultralytics family behind the Detector protocol.

    Args:
        model: an Ultralytics architecture by name, such as yolov5n, yolov8s or yolo11m.
        settings: what decides the detections of a trained model.
        training: Ultralytics' training arguments; `epochs` and `batch` among them.
        device: "cpu" or "cuda:0".
        num_threads: threads on the CPU, where None leaves the library's own choice; beside a GPU, processes that load
            the images of a training, where None loads them in this one.
        engine: what runs the trained network.
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
        self._run: RawModel | None = None
        self._one_at_a_time = threading.Lock()  # the head keeps its grid between calls
        self.class_names: tuple[str, ...] = ()

    def fit(
        self, train: TrainingSet, *, initial_weights: Path | None, seed: int, checkpoint: Path
    ) -> dict[str, object]:
        """Trains with Ultralytics' own trainer; see Detector.fit."""
        from raylearn.detectors.families.ultralytics.training import train_model

        # Seeded here because the random head of a fresh model is drawn before the trainer seeds itself.
        torch.manual_seed(seed)
        model = build_model(self.model_name, len(train.class_names))
        report: dict[str, object] = {}
        if initial_weights is not None:
            matched, total = load_matching(model, read_weights(initial_weights), initial_weights)
            report = {"tensors_matched": matched, "tensors_total": total}
        arguments = {**self._training, "imgsz": self.settings.image_size, "seed": seed, "device": str(self._device)}
        # Beside a GPU the CPUs are free to augment; on a CPU they train.
        num_workers = 0 if self._device.type == "cpu" else self._num_threads or 0
        trained = train_model(model, train, arguments, self._limit_threads, num_workers)
        image_size, weights = self.settings.image_size, trained.state_dict()
        write_checkpoint(checkpoint, FORMAT, self.model_name, train.class_names, image_size, weights)
        return report

    def load(self, checkpoint: Path) -> None:
        """Makes `predict` use this checkpoint, raylearn's or Ultralytics'; its own architecture and classes count.

        Raises:
            CheckpointError: the file is torn, or no detector.
            DetectorError: its head gives no class scores, or the engine is not to be had.
        """
        nms_operator()  # predict needs it, and its first images are not to wait for it
        model, facts = open_model(checkpoint)
        self.class_names = facts.class_names
        self._limit_threads()
        fused = model.to(self._device).eval().fuse(verbose=False)
        with torch.inference_mode():
            run = start_engine(fused, self._engine, self._device, self._num_threads, self.settings.embeddings)
            run(np.zeros((1, _WARM_UP, _WARM_UP, 3), dtype=np.uint8))  # what an engine does once, it does here
            if self._device.type == "cuda":
                torch.cuda.synchronize()  # the streams of threads do not wait for this one
        self._run = run

    def predict(self, canvases: Canvases, sizes: np.ndarray) -> list[Detections]:
        """Detections of each image; see Detector.predict. Threads may call it at once."""
        if self._run is None:
            raise RuntimeError("load a checkpoint before predict")
        with torch.inference_mode():
            with self._one_at_a_time:
                given = self._run(canvases)
            raw = given.predictions
            # Looked at before the threshold, which NaN would not pass: a diverged model is no model without detections.
            if not torch.isfinite(raw).all():
                raise DivergedError(
                    "the detector gave a box or a score that is not a finite number: its training diverged, or its "
                    f"numbers are too large for {self._engine.precision}"
                )
            image, anchor = torch.nonzero(raw[:, 4:].amax(1) > self.settings.confidence, as_tuple=True)
            candidates = raw[image, :, anchor]
            counts = torch.bincount(image, minlength=len(raw)).tolist()
            kept = self._suppress(candidates, image, counts, canvases.shape[1:3])
            detections = _detections(candidates[kept].cpu(), image[kept], canvases.shape[1:3], sizes)
            if not self.settings.embeddings:
                return detections
            return with_embeddings(detections, embed_at(given.class_features, image[kept], anchor[kept]), given.pooled)

    def _suppress(
        self, candidates: torch.Tensor, image: torch.Tensor, counts: list[int], canvas: tuple[int, ...]
    ) -> torch.Tensor:
        """Non-maximum suppression within each image and class, among candidates given as xywh boxes in a canvas.

        Args:
            candidates: (n, 4 + K), image after image.
            image: (n,) int64, the image of each.
            counts: candidates of each image.
            canvas: (height, width).

        Returns:
            (m,) int64 positions of what is kept, image after image.
        """
        boxes, class_scores = xywh2xyxy(candidates[:, :4]), candidates[:, 4:]
        iou, most = self.settings.iou, self.settings.max_detections
        if candidates.is_cuda:
            return suppress_batch(boxes, class_scores, image, counts, iou, most, canvas)
        starts = np.cumsum([0, *counts[:-1]]).tolist()  # a CPU is faster with few boxes at a time
        of_each = zip(boxes.split(counts), class_scores.split(counts), starts, strict=True)
        return torch.cat([suppress(own, scores, iou, most, canvas) + start for own, scores, start in of_each])

    def _limit_threads(self) -> None:
        """Undoes Ultralytics, which takes all cores but one whenever it selects the CPU."""
        if self._num_threads is not None and self._device.type == "cpu":
            torch.set_num_threads(self._num_threads)


def _detections(
    kept: torch.Tensor, image: torch.Tensor, canvas: tuple[int, ...], sizes: np.ndarray
) -> list[Detections]:
    """The detections of each image, of (m, 4 + K) kept candidates in its canvas, image after image."""
    image = image.cpu()
    boxes, class_scores = xywh2xyxy(kept[:, :4]), kept[:, 4:]
    for width, height in np.unique(sizes, axis=0).tolist():  # mostly all images are of one size
        alike = torch.from_numpy((sizes == (width, height)).all(1))[image]
        boxes[alike] = scale_boxes(canvas, boxes[alike], (height, width))
    counts = torch.bincount(image, minlength=len(sizes)).tolist()
    found = zip(boxes.split(counts), class_scores.split(counts), strict=True)
    return [Detections(own.numpy(), scores.numpy()) for own, scores in found]


def build_model(name: str, num_classes: int) -> Any:
    """An untrained model of this architecture that gives (batch, 4 + num_classes, anchors).

    Raises:
        DetectorError: Ultralytics does not know the name, or its head gives no class scores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # it tries one small image, for which two would rather wait for each other
    try:
        model = DetectionModel(f"{name}.yaml", nc=num_classes, verbose=False)
    except Exception as error:  # Ultralytics raises whatever its parser stumbled over
        raise DetectorError(
            f"detector.model {name!r} is no detector that can be used here ({first_line(error)}): "
            "name an Ultralytics detection architecture such as yolov5n, yolov8s or yolo11m"
        ) from error
    finally:
        torch.set_num_threads(threads)
    _use_class_scores(model, f"detector.model {name!r}")
    return model


def open_model(path: Path) -> tuple[Any, CheckpointFacts]:
    """The trained network of a checkpoint, raylearn's or a whole Ultralytics one, and what is known of it.

    Raises:
        CheckpointError: no file, a torn one, or no detector.
        DetectorError: its head gives no class scores.
    """
    content = _open(path)
    if isinstance(content, dict) and content.get("format") == FORMAT:
        facts = facts_of(content, path)
        try:
            model = build_model(facts.model, len(facts.class_names))
            model.load_state_dict(content["state_dict"])
        except (KeyError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"{path} is no whole checkpoint: {first_line(error)}") from error
        return model, facts
    task = next((OTHER_TASKS[kind.__name__] for kind in type(content).__mro__ if kind.__name__ in OTHER_TASKS), None)
    if task:
        raise CheckpointError(
            f"{path} is a {task} model, which gives no boxes with class scores: give one trained for detection, as "
            "`yolo detect train` writes it"
        )
    if not isinstance(content, DetectionModel):
        raise CheckpointError(f"{path} is no detector: give a checkpoint of raylearn's, or Ultralytics' best.pt")
    _use_class_scores(content, str(path))
    names = tuple(str(content.names[index]) for index in range(len(content.names)))
    image_size = (content.args if isinstance(content.args, dict) else vars(content.args)).get("imgsz")
    name = Path(str(content.yaml.get("yaml_file", "yolo"))).stem
    return content, CheckpointFacts(name, names, image_size if isinstance(image_size, int) else None)


def _use_class_scores(model: Any, source: str) -> None:
    head = model.model[-1]
    if type(head) not in (Detect, v10Detect):
        raise DetectorError(
            f"{source} ends in {type(head).__name__}, which gives no class scores that survive its "
            "post-processing: use a model with a Detect head, such as yolov5n, yolov8s or yolo11m"
        )
    # A dual head (YOLOv10, YOLO26) has class scores in its one-to-many branch; the other answers with six columns.
    head.end2end = False
    if head.end2end:
        raise DetectorError(f"{source} has an NMS-free head without class scores: use yolov5n, say")


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Raises ConfigError if Ultralytics would not train with these arguments."""
    try:
        get_cfg(overrides=dict(arguments))
    except (ValueError, TypeError, SyntaxError) as error:
        raise ConfigError(f"training.options: {first_line(error)}") from error
    optimizer = arguments.get("optimizer", "auto")
    if str(optimizer).lower() not in {name.lower() for name in _OPTIMIZERS}:
        raise ConfigError(f"training.options: unknown optimizer {optimizer!r}: {nearest(str(optimizer), _OPTIMIZERS)}")


def check_freeze(freeze: object, num_layers: int, begins_with_weights: bool) -> None:
    """Raises ConfigError where these first layers of a model cannot stay as they are."""
    if freeze is None:
        return
    if isinstance(freeze, bool) or not isinstance(freeze, int) or not 0 <= freeze < num_layers:
        raise ConfigError(
            f"training.options.freeze is {freeze!r}: it must be a number of first layers, 0 to {num_layers - 1}"
        )
    if freeze and not begins_with_weights:
        raise ConfigError(
            "training.options.freeze keeps layers as detector.initial_weights has them: give those too, or leave it out"
        )


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name from a raylearn checkpoint, a plain state dict, or an Ultralytics .pt.

    Raises:
        CheckpointError: the file is missing, torn, or holds no tensors.
    """
    refuse_no_weights(path)
    content = _open(path)
    if isinstance(content, torch.nn.Module):
        content = content.state_dict()
    return tensors_in(content, FORMAT, path)


def _open(path: Path) -> Any:
    """The content of a .pt file without running any code in it: plain tensors, or a whole Ultralytics model."""
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} is not there: give a .pt file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        # Once Ultralytics has opened a model in this process, torch opens theirs too, in the dict they are kept in.
        if not (isinstance(content, dict) and isinstance(content.get("ema") or content.get("model"), torch.nn.Module)):
            return content
    except Exception:  # not plain tensors: either a whole Ultralytics model, or no checkpoint
        pass
    try:
        return load_checkpoint(path)[0].float()
    except Exception as error:
        contents = contents_of(path)
        # Of other files not Ultralytics' own words, which advise to run commands of its own.
        why = first_line(error) if recognises(contents) else unknown_to_torch(contents)
        raise CheckpointError(f"{path} cannot be opened as a checkpoint: {why}") from error
