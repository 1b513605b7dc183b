"""Fits images of any shape into the canvases that detectors take."""

import cv2
import numpy as np

from raylearn.errors import InputError, nearest

CANVASES = ("square", "rectangle")
PADDING = 114  # the grey that Ultralytics letterboxes with, in training too
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
    top, left, height, width = inner_rectangle(size, shape)
    if (height, width) == shape == image.shape[:2]:
        return image
    padded = np.empty((*shape, 3), dtype=np.uint8)
    inner = padded[top : top + height, left : left + width]
    if (height, width) == image.shape[:2]:
        inner[:] = image
    else:
        cv2.resize(image, (width, height), dst=inner, interpolation=cv2.INTER_LINEAR)
    padded[:top], padded[top + height :] = PADDING, PADDING
    padded[:, :left], padded[:, left + width :] = PADDING, PADDING
    return padded


def inner_rectangle(size: tuple[int, int], canvas: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Where an image lies in its canvas.

    Args:
        size: (width, height) of the upright original.
        canvas: (height, width) of the canvas.

    Returns:
        top, left, height and width, pixels.
    """
    width, height = _scaled(size, max(canvas))
    return round((canvas[0] - height) / 2 - 0.1), round((canvas[1] - width) / 2 - 0.1), height, width


def to_original(boxes: np.ndarray, canvas: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    """Boxes of a letterboxed image in pixels of its original, and within it.

    Args:
        boxes: (n, 4) xyxy in canvas pixels.
        canvas: (height, width) of the canvas.
        size: (width, height) of the upright original.

    Returns:
        (n, 4) float32.
    """
    gain, shift = _placement(canvas, size)
    unpadded = (boxes.astype(np.float64) - shift) / gain
    return np.asarray(np.clip(unpadded, 0, (*size, *size)), dtype=np.float32)


def to_canvas(boxes: np.ndarray, canvas: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    """Boxes of an image in pixels of its canvas, the other way round: cut to the image, then moved.

    Args:
        boxes: (n, 4) xyxy in pixels of the upright original.
        canvas: (height, width) of the canvas.
        size: (width, height) of the upright original.

    Returns:
        (n, 4) float64.
    """
    gain, shift = _placement(canvas, size)
    return np.asarray(np.clip(boxes.astype(np.float64), 0, (*size, *size)) * gain + shift)


def _placement(canvas: tuple[int, ...], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(4,) by which corners of the original are multiplied, and (4,) by how much they are moved then."""
    top, left, height, width = inner_rectangle(size, canvas)
    return np.array([width / size[0], height / size[1]] * 2), np.array([left, top] * 2)


def _scaled(size: tuple[int, int], image_size: int) -> tuple[int, int]:
    width, height = size
    ratio = min(image_size / height, image_size / width)
    return max(round(width * ratio), 1), max(round(height * ratio), 1)
