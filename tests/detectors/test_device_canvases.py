"""Canvases that are made where the network runs; here torch's own device is a CPU, on which the same code runs."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from raylearn.data.images import decode
from raylearn.detectors import device_canvases as module
from raylearn.detectors.base import DetectorSettings
from raylearn.detectors.device_canvases import device_canvases
from raylearn.detectors.letterbox import letterbox
from raylearn.scoring.reading import ReadImage, gathered, groups, read_image

SETTINGS = DetectorSettings(64, 0.05, 0.7, 100, decode="gpu")


def photograph(width: int, height: int, seed: int = 0, **options: object) -> bytes:
    """A JPEG without sharp colours, in which decoders would differ."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert("RGB")
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, **options)
    return file.getvalue()


@pytest.mark.parametrize("canvas", ["square", "rectangle"])
def test_a_device_letterboxes_as_the_cpu_does(canvas: str) -> None:
    for size in ((200, 150), (150, 200), (64, 64), (63, 31), (33, 500), (1, 1)):
        jpeg = photograph(*size)
        wanted = letterbox(decode(jpeg), 64, canvas)
        made, failed = device_canvases([jpeg], [size], wanted.shape[:2], "cpu")
        assert not failed
        difference = np.abs(made[0].numpy().astype(int) - wanted.astype(int))
        assert difference.max() <= 2, (size, difference.max())
        assert difference.mean() < 0.3


@pytest.mark.parametrize("pixels_at_once", [1, 1 << 26])
def test_images_of_many_sizes_each_get_their_own_canvas(pixels_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIXELS_AT_ONCE", pixels_at_once)
    sizes = [(200, 150), (90, 90), (200, 150), (64, 48)]
    jpegs = [photograph(*size, seed=number) for number, size in enumerate(sizes)]
    made, _ = device_canvases(jpegs, sizes, (64, 64), "cpu")
    for canvas, jpeg, size in zip(made, jpegs, sizes, strict=True):
        alone, _ = device_canvases([jpeg], [size], (64, 64), "cpu")
        assert torch.equal(canvas, alone[0])


def test_a_broken_jpeg_is_an_error_of_its_own_and_spoils_no_other(tmp_path: Path) -> None:
    whole = photograph(200, 150)
    names = ["a.jpg", "broken.jpg", "c.jpg"]
    for name in names:
        (tmp_path / name).write_bytes(whole)
    head = whole[:200]  # the header is whole, and so is the end marker: nothing is found before it is decoded
    (tmp_path / "broken.jpg").write_bytes(head + whole[whole.index(b"\xff\xda") :][:14] + b"\xff\xd9")
    images = [read_image(str(tmp_path / name), "", SETTINGS) for name in names]
    [(_, group)] = groups(images, 8)
    _, failed = gathered(group, "cpu")
    assert list(failed) == [1]
    assert failed[1].kind == "broken"
    [(_, group)] = groups([images[0], images[2]], 8)
    made, failed = gathered(group, "cpu")
    assert not failed
    assert torch.equal(made[0], made[1])


def test_pixels_do_not_depend_on_a_broken_image_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = photograph(200, 150)
    broken = whole[:200] + whole[whole.index(b"\xff\xda") :][:14] + b"\xff\xd9"
    decoded = module._decoded
    # A decoder that gives other pixels than the CPU's, as that of a GPU does.
    monkeypatch.setattr(module, "_decoded", lambda *given: [pixels // 2 for pixels in decoded(*given)])
    alone, _ = device_canvases([whole], [(200, 150)], (64, 64), "cpu")
    beside, failed = device_canvases([whole, broken, whole], [(200, 150)] * 3, (64, 64), "cpu")
    assert list(failed) == [1]
    assert torch.equal(beside[0], alone[0])
    assert torch.equal(beside[2], alone[0])


def test_an_image_of_another_size_than_its_header_says_spoils_no_other() -> None:
    whole = photograph(200, 150)
    made, failed = device_canvases([whole, whole], [(200, 150), (100, 150)], (64, 64), "cpu")
    alone, _ = device_canvases([whole], [(200, 150)], (64, 64), "cpu")
    assert not failed
    assert torch.equal(made[0], alone[0])


def test_other_images_are_decoded_as_ever_and_share_a_batch(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(photograph(200, 150))
    (tmp_path / "c.jpg").write_bytes(photograph(200, 150, progressive=True))
    images = [read_image(str(tmp_path / name), "", SETTINGS) for name in ("a.png", "b.jpg", "gone.jpg", "c.jpg")]
    assert [image.jpeg is not None for image in images] == [False, True, False, False]
    [(positions, group)] = groups(images, 8)
    assert positions == [0, 1, 3]
    made, failed = gathered(group, "cpu")
    assert not failed
    assert np.array_equal(made[0].numpy(), images[0].canvas)
    assert np.array_equal(made[2].numpy(), images[3].canvas)
    alone, _ = gathered([images[1]], "cpu")
    assert torch.equal(made[1], alone[0])


def test_without_a_gpu_to_decode_a_batch_is_an_array() -> None:
    canvas = np.zeros((4, 4, 3), np.uint8)
    made, failed = gathered([ReadImage(canvas, (4, 4))] * 2, "cpu")
    assert isinstance(made, np.ndarray)
    assert not failed
