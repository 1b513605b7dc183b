"""From addresses to canvases: images are read, decoded and letterboxed in threads, beside the model."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from raylearn.data.images import content_hash, decode_reduced, plain_jpeg_size, read_bytes
from raylearn.detectors.base import DetectorSettings
from raylearn.detectors.letterbox import canvas_shape, letterbox
from raylearn.errors import ImageError
from raylearn.scoring.fetching import Source


@dataclass(frozen=True, eq=False)
class ReadImage:
    """One image on its way to the detector.

    Args:
        canvas: (height, width, 3) uint8 RGB, letterboxed; None where the image could not be read, or is decoded later.
        size: (width, height) of the upright original; (0, 0) where it could not be read.
        error: why it could not be read, or None.
        jpeg: the file, where a GPU is to decode it.
    """

    canvas: np.ndarray | None
    size: tuple[int, int]
    error: ImageError | None = None
    jpeg: "EncodedCanvas | None" = None

    @property
    def shape(self) -> tuple[int, ...] | None:
        """(height, width) of its canvas; None where there will be none."""
        if self.canvas is not None:
            return self.canvas.shape[:2]
        return self.jpeg.shape if self.jpeg else None


@dataclass(frozen=True, eq=False)
class EncodedCanvas:
    """A canvas that a GPU is to make.

    Args:
        data: a file of which `plain_jpeg_size` gives the size.
        shape: (height, width) of the canvas.
    """

    data: bytes
    shape: tuple[int, int]


Reader = Callable[[Any, str], ReadImage]
"""From the `Source` of an image and the hash of its content ("" where it is not known) to the image."""


def read_image(source: Source, expected_hash: str, settings: DetectorSettings) -> ReadImage:
    """Reads one image; what is wrong with it becomes its `error`.

    Raises:
        StorageError: an object store does not answer, which is no fault of the image.
    """
    try:
        uri, data = (source, read_bytes(source)) if isinstance(source, str) else (source.uri, source.bytes())
        if expected_hash and content_hash(data) != expected_hash:
            raise ImageError(f"image {uri!r} changed since the run began", "changed")
        plain = plain_jpeg_size(data) if settings.decode == "gpu" else None
        if plain:
            shape = canvas_shape(plain, settings.image_size, settings.canvas)
            return ReadImage(None, plain, jpeg=EncodedCanvas(data, shape))
        pixels, size = decode_reduced(data, settings.image_size if settings.decode == "reduced" else None)
    except ImageError as error:
        return ReadImage(None, (0, 0), error)
    return ReadImage(letterbox(pixels, settings.image_size, settings.canvas, size), size)


def read_ahead(
    sources: Iterable[Source], hashes: Sequence[str], read: Reader, threads: Executor, ahead: int
) -> Iterator[ReadImage]:
    """The images in their order; up to `ahead` of them are decoded before they are asked for."""
    waiting: deque[Future[ReadImage]] = deque()
    try:
        for source, expected in zip(sources, hashes, strict=True):
            waiting.append(threads.submit(read, source, expected))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def batches(images: Iterable[ReadImage], batch_size: int) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Positions in `images`, canvases (n, height, width, 3) and sizes (n, 2) of each of `groups`, all decoded."""
    for positions, group in groups(images, batch_size):
        yield positions, stacked(group), np.array([image.size for image in group])


def stacked(group: Sequence[ReadImage]) -> np.ndarray:
    """(n, height, width, 3) of images of one shape that are decoded."""
    canvases = [image.canvas for image in group if image.canvas is not None]
    if len(canvases) < len(group):
        raise ValueError("an image is not decoded yet: use gathered")
    return np.stack(canvases)


def gathered(group: Sequence[ReadImage], device: str) -> tuple[Any, dict[int, ImageError]]:
    """The canvases of images of one shape, and position -> why one cannot be decoded, whose canvas then says nothing.

    Args:
        group: of images that were read; some may not be decoded yet.
        device: of the detector.

    Returns:
        (n, height, width, 3) uint8, as `stacked`, or a tensor on the device where one is decoded there.
    """
    encoded = [(position, image) for position, image in enumerate(group) if image.jpeg]
    if not encoded:
        return stacked(group), {}
    import torch

    from raylearn.detectors.device_canvases import device_canvases

    shape = encoded[0][1].shape or ()
    jpegs = [image.jpeg.data for _, image in encoded if image.jpeg]
    made, failed = device_canvases(jpegs, [image.size for _, image in encoded], shape, device)
    if len(encoded) == len(group):
        return made, failed
    canvases = torch.empty((len(group), *shape, 3), dtype=torch.uint8, device=device)
    places = [position for position, _ in encoded]
    canvases[places] = made
    others = [position for position, image in enumerate(group) if not image.jpeg]
    canvases[others] = torch.from_numpy(stacked([group[position] for position in others])).to(device)
    return canvases, {places[position]: error for position, error in failed.items()}


def groups(images: Iterable[ReadImage], batch_size: int) -> Iterator[tuple[list[int], list[ReadImage]]]:
    """Gathers readable images whose canvases have one shape.

    Yields:
        Positions in `images`, and the images: `batch_size` or, where shapes run out or are many, fewer.
    """
    waiting: defaultdict[tuple[int, ...], list[tuple[int, ReadImage]]] = defaultdict(list)
    num_waiting = 0
    for position, image in enumerate(images):
        if image.shape is None:
            continue
        group = waiting[image.shape]
        group.append((position, image))
        num_waiting += 1
        if num_waiting == 4 * batch_size:  # many shapes: memory stays bounded
            group = max(waiting.values(), key=len)
        if len(group) == batch_size or num_waiting == 4 * batch_size:
            num_waiting -= len(group)
            yield [position for position, _ in group], [image for _, image in group]
            group.clear()
    for group in waiting.values():
        if group:
            yield [position for position, _ in group], [image for _, image in group]
