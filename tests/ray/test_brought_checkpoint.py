"""A project whose checkpoint was trained elsewhere: it is measured, and the next query is asked by it."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from raylearn.cli import main
from raylearn.data.dataset import Dataset


def raylearn(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(map(str, arguments)))
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def begun(reef: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project on the reef, of which twelve frames are labelled."""
    folder = tmp_path_factory.mktemp("brought")
    root = Path(reef.pool[0].uri).parents[2]
    names = dict(enumerate(reef.class_names))
    (folder / "pool.txt").write_text("\n".join(image.uri for image in reef.pool[:24]))
    labelled = "\n".join(image.uri for image in reef.pool[:12])
    (folder / "some.txt").write_text(labelled)
    for name, splits in (("held", {"train": str(folder / "some.txt"), "val": str(root / "images" / "test")}),):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**splits, "names": names}))
    data = {"format": "yolo", "path": str(folder / "held.yaml"), "root": str(root.parent.parent)}
    settings = {
        "name": "brought",
        "pool": str(folder / "pool.txt"),
        "root": str(root),
        "held_out": data,
        "labelled": data,
        "query": {"size": 4, "format": "csv"},
        "detector": {"image_size": 128},
        "training": {"epochs": 1},
    }
    (folder / "p.yaml").write_text(json.dumps(settings))
    assert raylearn("project", "init", folder / "p", folder / "p.yaml") == 0
    return folder


@pytest.mark.usefixtures("standing_ray")
def test_a_checkpoint_trained_elsewhere_is_measured_and_asks_the_next_query(
    begun: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = begun / "p"
    assert raylearn("project", "train", project, "--checkpoint", trained) == 0
    rows = pq.read_table(project / "results.parquet").to_pylist()
    assert [(row["num_images"], row["map50"] > 0.2) for row in rows] == [(12, True)]
    assert not list((project / "store").glob("training/*/best*"))
    capsys.readouterr()
    assert raylearn("project", "query", project) == 0
    asked = pq.read_table(project / "queries" / "round-001" / "query.parquet").to_pylist()
    assert len(asked) == 4
    assert asked[0]["score"] > 0, "by the detections of the checkpoint"
    assert (project / "checkpoints" / "round-000.pt").read_bytes() == trained.read_bytes()


def test_what_does_not_fit_is_refused(
    begun: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tmp_path / "p"
    shutil.copytree(begun / "p", project, ignore=shutil.ignore_patterns("store", "queries", "checkpoints"))
    (tmp_path / "text.pt").write_text("no checkpoint")
    for file, said in ((tmp_path / "text.pt", "it is text"), (tmp_path / "none.pt", "is not there")):
        capsys.readouterr()
        assert raylearn("project", "train", project, "--checkpoint", file) == 2
        assert said in capsys.readouterr().err
    settings = yaml.safe_load((project / "project.yaml").read_text())
    settings["detector"]["family"] = "yolov5-classic"
    settings["training"]["options"] = {}
    (project / "project.yaml").write_text(yaml.safe_dump(settings))
    assert raylearn("project", "train", project) == 2
    assert "cannot train: train in the yolov5 repository" in capsys.readouterr().err
    assert raylearn("project", "train", project, "--checkpoint", trained) == 2
    assert "is of the family ultralytics, and the project's" in capsys.readouterr().err
    assert raylearn("project", "status", project) == 0
    assert f"then `raylearn project train {project} --checkpoint best.pt`" in capsys.readouterr().out
