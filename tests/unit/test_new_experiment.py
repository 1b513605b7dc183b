"""`raylearn init`: what it writes for a data set runs, says what was found, and is written over nothing."""

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from raylearn import api
from raylearn.cli import main
from raylearn.errors import ConfigError, DatasetError
from raylearn.handoff.dataset_folder import write_dataset
from tests.conftest import SHARED


@pytest.fixture
def yolo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """24 images in the pool and 2 held out, of 40x24 pixels."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my data"
    for number in range(26):
        split = "train" if number < 24 else "val"
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 24), (number, 0, 0)).save(folder / f"images/{split}/{number}.png")
        (folder / f"labels/{split}/{number}.txt").write_text(f"{number % 3 % 2} 0.5 0.5 0.5 0.5\n")
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [crab, fish]\n")
    return folder


def code_of(*arguments: str) -> object:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


@pytest.mark.parametrize("format", ["yolo", "coco", "voc"])
def test_what_is_written_for_a_data_set_is_fine(format: str, yolo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = yolo
    if format != "yolo":
        dataset = api.load_dataset(yolo, "yolo")
        path = write_dataset(dataset, format, yolo.parent / format, about={}, about_images={})  # type: ignore[arg-type]
    assert code_of("init", "mine.yaml", "--format", format, "--path", str(path)) == 0
    assert code_of("check", "mine.yaml") == 0
    assert "24 images in the pool, 2 held out, classes crab, fish" in capsys.readouterr().out
    content = yaml.safe_load(Path("mine.yaml").read_text())
    assert (content["initial_size"], content["budget"], content["arms"]["query_size"]) == (2, 8, [2])
    assert content["detector"]["image_size"] == 64
    text = Path("mine.yaml").read_text()
    assert "all of 40x24 pixels" in text
    assert "crab (16), fish (8)" in text


def test_without_a_data_set_it_is_the_reef(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert code_of("init") == 0
    assert code_of("check", "experiment.yaml") == 0
    assert api.open_experiment("experiment.yaml").dataset.format == "reef"


def test_nothing_is_written_over_another_file(yolo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text("precious")
    assert code_of("init", "mine.yaml", "--format", "yolo", "--path", str(yolo)) == 2
    assert "mine.yaml is there already" in capsys.readouterr().err
    assert Path("mine.yaml").read_text() == "precious"


@pytest.mark.parametrize("given", [["--format", "yolo"], ["--path", "here"]])
def test_format_and_path_come_together(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("init", "/nowhere/mine.yaml", *given) == 2
    assert "--format and --path belong together" in capsys.readouterr().err


def test_bad_boxes_are_left_out_by_a_setting_that_the_file_shows(yolo: Path) -> None:
    (yolo / "labels/train/3.txt").write_text("0 0.5 0.5 0.5 0.5\n0 0.5 0.5 9 0.5\n")
    api.init("mine.yaml", format="yolo", path=yolo)
    assert "bad_boxes: drop           # 1 that cannot be right" in Path("mine.yaml").read_text()
    assert len(api.check("mine.yaml").pool) == 24


def test_what_else_is_wrong_is_listed_and_nothing_is_written(yolo: Path) -> None:
    (yolo / "labels/train/3.txt").unlink()
    with pytest.raises(DatasetError) as refused:
        api.init("mine.yaml", format="yolo", path=yolo)
    assert "has no label file" in refused.value.problems[0]
    assert not Path("mine.yaml").exists()


@pytest.mark.parametrize("num_pool", [2, 3, 9, 10, 11, 19, 150])
def test_the_budget_fits_a_pool_of_any_size(num_pool: int, yolo: Path) -> None:
    images = sorted((yolo / "images/train").iterdir())
    for extra in range(len(images), num_pool):
        Image.new("RGB", (40, 24), (extra, 9, 0)).save(yolo / f"images/train/{extra}.png")
        (yolo / f"labels/train/{extra}.txt").write_text("")
    for image in images[num_pool:]:
        image.unlink()
    api.init("mine.yaml", format="yolo", path=yolo)
    experiment = api.open_experiment("mine.yaml")
    assert experiment.initial_size + experiment.budget_size <= num_pool
    assert len(api.check("mine.yaml").pool) == num_pool


@pytest.mark.parametrize("name", ["2024", "on", "ümläut #1", "..."])
def test_a_folder_of_any_name_names_a_run(name: str, yolo: Path) -> None:
    yolo.rename(yolo.parent / name if name != "..." else yolo.parent / "...")
    api.init("mine.yaml", format="yolo", path=yolo.parent / name)
    assert isinstance(api.open_experiment("mine.yaml").name, str)


def test_a_strange_class_name_stays_in_its_comment(yolo: Path) -> None:
    names = ["a\nbudget: 7", "fish # \u2028 x"]
    (yolo / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: {json.dumps(names)}\n")
    api.init("mine.yaml", format="yolo", path=yolo)
    assert api.open_experiment("mine.yaml").budget_size == 8


def test_one_image_is_no_pool(yolo: Path) -> None:
    for image in sorted((yolo / "images/train").iterdir())[1:]:
        image.unlink()
    with pytest.raises(DatasetError, match="1 images in the pool: at least two"):
        api.init("mine.yaml", format="yolo", path=yolo)
    with pytest.raises(ConfigError, match="is there already"):
        api.init(yolo / "data.yaml")


@pytest.mark.parametrize("format", ["yolo", "voc"])
def test_photographs_of_blood_cells(format: str, tmp_path: Path) -> None:
    path = SHARED / f"data/bccd_{format}"
    if not path.exists():
        pytest.skip(f"{path.name} is not there; the README says how to get the BCCD data")
    api.init(tmp_path / "blood.yaml", format=format, path=path)
    assert len(api.check(tmp_path / "blood.yaml").pool) in (283, 292)
