"""Fits images of any shape into the canvases that detectors take."""

import cv2
import numpy as np

from raylearn.errors import InputError, nearest

CANVASES = ("square", "rectangle")
_PADDING = 114  # the grey that Ultralytics letterboxes with, in training too
_STRIDE = 32  # of a detector's coarsest grid


def canvas_shape(size: tuple[int, int], image_size: int, canvas: str) -> tuple[int, int]:
    """Height and width of what an image is letterboxed into; decided by the image alone, never by its batch mates.

    Args:
        size: (width, height) of the upright image.
        image_size: what the longer side is scaled to, pixels.
        canvas: "square": image_size x image_size, as in training. "rectangle": the shorter side is padded to the next
            multiple of 32 only, as Ultralytics' predict does with one image; of a 4:3 image a quarter less to compute.

    Raises:
        InputError: an unknown canvas.
    """
    if canvas not in CANVASES:
        raise InputError(f"unknown canvas {canvas!r}: {nearest(canvas, CANVASES)}")
    if canvas == "square":
        return image_size, image_size
    width, height = _scaled(size, image_size)
    return height + (image_size - height) % _STRIDE, width + (image_size - width) % _STRIDE


def letterbox(
    image: np.ndarray, image_size: int, canvas: str = "square", size: tuple[int, int] | None = None
) -> np.ndarray:
    """Scales an image into the middle of a grey canvas, as Ultralytics' LetterBox does.

    Args:
        image: (h, w, 3) uint8.
        image_size: what the longer side is scaled to, pixels.
        canvas: of `CANVASES`.
        size: (width, height) of the original, where `image` was decoded at less than that.

    Returns:
        (height, width, 3) uint8 of `canvas_shape`.
    """
    size = size or (image.shape[1], image.shape[0])
    shape = canvas_shape(size, image_size, canvas)
    width, height = _scaled(size, image_size)
    if (height, width) == shape == image.shape[:2]:
        return image
    top, left = round((shape[0] - height) / 2 - 0.1), round((shape[1] - width) / 2 - 0.1)
    padded = np.empty((*shape, 3), dtype=np.uint8)
    inner = padded[top : top + height, left : left + width]
    if (height, width) == image.shape[:2]:
        inner[:] = image
    else:
        cv2.resize(image, (width, height), dst=inner, interpolation=cv2.INTER_LINEAR)
    padded[:top], padded[top + height :] = _PADDING, _PADDING
    padded[:, :left], padded[:, left + width :] = _PADDING, _PADDING
    return padded


def to_original(boxes: np.ndarray, canvas: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    """Boxes of a letterboxed image in pixels of its original, and within it.

    Args:
        boxes: (n, 4) xyxy in canvas pixels.
        canvas: (height, width) of the canvas.
        size: (width, height) of the upright original.

    Returns:
        (n, 4) float32.
    """
    gain, offset = _placement(canvas, size)
    unpadded = (boxes.astype(np.float64) - offset) / gain
    return np.asarray(np.clip(unpadded, 0, (*size, *size)), dtype=np.float32)


def to_canvas(boxes: np.ndarray, canvas: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    """Boxes of an original image in pixels of its canvas: what `to_original` undoes.

    Args:
        boxes: (n, 4) xyxy in pixels of the upright original.
        canvas: (height, width) of the canvas.
        size: (width, height) of the upright original.

    Returns:
        (n, 4) float32.
    """
    gain, offset = _placement(canvas, size)
    return np.asarray(boxes.astype(np.float64) * gain + offset, dtype=np.float32)


def _placement(canvas: tuple[int, ...], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Factor and offset in pixels, each (4,), from a box of the original to one of the canvas."""
    width, height = _scaled(size, max(canvas))
    left, top = round((canvas[1] - width) / 2 - 0.1), round((canvas[0] - height) / 2 - 0.1)
    return np.array([width / size[0], height / size[1]] * 2), np.array([left, top] * 2)


def _scaled(size: tuple[int, int], image_size: int) -> tuple[int, int]:
    width, height = size
    ratio = min(image_size / height, image_size / width)
    return max(round(width * ratio), 1), max(round(height * ratio), 1)
