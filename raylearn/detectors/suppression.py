"""Which of overlapping boxes are kept."""

from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

_BOXES_AT_ONCE = 3200  # suppression compares all pairs: 64 images of 50 boxes take 1.2 ms on an H200, of 300 18 ms
_CLASS_OFFSET = 7680.0  # pixels, as Ultralytics has it: boxes of two classes never overlap


def suppress(
    boxes: torch.Tensor, class_scores: torch.Tensor, iou: float, max_detections: int, canvas: tuple[int, ...]
) -> torch.Tensor:
    """Non-maximum suppression within each predicted class, for one image.

    Args:
        boxes: (n, 4) xyxy in canvas pixels.
        class_scores: (n, K).
        iou: of two boxes of one class that overlap by more, the one with the lower class score goes.
        max_detections: the most confident that are kept.
        canvas: (height, width).

    Returns:
        (m,) int64 positions of the kept boxes, the most confident first.
    """
    nms = nms_operator()
    confidences, class_ids = class_scores.max(1)
    apart = boxes + class_ids[:, None] * max(_CLASS_OFFSET, *canvas)
    kept: torch.Tensor = nms(apart, confidences, iou)[:max_detections]
    return kept


def suppress_batch(
    boxes: torch.Tensor,
    class_scores: torch.Tensor,
    images: torch.Tensor,
    counts: Sequence[int],
    iou: float,
    max_detections: int,
    canvas: tuple[int, ...],
) -> torch.Tensor:
    """`suppress` of many images in few calls, for a GPU, which a call per image would leave idle.

    Args:
        boxes: (n, 4) xyxy in canvas pixels, image after image.
        class_scores: (n, K).
        images: (n,) int64, the image of each box, ascending.
        counts: boxes of each image.
        iou, max_detections, canvas: see `suppress`.

    Returns:
        (m,) int64 positions of the kept boxes, image after image, the most confident of each first.
    """
    nms = nms_operator()
    confidences, class_ids = class_scores.max(1)
    offset = max(_CLASS_OFFSET, *canvas)
    # In double precision, as otherwise the offset of an image would round its boxes by where it lies in its batch.
    apart = (boxes + class_ids[:, None] * offset).double()
    width = 2 * offset * (class_scores.shape[1] + 1)
    kept = [torch.empty(0, dtype=torch.int64, device=boxes.device)]
    for start, end in _few_boxes(counts):
        moved = apart[start:end] + (images[start:end] - images[start])[:, None] * width
        kept.append(nms(moved, confidences[start:end].double(), iou) + start)
    together = torch.cat(kept)
    together = together[torch.sort(images[together], stable=True).indices]
    of_image = images[together]
    first = torch.searchsorted(of_image, of_image)  # of each box, where its image begins
    rank = torch.arange(len(together), device=boxes.device) - first
    return together[rank < max_detections]


def _few_boxes(counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Starts and ends of runs of whole images with at most `_BOXES_AT_ONCE` boxes, or one image that has more."""
    start = end = 0
    for count in counts:
        if end > start and end + count - start > _BOXES_AT_ONCE:
            yield start, end
            start = end
        end += count
    if end > start:
        yield start, end


@cache
def nms_operator() -> Any:
    """torchvision's `nms`, out of its compiled library: its Python package would import torch's compiler, a second."""
    package = find_spec("torchvision")
    try:
        for folder in (package and package.submodule_search_locations) or ():
            for library in Path(folder).glob("_C*.so"):
                torch.ops.load_library(library)
        return torch.ops.torchvision.nms
    except (OSError, AttributeError):  # laid out in another way
        from torchvision.ops import nms

        return nms
