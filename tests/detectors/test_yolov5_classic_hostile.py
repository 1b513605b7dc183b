"""Checkpoints that were damaged, or made to do harm: none of them runs anything, and each is refused."""

import argparse
import contextlib
import copy
import io
import os
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from raylearn.detectors import family_of
from raylearn.detectors.base import DetectorSettings, Engine
from raylearn.detectors.families.yolov5_classic import FAMILY
from raylearn.detectors.families.yolov5_classic.archive import Archive, StandIn
from raylearn.errors import CheckpointError
from tests.detectors.classic_files import TINY, Model, edit, save, write

CANARY = "canary"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class _Call:
    """Is pickled as the call of something; and what follows it."""

    def __init__(self, *reduced: Any) -> None:
        self._reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reduced


def _shell() -> _Call:
    return _Call(os.system, (f"touch {CANARY}",))


def _opcodes(*parts: bytes) -> bytes:
    return b"".join((*parts, b"."))


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


_TOUCH = _text(f"touch {CANARY}")
_PATH = _named("pathlib", "PosixPath") + b"(" + _text(CANARY) + b"tR"
_PATH_TOUCH = _named("builtins", "getattr") + b"(" + _named("pathlib", "PosixPath") + _text("touch") + b"tR"
_NAMESPACE = _named("argparse", "Namespace") + b")\x81"

HOSTILE: dict[str, Callable[[], bytes]] = {
    "os.system": lambda: pickle.dumps(_shell(), 2),
    "os.system in protocol 4": lambda: pickle.dumps(_shell(), 4),
    "os.system by an opcode of protocol 0": lambda: _opcodes(b"(S'touch ", CANARY.encode(), b"'\nios\nsystem\n"),
    "eval": lambda: pickle.dumps(_Call(eval, (f"open({CANARY!r}, 'w')",)), 2),
    "exec": lambda: pickle.dumps(_Call(exec, (f"open({CANARY!r}, 'w')",)), 2),
    "in a checkpoint, where its model is": lambda: pickle.dumps({"model": _shell(), "ema": None}, 2),
    "in the attributes of something listed": lambda: pickle.dumps(
        {"model": argparse.Namespace(yaml={"nc": _shell()})}, 2
    ),
    "as an argument of something listed": lambda: _opcodes(
        _named("pathlib", "PosixPath"), b"(", _named("os", "system"), b"(", _TOUCH, b"tRtR"
    ),
    "as an attribute that pickle calls": lambda: _opcodes(
        _NAMESPACE, b"}", _text("__setstate__"), _named("os", "system"), b"sb", _TOUCH, b"b"
    ),
    "listed names as an attribute that pickle calls": lambda: _opcodes(
        _NAMESPACE, b"}", _text("__setstate__"), _PATH_TOUCH, b"sb", _PATH, b"b"
    ),
    "listed names, called": lambda: _opcodes(_PATH_TOUCH, b"(", _PATH, b"tR"),
    "as what rebuilds a tensor": lambda: pickle.dumps(
        _Call(torch._tensor._rebuild_from_type_v2, (os.system, torch.Tensor, (f"touch {CANARY}",), {})), 2
    ),
    "as an argument of what rebuilds a tensor": lambda: pickle.dumps(
        _Call(torch._utils._rebuild_parameter, (_shell(), False, OrderedDict())), 2
    ),
    "as the state of an OrderedDict": lambda: pickle.dumps(_Call(OrderedDict, (), {"_metadata": _shell()}), 2),
    "as an item of an OrderedDict": lambda: pickle.dumps(
        _Call(OrderedDict, (), None, None, iter([("a", _shell())])), 2
    ),
    "by code that numpy runs": lambda: _opcodes(
        _named("numpy.testing._private.utils", "runstring"), b"(", _text(f"open({CANARY!r}, 'w')"), b"}tR"
    ),
}


