"""What is given as a checkpoint and is none: each kind is told what it is and what to give instead."""

import zipfile
from pathlib import Path

import pytest
import torch

from raylearn import api
from raylearn.detectors import check_detector, read_checkpoint, weights_taken
from raylearn.errors import CheckpointError
from tests.unit.hand_made import make_experiment
from tests.unit.test_cli import call

FILES = {
    "git-lfs pointer": ("best.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git-lfs pointer"),
    "web page": ("best.pt", b"\n<!DOCTYPE html>\n<html></html>", "it is a web page"),
    "text": ("best.pt", b"Not Found", "it is text"),
    "nothing": ("best.pt", b"", "it has 0 bytes"),
    "ONNX": ("best.onnx", b"\x08\x08\x12\x07pytorch\0", "it is an ONNX model: give the .pt file"),
    "ONNX named .pt": ("best.pt", b"\x08\x08\x12\x07pytorch\0", "it is an ONNX model: give the .pt file"),
    "TensorRT": ("best.engine", b"ftrt\0\0\0", "it is a TensorRT engine: give the .pt file"),
    "engine of Ultralytics": ("best.pt", b'\x20\x02\0\0{"description": "x"}\0', "it is a TensorRT engine"),
    "TensorFlow Lite": ("best.pt", b"\x1c\0\0\0TFL3\0", "it is a TensorFlow Lite model"),
    "OpenVINO's xml": ("best.xml", b'<?xml version="1.0"?>\n<net name="Model0">', "it is an OpenVINO model"),
    "gzip": ("best.pt", b"\x1f\x8b\x08\0", "it is a gzip archive: unpack it"),
    "cut off": ("best.pt", b"PK\x03\x04broken", "it is cut off; download or copy it again"),
}


@pytest.fixture(params=FILES)
def given(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    name, content, message = FILES[request.param]
    (tmp_path / name).write_bytes(content)
    return tmp_path / name, message


def test_a_file_that_is_no_checkpoint_is_told_what_it_is(given: tuple[Path, str]) -> None:
    path, message = given
    for open_it in (read_checkpoint, lambda path: check_detector("yolov5n", {"epochs": 1}, path)):
        with pytest.raises(CheckpointError) as caught:
            open_it(path)
        assert str(caught.value).startswith(f"{path} cannot be opened as a checkpoint: ")
        assert message in str(caught.value)
        assert str(caught.value).isascii()


def test_folders_and_archives_are_told_too(tmp_path: Path) -> None:
    (tmp_path / "best_openvino_model").mkdir()
    for name in ("best.xml", "best.bin"):
        (tmp_path / "best_openvino_model" / name).touch()
    with zipfile.ZipFile(tmp_path / "run.zip", "w") as archive:
        archive.writestr("weights/best.pt", b"")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "best.pt"))
    for name, message in (
        ("best_openvino_model", "it is an OpenVINO model: give the .pt file"),
        ("run.zip", "it is a zip archive without a checkpoint in it"),
        ("best.pt", "it is a TorchScript export"),
        (".", "it is a folder"),
    ):
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(tmp_path / name)


def test_a_folder_is_refused_by_the_command_too(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pool").mkdir()
    (tmp_path / "model").mkdir()
    assert call("score", "pool", "--checkpoint", "model", "--out", "ledger") == 2
    assert "model cannot be opened as a checkpoint: it is a folder: give the .pt file in it" in capsys.readouterr().err


def test_objects_of_another_library_are_named_and_not_opened(tmp_path: Path) -> None:
    from hypothesis.database import InMemoryExampleDatabase

    path = tmp_path / "other.pt"
    torch.save({"model": InMemoryExampleDatabase()}, path)
    with pytest.raises(CheckpointError, match="it holds objects of hypothesis, and nothing in a file is run"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("model", "task"), [("yolov8n-seg", "segmentation"), ("yolov8n-pose", "pose"), ("yolov8n-obb", "rotated-box")]
)
def test_a_model_of_another_task_is_named(model: str, task: str, tmp_path: Path) -> None:
    _saved(model, tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match=rf"best\.pt is a {task} model, .* give one trained for detection"):
        read_checkpoint(tmp_path / "best.pt")


def test_a_classification_model_is_named(tmp_path: Path) -> None:
    _saved("yolov8n-cls", tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match="is a classification model"):
        read_checkpoint(tmp_path / "best.pt")


def _saved(model: str, path: Path) -> None:
    from ultralytics import YOLO

    YOLO(f"{model}.yaml").save(path)


def test_a_classic_checkpoint_is_no_start_of_a_training_of_another_family(tmp_path: Path) -> None:
    from tests.detectors.classic_files import TINY, Model, save

    path = save(tmp_path / "classic.pt", {"model": Model(TINY)})
    with pytest.raises(
        CheckpointError, match=r"are of detector\.family yolov5-classic, which scores and does not train"
    ):
        check_detector("yolov5n", {"epochs": 1}, path)


@pytest.mark.parametrize(
    ("model", "task", "taken"),
    [("yolov8n-seg", "segmentation", 319), ("yolov8n-cls", "classification", 150), ("yolov8n", "", 319)],
)
def test_initial_weights_of_another_task_are_taken_as_far_as_they_fit_and_named(
    model: str, task: str, taken: int, tmp_path: Path
) -> None:
    path = tmp_path / "start.pt"
    _saved(model, path)
    check_detector("yolov8n", {"epochs": 1}, path)
    what = f"initial weights{f' of a {task} model' if task else ''}: {taken} of 355 tensors taken"
    assert weights_taken("yolov8n", 3, path) == f"{what} (the rest, such as the head, is new)"
    experiment = {"dataset": {"format": "reef"}, "detector": {"model": "yolov8n", "initial_weights": path}}
    assert api.check(make_experiment(**experiment)).notes[-1].startswith(what)
