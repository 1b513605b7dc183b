"""Canvases that are made on a GPU: JPEGs are decoded by its own decoder, and letterboxed where the network runs."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch

from raylearn.data.images import decode
from raylearn.detectors.letterbox import PADDING, inner_rectangle, letterbox
from raylearn.errors import ImageError

_PIXELS_AT_ONCE = 1 << 26  # of images as they are: one GB while they are scaled


def device_canvases(
    jpegs: Sequence[bytes], sizes: Sequence[tuple[int, int]], canvas: tuple[int, ...], device: str | torch.device
) -> tuple[torch.Tensor, dict[int, ImageError]]:
    """Decodes and letterboxes JPEGs on a device.

    Pixels differ a little from those of libjpeg-turbo, mostly where colours are interpolated; scaling differs from
    `letterbox` by one at most.

    Args:
        jpegs: (n) files of which `plain_jpeg_size` gives the size.
        sizes: (n) their widths and heights.
        canvas: (height, width) of the canvases.
        device: a GPU, or "cpu".

    Returns:
        (n, height, width, 3) uint8 RGB on the device; and of the images that cannot be decoded, position -> why. Their
        canvases are grey.
    """
    canvases = torch.full((len(jpegs), *canvas, 3), PADDING, dtype=torch.uint8, device=device)
    failed: dict[int, ImageError] = {}
    for few in _few_pixels(sizes):
        try:
            decoded = _decoded([jpegs[position] for position in few], [sizes[position] for position in few], device)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            failed |= _one_by_one(jpegs, sizes, few, canvases)
            continue
        alike: defaultdict[tuple[int, int], list[tuple[int, torch.Tensor]]] = defaultdict(list)
        for position, pixels in zip(few, decoded, strict=True):
            alike[sizes[position]].append((position, pixels))
        for size, group in alike.items():
            positions, pixels = [position for position, _ in group], torch.stack([pixels for _, pixels in group])
            _place(pixels, size, positions, canvases)
    return canvases, failed


def _place(pixels: torch.Tensor, size: tuple[int, int], positions: Sequence[int], canvases: torch.Tensor) -> None:
    """Scales (n, 3, height, width) images of one size into their canvases."""
    top, left, height, width = inner_rectangle(size, tuple(canvases.shape[1:3]))
    places = torch.tensor(positions, device=canvases.device)
    canvases[places, top : top + height, left : left + width] = _scaled(pixels, height, width).permute(0, 2, 3, 1)


def _decoded(
    jpegs: Sequence[bytes], sizes: Sequence[tuple[int, int]], device: str | torch.device
) -> list[torch.Tensor]:
    """Of each JPEG (3, height, width) uint8 RGB. Raises RuntimeError where one of them cannot be decoded."""
    from torchvision.io import ImageReadMode, decode_jpeg

    if torch.device(device).type == "cuda":
        # The decoder writes on a stream of its own, into memory that earlier work of this one may still be reading.
        torch.cuda.current_stream().synchronize()
    encoded = [torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in jpegs]
    decoded: list[torch.Tensor] = decode_jpeg(encoded, mode=ImageReadMode.RGB, device=device)
    if [(pixels.shape[2], pixels.shape[1]) for pixels in decoded] != list(sizes):
        raise RuntimeError("an image has another size than its header says")
    return decoded


def _scaled(pixels: torch.Tensor, height: int, width: int) -> torch.Tensor:
    if pixels.shape[2:] == (height, width):
        return pixels
    scaled = torch.nn.functional.interpolate(pixels.float(), (height, width), mode="bilinear", align_corners=False)
    return scaled.round_().to(torch.uint8)


def _one_by_one(
    jpegs: Sequence[bytes], sizes: Sequence[tuple[int, int]], positions: Sequence[int], canvases: torch.Tensor
) -> dict[int, ImageError]:
    """Decodes images of which one is broken, as nobody says which; gives those that the CPU cannot decode either.

    Each is tried on the device first: what an image becomes must not depend on which others are beside it.
    """
    failed = {}
    for position in positions:
        try:
            pixels = _decoded([jpegs[position]], [sizes[position]], canvases.device)[0]
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            shape = tuple(canvases.shape[1:3])
            try:
                canvas = letterbox(
                    decode(jpegs[position]), max(shape), "square" if shape[0] == shape[1] else "rectangle"
                )
            except ImageError as error:
                failed[position] = error
                continue
            canvases[position] = torch.from_numpy(canvas)
        else:
            _place(pixels[None], sizes[position], [position], canvases)
    return failed


def _few_pixels(sizes: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """Runs of positions whose images have at most `_PIXELS_AT_ONCE` pixels, or one that has more."""
    run: list[int] = []
    pixels = 0
    for position, (width, height) in enumerate(sizes):
        if run and pixels + width * height > _PIXELS_AT_ONCE:
            yield run
            run, pixels = [], 0
        run.append(position)
        pixels += width * height
    if run:
        yield run
