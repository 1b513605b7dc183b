"""A look into checkpoints without torch: what they say of themselves, and nothing for those that are not whole."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from raylearn.detectors import family_of, read_checkpoint
from raylearn.detectors.checkpoint_contents import written_facts
from raylearn.detectors.checkpoints import write_checkpoint

FORM = "raylearn-yolo-1"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    from raylearn.detectors.families.ultralytics.detector import build_model

    path = tmp_path / "written.pt"
    write_checkpoint(path, FORM, "yolov5n", ("crab", "fish"), 320, build_model("yolov5n", 2).state_dict())
    return path


def test_a_checkpoint_says_without_torch_what_it_says_with_it(written: Path) -> None:
    facts = written_facts(written)
    assert facts is not None
    assert facts == family_of(written).read_checkpoint(written) == read_checkpoint(written)
    assert (facts.model, facts.class_names, facts.image_size) == ("yolov5n", ("crab", "fish"), 320)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def flip(path: Path) -> None:
    """One bit of a tensor."""
    with zipfile.ZipFile(path) as archive:
        middle = archive.getinfo(f"{archive.namelist()[0].split('/')[0]}/data/5").header_offset + 300
    data = bytearray(path.read_bytes())
    data[middle] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, flip])
def test_of_a_damaged_checkpoint_nothing_is_said(written: Path, damage: Callable[[Path], None]) -> None:
    damage(written)
    assert written_facts(written) is None


class _Hostile:
    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self._canary}",)


def test_what_is_no_plain_checkpoint_is_left_to_its_family_and_runs_no_code(tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "other.pt"
    whole = {"format": FORM, "model": "yolov5n", "class_names": ["a"], "image_size": 64, "state_dict": {}}
    torch.save(whole, path)
    assert written_facts(path) is not None
    for change in (
        {"state_dict": {"weight": _Hostile(canary)}},
        {"state_dict": None},
        {"class_names": [1]},
        {"image_size": None},
        {"format": None},
    ):
        torch.save({**whole, **change}, path)
        assert written_facts(path) is None
    assert not canary.exists()
