"""Image bytes: where they are, how large the picture is, what its pixels are."""

import hashlib
import io
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np

from raylearn.data.storage import concerns_one_name, read_address, reason_of, redacted, storage_error
from raylearn.errors import ImageError

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MAX_PIXELS = 100_000_000

# Only these: Pillow's other readers (EPS, PDF, fonts) have no business with a training image.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "AVIF", "HEIF")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SAMPLE_FORMATS = {1: "unsigned", 2: "signed", 3: "floating-point"}
_BITS_PER_SAMPLE, _SAMPLE_FORMAT = 0x0102, 0x0153
_ORIENTATION, _TIFF_WIDTH, _TIFF_HEIGHT = 0x0112, 0x0100, 0x0101
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"


def read_bytes(uri: str) -> bytes:
    """The bytes of one image.

    Args:
        uri: a local path, taken as it is; or an address with a scheme (file, s3, gs and what else pyarrow opens), whose
            path may be percent-encoded and whose options stand behind a question mark.

    Raises:
        ImageError: nothing there, or it may not be read. The cause is the file system's own error.
        StorageError: a disk fails, or an object store refuses its buckets or does not answer after several attempts.
    """
    try:
        return read_address(uri)
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds too
        message = f"image {redacted(repr(uri))} cannot be read: {reason_of(error)}"
        if isinstance(error, FileNotFoundError):
            raise ImageError(message, "missing") from error
        if concerns_one_name(error):
            raise ImageError(message, "unreadable") from error
        raise storage_error(message, error) from error


def content_hash(data: bytes) -> str:
    """SHA-256 of the bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def upright_size(data: bytes) -> tuple[int, int]:
    """(width, height) of the upright image, from its header alone.

    Raises:
        ImageError: no image of a known format, or one of more than `MAX_PIXELS` pixels.
    """
    return _header(data)[1]


def exif_orientation(data: bytes) -> int:
    """How the picture in the file is to be turned and mirrored to be upright: 1 (not at all) to 8, as EXIF has it.

    Raises:
        ImageError: as `upright_size`.
    """
    found = _tags(_header(data)[0], data).get(_ORIENTATION, 1)
    return int(found) if found in range(1, 9) else 1


def upright_boxes(boxes: np.ndarray, orientation: int, width: int, height: int) -> np.ndarray:
    """Boxes that were drawn on the picture as it lies in the file, on the upright one.

    Args:
        boxes: (n, 4) xyxy pixels.
        orientation: see `exif_orientation`.
        width, height: of the picture as it lies in the file.

    Returns:
        (n, 4) xyxy pixels.
    """
    x1, y1, x2, y2 = np.asarray(boxes).reshape(-1, 4).T
    if orientation in (2, 3, 7, 8):
        x1, x2 = width - x2, width - x1
    if orientation in (3, 4, 6, 7):
        y1, y2 = height - y2, height - y1
    corners = (y1, x1, y2, x2) if orientation >= 5 else (x1, y1, x2, y2)
    return np.stack(corners, axis=1)


def is_heif(data: bytes) -> bool:
    """Whether bytes are of the HEIC photographs that telephones make."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS and b"avif" not in data[:64]


@cache
def heif_is_installed() -> bool:
    """Whether this Python can read HEIC photographs."""
    return find_spec("pillow_heif") is not None


def plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a JPEG that every decoder reads alike; None of any other image.

    It is whole, upright, baseline (not progressive), and grey or YCbCr.

    Raises:
        ImageError: as `upright_size`.
    """
    if not (data.startswith(_JPEG_START) and data.endswith(_JPEG_END)):
        return None
    header, size = _header(data)
    info, components = header.info, [layer[0] for layer in getattr(header, "layer", ())]
    plain = (
        header.format == "JPEG"
        and header.mode in ("L", "RGB")
        and not info.get("progressive")
        and info.get("adobe_transform", 1)  # 0: RGB as it is
        and components != list(b"RGB")
        and ("exif" not in info or _tags(header, data).get(_ORIENTATION, 1) == 1)
    )
    return size if plain else None


def whole_size(data: bytes) -> tuple[int, int]:
    """The upright size of an image that is not cut off.

    A JPEG or PNG that ends with its end marker is whole, and not decoded; of any other file `decode` decides.

    Raises:
        ImageError: as `decode`.
    """
    size = upright_size(data)
    if not _ends_with_marker(data):
        decode(data)
    return size


def decode(data: bytes) -> np.ndarray:
    """Pixels of an image, upright, as Ultralytics' own loader sees them.

    The first frame of an animation or page of a TIFF. Alpha is dropped, not blended (but OpenCV has multiplied the
    colours of a TIFF by it); a palette is looked up; CMYK is converted; grey becomes three equal channels; of 16 bits
    the high byte is kept. A TIFF of floating-point or signed numbers, or of more than 16 bits, is refused: which of
    them is white is not known here. HEIC is read where pillow-heif is installed.

    Returns:
        (height, width, 3) uint8 RGB, contiguous.

    Raises:
        ImageError: no image, one too large, or one that is cut off.
    """
    return decode_reduced(data, None)[0]


def decode_reduced(data: bytes, longer_side: int | None) -> tuple[np.ndarray, tuple[int, int]]:
    """Pixels of an image, and its own size; a large JPEG is decoded at 1/2, 1/4 or 1/8 of it.

    JPEG's own transform gives these reductions for less than the work of the whole picture, and each pixel of them is
    a mean of those it stands for.

    Args:
        data: bytes of an image.
        longer_side: what the picture's longer side may be reduced to, but not below; None decodes all of it.

    Returns:
        (h, w, 3) uint8 RGB, as `decode`; and the (width, height) of the upright image.

    Raises:
        ImageError: as `decode`.
    """
    header, (width, height) = _header(data)
    if data.startswith((_JPEG_START, _PNG_START)) and not _ends_with_marker(data):
        _load(header, data)  # before 5.0 OpenCV fills the missing part of a cut file with grey and says nothing
    factor = 1
    if longer_side is not None and data.startswith(_JPEG_START):
        factor = next((f for f in (8, 4, 2) if max(width, height) >= f * longer_side), 1)
    # OpenCV does not turn an AVIF upright, and knows no HEIC.
    pixels = _pillow_pixels(header, data) if header.format in ("AVIF", "HEIF") else _opencv_pixels(data, factor)
    wanted = (-(-height // factor), -(-width // factor), 3)
    if pixels.shape != wanted or pixels.dtype != np.uint8:
        raise ImageError(f"image is {width}x{height} by its header, but its pixels are {pixels.dtype} {pixels.shape}")
    return pixels, (width, height)


def _header(data: bytes) -> tuple["ImageFile", tuple[int, int]]:
    from PIL import Image

    if is_heif(data):
        _register_heif()
    if data.startswith(_TIFF_STARTS):
        _refuse_scientific(data)
    try:
        Image.init()
        header = Image.open(io.BytesIO(data), formats=[name for name in _FORMATS if name in Image.OPEN])
    except Image.DecompressionBombError as error:
        raise ImageError(f"image is too large to open: {error}", "too large") from error
    except Exception as error:  # Pillow's readers raise almost anything on broken bytes
        _refuse(data, error)
    width, height = header.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"image of {width}x{height} is too large to open: more than {MAX_PIXELS} pixels", "too large")
    try:
        tags = _tags(header, data)
        if header.format == "TIFF":  # by version of Pillow, its size is turned already
            width, height = int(tags[_TIFF_WIDTH]), int(tags[_TIFF_HEIGHT])
        turned = tags.get(_ORIENTATION) in (5, 6, 7, 8)
    except Exception as error:  # as above
        _refuse(data, error)
    return header, (height, width) if turned else (width, height)


def _register_heif() -> None:
    if not heif_is_installed():
        raise ImageError(
            "image is HEIC, which is not read here: convert it to JPEG, or pip install 'raylearn[heic]'", "HEIC"
        )
    from pillow_heif import register_heif_opener

    register_heif_opener()


def _refuse_scientific(data: bytes) -> None:
    """Raises ImageError for a TIFF whose numbers are not brightness from 0 up in 8 or 16 bits."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    file = io.BytesIO(data)
    try:
        # Not from Pillow's own image: some of these files it cannot open.
        directory = ImageFileDirectory_v2(ifh=data[: 16 if data[2:4] in (b"+\0", b"\0+") else 8])
        file.seek(directory.next)
        directory.load(file)
        form, bits = (max(_as_tuple(directory.get(tag, 1))) for tag in (_SAMPLE_FORMAT, _BITS_PER_SAMPLE))
    except Exception:  # a broken file is for its reader to refuse
        return
    if form != 1 or bits > 16:
        numbers = f"{bits}-bit {_SAMPLE_FORMATS.get(form, 'other')} numbers"
        raise ImageError(
            f"image is a TIFF of {numbers}: scale it to 8 bits a channel, or unsigned 16", "scientific TIFF"
        )


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _tags(header: "ImageFile", data: bytes) -> Mapping[int, Any]:
    # Not getexif(): it decodes every PNG in search of a late EXIF chunk, and obeys XMP, which OpenCV does not.
    from PIL.Image import Exif

    if header.format == "TIFF":
        return cast(Mapping[int, Any], getattr(header, "tag_v2"))  # noqa: B009, only a TIFF has it
    if header.format == "PNG" and "exif" not in header.info and b"eXIf" in data:
        header.load()
    exif = Exif()
    exif.load(header.info.get("exif", b""))
    return exif


def _ends_with_marker(data: bytes) -> bool:
    return (data.startswith(_JPEG_START) and data.endswith(_JPEG_END)) or (
        data.startswith(_PNG_START) and data.endswith(_PNG_END)
    )


def _load(header: "ImageFile", data: bytes) -> None:
    try:
        header.load()
    except Exception as error:  # as in _header
        _refuse(data, error)


def _pillow_pixels(header: "ImageFile", data: bytes) -> np.ndarray:
    from PIL import ImageOps

    _load(header, data)
    return np.ascontiguousarray(ImageOps.exif_transpose(header).convert("RGB"))


def _opencv_pixels(data: bytes, factor: int) -> np.ndarray:
    import cv2

    reduced = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
    try:
        pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), reduced.get(factor, cv2.IMREAD_COLOR_RGB))
    except cv2.error as error:
        _refuse(data, error)
    if pixels is None:
        raise ImageError(f"image cannot be decoded: its {len(data)} bytes are cut off or broken")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if factor > 1 else pixels)


def _refuse(data: bytes, error: Exception) -> NoReturn:
    if not data:
        raise ImageError("image has 0 bytes", "empty") from error
    if "cannot identify" in str(error):
        raise ImageError(f"not an image of a known format, it begins with {data[:16]!r}", "not an image") from error
    reason = " ".join(str(error).split())  # OpenCV's has several lines
    raise ImageError(f"image is cut off or broken: {reason}") from error
