"""The page of a project: what to do next comes first, then the query that waits, and what came of those before."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import raylearn
from raylearn.errors import QueryError
from raylearn.handoff.exchange import Record
from raylearn.handoff.export import export_query
from raylearn.handoff.query_files import write_query
from raylearn.learning.collectors import QueriedImage
from raylearn.learning.ledger_query import detections_of
from raylearn.project.folder import ProjectFolder
from raylearn.project.page import write_page
from raylearn.project.settings import Project
from raylearn.project.steps import Cycle
from raylearn.strategies import Reason
from raylearn.sweep.trial import Scored
from raylearn.work.store import Artifact
from tests.unit.hand_made import write_ledger
from tests.unit.test_cli import call
from tests.unit.test_project import label, made, make_settings, told
from tests.unit.test_report_page import HOSTILE, Elements

ENTROPY = {"query": {"size": 1, "format": "csv", "uncertainty": "entropy", "images": "uri"}}


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., Cycle]:
    """Begins a project of three images and one held-out one; `changes` to its settings."""

    def begun(names: Sequence[str] = (), **changes: Any) -> Cycle:
        settings = Project.model_validate({**make_settings(tmp_path).model_dump(exclude_unset=True), **changes})
        if names:
            splits = "train: images/train\ntest: images/test"
            (tmp_path / "set/data.yaml").write_text(f"{splits}\nnames: {json.dumps(names)}\n")
        return Cycle(ProjectFolder.create(tmp_path / "p", settings, told))

    return begun


def trained(cycle: Cycle, **facts: Any) -> Cycle:
    """The same, as if what is labelled had been trained on and measured."""

    def make(job: Any) -> Artifact:
        artifact = made(job)
        return Artifact(artifact.key, artifact.folder, {**artifact.facts, **facts})

    cycle.standing = lambda make=make, go_on=cycle.standing: go_on(make)  # type: ignore[method-assign,misc]
    return cycle


def labelled(cycle: Cycle) -> Cycle:
    """The same, with the labels of the query that waits."""
    standing, handout = cycle.query(None)
    return label(cycle, tuple(image.image_id for image in Record.read(handout).images), standing.index)


def page_of(cycle: Cycle) -> str:
    return write_page(cycle).read_text(encoding="utf-8")


def text_of(page: str) -> str:
    return Elements(page).text.replace("\u00a0", " ")


def test_a_new_project_has_a_page_that_says_what_to_do_first(begin) -> None:
    cycle = begin()
    path = raylearn.report(cycle.folder.path)
    text = text_of(Path(path).read_text(encoding="utf-8"))
    assert "Next: choose 2 images to label, by chance, as no detector has learned anything yet." in text
    assert f"raylearn project query {cycle.folder.path}" in text
    assert "No detector has been measured yet." in text
    assert "0 labelled" in text
    assert "3 left of 3 images" in text
    assert "Learning curve" not in text


def test_the_query_that_waits_is_shown_in_order_of_rank(begin) -> None:
    cycle = begin()
    _, handout = cycle.query(None)
    page = page_of(cycle)
    text = text_of(page)
    assert "Next: label 2 images." in text
    assert f"Label what is in {handout}, then raylearn project import" in text
    first, second = (image.image_id for image in Record.read(handout).images)
    assert text.index(f"1. {first}by chance") < text.index(f"2. {second}by chance") < text.index("waits for labels")
    assert page.count('<svg class="picture waiting-') == 2
    assert "labelled: 0 boxes" not in text


def test_budget_curve_and_classes_are_those_of_the_rounds(begin) -> None:
    cycle = trained(labelled(trained(labelled(begin()), map50_95=0.2, class_ap=[0.2, None, 0.0])))
    standing = cycle.standing()
    values = iter([0.2, 0.15])
    for done in standing.rounds:
        done.evaluation.facts["map50_95"] = next(values)  # type: ignore[index]
    cycle.standing = lambda: standing  # type: ignore[method-assign]
    text = text_of(page_of(cycle))
    assert "All is done: every image is labelled" in text
    assert "The detector of round 1, trained on 3 images with 3 boxes, has mAP50-95 0.150 on 1 held-out image." in text
    assert "The last 1 image with 1 box changed it by \u22120.050." in text
    assert "whether random beats labelling by chance, only raylearn run can say" in text
    assert "mAP50-95 over labelled images" in text
    assert "crab3100.0 %" in text.replace("\n", "")
    assert "fishnone yet" in text.replace("\n", "")
    rounds = text[text.index("Round by round", text.index("held-out boxes")) :]
    assert rounds.replace("\n", "").count("\u22120.050") == 1


def test_a_detector_that_finds_nothing_is_called_that(begin) -> None:
    text = text_of(page_of(trained(labelled(begin()), map50_95=0.0, map50=0.0)))
    assert "mAP50-95 is 0 in every round: the detector finds nothing on the held-out images yet" in text
    assert "has mAP50-95" not in text


def test_what_the_detector_saw_in_the_images_that_wait_is_shown_with_its_doubts(begin, tmp_path: Path) -> None:
    cycle = trained(labelled(begin(**ENTROPY)))
    names = [image.image_id for image in cycle.standing().pool.unlabelled_images]
    ledger = write_ledger({names[0]: [[0.6, 0.2, 0.1]], names[1]: []}, tmp_path / "ledger", 3)
    found = detections_of(ledger, names)
    (before,) = cycle.standing().pool.labelled
    images = [
        QueriedImage(1, names[0], "", 0.75, 1, {"crab": 1}, Reason(before, 0.25, 3.4)),
        QueriedImage(2, names[1], "", 0, 0, {}, Reason(note="no detections, drawn at random")),
    ]
    write_query(images, cycle.folder.query_folder(1))
    files = [replace(image, uri=str(tmp_path / "pool" / image.image_id)) for image in images]
    export_query(files, found, ("crab", "fish", "eel"), "csv", cycle.folder.handout(1), copies=None, confidence=0.25)
    scored = Scored(Artifact("key", ledger, {"num_without_detections": 1, "num_images": 2}))
    cycle.scored = lambda *_: scored  # type: ignore[method-assign]
    page = page_of(cycle)
    text = text_of(page)
    assert f"1. {names[0]}score 0.75, 1 detectionmost of it: crab 0.60 →" in text
    assert f"nearest labelled: {before}distance 0.250" in text
    assert "predicted 3.4 boxes" in text
    assert f"2. {names[1]}score 0, 0 detectionsno detections, drawn at random" in text
    assert page.count('class="doubtful"') == page.count('<rect class="seen"') == 1
    assert "1 of the query's 2 images have no detections; lower scoring.confidence or train longer." in text
    assert "boxes are not shown" not in text
    cycle.scored = lambda *_: None  # type: ignore[method-assign]
    without = text_of(page_of(cycle))
    assert "The scoring pass of the query that waits is not in the store, so its boxes are not shown." in without
    assert "score 0.75, 1 detection" in without


def test_an_image_that_is_gone_is_told(begin, tmp_path: Path) -> None:
    cycle = begin()
    _, handout = cycle.query(None)
    (tmp_path / "pool" / Record.read(handout).images[1].image_id).unlink()
    text = text_of(page_of(cycle))
    assert text.count("cannot be read (missing): shown as a grey area") == 1
    assert "1 image of those shown cannot be read any more" in text


def test_names_are_text_and_nothing_of_them_runs(begin) -> None:
    cycle = begin(names=[HOSTILE[0], HOSTILE[1], HOSTILE[3]])
    cycle.query(None)
    seen = Elements(page_of(cycle))
    for name in (HOSTILE[0], HOSTILE[1], HOSTILE[3]):
        assert name in seen.text
    assert {tag for tag, _ in seen.elements} & {"script", "img", "iframe", "object", "embed", "link", "base"} == set()
    assert [name for _, attributes in seen.elements for name in attributes if name.startswith("on")] == []
    ids = [attributes["id"] for _, attributes in seen.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_every_step_leaves_the_page_of_its_end_and_is_done_without_it_too(begin, tmp_path: Path, capsys) -> None:
    begin()
    page = tmp_path / "p" / "report.html"
    assert call("project", "query", str(tmp_path / "p")) == 0
    assert f"page: {page}" in capsys.readouterr().out
    assert "Next: label 2 images." in text_of(page.read_text())
    page.unlink()
    page.mkdir()
    assert call("project", "query", str(tmp_path / "p")) == 0
    assert "warning: the page could not be written anew: " in capsys.readouterr().out


def test_a_damaged_query_is_told_and_a_missing_one_is_shown_as_it_was_handed_out(begin) -> None:
    cycle = begin()
    _, handout = cycle.query(None)
    file = cycle.folder.query_folder(0) / "query.parquet"
    file.unlink()
    assert f"1. {Record.read(handout).images[0].image_id}by chance" in text_of(page_of(cycle))
    file.write_bytes(b"torn")
    with pytest.raises(QueryError, match=r"query\.parquet cannot be read"):
        write_page(cycle)
