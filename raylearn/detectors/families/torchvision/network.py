"""What a torchvision model gives for a batch of canvases: candidates, as its own post-processing has them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

from raylearn.detectors.base import BOX_EMBEDDING
from raylearn.detectors.embeddings import embed, embed_at, pooled
from raylearn.errors import DivergedError

_SMALLEST_SIDE = 1e-2  # pixels, of a box of Faster R-CNN


@dataclass(frozen=True)
class Candidates:
    """What may be kept of one image: pairs of a box and a class, in torchvision's order.

    Args:
        boxes: (n, 4) xyxy in canvas pixels, as they are for the class of the pair.
        scores: (n,) of the class of the pair.
        class_ids: (n,) of the pair.
        class_scores: (n, K) all scores of what the head looked at, an anchor or a proposal.
        rows: (n,) position of the anchor in its image, or of the proposal in the batch.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    class_ids: torch.Tensor
    class_scores: torch.Tensor
    rows: torch.Tensor


def kept(candidates: Candidates, iou: float, max_detections: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The boxes that torchvision keeps, each with all its class scores, and each anchor or proposal once.

    torchvision suppresses pairs of a box and a class, so it can keep one anchor or proposal for several classes, with
    one row of scores. A row has one predicted class, its highest: only the pair of that class stays. It has been
    suppressed, or not, among all pairs, so what stays is what torchvision gives, less the pairs of other classes; and
    `max_detections` counts what stays.

    Returns:
        (m, 4) xyxy in canvas pixels, (m, K) and the (m,) rows, the most confident first.
    """
    survivors = batched_nms(candidates.boxes, candidates.scores, candidates.class_ids, iou)
    boxes, class_scores, class_ids, rows = (
        values[survivors].cpu().numpy()
        for values in (candidates.boxes, candidates.class_scores, candidates.class_ids, candidates.rows)
    )
    predicted = np.flatnonzero(class_scores.argmax(axis=1) == class_ids)[:max_detections]
    return boxes[predicted], class_scores[predicted], rows[predicted]


@dataclass(frozen=True)
class Features:
    """What embeddings of a batch are made of.

    Args:
        of_images: (n, C).
        of_classes: what the last layer of the class branch was given: (proposals of the batch, c), or of each level
            (n, c, height, width).
        anchors_per_cell: of a level; 0 for proposals.
    """

    of_images: torch.Tensor
    of_classes: Sequence[torch.Tensor]
    anchors_per_cell: int

    def of_boxes(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """(k, BOX_EMBEDDING) float16, from the rows that `kept` gave of each image."""
        device = self.of_images.device
        anchors = torch.from_numpy(np.concatenate(rows)).to(device)
        if not self.anchors_per_cell:
            return embed(self.of_classes[0][anchors], BOX_EMBEDDING)
        images = np.repeat(np.arange(len(rows)), [len(own) for own in rows])
        return embed_at(self.of_classes, torch.from_numpy(images).to(device), anchors, self.anchors_per_cell)


class Network:
    """A trained model up to its candidates; boxes and scores are made in fp32, whatever its layers compute in.

    Args:
        model: of `open_model`, in evaluation mode.
        precision: "fp32", "fp16" or "bf16", of the layers.
        device: where it is.
        confidence: pairs whose score is not higher are no candidates.
        embeddings: whether to give what embeddings are made of too.
    """

    def __init__(
        self, model: Any, precision: str, device: torch.device, confidence: float, embeddings: bool = False
    ) -> None:
        self._model, self._device, self._confidence, self._embeddings = model, device, confidence, embeddings
        self._class_features: list[torch.Tensor] = []  # of one call, until it returns
        if embeddings:
            for layer in _last_class_layers(model):
                layer.register_forward_pre_hook(lambda _, given: self._class_features.append(given[0]))
        compute_layers_in(model, precision, device, look_at=_refuse_what_is_not_finite)
        heads: dict[type, Callable[..., Iterator[Candidates]]] = {
            FasterRCNN: self._two_stages,
            SSD: self._default_boxes,
            FCOS: self._levels,
            RetinaNet: self._levels,
        }
        self._head = heads[type(model)]
        two_stages = isinstance(model, FasterRCNN)
        self._anchors_per_cell = 0 if two_stages else model.anchor_generator.num_anchors_per_location()[0]

    def __call__(self, canvases: np.ndarray) -> tuple[list[Candidates], Features | None]:
        """The candidates of each image; and, if asked for, what embeddings are made of.

        Args:
            canvases: (n, height, width, 3) uint8 RGB.

        Raises:
            DivergedError: a layer gave a number that is not finite.
        """
        self._class_features = []  # a call that ran out of memory may have left some
        batch = torch.from_numpy(canvases)
        if self._device.type == "cuda":
            batch = batch.pin_memory().to(self._device, non_blocking=True)
        pixels = self._model.transform.normalize(batch.permute(0, 3, 1, 2).float() / 255)
        shape = (canvases.shape[1], canvases.shape[2])
        images = ImageList(pixels, [shape] * len(canvases))
        maps = self._model.backbone(pixels)
        candidates = list(self._head(images, maps, shape))
        if not self._embeddings:
            return candidates, None
        class_features, self._class_features = self._class_features, []
        return candidates, Features(pooled(maps.values()), class_features, self._anchors_per_cell)

    def _two_stages(self, images: ImageList, features: Any, shape: tuple[int, int]) -> Iterator[Candidates]:
        """Of Faster R-CNN: every proposal has a box per class."""
        heads = self._model.roi_heads
        proposals, _ = self._model.rpn(images, features)
        logits, regression = heads.box_predictor(
            heads.box_head(heads.box_roi_pool(features, proposals, images.image_sizes))
        )
        counts = [len(found) for found in proposals]
        start = 0
        boxes = heads.box_coder.decode(regression, proposals).reshape(*logits.shape, 4)
        for own_boxes, own_scores in zip(boxes.split(counts), logits.softmax(-1).split(counts), strict=True):
            scores = own_scores[:, 1:]
            rows, class_ids = torch.nonzero(scores > self._confidence, as_tuple=True)
            # The first box is the background's.
            pairs = clip_boxes_to_image(own_boxes[rows, class_ids + 1], shape)
            large = remove_small_boxes(pairs, _SMALLEST_SIDE)
            found = _candidates(pairs[large], scores, rows[large], class_ids[large])
            yield replace(found, rows=found.rows + start)
            start += len(own_boxes)

    def _default_boxes(self, images: ImageList, features: Any, shape: tuple[int, int]) -> Iterator[Candidates]:
        """Of SSD: the best anchors of each class."""
        maps = list(features.values())
        found = self._model.head(maps)
        anchors = self._model.anchor_generator(images, maps)
        for regression, scores, own in zip(
            found["bbox_regression"], found["cls_logits"].softmax(-1)[..., 1:], anchors, strict=True
        ):
            boxes = clip_boxes_to_image(self._model.box_coder.decode_single(regression, own), shape)
            best = [self._best(scores[:, class_id], self._model.topk_candidates) for class_id in range(scores.shape[1])]
            rows = torch.cat(best)
            class_ids = torch.repeat_interleave(torch.tensor([len(of) for of in best])).to(rows)
            yield _candidates(boxes[rows], scores, rows, class_ids)

    def _levels(self, images: ImageList, features: Any, shape: tuple[int, int]) -> Iterator[Candidates]:
        """Of FCOS and RetinaNet: the best pairs of each level of the pyramid."""
        maps = list(features.values())
        found = self._model.head(maps)
        anchors = self._model.anchor_generator(images, maps)
        scores = found["cls_logits"].sigmoid()
        if "bbox_ctrness" in found:
            scores = torch.sqrt(scores * found["bbox_ctrness"].sigmoid())
        per_place = scores.shape[1] // sum(level.shape[-2] * level.shape[-1] for level in maps)
        counts = [level.shape[-2] * level.shape[-1] * per_place for level in maps]
        decode = self._model.box_coder.decode if isinstance(self._model, FCOS) else self._model.box_coder.decode_single
        for regression, own_scores, own in zip(found["bbox_regression"], scores, anchors, strict=True):
            starts = np.cumsum([0, *counts[:-1]]).tolist()
            pairs = torch.cat(
                [
                    self._best(of.flatten(), self._model.topk_candidates) + start * scores.shape[2]
                    for of, start in zip(own_scores.split(counts), starts, strict=True)
                ]
            )
            rows, class_ids = pairs // scores.shape[2], pairs % scores.shape[2]
            boxes = clip_boxes_to_image(decode(regression[rows], own[rows]), shape)
            yield _candidates(boxes, own_scores, rows, class_ids)

    def _best(self, scores: torch.Tensor, most: int) -> torch.Tensor:
        """Positions of the highest scores above the confidence, the highest first."""
        positions = torch.where(scores > self._confidence)[0]
        return positions[scores[positions].topk(min(most, len(positions))).indices]


def _candidates(
    boxes: torch.Tensor, class_scores: torch.Tensor, rows: torch.Tensor, class_ids: torch.Tensor
) -> Candidates:
    return Candidates(boxes, class_scores[rows, class_ids], class_ids, class_scores[rows], rows)


def _last_class_layers(model: Any) -> list[Any]:
    """The layers that give class scores; one may be called for each level."""
    if isinstance(model, FasterRCNN):
        return [model.roi_heads.box_predictor.cls_score]
    head = model.head.classification_head
    return [level[-1] for level in head.module_list] if isinstance(model, SSD) else [head.cls_logits]


def compute_layers_in(
    model: Any, precision: str, device: torch.device, look_at: Callable[[torch.Tensor, str], None] | None = None
) -> None:
    """Lets the convolutions and linear layers of a model compute in a precision; what is between them stays in fp32.

    Under autocast as a whole, anchors and boxes would be in bf16 too, which knows no odd pixel above 256.

    Args:
        look_at: is shown what each part of the model gives, and the precision.
    """
    parts = [model.backbone]
    if isinstance(model, FasterRCNN):
        parts += [model.rpn.head, model.roi_heads.box_head, model.roi_heads.box_predictor]
    else:
        parts.append(model.head)
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    for part in parts:
        part.forward = _in_precision(part.forward, precision, dtype, device, look_at)


def _in_precision(
    forward: Callable[..., Any],
    precision: str,
    dtype: torch.dtype,
    device: torch.device,
    look_at: Callable[[torch.Tensor, str], None] | None,
) -> Callable[..., Any]:
    def run(*inputs: Any) -> Any:
        with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
            given = forward(*inputs)
        return in_fp32(given)

    def in_fp32(given: Any) -> Any:
        if isinstance(given, torch.Tensor):
            if look_at is not None:
                look_at(given, precision)
            return given.float()
        if isinstance(given, dict):
            return type(given)((name, in_fp32(value)) for name, value in given.items())
        return type(given)(in_fp32(value) for value in given)

    return run


def _refuse_what_is_not_finite(given: torch.Tensor, precision: str) -> None:
    """Before any threshold, which NaN would not pass: a diverged model is not a model without detections."""
    if not torch.isfinite(given).all():
        raise DivergedError(
            "the detector gave a box or a score that is not a finite number: its training diverged, or its "
            f"numbers are too large for {precision}"
        )
