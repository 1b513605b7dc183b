"""The experiment file."""

from pathlib import Path

import pytest
import yaml

from raylearn.config import Experiment, dump_experiment, load_experiment
from raylearn.errors import ConfigError
from tests.unit.hand_made import make_experiment

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_experiment_that_is_shipped_can_be_read(path: Path) -> None:
    assert load_experiment(path).name == path.stem


def test_what_is_written_out_is_read_back(tmp_path: Path) -> None:
    experiment = make_experiment(training={"options": {"lr0": 0.01}}, seeds=[3, 1])
    path = tmp_path / "experiment.yaml"
    path.write_text(dump_experiment(experiment))
    assert load_experiment(path) == experiment


def test_overrides_reach_into_sections_that_the_file_leaves_out(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(dump_experiment(make_experiment()))
    changed = load_experiment(path, ["training.epochs=7", "seeds=[4, 5]", "scoring.pool_size=null", "budget=8"])
    assert (changed.training.epochs, changed.seeds, changed.scoring.pool_size, changed.budget) == (7, (4, 5), None, 8)


def test_an_exponent_without_a_dot_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(dump_experiment(make_experiment()))
    assert isinstance(yaml.safe_load("1e-3"), str)
    assert load_experiment(path, ["training.options.lr0=1e-3"]).training.options == {"lr0": 0.001}


def test_overriding_a_section_with_a_word_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(dump_experiment(make_experiment()))
    with pytest.raises(ConfigError, match="training"):
        load_experiment(path, ["training=fast"])


def test_the_schema_names_every_axis() -> None:
    text = str(Experiment.model_json_schema())
    for word in ("least_confidence", "inverse_sqrt", "independent", "box_count", "mean"):
        assert word in text