def _refuse(path: Path) -> str:
    """What both ways of opening a checkpoint say of it."""
    with pytest.raises(CheckpointError) as refused:
        FAMILY.read_checkpoint(path)
    detector = FAMILY.build("", DetectorSettings(64, 0.1, 0.5, 10), {}, "cpu", 1, Engine())
    with pytest.raises(CheckpointError):
        detector.load(path)
    assert path.name in str(refused.value)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_runs_nothing(name: str) -> None:
    data = HOSTILE[name]()
    with contextlib.suppress(Exception):
        pickle.loads(data)
    Path(CANARY).unlink()  # it was there, so the pickle is hostile indeed
    _refuse(write(Path("hostile.pt"), {"data.pkl": data}))
    assert not Path(CANARY).exists()


@pytest.mark.parametrize("key", ["opt", "optimizer", "epoch"])
def test_a_whole_checkpoint_with_something_hostile_in_it_is_refused_by_name(key: str) -> None:
    path = save(Path("best.pt"), {"model": Model(TINY), "ema": None, key: [{"a": _shell()}]})
    assert family_of(path).name == "yolov5-classic"
    assert "its pickle asks for posix.system, which no YOLOv5 checkpoint needs: not opened" in _refuse(path)
    assert not Path(CANARY).exists()


def test_a_class_of_a_checkpoint_cannot_be_given_attributes() -> None:
    for state in (b"}" + _text("origin") + _text("changed") + b"s", b"N}" + _text("origin") + _text("x") + b"s\x86"):
        path = write(Path("class.pt"), {"data.pkl": _opcodes(_named("models.yolo", "Model"), state, b"b")})
        _refuse(path)
    assert StandIn.origin == ""
    assert _opened(_opcodes(_named("models.yolo", "Model"), b")R")).origin == "models.yolo.Model"


def test_reading_imports_none_of_the_modules_that_a_checkpoint_names() -> None:
    FAMILY.read_checkpoint(save(Path("best.pt"), {"model": Model(TINY)}))
    assert not {"models", "models.yolo", "models.common", "utils"} & set(sys.modules)


# Tensors


class _Stored:
    def __init__(self, pid: Any) -> None:
        self.pid = pid


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.pid if isinstance(value, _Stored) else None


def _opened(data: bytes, parts: dict[str, bytes] | None = None) -> Any:
    with Archive(write(Path("tensor.pt"), {"data.pkl": data, **(parts or {})})) as archive:
        return archive.content


def _tensor(pid: Any, offset: Any = 0, size: Any = (2, 3), stride: Any = (3, 1)) -> torch.Tensor:
    buffer = io.BytesIO()
    rebuilt = _Call(torch._utils._rebuild_tensor_v2, (_Stored(pid), offset, size, stride, False, OrderedDict()))
    _Pickler(buffer, 2).dump(rebuilt)
    numbers = struct.pack("<6f", *range(6))
    path = write(Path("tensor.pt"), {"data.pkl": buffer.getvalue(), "data/0": numbers, "data/1": numbers[:-1]})
    with Archive(path) as archive:
        return archive.tensor(archive.content)


_PID = ("storage", torch.FloatStorage, "0", "cpu", 6)


def test_a_tensor_is_read_with_its_shape_and_strides() -> None:
    assert _tensor(_PID).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert _tensor(_PID, 1, (2, 2), (1, 3)).tolist() == [[1, 4], [2, 5]]


