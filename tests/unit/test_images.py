"""Decoding, sizes and refusals of raylearn.data.images, on files made here."""

import contextlib
import io
import os
import struct
import zlib
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from raylearn.data import images, storage
from raylearn.data.images import (
    MAX_PIXELS,
    content_hash,
    decode,
    decode_reduced,
    plain_jpeg_size,
    read_bytes,
    upright_size,
    whole_size,
)
from raylearn.errors import ImageError, StorageError

# Four coloured quarters of a 60x40 picture: no two corners are alike, so every turn and flip shows.
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
QUARTERS = np.zeros((40, 60, 3), dtype=np.uint8)
QUARTERS[:20, :30], QUARTERS[:20, 30:], QUARTERS[20:, :30], QUARTERS[20:, 30:] = RED, BLUE, GREEN, WHITE
PICTURE = Image.fromarray(QUARTERS)

NOISE = Image.fromarray(cv2.resize(np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8), (160, 120)))


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, *more: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def with_orientation(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind == "TIFF":
        return encoded(PICTURE, kind, tiffinfo={0x0112: orientation})
    return encoded(PICTURE, kind, exif=exif, quality=95)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright_and_the_header_size_agrees(kind: str, orientation: int) -> None:
    data = with_orientation(kind, orientation)
    pixels = decode(data)
    assert upright_size(data) == (pixels.shape[1], pixels.shape[0])
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).mean() < 6
    assert (pixels.shape[0] > pixels.shape[1]) == (orientation >= 5)


def test_orientation_behind_the_pixels_of_a_png_is_found() -> None:
    data = encoded(PICTURE, "PNG")
    exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    assert upright_size(data[:-12] + chunk + data[-12:]) == (40, 60)
    assert decode(data[:-12] + chunk + data[-12:]).shape == (60, 40, 3)


def test_orientation_in_xmp_alone_is_ignored_by_size_and_pixels_alike() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = encoded(PICTURE, "JPEG", xmp=xmp)
    assert upright_size(data) == (60, 40)
    assert decode(data).shape == (40, 60, 3)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(PICTURE, "PNG"), id="png"),
        pytest.param(encoded(PICTURE, "BMP"), id="bmp"),
        pytest.param(encoded(PICTURE, "WEBP", lossless=True), id="webp"),
        pytest.param(encoded(PICTURE, "JPEG2000"), id="jpeg 2000"),
        pytest.param(encoded(PICTURE.quantize(4), "PNG"), id="palette png"),
        pytest.param(encoded(PICTURE.convert("CMYK"), "JPEG", quality=100), id="cmyk jpeg"),
        pytest.param(encoded(PICTURE.convert("CMYK"), "TIFF"), id="cmyk tiff"),
        pytest.param(encoded(PICTURE, "GIF"), id="gif"),
        *(
            pytest.param(
                encoded(PICTURE, kind, save_all=True, append_images=[Image.fromarray(255 - QUARTERS)], **options),
                id=f"first of two frames, {kind}",
            )
            for kind, options in (("GIF", {}), ("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}))
        ),
    ],
)
def test_colours_of_every_kind_of_file(data: bytes) -> None:
    pixels = decode(data)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.abs(pixels.astype(int) - QUARTERS).mean() < 4
    assert whole_size(data) == upright_size(data) == (60, 40)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_alpha_is_dropped_and_not_blended(kind: str) -> None:
    picture = PICTURE.convert("RGBA")
    picture.putalpha(128)
    assert np.abs(decode(encoded(picture, kind, lossless=True)).astype(int) - QUARTERS).max() < 4


def test_colours_of_a_tiff_are_multiplied_by_its_alpha_as_ultralytics_sees_them() -> None:
    picture = PICTURE.convert("RGBA")
    picture.putalpha(128)
    assert np.abs(decode(encoded(picture, "TIFF")).astype(int) - QUARTERS * (128 / 255)).max() < 2


def test_sixteen_bits_keep_their_high_byte() -> None:
    colours = np.full((4, 4, 3), (0x1234, 0x80FF, 0xFEDC), dtype=np.uint16)
    data = cv2.imencode(".png", colours[..., ::-1])[1].tobytes()
    assert decode(data)[0, 0].tolist() == [0x12, 0x80, 0xFE]
    grey = Image.fromarray(np.full((4, 4), 0x80FF, dtype=np.uint16))
    assert decode(encoded(grey, "PNG"))[0, 0].tolist() == [0x80] * 3
    assert decode(encoded(grey, "TIFF"))[0, 0].tolist() == [0x80] * 3


def test_pixels_of_a_jpeg_are_those_of_opencv() -> None:
    data = encoded(NOISE, "JPEG")
    theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(decode(data), theirs[..., ::-1])


