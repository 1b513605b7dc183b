"""The anchor head of YOLOv5: from raw maps to boxes and class scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Candidates:
    """Boxes above the confidence threshold, before suppression.

    Args:
        images: (n,) int64, the position in the batch of the image that each is in; ascending.
        boxes: (n, 4) float32 xyxy in canvas pixels.
        class_scores: (n, K) float32, objectness x probability of each class.
    """

    images: torch.Tensor
    boxes: torch.Tensor
    class_scores: torch.Tensor


class AnchorDecoder:
    """Decodes in fp32, whatever the network computed in: eleven bits are half a pixel of a box.

    A cell of a map predicts a box for each anchor (Jocher et al., YOLOv5, 10.5281/zenodo.3908559):
    centre = (2 sigmoid(t_xy) - 0.5 + cell) x stride, size = (2 sigmoid(t_wh))^2 x anchor.

    Args:
        anchors: (L, A, 2) width and height in cells, for each of L maps.
        strides: (L,) pixels per cell.
    """

    def __init__(self, anchors: torch.Tensor, strides: torch.Tensor) -> None:
        self.strides = [int(stride) for stride in strides]
        self._anchors = anchors.float() * strides.float()[:, None, None]  # pixels

    def candidates(self, maps: Sequence[torch.Tensor], confidence: float) -> Candidates:
        """The boxes whose objectness and whose highest class score are both above `confidence`.

        Args:
            maps: L of (n, A x (5 + K), height / stride, width / stride), of any precision.
            confidence: a class score is at most the objectness, so most cells are left out by that alone.
        """
        levels = [
            self._level(level, anchors.to(level.device), stride, confidence)
            for level, anchors, stride in zip(maps, self._anchors, self.strides, strict=True)
        ]
        images, boxes, class_scores = (torch.cat(parts) for parts in zip(*levels, strict=True))
        kept = torch.nonzero(class_scores.amax(1) > confidence)[:, 0]
        kept = kept[images[kept].argsort(stable=True)]
        return Candidates(images[kept], boxes[kept], class_scores[kept])

    def _level(
        self, raw: torch.Tensor, anchors: torch.Tensor, stride: int, confidence: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        cells = raw.unflatten(1, (len(anchors), -1)).permute(0, 1, 3, 4, 2)  # (n, A, height, width, 5 + K)
        image, anchor, row, column = torch.nonzero(cells[..., 4].float().sigmoid() > confidence, as_tuple=True)
        found = cells[image, anchor, row, column].float().sigmoid()
        centres = (2 * found[:, :2] - 0.5 + torch.stack((column, row), 1)) * stride
        halves = (2 * found[:, 2:4]) ** 2 * anchors[anchor] / 2
        return image, torch.cat((centres - halves, centres + halves), 1), found[:, 5:] * found[:, 4:5]


def to_original(boxes: np.ndarray, canvas: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    """Boxes of a letterboxed image in pixels of its original, where the repository puts them.

    Unlike the letterbox it does not round the padding, which is half a canvas pixel where the padding is odd; boxes
    that people compare with what they have from it are not to differ by that.

    Args:
        boxes: (n, 4) xyxy in canvas pixels.
        canvas: (height, width).
        size: (width, height) of the upright original.

    Returns:
        (n, 4) float32, within the original.
    """
    (height, width), extent = canvas, np.array(size)
    gain = min(width / size[0], height / size[1])
    padding = (np.array([width, height]) - extent * gain) / 2
    unpadded = (boxes.astype(np.float64) - np.tile(padding, 2)) / gain
    return np.clip(unpadded, 0, np.tile(extent, 2)).astype(np.float32)
