"""`raylearn export` of a run made by hand: the set that a trial trained on, found again and written, or refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image as Picture

import raylearn
from raylearn.config import Experiment
from raylearn.config_files import dump_file
from raylearn.data.dataset import Dataset
from raylearn.data.export_record import RECORD_FILE
from raylearn.data.formats import read_dataset
from raylearn.detectors.base import TrainingSet
from raylearn.errors import ExportError, RunFolderError
from raylearn.sweep.grid import Trial, trials
from raylearn.sweep.results import dataset_facts, write_tables
from raylearn.sweep.runner import open_dataset
from raylearn.sweep.trial import Bench, TrialRound, run_trial
from tests.unit.test_cli import call, complaints
from tests.unit.test_trial import HandMaker

TRIAL = "random-q2-s1"
REEF = {"format": "reef", "reef": {"num_pool": 12, "num_test": 4, "width": 64, "height": 64}}


def experiment_of(folder: Path | None) -> Experiment:
    """On the data set in a folder, or on the reef."""
    content = {
        "name": "made",
        "dataset": {"format": "yolo", "path": str(folder)} if folder else REEF,
        "initial_size": 3,
        "budget": 4,
        "arms": {"query_size": [2], "uncertainty": [], "controls": ["random", "full_data"]},
        "seeds": [0, 1],
    }
    return Experiment.model_validate(content)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Trial, list[TrialRound]]]:
    """A folder with `data`, and with the `run` of two arms and two seeds on it; and the rounds of its trials."""
    root = tmp_path_factory.mktemp("made")
    data, run = root / "data", root / "run"
    for number in range(13):
        split = "train" if number < 12 else "val"
        for kind in ("images", "labels"):
            (data / kind / split).mkdir(parents=True, exist_ok=True)
        Picture.new("L", (61, 47), number).save(data / f"images/{split}/{number:02d}.png")
        rows = "" if number == 5 else f"{number % 3} 0.3 0.41 0.17 0.29\n0 0.6 0.7 0.2 0.3{number}\n"
        (data / f"labels/{split}/{number:02d}.txt").write_text(rows)
    (data / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [crab, fish, squid]\n")
    return root, write_run(experiment_of(data), run, root / "store")


def write_run(experiment: Experiment, run: Path, store: Path) -> dict[Trial, list[TrialRound]]:
    """The folder of a run whose trainings were made by hand, and its rounds."""
    bench = Bench.of(experiment, open_dataset(experiment, run / "data"))
    rounds = {trial: list(run_trial(trial, bench, HandMaker(store))) for trial in trials(experiment)}
    run.mkdir(exist_ok=True)
    write_tables(rounds, bench.dataset.num_classes, run)
    (run / "experiment.yaml").write_text(dump_file(experiment))
    failed = [{"trial": "box_count-q2-s0", "cause": "it diverged"}]
    (run / "run.json").write_text(json.dumps({"dataset": dataset_facts(bench.dataset), "failed": failed}))
    return rounds


@pytest.fixture
def root(made: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of the folder, to be spoilt; the run names the data set where it was first."""
    return Path(shutil.copytree(made[0], tmp_path / "made"))


def export(root: Path, trial: str = TRIAL, round: int = 1, format: Any = "yolo", **options: Any) -> Dataset:
    found = raylearn.export(root / "run", trial, round, format, root / "out", **options)
    return read_dataset(found.folder, format)


@pytest.mark.parametrize("format", ["yolo", "coco"])
def test_every_round_of_every_trial_trains_as_it_did(
    made: tuple[Path, dict[Trial, list[TrialRound]]], tmp_path: Path, format: Any
) -> None:
    folder, rounds = made
    bench = Bench.of(experiment_of(folder / "data"), read_dataset(folder / "data", "yolo"))
    for trial, finished in rounds.items():
        for done in finished:
            out = tmp_path / f"{trial.name}-{done.index}"
            raylearn.export(folder / "run", trial.name, done.index, format, out)
            again = read_dataset(out, format)
            assert {image.image_id for image in again.pool} == done.pool.labelled.keys()
            job = bench.training(done.pool, trial.seed)
            train = TrainingSet(
                again.class_names, again.pool, {i.image_id: again.truth[i.image_id] for i in again.pool}
            )
            assert replace(job, train=train).key == done.model.key


def test_training_on_all_of_an_exported_set_is_the_training_of_the_round(root: Path) -> None:
    """With `controls: [full_data]`, as docs/export.md says; so a shared store finds it."""
    dataset = export(root, round=2)
    content = {**experiment_of(root / "out").model_dump(), "initial_size": 1, "budget": 2}
    bench = Bench.of(Experiment.model_validate(content), dataset)
    (trial,) = (found for found in trials(bench.experiment) if found.name == "full_data-s1")
    rows = pq.read_table(root / "run/results.parquet").to_pylist()
    (row,) = (row for row in rows if (row["trial"], row["round"]) == (TRIAL, 2))
    assert bench.training(bench.start_pool(trial), 1).key == row["checkpoint"]