@pytest.mark.parametrize(
    "arguments",
    [
        (("storage", torch.FloatStorage, "7", "cpu", 6),),
        (("storage", torch.FloatStorage, "../../../etc/passwd", "cpu", 6),),
        (("storage", torch.FloatStorage, "1", "cpu", 6),),
        (("storage", torch.FloatStorage, "0", "cpu", 10**15),),
        (("storage", torch.FloatStorage, "0", "cpu", -6),),
        (("storage", torch.FloatStorage, "0", "cpu", "6"),),
        (("storage", torch.DoubleStorage, "0", "cpu", 6),),
        (("storage", torch.nn.Conv2d, "0", "cpu", 6),),
        (("storage", "torch.FloatStorage", "0", "cpu", 6),),
        (("module", torch.FloatStorage, "0", "cpu", 6),),
        (("storage", torch.FloatStorage, "0"),),
        ("storage",),
        (_PID, 6),
        (_PID, -1),
        (_PID, 0, (10**9, 10**9), (0, 0)),
        (_PID, 0, (7,), (0,)),
        (_PID, 0, (2, 3), (6, 1)),
        (_PID, 0, (2, 3), (-3, 1)),
        (_PID, 0, (-2, 3)),
        (_PID, 0, (2,), (3, 1)),
        (_PID, 0, "23"),
        (_PID, 0, None),
    ],
    ids=str,
)
def test_a_tensor_that_its_bytes_do_not_hold_is_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(CheckpointError, match=r"tensor\.pt"):
        _tensor(*arguments)


# Damage, and files that are larger than they seem


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9, 0.999])
def test_a_torn_file_is_refused(kept: float) -> None:
    path = save(Path("torn.pt"), {"model": Model(TINY)})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    _refuse(path)


def test_a_flipped_bit_in_a_weight_is_refused() -> None:
    path = save(Path("flipped.pt"), {"model": Model(TINY)})
    with zipfile.ZipFile(path) as archive:
        weights = archive.read("archive/data/0")
    data = bytearray(path.read_bytes())
    data[data.index(weights)] ^= 1
    path.write_bytes(data)
    assert "CRC" in _refuse(path)


@pytest.mark.parametrize("change", [lambda data: data[:-4], lambda data: data + b"\0\0\0\0", lambda _: b""])
def test_weights_of_another_length_are_refused(change: Callable[[bytes], bytes]) -> None:
    _refuse(edit(save(Path("short.pt"), {"model": Model(TINY)}), {"data/0": change}))


def test_a_zip_without_a_pickle_is_refused() -> None:
    assert "it holds no data.pkl, so torch did not write it" in _refuse(write(Path("a.pt"), {"data/0": b"abcd"}))


def test_bytes_of_the_other_order_are_refused() -> None:
    path = edit(save(Path("big.pt"), {"model": Model(TINY)}), {"byteorder": lambda _: b"big"})
    assert "written on a big-endian machine" in _refuse(path)


def test_compressed_parts_are_refused_before_they_are_unpacked() -> None:
    path = write(Path("bomb.pt"), {"data.pkl": b"}" + b"0}" * 10**6 + b"."}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**5
    assert "its parts are compressed, as torch never writes them" in _refuse(path)


def test_parts_that_share_their_bytes_are_refused() -> None:
    """As in zip bombs: each of many names stands for the same large part."""
    path = Path("bomb.pt")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"}.")
        archive.writestr("archive/data/0", bytes(10**4))
        for index in range(1, 50):
            again = copy.copy(archive.getinfo("archive/data/0"))
            again.filename = f"archive/data/{index}"
            archive.filelist.append(again)
    assert "declared larger than the file" in _refuse(path)


def test_a_part_that_is_declared_larger_than_the_file_is_refused() -> None:
    path = Path("bomb.pt")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"}.")
        archive.getinfo("archive/data.pkl").file_size = 2**40
    assert "declared larger than the file" in _refuse(path)


def test_a_pickle_that_asks_for_a_huge_memo_is_refused() -> None:
    path = write(Path("bomb.pt"), {"data.pkl": _opcodes(b"}r\xf0\xff\xff\xff")})
    assert "made to fill the memory" in _refuse(path)


def test_modules_that_hold_each_other_are_refused_at_once() -> None:
    circle, ladder = Model(TINY), Model(TINY)
    circle.model[0].add_module("again", circle.model)
    rung = torch.nn.Sequential(torch.nn.Identity())
    for _ in range(60):  # 2 ** 60 paths lead to the last
        rung = torch.nn.Sequential(rung, rung)
    ladder.model[0].add_module("ladder", rung)
    for model in (circle, ladder):
        assert "is in it twice" in _refuse(save(Path("endless.pt"), {"model": model}))
