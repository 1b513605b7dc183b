"""Which of overlapping boxes are kept."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

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
