"""Fits images of any shape into the one square that detectors take."""

import cv2
import numpy as np

_PADDING = 114  # the grey that Ultralytics letterboxes with, in training too


def letterbox(image: np.ndarray, size: int) -> np.ndarray:
    """Scales an image into the middle of a grey square, as Ultralytics' LetterBox(auto=False) does.

    Always a square: with rectangles the padding, hence the scores, would depend on an image's batch mates.

    Args:
        image: (height, width, 3) uint8.
        size: side of the square in pixels.

    Returns:
        (size, size, 3) uint8.
    """
    height, width = image.shape[:2]
    ratio = min(size / height, size / width)
    new_width, new_height = max(round(width * ratio), 1), max(round(height * ratio), 1)
    if (new_width, new_height) != (width, height):
        image = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    top, left = round((size - new_height) / 2 - 0.1), round((size - new_width) / 2 - 0.1)
    square = np.full((size, size, 3), _PADDING, dtype=np.uint8)
    square[top : top + new_height, left : left + new_width] = image
    return square