@pytest.mark.parametrize(
    ("longer_side", "factor"),
    [(20, 8), (21, 4), (40, 4), (41, 2), (80, 2), (81, 1), (160, 1), (161, 1), (1, 8), (None, 1)],
)
@pytest.mark.parametrize("upright", [True, False])
def test_a_jpeg_is_reduced_as_far_as_its_longer_side_allows(longer_side, factor, upright):
    picture = NOISE if upright else NOISE.transpose(Image.Transpose.ROTATE_90)
    pixels, size = decode_reduced(encoded(picture, "JPEG"), longer_side)
    assert size == picture.size == ((160, 120) if upright else (120, 160))
    assert pixels.shape == (picture.size[1] // factor, picture.size[0] // factor, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("size", [(161, 121), (167, 127), (168, 128), (160, 1), (9, 160)])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_side_that_the_factor_does_not_divide_is_rounded_up(size, factor):
    pixels, whole = decode_reduced(encoded(NOISE.resize(size), "JPEG"), 160 // factor)
    assert whole == size
    assert pixels.shape == (-(-size[1] // factor), -(-size[0] // factor), 3)


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_pixel_of_a_reduced_jpeg_is_the_mean_of_those_it_stands_for(factor, mode):
    data = encoded(NOISE.convert(mode), "JPEG", quality=95)
    reduced = decode_reduced(data, 160 // factor)[0].astype(float)
    means = decode(data).reshape(120 // factor, factor, 160 // factor, factor, 3).mean(axis=(1, 3))
    assert np.abs(reduced - means).mean() < 2
    assert np.abs(reduced.mean(axis=(0, 1)) - means.mean(axis=(0, 1))).max() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_is_turned_upright_and_its_size_is_the_upright_one(orientation):
    data = with_orientation("JPEG", orientation)
    pixels, size = decode_reduced(data, 15)
    assert size == upright_size(data) == ((40, 60) if orientation >= 5 else (60, 40))
    whole = decode(data)
    assert pixels.shape == (whole.shape[0] // 4, whole.shape[1] // 4, 3)
    # one pixel of each quarter, away from its edges
    for row, column in ((1, 1), (1, -2), (-2, 1), (-2, -2)):
        assert np.abs(pixels[row, column].astype(int) - whole[4 * row, 4 * column]).max() < 40


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "TIFF", "GIF", "JPEG2000", "AVIF"])
def test_only_a_jpeg_is_reduced(kind):
    data = encoded(NOISE, kind)
    pixels, size = decode_reduced(data, 8)
    assert size == (160, 120)
    assert np.array_equal(pixels, decode(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "JPEG2000", "AVIF"])
@pytest.mark.parametrize("fraction", [0.0, 0.02, 0.5, 0.97])
def test_cut_off_file_is_refused(kind: str, fraction: float) -> None:
    data = encoded(NOISE, kind)
    cut = data[: int(len(data) * fraction)]
    with pytest.raises(ImageError):
        decode(cut)
    with pytest.raises(ImageError):
        decode_reduced(cut, 20)
    with pytest.raises(ImageError):
        whole_size(cut)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_cut_off_file_is_refused_where_opencv_fills_the_rest_with_grey(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(NOISE, kind)
    monkeypatch.setattr(images, "_opencv_pixels", lambda *_: np.full((120, 160, 3), 128, np.uint8))  # OpenCV before 5.0
    with pytest.raises(ImageError, match="cut off or broken"):
        decode(data[: len(data) // 2])


def test_thumbnail_with_an_end_marker_does_not_hide_a_cut() -> None:
    thumbnail = encoded(NOISE.resize((16, 12)), "JPEG")
    data = encoded(NOISE, "JPEG")
    segment = b"\xff\xe5" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = data[:2] + segment + data[2:]
    assert decode(whole).shape == (120, 160, 3)
    with pytest.raises(ImageError):
        decode(whole[: -len(data) // 3])


@pytest.mark.parametrize("trailing", [b"\0" * 512, b"\r\n", b"camera data of unknown form"])
def test_bytes_behind_the_end_of_a_jpeg_are_no_fault(trailing: bytes) -> None:
    data = encoded(NOISE, "JPEG")
    assert np.array_equal(decode(data + trailing), decode(data))
    assert whole_size(data + trailing) == (160, 120)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(20_000, 20_000), (10_001, 10_000)])
def test_decompression_bomb_is_refused_from_its_header(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert size[0] * size[1] > MAX_PIXELS
    monkeypatch.setattr(images, "_opencv_pixels", lambda *_: pytest.fail("decoded"))
    for look in (upright_size, whole_size, decode):
        with pytest.raises(ImageError, match="too large to open"):
            look(png(*size))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_largest_allowed_image_is_not_refused_by_its_size() -> None:
    assert upright_size(png(10_000, 10_000)) == (10_000, 10_000)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes"),
        (b"import os\n", "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "known format"),
    ],
)
def test_what_is_no_image_is_refused(data: bytes, message: str) -> None:
    for look in (upright_size, whole_size, decode):
        with pytest.raises(ImageError, match=message):
            look(data)


def test_reader_that_could_run_a_program_is_not_asked() -> None:
    postscript = encoded(PICTURE, "EPS")
    assert Image.open(io.BytesIO(postscript)).size == (60, 40)
    with pytest.raises(ImageError, match="known format"):
        upright_size(postscript)


def test_pixels_of_another_size_than_the_header_says_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_opencv_pixels", lambda *_: np.zeros((60, 40, 3), np.uint8))
    with pytest.raises(ImageError, match="image is 60x40 by its header"):
        decode(encoded(PICTURE, "PNG"))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "AVIF"]), st.data())
def test_random_bytes_raise_only_image_errors(junk: bytes, kind: str, draw: st.DataObject) -> None:
    data = bytearray(encoded(PICTURE, kind))
    at = draw.draw(st.integers(0, len(data)))
    data[at : at + len(junk)] = junk
    for candidate in (junk, bytes(data)):
        for look in (upright_size, whole_size, decode):
            with contextlib.suppress(ImageError):
                look(candidate)


NAMES = ["plain.jpg", "a b.jpg", "a,b.jpg", 'it\'s "quoted".jpg', "übergröße 海.jpg", "new\nline.jpg", "-rf.jpg"]
NAMES += ["100%20.jpg", "what?#.jpg", "s3:.jpg"]


@pytest.mark.parametrize("name", NAMES)
def test_bytes_are_read_by_path_and_by_file_address(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"bytes")
    assert read_bytes(str(tmp_path / name)) == b"bytes"
    assert read_bytes(f"file://{quote(str(tmp_path / name))}") == b"bytes"


def test_bytes_are_read_by_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "-x y.jpg").write_bytes(b"bytes")
    monkeypatch.chdir(tmp_path)
    assert read_bytes("-x y.jpg") == b"bytes"


def test_file_system_of_an_address_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.fs

    opened = []

    class Local(pyarrow.fs.FileSystem):
        @staticmethod
        def from_uri(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
            opened.append(uri)
            return pyarrow.fs.LocalFileSystem(), str(tmp_path)

    monkeypatch.setattr(pyarrow.fs, "FileSystem", Local)
    storage._file_system.cache_clear()
    (tmp_path / "a b.jpg").write_bytes(b"bytes")
    assert read_bytes("gs://bucket/a%20b.jpg?scheme=http") == b"bytes"
    assert read_bytes("gs://bucket/a b.jpg?scheme=http") == b"bytes"
    assert opened == ["gs://bucket?scheme=http"]
    storage._file_system.cache_clear()


@pytest.mark.parametrize("uri", ["/nowhere/x.jpg", "x\0.jpg", "file:///nowhere/x.jpg", "gopher://host/x.jpg", "", "/"])
def test_what_cannot_be_read_is_an_image_error_that_names_it(uri: str) -> None:
    with pytest.raises(ImageError, match="cannot be read") as caught:
        read_bytes(uri)
    assert repr(uri) in str(caught.value)
    assert caught.value.__cause__ is not None


def test_secret_in_an_address_is_not_shown() -> None:
    with pytest.raises(ImageError) as caught:
        read_bytes("gopher://key:hunter2@bucket/x.jpg")
    assert "hunter2" not in str(caught.value)
    assert "bucket/x.jpg" in str(caught.value)


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError):
        upright_size(read_bytes(str(tmp_path / "pipe.jpg")))


def test_content_hash_is_sha256_in_hex() -> None:
    assert content_hash(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_failing_disk_is_no_fault_of_the_image():
    with pytest.raises(StorageError, match="Input/output error"):
        read_bytes("/proc/self/mem")  # whose first page the kernel cannot give


def test_a_plain_jpeg_is_whole_upright_baseline_and_of_ordinary_colours() -> None:
    plain = encoded(PICTURE, "JPEG")
    assert plain_jpeg_size(plain) == (60, 40)
    assert plain_jpeg_size(encoded(PICTURE.convert("L"), "JPEG")) == (60, 40)
    assert plain_jpeg_size(with_orientation("JPEG", 1)) == (60, 40)
    others = {
        "cut off": plain[:-30],
        "turned": with_orientation("JPEG", 6),
        "mirrored": with_orientation("JPEG", 2),
        "progressive": encoded(PICTURE, "JPEG", progressive=True),
        "four colours": encoded(PICTURE.convert("CMYK"), "JPEG"),
        "no YCbCr": encoded(PICTURE, "JPEG", keep_rgb=True),
        "a PNG": encoded(PICTURE, "PNG"),
        "nothing": b"",
    }
    assert {name: plain_jpeg_size(data) for name, data in others.items()} == dict.fromkeys(others)