def test_an_exported_set_has_the_held_out_images_and_the_record_says_what_it_is(root: Path) -> None:
    found = raylearn.open_run(root / "run").export(TRIAL, 1, "coco", root / "out")
    source, again = read_dataset(root / "data", "yolo"), read_dataset(root / "out", "coco")
    assert [image.content_hash for image in again.test] == [image.content_hash for image in source.test]
    record = json.loads((root / "out" / RECORD_FILE).read_text())
    assert {key: record[key] for key in ("raylearn", "run", "trial", "round", "seed", "num_images")} == {
        "raylearn": raylearn.__version__,
        "run": str(root / "run"),
        "trial": TRIAL,
        "round": 1,
        "seed": 1,
        "num_images": {"pool": 12, "exported": 5, "test": 1},
    }
    assert record["dataset"]["fingerprint"] == source.fingerprint
    assert sorted(image["round"] for image in record["images"] if image["split"] == "pool") == [0, 0, 0, 1, 1]
    assert [line["pool"] for line in record["num_boxes"]] == [15, 4, 3]
    assert [line["exported"] for line in record["num_boxes"]] == _counts(again)
    assert found.balance["exported_share"].sum() == pytest.approx(1)
    assert str(found).startswith(f"{TRIAL}, round 1: 5 of 12 images, 1 held out\nclass ")


def _counts(dataset: Dataset) -> list[int]:
    return [
        sum((dataset.truth[image.image_id].class_ids == class_id).sum() for image in dataset.pool)
        for class_id in range(dataset.num_classes)
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trial": "randm-q2-s1"}, "the run has no trial 'randm-q2-s1': did you mean 'random-q2-s1'"),
        ({"trial": "box_count-q2-s0"}, r"trial box_count-q2-s0 failed \(it diverged\): run the experiment again"),
        ({"round": 3}, "trial random-q2-s1 has rounds 0 to 2, and no round 3"),
        ({"trial": "full_data-s0"}, "trial full_data-s0 has round 0 alone, and no round 1"),
        ({"format": "jolo"}, "format 'jolo' is unknown: did you mean 'yolo'"),
        ({"dataset": {"path": "/elsewhere"}}, "data set /elsewhere is not there: if it has moved, add dataset.path="),
        ({"budget": 2}, "only where the data set lies can be replaced"),
    ],
)
def test_what_is_not_there_is_refused_and_nothing_is_written(root: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ExportError, match=said):
        export(root, **options)
    assert not list(root.glob("*out*"))


def test_a_data_set_that_has_moved_is_named_anew_and_one_that_has_changed_is_refused(root: Path) -> None:
    moved = root / "data"
    export(root, dataset={"path": moved})
    labels = moved / "labels/train/00.txt"
    labels.write_text(labels.read_text().replace("0.41", "0.42"))
    shutil.rmtree(root / "out")
    with pytest.raises(ExportError, match="data set data has other images, labels or classes than when the run was"):
        export(root, overrides=[f"dataset.path={moved}"])
    assert not list(root.glob("*out*"))


def test_queries_of_another_run_are_refused(root: Path) -> None:
    path = root / "run/queries.parquet"
    rows = pq.read_table(path).to_pylist()
    asked = next(row for row in rows if row["trial"] == TRIAL)
    others = {row["image_id"] for row in rows if row["trial"] != TRIAL} - {
        row["image_id"] for row in rows if row["trial"] == TRIAL
    }
    asked["image_id"] = min(others)
    pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(ExportError, match="the images found for random-q2-s1, round 1 are not those that it trained"):
        export(root)


@pytest.mark.parametrize("name", ["results", "queries"])
def test_a_table_of_something_else_is_refused(root: Path, name: str) -> None:
    pq.write_table(pa.table({"trial": [TRIAL]}), root / f"run/{name}.parquet")
    with pytest.raises(RunFolderError, match=rf"{name}\.parquet has no column round: it is not the table of a run"):
        export(root)


@pytest.mark.parametrize("name", ["run.json", "experiment.yaml", "results.parquet", "queries.parquet"])
@pytest.mark.parametrize("content", [None, b"", b"{"])
def test_a_run_folder_that_lacks_a_file_or_has_a_damaged_one_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None
) -> None:
    (root / "run" / name).unlink()
    if content is not None:
        (root / "run" / name).write_bytes(content)
    arguments = ["--trial", TRIAL, "--round", "1", "--format", "yolo", "--out", str(root / "out")]
    assert call("export", str(root / "run"), *arguments) == 2
    told = complaints(capsys.readouterr().err)
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert name in told


def test_the_command_tells_the_balance_and_how_to_read_what_it_wrote(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--trial", TRIAL, "--round", "0", "--format", "yolo", "--out", str(root / "out"), "--link"]
    assert call("export", str(root / "run"), *arguments) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == [f"{TRIAL}, round 0: 3 of 12 images, 1 held out", "class              pool          exported"]
    section = yaml.safe_load(told[-1].removeprefix("data set: "))
    assert set(section) == {"format", "path", "root"}
    again = raylearn.load_dataset(section["path"], section["format"], root=section["root"])
    assert all(Path(image.uri).is_symlink() for image in again.images())


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="it is not the folder of a finished run"):
        raylearn.export(tmp_path, TRIAL, 0, "yolo", tmp_path / "out")


def test_images_of_the_reef_are_linked_to_where_the_run_has_them(tmp_path: Path) -> None:
    write_run(experiment_of(None), tmp_path / "run", tmp_path / "store")
    found = raylearn.export(tmp_path / "run", TRIAL, 2, "yolo", tmp_path / "out", link=True)
    again = read_dataset(found.folder, "yolo", root=found.root)
    assert len(again.pool) == 7
    assert all(Path(image.uri).resolve().is_relative_to(tmp_path / "run/data") for image in again.pool)
