"""A project's folder and its oracle, without any training."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from pydantic import ValidationError

from raylearn.data.dataset import GroundTruth
from raylearn.data.storage import Folder
from raylearn.errors import ImageError, ProjectError, RaylearnError
from raylearn.handoff.exchange import Record
from raylearn.handoff.labels import ImportedLabels
from raylearn.project.folder import ProjectFolder
from raylearn.project.settings import Project
from raylearn.project.status import status_lines
from raylearn.project.steps import Annotators, Cycle, readable
from raylearn.reporting.page import write_report
from raylearn.strategies import make_strategy
from raylearn.work.store import Artifact
from tests.unit.hand_made import make_truth

NAMES = ("0.png", "1.png", "2.png")


@pytest.fixture
def settings(tmp_path: Path) -> Project:
    return make_settings(tmp_path)


def make_settings(tmp_path: Path) -> Project:
    """Three images without labels, and a data set in YOLO form whose one test image is held out."""
    for number, path in enumerate([*(tmp_path / "pool" / name for name in NAMES), tmp_path / "set/images/train/a.png"]):
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (64, 48), (number, 0, 0)).save(path)
    for split in ("train", "test"):
        (tmp_path / "set/images" / split).mkdir(parents=True, exist_ok=True)
        (tmp_path / "set/labels" / split).mkdir(parents=True)
    PIL.Image.new("RGB", (64, 48), (99, 0, 0)).save(tmp_path / "set/images/test/b.png")
    (tmp_path / "set/labels/train/a.txt").write_text("0 .5 .5 .2 .2\n")
    (tmp_path / "set/labels/test/b.txt").write_text("1 .5 .5 .2 .2\n")
    (tmp_path / "set/data.yaml").write_text("train: images/train\ntest: images/test\nnames: [crab, fish, eel]\n")
    content: dict[str, Any] = {
        "name": "hand-made",
        "pool": str(tmp_path / "pool"),
        "held_out": {"format": "yolo", "path": str(tmp_path / "set")},
        "query": {"size": 2, "format": "csv", "strategy": "random"},
    }
    return Project.model_validate(content)


def told(_: str) -> None:
    """Nobody listens."""


def label(cycle: Cycle, image_ids: tuple[str, ...], index: int) -> Cycle:
    truth = {image_id: make_truth(0) for image_id in image_ids}
    cycle.folder.add_labels(index, ImportedLabels(truth, (), 0), cycle.bench.dataset.class_names)
    return Cycle(cycle.folder)


def made(_: Any) -> Artifact:
    """Stands for every training and measurement."""
    facts: Mapping[str, Any] = {"map50": 0.5, "map50_95": 0.25, "class_ap": [], "seconds": 1}
    return Artifact("key", Folder(""), facts)


def test_a_folder_that_holds_something_else_is_refused_and_nothing_in_it_is_touched(settings, tmp_path):
    before = sorted(path for path in (tmp_path / "set").rglob("*"))
    with pytest.raises(ProjectError, match="is not empty: give a new folder"):
        ProjectFolder.create(tmp_path / "set", settings, told)
    assert sorted(path for path in (tmp_path / "set").rglob("*")) == before


def test_a_creation_that_was_cut_short_is_begun_again(settings, tmp_path):
    folder = ProjectFolder.create(tmp_path / "p", settings, told)
    (folder.path / "project.yaml").unlink()
    with pytest.raises(ProjectError, match="is no project"):
        ProjectFolder.open(tmp_path / "p")
    assert ProjectFolder.create(tmp_path / "p", settings, told).settings == folder.settings


def test_the_last_query_may_be_short_and_then_all_is_labelled(settings, tmp_path):
    cycle = Cycle(ProjectFolder.create(tmp_path / "p", settings, told))
    for index, size in enumerate((2, 1)):
        standing, handout = cycle.query(None)
        assert (standing.index, standing.next) == (index, "import")
        asked = tuple(image.image_id for image in Record.read(handout).images)
        assert len(asked) == size
        cycle = label(cycle, asked, index)
        assert cycle.standing().next == "train"
        cycle.standing = lambda make=made, go_on=cycle.standing: go_on(make)  # as if it had been trained
    end = cycle.standing()
    assert (end.next, len(end.rounds), len(end.pool.labelled)) == (None, 2, 3)
    assert list(status_lines(cycle, end))[-1].startswith("every image of ")
    with pytest.raises(ProjectError, match=r"every image of .* is labelled"):
        cycle.query(None)


def test_labels_of_other_images_than_were_asked_for_are_an_error():
    labels: dict[str, GroundTruth] = {"a": make_truth(0)}
    assert Annotators([labels]).label(["a", "b"]) == labels
    with pytest.raises(ProjectError, match="image 'a' is labelled, and was not asked for"):
        Annotators([labels]).label(["b"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"held_out": {"format": "yolo", "path": "nowhere"}}, "nowhere"),
        ({"detector": {"model": "yolov5nx"}}, "yolov5nx"),
        ({"detector": {"initial_weights": "no.pt"}}, "no.pt"),
        ({"query": {"size": 2, "probabilities": "conditional"}, "one class": True}, "conditional"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_written(settings, tmp_path, wrong, message):
    if wrong.pop("one class", False):
        (tmp_path / "set/data.yaml").write_text("train: images/train\ntest: images/test\nnames: [crab]\n")
        (tmp_path / "set/labels/test/b.txt").write_text("0 .5 .5 .2 .2\n")
    mistaken = Project.model_validate({**settings.model_dump(), **wrong})
    with pytest.raises(RaylearnError, match=message):
        ProjectFolder.create(tmp_path / "p", mistaken, told)
    assert not (tmp_path / "p").exists()
    if "held_out" in wrong:
        assert ProjectFolder.create(tmp_path / "p", settings, told).settings == settings.from_anywhere()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"query": {"size": 2, "format": "cvat", "images": "uri"}}, "leave query.images out"),
        (
            {"query": {"size": 2, "strategy": "random", "uncertainty": "margin"}},
            "uncertainty has no meaning with strategy ran",
        ),
        ({"query": {"size": 2, "weight_cap": 3}}, "weight_cap has no meaning without a weighting"),
        ({"scoring": {"pool_size": 1}}, "scoring.pool_size 1 is less than query.size 2"),
    ],
)
def test_settings_that_no_query_could_use_are_refused(settings, section, message):
    with pytest.raises(ValidationError, match=message):
        Project.model_validate({**settings.model_dump(), **section})


@pytest.mark.parametrize("strategy", ["random", "box_count", "core_set", "coverage", "ppal"])
def test_a_project_of_a_former_version_opens_though_its_file_says_what_its_strategy_has_no_use_for(settings, strategy):
    written_out = {"uncertainty": "entropy", "aggregation": "sum", "weighting": "none", "probabilities": "background"}
    query = {"size": 2, "format": "csv", "strategy": strategy}
    opened = Project.model_validate({**settings.model_dump(), "query": {**query, **written_out}})
    assert opened.query.chosen == make_strategy(strategy)
    assert opened.same_as(settings) == (strategy == settings.query.strategy)


def test_labels_come_back_also_where_what_was_trained_and_measured_is_lost(settings, tmp_path):
    cycle = Cycle(ProjectFolder.create(tmp_path / "p", settings, told))
    for index in range(2):
        _, handout = cycle.query(None)
        assert cycle.standing().next == "import"
        cycle = label(cycle, tuple(image.image_id for image in Record.read(handout).images), index)
        assert Cycle(cycle.folder).standing().next == "train"
        cycle.standing = lambda make=made, go_on=cycle.standing: go_on(make)  # as if it had been trained
        if not index:
            cycle.query(None)
            cycle = Cycle(cycle.folder)  # whose store is empty


def test_an_image_that_is_lost_is_an_error_until_it_is_said_to_be_left_out(settings, tmp_path):
    cycle = Cycle(ProjectFolder.create(tmp_path / "p", settings, told))
    for name in NAMES[:2]:
        (tmp_path / "pool" / name).rename(tmp_path / name)
    with pytest.raises(ImageError, match="cannot be read"):
        cycle.query(None)
    _, handout = cycle.query(None, leave_out_unreadable=True)
    assert [image.image_id for image in Record.read(handout).images] == [NAMES[2]]
    (tmp_path / "pool" / NAMES[2]).unlink()
    with pytest.raises(ProjectError, match="no unlabelled image can be read"):
        readable(cycle.standing().pool)


def test_results_go_with_the_rounds_that_are_taken_back(settings, tmp_path):
    cycle = Cycle(ProjectFolder.create(tmp_path / "p", settings, told))
    _, handout = cycle.query(None)
    cycle = label(cycle, tuple(image.image_id for image in Record.read(handout).images), 0)
    cycle.write_results(cycle.standing(made))
    write_report(cycle.folder.path)
    assert {"results.parquet", "report.html", "summary.csv"} <= {path.name for path in cycle.folder.path.iterdir()}
    cycle.folder.undo()
    cycle.write_results(cycle.fresh())
    assert {path.name for path in cycle.folder.path.iterdir()} == {
        "labels",
        "pool.parquet",
        "project.yaml",
        "queries",
        "undone",
    }


def test_the_page_of_a_project_shows_the_labels_that_people_gave(settings, tmp_path):
    cycle = Cycle(ProjectFolder.create(tmp_path / "p", settings, told))
    for index in range(2):
        _, handout = cycle.query(None)
        cycle = label(cycle, tuple(image.image_id for image in Record.read(handout).images), index)
        cycle.standing = lambda make=made, go_on=cycle.standing: go_on(make)  # as if it had been trained
    standing = cycle.standing()
    (asked,) = Record.read(cycle.folder.handout(1)).images
    Path(asked.uri).unlink()
    cycle.write_results(standing)
    (query,) = json.loads((cycle.folder.path / "gallery.json").read_text())["queries"]
    assert [image["image_id"] for image in query["images"]] == [asked.image_id]
    picture = json.loads((cycle.folder.path / "gallery.json").read_text())["images"][asked.image_id]
    assert len(picture["truth"]) == 1
    assert picture["jpeg"]  # a grey one: the image is gone
    assert picture["lost"] == "cannot be read (missing)"


def test_a_damaged_pool_is_told(settings, tmp_path):
    folder = ProjectFolder.create(tmp_path / "p", settings, told)
    (folder.path / "pool.parquet").write_bytes(b"PAR1")
    with pytest.raises(ProjectError, match=r"pool\.parquet is damaged"):
        Cycle(ProjectFolder.open(tmp_path / "p"))
