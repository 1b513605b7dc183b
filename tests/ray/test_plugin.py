"""A strategy and a detector family of a package outside raylearn, through the commands that users type."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.small_sweep import rows_of

PLUGIN = Path(__file__).parents[1] / "plugin"
EXPERIMENT = {
    "name": "plugged",
    "dataset": {"format": "reef", "reef": {"num_pool": 24, "num_test": 6}},
    "detector": {"family": "places", "model": "mean", "image_size": 64},
    "training": {"epochs": 1, "options": {"blur": 0.3}},
    "scoring": {"confidence": 0.0},
    "initial_size": 8,
    "budget": 8,
    "arms": {
        "uncertainty": [],
        "strategies": ["spread", {"name": "spread", "power": 2.0}, {"name": "sure_boxes", "above": 0.1}],
        "query_size": [4],
        "controls": ["random"],
    },
}


def raylearn(folder: Path, *arguments: str, code: int = 0) -> str:
    program = str(Path(sys.executable).with_name("raylearn"))
    paths = os.pathsep.join(filter(None, [str(PLUGIN), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def plugged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an experiment whose strategies and detector raylearn has never heard of."""
    folder = tmp_path_factory.mktemp("plugged")
    (folder / "e.yaml").write_text(json.dumps(EXPERIMENT))
    raylearn(folder, "run", "e.yaml", "--out", "run")
    return folder


def test_an_experiment_runs_with_a_strategy_and_a_family_of_another_package(plugged: Path) -> None:
    rows = rows_of(plugged / "run", "results")
    assert {row["trial"] for row in rows} == {
        *("random-q4-s0", "spread-q4-s0", "spread-power_2.0-q4-s0", "sure_boxes-above_0.1-q4-s0"),
    }
    assert {(row["strategy"], row["options"]) for row in rows} == {
        *(("random", None), ("spread", None), ("spread", '{"power": 2.0}'), ("sure_boxes", '{"above": 0.1}')),
    }
    assert [row["num_images"] for row in rows if row["trial"] == "spread-q4-s0"] == [8, 12, 16]
    asked = rows_of(plugged / "run", "queries")
    assert [row["score"] for row in asked if row["trial"] == "spread-q4-s0" and row["round"] == 1] == [4, 3, 2, 1]
    page = (plugged / "run" / "report.html").read_text()
    assert "spread power=2.0" in page


def test_a_checkpoint_of_another_package_is_recognised_and_its_ledger_says_what_made_it(plugged: Path) -> None:
    checkpoint = next((plugged / "run" / "store" / "training").glob("*/checkpoint.pt"))
    (reef,) = (plugged / "run" / "data").iterdir()
    raylearn(plugged, "score", str(reef), "--checkpoint", str(checkpoint), "--out", "ledger", "--actors", "1")
    facts = json.loads((plugged / "ledger" / "ledger.json").read_text())
    assert (facts["family"], facts["suppression"], facts["versions"]["tide-plugin"]) == ("places", "none", "1.0")
    assert facts["num_detections"] > 0
    raylearn(plugged, "query", "ledger", "--size", "3", "--out", "q", "--strategy", "spread", "--option", "power=3")
    assert pq.read_table(plugged / "q" / "query.parquet")["score"].to_pylist() == [3, 2, 1]
    message = raylearn(plugged, "query", "ledger", "--size", "3", "--out", "q", "--strategy", "sprad", code=2)
    assert "unknown strategy 'sprad': did you mean 'spread'?" in message
    message = raylearn(
        plugged, "query", "ledger", "--size", "3", "--out", "q", "--strategy", "spread", "--option", "powr=3", code=2
    )
    assert "powr has no meaning with strategy spread: leave it out; it has power, max_per_group" in message


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("detector.family=place", "unknown detector.family 'place': did you mean 'places'?"),
        ("detector.model=median", "detector.model 'median' is not one of the family places"),
        ("training.options.blurr=1", "training: unknown training option 'blurr': did you mean 'blur'?"),
        ("arms.strategies=[spred]", "arms.strategies.0: unknown strategy 'spred': did you mean 'spread'?"),
        ("arms.strategies=[{name: spread, pow: 1}]", "pow has no meaning with strategy spread"),
        ("arms.strategies=[random]", "random is a control: name it in arms.controls"),
    ],
)
def test_what_another_package_does_not_have_is_refused(plugged: Path, override: str, said: str) -> None:
    assert said in raylearn(plugged, "check", "e.yaml", override, code=2)
