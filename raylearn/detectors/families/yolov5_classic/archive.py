"""Reads a .pt file of the original YOLOv5 repository without running anything in it.

Such a file is a zip: a pickle of the repository's own classes, and beside it the bytes of each tensor. Here the pickle
may name only what `_is_known` lists, and whatever it names becomes a `StandIn`, which keeps what it was given. Nothing
is imported or called, so even a listed name cannot do harm.
"""

import io
import math
import pickle
import pickletools
import zipfile
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch

from raylearn.detectors.checkpoints import first_line
from raylearn.errors import CheckpointError

_STORAGES = {
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.BoolStorage": torch.bool,
    "torch.ByteStorage": torch.uint8,
    "torch.CharStorage": torch.int8,
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.IntStorage": torch.int32,
    "torch.LongStorage": torch.int64,
    "torch.ShortStorage": torch.int16,
}
_TENSOR = "torch._utils._rebuild_tensor_v2"
_PARAMETER = "torch._utils._rebuild_parameter"
_NAMES = frozenset(
    {
        *_STORAGES,
        _TENSOR,
        _PARAMETER,
        "torch.Size",
        "torch.device",
        *(f"torch.{name}" for name in ("float16", "float32", "float64", "bfloat16", "int32", "int64", "uint8", "bool")),
        "__builtin__.set",
        "builtins.set",
        "__builtin__.getattr",  # how a bound method is written, such as the forward of a fused layer
        "builtins.getattr",
        "_codecs.encode",  # how protocol 2 writes bytes
    }
)
_MODULES = ("models", "utils", "yolov5", "torch.nn", "numpy", "pathlib", "datetime", "argparse")
_DICTIONARIES = frozenset({"collections.OrderedDict"})
_LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
"""What a file begins with that torch wrote before 1.6, when it was not a zip yet."""


class StandIn:
    """Stands for an object of a checkpoint: keeps what it was made of, and does nothing.

    Attributes:
        origin: the name that the pickle gives, such as "models.yolo.Model".
        arguments: what it was called with.
        state: its attributes by name.
    """

    __slots__ = ("arguments", "state")
    origin: ClassVar[str] = ""
    arguments: tuple[Any, ...]
    state: dict[str, Any]

    def __new__(cls, *arguments: Any) -> "StandIn":
        made = super().__new__(cls)
        made.arguments, made.state = arguments, {}
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}

    @property
    def class_name(self) -> str:
        """The last part of its origin, such as "Model"."""
        return self.origin.rpartition(".")[2]


class _Dictionary(dict[Any, Any]):
    """An OrderedDict of a checkpoint; attributes that a pickle gives it are left out."""

    __slots__ = ()

    def __setstate__(self, _state: Any) -> None: ...


class Archive:
    """An open checkpoint.

    Args:
        path: of a file as torch.save writes it.

    Raises:
        CheckpointError: no such file, a torn one, one that is larger than it seems, or one that names what has no
            place in a checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                if file.read(len(_LEGACY)) == _LEGACY:
                    raise CheckpointError("torch before 1.6 wrote it: load and save it again in the yolov5 repository")
            self._zip = zipfile.ZipFile(path)
            self._records = {record.filename: record for record in self._zip.infolist()}
            self._refuse_bombs()
            self._root = self._named("data.pkl").removesuffix("data.pkl")
            if f"{self._root}byteorder" in self._records and self._read("byteorder") != b"little":
                raise CheckpointError("it was written on a big-endian machine: save it again on another")
            self.content: Any = _Unpickler.read(self._read("data.pkl"))
        except CheckpointError as error:
            raise CheckpointError(f"{path} cannot be used: {error}") from error
        except Exception as error:  # of zipfile and of pickle, which stumble in many ways
            raise self._torn(error) from error

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def tensor(self, value: Any) -> torch.Tensor:
        """The tensor that a stand-in stands for.

        Raises:
            CheckpointError: it stands for something else, or its bytes are not all there.
        """
        if isinstance(value, StandIn) and value.origin == _PARAMETER:
            value = value.arguments[0]
        if not isinstance(value, StandIn) or value.origin != _TENSOR:
            raise CheckpointError(f"{self.path} is not a whole checkpoint: a tensor is missing")
        try:
            storage, offset, size, stride = value.arguments[:4]
            _, kind, key, _, count = storage.arguments
            dtype = _STORAGES[kind.origin]
            data = bytearray(self._read(f"data/{key}"))
            if len(data) != count * dtype.itemsize or math.prod(size) > count:
                raise ValueError(f"tensor {key} has other bytes than its shape asks for")
            return torch.frombuffer(data, dtype=dtype).as_strided(size, stride, offset).clone()
        except Exception as error:  # whatever a damaged or crafted file has in place of these numbers
            raise self._torn(error) from error

    def _refuse_bombs(self) -> None:
        records = self._zip.infolist()
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise CheckpointError("its parts are compressed, as torch never writes them: give the original file")
        if sum(record.file_size for record in records) > self.path.stat().st_size:
            raise CheckpointError("its parts are declared larger than the file: it is torn, or made to do harm")

    def _named(self, end: str) -> str:
        name = next((name for name in self._records if name.rpartition("/")[2] == end), None)
        if name is None:
            raise CheckpointError(f"it holds no {end}, so torch did not write it")
        return name

    def _read(self, name: str) -> bytes:
        return self._zip.read(f"{self._root}{name}")

    def _torn(self, error: Exception) -> CheckpointError:
        return CheckpointError(f"{self.path} cannot be opened as a checkpoint: {first_line(error)}")


class _Unpickler(pickle.Unpickler):
    """Makes dictionaries, lists, numbers, texts and stand-ins, and nothing else."""

    @classmethod
    def read(cls, data: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(data):
            # the memo is an array as long as its largest index
            if opcode.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > len(data):
                raise CheckpointError("its pickle was made to fill the memory")
        return cls(io.BytesIO(data)).load()

    def find_class(self, module: str, name: str) -> Any:
        origin = f"{module}.{name}"
        if origin in _DICTIONARIES:
            return _Dictionary
        if not _is_known(module, origin):
            raise CheckpointError(f"its pickle asks for {origin}, which no YOLOv5 checkpoint needs: not opened")
        return _stand_in_class(origin)

    def persistent_load(self, pid: Any) -> StandIn:
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage":
            raise CheckpointError("its pickle refers to something that is not a tensor: not opened")
        return _stand_in_class("storage")(*pid)


def _is_known(module: str, origin: str) -> bool:
    return origin in _NAMES or any(module == known or module.startswith(f"{known}.") for known in _MODULES)


@cache
def _stand_in_class(origin: str) -> type[StandIn]:
    return type("StandIn", (StandIn,), {"__slots__": (), "origin": origin})
