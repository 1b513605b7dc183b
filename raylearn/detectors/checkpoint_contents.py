"""What a .pt file holds, found without torch and without running anything in it."""

import io
import pickle
import pickletools
import zipfile
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from raylearn.data.storage import reason_of
from raylearn.detectors.base import CheckpointFacts
from raylearn.errors import CheckpointError

_PICKLE = "data.pkl"
_MOST_BYTES = 256 * 2**20  # of the pickled structure, which holds no weights
_LFS = b"version https://git-lfs"
_LOOKED_AT = 512  # bytes of a file that is not a zip
_TEXT = bytes([*b"\t\n\r", *range(0x20, 0x7F), *range(0x80, 0x100)])  # UTF-8 too, but no control characters
_STRINGS = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "SHORT_BINSTRING", "BINSTRING"})


@dataclass(frozen=True)
class Contents:
    """The names in a checkpoint's pickle, which say what wrote it.

    Args:
        classes: such as "collections.OrderedDict": what unpickling would look up.
        strings: all texts, such as the keys of its dictionaries.
    """

    classes: frozenset[str] = frozenset()
    strings: frozenset[str] = frozenset()


def contents_of(path: Path) -> Contents:
    """Looks into a file as torch.save writes it, by the opcodes of its pickle; one of another kind holds nothing.

    Raises:
        CheckpointError: no such file, it cannot be read, or it is text.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} is not there: give a .pt file")
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                return _outside_a_zip(file, path)
        with zipfile.ZipFile(path) as archive:
            return _names(_pickle_in(archive))
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError):  # torn, encrypted, or something else
        return Contents()
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {reason_of(error)}") from error


def _outside_a_zip(file: BinaryIO, path: Path) -> Contents:
    start = file.read(_LOOKED_AT)
    if start.startswith(_LFS):
        raise CheckpointError(f"{path} cannot be opened as a checkpoint: it is a git-lfs pointer; run `git lfs pull`")
    if start and not start.translate(None, delete=_TEXT):
        raise CheckpointError(f"{path} cannot be opened as a checkpoint: it is text; download it again")
    file.seek(0)
    # Before 1.6 torch wrote its own mark, version and machine, and then the structure, each a pickle.
    pickles = [_names(file) for _ in range(4)]
    return pickles[-1]


def written_facts(path: Path) -> CheckpointFacts | None:
    """What a checkpoint of `write_checkpoint` says of itself, in milliseconds; to import torch takes a second.

    Returns:
        None for a file of another kind, or one that is damaged: to say what is wrong with it is its family's.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = _WithoutTensors(io.BytesIO(_pickle_in(archive))).load()
            if archive.testzip() is not None:
                return None
    except Exception:  # whatever an unpickler stumbles over
        return None
    match content:
        case {"format": str(), "model": str(model), "class_names": list(names), "image_size": int(size)}:
            whole = isinstance(content.get("state_dict"), dict) and all(isinstance(name, str) for name in names)
            return CheckpointFacts(model, tuple(names), size) if whole else None
    return None


class _WithoutTensors(pickle.Unpickler):
    """Reads what holds the tensors of a checkpoint, with None in the place of each; nothing else can be made."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *_: None
        if module == "torch" and name.endswith("Storage"):
            return None
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a plain checkpoint")

    def persistent_load(self, _: Any) -> None:
        return None


def _pickle_in(archive: zipfile.ZipFile) -> bytes:
    """Raises ValueError where there is none, or one that is too large."""
    name = next((name for name in archive.namelist() if name.rpartition("/")[2] == _PICKLE), None)
    if name is None or archive.getinfo(name).file_size > _MOST_BYTES:
        raise ValueError(f"no {_PICKLE} of a size that a checkpoint has")
    return archive.read(name)


def _names(pickled: bytes | BinaryIO) -> Contents:
    classes, strings = set(), set()
    recent: list[str] = []  # STACK_GLOBAL takes module and name from the two strings before it
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in _STRINGS:
            strings.add(str(argument))
            recent = [*recent[-1:], str(argument)]
        elif opcode.name == "GLOBAL":
            classes.add(str(argument).replace(" ", "."))
        elif opcode.name == "STACK_GLOBAL":
            classes.add(".".join(recent))
    return Contents(frozenset(classes), frozenset(strings))
