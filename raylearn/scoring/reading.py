"""From addresses to canvases: images are read, decoded and letterboxed in threads, beside the model."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import numpy as np

from raylearn.data.images import content_hash, decode_reduced, read_bytes
from raylearn.detectors.base import DetectorSettings
from raylearn.detectors.letterbox import letterbox
from raylearn.errors import ImageError


@dataclass(frozen=True, eq=False)
class ReadImage:
    """One image on its way to the detector.

    Args:
        canvas: (height, width, 3) uint8 RGB, letterboxed; None where the image could not be read.
        size: (width, height) of the upright original; (0, 0) where it could not be read.
        error: why it could not be read, or None.
    """

    canvas: np.ndarray | None
    size: tuple[int, int]
    error: ImageError | None = None


Reader = Callable[[str, str], ReadImage]
"""From the uri of an image and the hash of its content ("" where it is not known) to the image."""


def read_image(uri: str, expected_hash: str, settings: DetectorSettings) -> ReadImage:
    """Reads one image; what is wrong with it becomes its `error`.

    Raises:
        StorageError: an object store does not answer, which is no fault of the image.
    """
    try:
        data = read_bytes(uri)
        if expected_hash and content_hash(data) != expected_hash:
            raise ImageError(f"image {uri!r} changed since the run began", "changed")
        pixels, size = decode_reduced(data, settings.image_size if settings.decode == "reduced" else None)
    except ImageError as error:
        return ReadImage(None, (0, 0), error)
    return ReadImage(letterbox(pixels, settings.image_size, settings.canvas, size), size)


def read_ahead(
    uris: Sequence[str], hashes: Sequence[str], read: Reader, threads: Executor, ahead: int
) -> Iterator[ReadImage]:
    """The images in their order; up to `ahead` of them are read before they are asked for."""
    waiting: deque[Future[ReadImage]] = deque()
    try:
        for uri, expected in zip(uris, hashes, strict=True):
            waiting.append(threads.submit(read, uri, expected))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def batches(images: Iterable[ReadImage], batch_size: int) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Gathers readable images whose canvases have one shape.

    Yields:
        Positions in `images`; canvases (n, height, width, 3); sizes (n, 2). n is `batch_size` or, where shapes run
        out or are many, less.
    """
    waiting: defaultdict[tuple[int, ...], list[tuple[int, ReadImage]]] = defaultdict(list)
    num_waiting = 0
    for position, image in enumerate(images):
        if image.canvas is None:
            continue
        group = waiting[image.canvas.shape]
        group.append((position, image))
        num_waiting += 1
        if num_waiting == 4 * batch_size:  # many shapes: memory stays bounded
            group = max(waiting.values(), key=len)
        if len(group) == batch_size or num_waiting == 4 * batch_size:
            num_waiting -= len(group)
            yield _stacked(group)
            group.clear()
    for group in waiting.values():
        if group:
            yield _stacked(group)


def _stacked(group: Sequence[tuple[int, ReadImage]]) -> tuple[list[int], np.ndarray, np.ndarray]:
    canvases = np.stack([image.canvas for _, image in group if image.canvas is not None])
    return [position for position, _ in group], canvases, np.array([image.size for _, image in group])
