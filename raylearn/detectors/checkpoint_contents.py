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
from raylearn.detectors.foreign_files import refuse_foreign
from raylearn.errors import CheckpointError

_PICKLE = "data.pkl"
_MOST_BYTES = 256 * 2**20  # of the pickled structure, which holds no weights
_PLAIN = {"__builtin__", "_codecs", "builtins", "collections", "numpy", "pathlib", "torch"}
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
        CheckpointError: no such file, it cannot be read, or it is plainly something else.
    """
    if not path.exists():
        raise CheckpointError(f"checkpoint {path} is not there: give a .pt file")
    try:
        refuse_foreign(path)
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                # Before 1.6 torch wrote its own mark, version and machine, and then the structure, each a pickle.
                return [_names(file) for _ in range(4)][-1]
        with zipfile.ZipFile(path) as archive:
            return _names(_pickle_in(archive))
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError):  # torn, encrypted, or something else
        return Contents()
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {reason_of(error)}") from error


def unknown_to_torch(contents: Contents) -> str:
    """Why a file that no family recognises is not opened, and what to do."""
    if not contents.classes and not contents.strings:
        return "torch.save did not write it, or it is cut off; download or copy it again"
    packages = sorted({name.partition(".")[0] for name in contents.classes} - _PLAIN)
    if packages:
        return (
            f"it holds objects of {', '.join(packages)}, and nothing in a file is run: save what they hold as a state "
            "dict, torch.save(model.state_dict(), ...), or give a checkpoint of a family that raylearn knows"
        )
    return "it is not a checkpoint of a family that raylearn knows: give best.pt, or a state dict"


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
