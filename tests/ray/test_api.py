"""The Python API: the README's lines as they stand, and what it gives back."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import raylearn
from raylearn.data.dataset import Dataset
from raylearn.errors import ConfigError, LedgerError, QueryError, RunFolderError
from raylearn.learning.ledger_query import detections_of
from tests.small_sweep import CONTENT, ONE_ARM, rows_of

ROOT = Path(__file__).parents[2]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def desk(reef: Dataset, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with what the README's lines name: photos, a checkpoint, a quickstart that is a small one."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "photos").symlink_to(Path(reef.pool[0].uri).parent)
    (folder / "best.pt").symlink_to(trained)
    (folder / "experiments").mkdir()
    (folder / "experiments" / "quickstart.yaml").write_text(
        json.dumps({**ONE_ARM, "name": "quickstart", "seeds": [1, 2]})
    )
    return folder


@pytest.fixture(scope="module")
def told(standing_ray: None, desk: Path) -> str:  # noqa: ARG001
    """What the README's ten lines print, run as a program."""
    (code,) = blocks("README.md", "python")
    assert '"quickstart"' in code  # which takes minutes: the desk has a small one
    code = code.replace('"quickstart"', '"experiments/quickstart.yaml"')
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=desk, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_lines_of_the_readme_run(desk: Path, told: str) -> None:
    first = told.splitlines()[0].split()
    assert (first[0], first[-1]) == ("rank", "note")
    assert "images that two queries of 20 have in common" in told
    assert "entropy-sum-none-background-q4-s0  round 2/2" in told
    assert "random-q4-s0" in told
    assert "-s1" not in told, "seeds=[0] was given"
    assert (desk / "handouts" / "first" / "handoff.json").is_file()
    assert (desk / "runs" / "quickstart" / "report.html").is_file()


def test_a_query_is_a_table_with_ids_and_scores(desk: Path, told: str) -> None:  # noqa: ARG001  it made the ledger
    ledger = raylearn.open_ledger(desk / "ledgers" / "photos")
    assert len(ledger) == len(ledger.read().image_ids) == 64
    assert str(ledger).endswith("detections")
    assert len(ledger.class_names) == 6
    query = raylearn.query(ledger, 5, aggregation="max")
    columns = ["rank", "image_id", "uri", "score", "num_detections", "predicted_classes"]
    assert query.table.column_names == [*columns, "predicted_boxes", "distance", "nearest", "note"]
    assert query.to_pandas().image_id.tolist() == list(query.image_ids)
    assert (np.diff(query.scores) <= 0).all()
    seen = ledger.detections(query.image_ids)
    for image_id, score in zip(query.image_ids, query.scores, strict=True):
        highest = raylearn.uncertainty(seen[image_id].class_scores, "entropy", "background").max(initial=0)
        assert score == pytest.approx(highest)
    same = raylearn.query(str(ledger.folder), 5, strategy=raylearn.Uncertainty(aggregation="max"))
    assert same.image_ids == query.image_ids
    rest = raylearn.query(ledger, 5, aggregation="max", exclude=query.image_ids[:2])
    assert rest.image_ids[:3] == query.image_ids[2:]
    assert query.write(desk / "q")[0].name == "query.parquet"
    again = raylearn.query(ledger, 5, aggregation="max", exclude=desk / "q" / "query.csv")
    assert not set(again.image_ids) & set(query.image_ids)


def test_the_page_on_extending_shows_a_strategy_that_works(desk: Path, told: str) -> None:  # noqa: ARG001
    (code,) = blocks("docs/extending.md", "python")
    names: dict[str, type] = {}
    exec(code, names)
    ledger = raylearn.open_ledger(desk / "ledgers" / "photos")
    counts = dict(zip(ledger.class_names, [50, 40, 30, 20, 10, 0], strict=True))
    query = raylearn.query(ledger, 5, strategy=names["RareClasses"](power=2), class_counts=counts)
    assert len(set(query.image_ids)) == 5
    seen = detections_of(ledger.folder, query.image_ids[:1])[query.image_ids[0]][1]
    expected = sum((1 + 10 * (5 - k)) ** -2.0 for k in seen.class_ids)
    assert query.scores[0] == pytest.approx(expected)


def test_a_comparison_is_a_square_table(desk: Path, told: str) -> None:  # noqa: ARG001
    found = raylearn.compare(desk / "ledgers" / "photos", 10, strategies=["random", raylearn.BoxCount()])
    assert found.names == ("random", "box_count")
    assert found.to_pandas().loc["random", "random"] == 1
    assert raylearn.compare(desk / "ledgers" / "photos").overlaps.shape == (14, 14)


def test_a_run_is_opened_with_its_tables(desk: Path, told: str) -> None:  # noqa: ARG001
    run = raylearn.open_run(desk / "runs" / "quickstart")
    assert len(run.results) == len(rows_of(desk / "runs" / "quickstart", "results")) == 6
    assert run.queries.trial.nunique() == 2
    assert str(run).endswith("2 trials, 6 rounds")
    assert raylearn.report(run) == run.report
    assert raylearn.report(run, compare=run).endswith("comparison.html")


def test_a_plan_prints_nothing_and_says_what_is_left(desk: Path, told: str, capfd: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    file, store = desk / "experiments" / "quickstart.yaml", desk / "runs" / "quickstart" / "store"
    plan = raylearn.plan(file, seeds=[0], store=store, out=desk / "new")
    assert [work.left for work in plan.work.values()] == [0, 0, 0]
    assert capfd.readouterr() == ("", "")


def test_settings_are_those_of_the_file_but_for_what_is_given() -> None:
    experiment = raylearn.open_experiment(CONTENT, seeds=[4, 5], training={"epochs": 3, "options": {"lr0": 0.5}})
    assert (experiment.seeds, experiment.training.epochs, experiment.training.batch_size) == ((4, 5), 3, 8)
    assert experiment.training.options == {"mosaic": 0.0, "lr0": 0.5}
    again = raylearn.open_experiment(experiment, **{"training.epochs": 7})
    assert (again.training.epochs, again.seeds) == (7, (4, 5))
    with pytest.raises(ConfigError, match="the experiment: unknown key 'epochs'"):
        raylearn.open_experiment(CONTENT, epochs=3)


def test_what_is_wrong_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="is not a ledger"):
        raylearn.open_ledger(tmp_path)
    with pytest.raises(RunFolderError, match="it is not the folder of a finished run"):
        raylearn.open_run(tmp_path)
    with pytest.raises(QueryError, match="confidence 3 is not a number in the range 0 to 1"):
        raylearn.score(tmp_path, tmp_path / "a.pt", tmp_path / "out", confidence=3)
    with pytest.raises(QueryError, match="unknown canvas 'squar': did you mean 'square'"):
        raylearn.score(tmp_path, tmp_path / "a.pt", tmp_path / "out", canvas="squar")  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="module 'raylearn' has no attribute 'scores'"):
        raylearn.scores  # type: ignore[attr-defined]  # noqa: B018
