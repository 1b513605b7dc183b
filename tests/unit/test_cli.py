"""Wrong experiment files, data sets and commands: exit code 2, one line, and no traceback."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from raylearn.cli import main
from raylearn.config import Experiment, dump_experiment

GOOD: dict[str, Any] = {
    "name": "good",
    "dataset": {"format": "yolo", "path": "data"},
    "initial_size": 2,
    "budget": 2,
    "arms": {"query_size": [1]},
}


def _write_yolo(folder: Path) -> None:
    """Four images to label from and two held out, each with one box, no two alike."""
    for split, numbers in (("train", range(4)), ("val", range(4, 6))):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for number in numbers:
            Image.new("RGB", (32, 24), (number * 40, 0, 0)).save(folder / "images" / split / f"{number}.png")
            (folder / "labels" / split / f"{number}.txt").write_text("0 .5 .5 .2 .2\n")
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [fish]\n")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    _write_yolo(tmp_path / "data")
    return tmp_path


def _error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    captured = capsys.readouterr()
    assert stopped.value.code == 2, captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    return captured.err


def _change(path: str, value: object) -> dict[str, Any]:
    content = json.loads(json.dumps(GOOD))
    *parents, last = path.split(".")
    section = content
    for name in parents:
        section = section.setdefault(name, {})
    section[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("datset", {}, "did you mean 'dataset'"),
        ("training.epoch", 3, "did you mean 'epochs'"),
        ("training.epochs", "many", "training.epochs"),
        ("training.epochs", 0, "greater than or equal to 1"),
        ("training.options", {"lr00": 0.1}, "did you mean 'lr0'"),
        ("dataset.format", "yollo", "did you mean 'yolo'"),
        ("dataset.path", None, "needs dataset.path"),
        ("dataset.path", "nowhere", "nowhere"),
        ("dataset.pool", ["trian"], "trian"),
        ("detector.image_size", 100, "multiple of 32"),
        ("detector.initial_weights", "gone.pt", "gone.pt"),
        ("detector.initial_weights", "experiment.yaml", "experiment.yaml"),
        ("question", "\ud800", "written out again"),
        ("arms.uncertainty", ["entropi"], "did you mean 'entropy'"),
        ("arms.aggregation", ["sum", "sum"], "sum stands twice"),
        ("arms.weighting", ["inverse"], "unknown value 'inverse'"),
        ("arms.probabilities", ["conditional"], "use `background`"),
        ("arms.controls", ["random", "best"], "unknown value 'best'"),
        ("arms.query_size", [], "arms.query_size"),
        ("arms.query_size", [3], "no multiple of query_size 3"),
        ("budget", 20, "lower budget"),
        ("seeds", [], "seeds"),
        ("seeds", [1, 1], "1 stands twice"),
        ("name", "../out", "name"),
    ],
)
def test_a_wrong_experiment_is_refused(
    path: str, value: object, said: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "experiment.yaml").write_text(yaml.safe_dump(_change(path, value)))
    assert said in _error_of(["run", "experiment.yaml"], capsys)


def _label(text: str) -> Callable[[Path], object]:
    return lambda data: (data / "labels" / "train" / "2.txt").write_text(text)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_label("0 .5 .5 .2\n"), "2.txt:1"),
        (_label("0 .5 .5 .2 .2\n0 .5 nan .2 .2\n"), "2.txt:2"),
        (_label("7 .5 .5 .2 .2\n"), "2.txt:1"),
        (_label("0 .5 .5 0 .2\n"), "2.txt:1"),
        (_label("0 .9 .5 .9 .2\n"), "2.txt:1"),
        (lambda data: (data / "labels" / "train" / "2.txt").unlink(), "missing_labels"),
        (
            lambda data: shutil.copy(data / "images" / "train" / "1.png", data / "images" / "val" / "5.png"),
            "same bytes",
        ),
        (lambda data: (data / "images" / "train" / "3.png").write_text("no image"), "3.png"),
        (lambda data: (data / "data.yaml").write_text("train: [\n"), "data.yaml"),
        (lambda data: (data / "data.yaml").write_text("train: images/train\nnames: [fish]\n"), "val"),
    ],
)
def test_a_wrong_data_set_is_refused(
    spoil: Callable[[Path], object], said: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(workplace / "data")
    (workplace / "experiment.yaml").write_text(yaml.safe_dump(GOOD))
    assert said in _error_of(["run", "experiment.yaml"], capsys)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnu", "experiment.yaml"], "run"),
        (["run"], "file"),
        (["run", "nowhere.yaml"], "nowhere.yaml"),
        (["run", "experiment.yaml", "--ouut", "x"], "--out"),
        (["run", "experiment.yaml", "training.epochs"], "key=value"),
        (["run", "experiment.yaml", "name.first=x"], "name is no section"),
        (["run", "experiment.yaml", "seeds=[1,"], "no YAML"),
        (["run", "list.yaml"], "must be a mapping"),
        (["run", "hostile.yaml"], "no YAML file"),
        (["run", "bytes.yaml"], "no YAML file"),
        (["check", "experiment.yaml", "dataset.path=nowhere"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
    ],
)
def test_a_wrong_command_is_refused(
    arguments: list[str], said: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "experiment.yaml").write_text(yaml.safe_dump(GOOD))
    (workplace / "list.yaml").write_text("[1, 2]\n")
    (workplace / "hostile.yaml").write_text("name: !!python/object/apply:os.system ['touch canary']\n")
    (workplace / "bytes.yaml").write_bytes(b"\xff\xfe\x00\x01")
    assert said in _error_of(arguments, capsys)
    assert not (workplace / "canary").exists()


def test_a_folder_of_another_experiment_is_refused_with_the_difference(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "runs" / "good").mkdir(parents=True)
    there = dump_experiment(Experiment.model_validate(_change("budget", 1)))
    (workplace / "runs" / "good" / "experiment.yaml").write_text(there)
    (workplace / "experiment.yaml").write_text(yaml.safe_dump(GOOD))
    assert "budget=1, not 2" in _error_of(["run", "experiment.yaml"], capsys)


@pytest.mark.parametrize("content", ["1: 2", "a: &a {b: *a}", "a: !!timestamp x", "- list", "\x00"])
def test_a_folder_with_a_broken_experiment_is_refused(
    content: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "runs" / "good").mkdir(parents=True)
    (workplace / "runs" / "good" / "experiment.yaml").write_text(content)
    (workplace / "experiment.yaml").write_text(yaml.safe_dump(GOOD))
    assert "another folder with --out" in _error_of(["run", "experiment.yaml"], capsys)


def test_an_output_folder_that_is_none_is_refused(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workplace / "experiment.yaml").write_text(yaml.safe_dump(GOOD))
    (workplace / "loop").symlink_to("loop")
    (workplace / "locked" / ".lock").mkdir(parents=True)
    for out in ("loop", "experiment.yaml", "locked"):
        assert out in _error_of(["run", "experiment.yaml", "--out", out], capsys)


@pytest.mark.parametrize("command", ["run", "report", "check", "schema"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert len(capsys.readouterr().out) > 150


def test_the_schema_is_json_and_describes_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["schema"])
    schema = json.loads(capsys.readouterr().out)
    assert {"dataset", "detector", "training", "arms", "seeds"} <= schema["properties"].keys()
