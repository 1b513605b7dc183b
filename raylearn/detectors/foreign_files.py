"""Files that are given as checkpoints and are none: what they are, and what to give instead."""

import zipfile
from pathlib import Path

from raylearn.errors import CheckpointError

_LFS = b"version https://git-lfs"
_LOOKED_AT = 512  # bytes of a file that is not a zip
_TEXT = bytes([*b"\t\n\r", *range(0x20, 0x7F), *range(0x80, 0x100)])  # UTF-8 too, but no control characters
_ORIGINAL = "give the .pt file that it was exported from"
_ONNX = f"it is an ONNX model: {_ORIGINAL}"
_ENGINE = f"it is a TensorRT engine: {_ORIGINAL}"
_OPENVINO = f"it is an OpenVINO model: {_ORIGINAL}, and --backend openvino to run that by OpenVINO"
_BY_ENDING = {
    ".engine": _ENGINE,
    ".mlmodel": f"it is a Core ML model: {_ORIGINAL}",
    ".onnx": _ONNX,
    ".pb": f"it is a TensorFlow model: {_ORIGINAL}",
    ".plan": _ENGINE,
    ".tflite": f"it is a TensorFlow Lite model: {_ORIGINAL}",
    ".torchscript": f"it is a TorchScript export: {_ORIGINAL}",
    ".trt": _ENGINE,
}
_BY_START = {
    b"\x1f\x8b": "it is a gzip archive: unpack it and give the .pt file in it",
    b"\x28\xb5\x2f\xfd": "it is a zstd archive: unpack it and give the .pt file in it",
    b"7z\xbc\xaf\x27\x1c": "it is a 7z archive: unpack it and give the .pt file in it",
    b"Rar!": "it is a rar archive: unpack it and give the .pt file in it",
    b"\x89HDF": "it is a Keras model: only detectors of PyTorch can be used",
    b"ftrt": _ENGINE,
    b"ptrt": _ENGINE,
    b"\x08": _ONNX,  # together with what _starts_onnx looks for
    b"%PDF": "it is a PDF: give a .pt file",
    b"\x89PNG": "it is an image: give a .pt file",
    b"\xff\xd8\xff": "it is an image: give a .pt file",
}


def refuse_foreign(path: Path) -> None:
    """Looks at a file's name and its first bytes; nothing of it is run.

    Raises:
        CheckpointError: it is a folder, empty, text, an archive or an export of another library's.
    """
    what = _folder(path) if path.is_dir() else _file(path)
    if what:
        raise CheckpointError(f"{path} cannot be opened as a checkpoint: {what}")


def _folder(path: Path) -> str:
    if any(path.glob("*.xml")) and any(path.glob("*.bin")):
        return _OPENVINO
    if any(path.glob("*.pb")) or path.suffix == ".mlpackage":
        return f"it is a folder of a TensorFlow or Core ML model: {_ORIGINAL}"
    return "it is a folder: give the .pt file in it"


def _file(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(_LOOKED_AT)
    if not start:
        return "it has 0 bytes; download or copy it again"
    if start.startswith(_LFS):
        return "it is a git-lfs pointer; run `git lfs pull`"
    if path.suffix.lower() in _BY_ENDING:
        return _BY_ENDING[path.suffix.lower()]
    if zipfile.is_zipfile(path):
        return _zip(path)
    if not start.translate(None, delete=_TEXT):
        return _text(start)
    if start[4:8] == b"TFL3":
        return _BY_ENDING[".tflite"]
    if start[4:5] == b"{" and b'"description"' in start:  # the names of classes that Ultralytics puts before an engine
        return _ENGINE
    known = next((what for mark, what in _BY_START.items() if start.startswith(mark)), "")
    return "" if known == _ONNX and not _starts_onnx(start) else known


def _zip(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        names = {name.rpartition("/")[2] for name in archive.namelist()}
    if "data.pkl" not in names:
        return "it is a zip archive without a checkpoint in it: unpack it and give the .pt file"
    return f"it is a TorchScript export: {_ORIGINAL}" if "constants.pkl" in names else ""


def _text(start: bytes) -> str:
    beginning = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if beginning.startswith((b"<!doctype html", b"<html", b"<head")):
        return "it is a web page, so its address led to no file; download it again"
    if beginning.startswith(b"<?xml") and b"<net " in beginning:
        return _OPENVINO
    return "it is text; download it again"


def _starts_onnx(start: bytes) -> bool:
    return start[2:3] in (b"\x12", b"\x1a", b"\x3a", b"\x42") and start[1] < 32
