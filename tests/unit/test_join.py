"""Runs of other seeds put together: what may differ, what may not, and that nothing changes by it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import raylearn
from raylearn.cli import main
from raylearn.config import Experiment
from raylearn.config_files import dump_file, load_experiment
from raylearn.data.storage import Folder
from raylearn.errors import ConfigError, RunFolderError
from raylearn.reporting.gallery import GALLERY_FILE
from raylearn.reporting.pool_map import MAP_FILE
from raylearn.sweep.grid import num_rounds, trials
from raylearn.sweep.results import QUERIES_SCHEMA, RESULTS_SCHEMA
from raylearn.sweep.run_folder import refuse_another
from tests.unit.hand_made import make_experiment
from tests.unit.test_pool_map import content as pool_map
from tests.unit.test_report_gallery import gallery

RECORD: dict[str, Any] = {
    "name": "a",
    "question": "Which?",
    "command": "raylearn run a.yaml",
    "finished": "2026-11-27T12:00:00+00:00",
    "raylearn": "0.1.0",
    "versions": {"torch": "2.14.1", "ray": "2.60.0"},
    "machine": "2 CPUs",
    "dataset": {"name": "reef", "fingerprint": "f00d", "num_pool": 20, "class_names": ["crab"]},
    "initial_weights": None,
    "trainings": {"wanted": 6, "different": 4, "shared": 2},
    "failed": [],
}


def make_run(folder: Path, seeds: Sequence[int], record: dict[str, Any] | None = None, **sections: Any) -> Path:
    """A finished run of a hand-made experiment, whose mAP are decided by trial and round alone."""
    folder.mkdir()
    experiment = make_experiment(seeds=seeds, **sections)
    results, queries = [], []
    for trial in trials(experiment):
        rng = np.random.default_rng(list(trial.name.encode()))
        for index in range(num_rounds(experiment, trial.arm)):
            value = 0.1 + 0.1 * index + rng.normal(0, 0.02)
            results.append(
                {
                    "trial": trial.name,
                    "strategy": trial.arm.strategy.name,
                    "query_size": trial.arm.query_size,
                    "seed": trial.seed,
                    "round": index,
                    "num_images": 2 + 2 * index,
                    "num_boxes": 6 + 6 * index,
                    "map50_95": value,
                    "map50": value,
                }
            )
            queries.append({"trial": trial.name, "round": index, "rank": 1, "image_id": f"{index}.jpg", "score": 0.5})
    pq.write_table(pa.Table.from_pylist(results, schema=RESULTS_SCHEMA), folder / "results.parquet")
    pq.write_table(pa.Table.from_pylist(queries, schema=QUERIES_SCHEMA), folder / "queries.parquet")
    (folder / "experiment.yaml").write_text(dump_file(experiment))
    (folder / "run.json").write_text(json.dumps({**RECORD, **(record or {})}))
    return folder


def experiment_of(folder: Path) -> Experiment:
    return load_experiment(folder / "experiment.yaml")


def test_a_joined_run_says_what_one_run_of_all_its_seeds_would_have_said(tmp_path: Path) -> None:
    whole = make_run(tmp_path / "whole", [0, 1, 2, 3])
    parts = [make_run(tmp_path / "b", [2, 3]), make_run(tmp_path / "a", [0, 1])]
    joined = raylearn.join(parts, tmp_path / "all")
    raylearn.report(whole)
    assert joined.report == str(tmp_path / "all" / "report.html")
    assert (tmp_path / "all" / "summary.csv").read_text() == (whole / "summary.csv").read_text()
    assert experiment_of(tmp_path / "all") == experiment_of(whole)
    for name in ("results", "queries"):
        table, expected = (pq.read_table(folder / f"{name}.parquet") for folder in (tmp_path / "all", whole))
        assert table.schema == expected.schema
        order = [("trial", "ascending"), ("round", "ascending")]
        assert table.sort_by(order) == expected.sort_by(order)


def test_the_record_and_the_page_say_what_was_joined(tmp_path: Path) -> None:
    parts = [make_run(tmp_path / "a", [0, 1]), make_run(tmp_path / "b", [5], {"machine": "an H100"})]
    joined = raylearn.join(parts, tmp_path / "all", command="raylearn report a b --out all")
    record = json.loads((tmp_path / "all" / "run.json").read_text())
    assert record["trainings"] == {"wanted": 12, "different": 8, "shared": 4}
    assert record["command"] == "raylearn report a b --out all"
    assert [(part["folder"], part["seeds"]) for part in record["joined"]] == [
        (str(parts[0]), [0, 1]),
        (str(parts[1]), [5]),
    ]
    page = Path(joined.report).read_text()
    assert "joined from" in page
    assert "an H100" in page


def test_seeds_can_be_added_to_a_joined_run_in_its_place(tmp_path: Path) -> None:
    raylearn.join([make_run(tmp_path / "a", [0]), make_run(tmp_path / "b", [1])], tmp_path / "all")
    raylearn.join([tmp_path / "all", make_run(tmp_path / "c", [2])], tmp_path / "all")
    assert experiment_of(tmp_path / "all").seeds == (0, 1, 2)
    record = json.loads((tmp_path / "all" / "run.json").read_text())
    assert [Path(part["folder"]).name for part in record["joined"]] == ["a", "b", "c"]


def test_the_pictures_are_of_the_lowest_seed_that_has_some(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name, [seed]) for seed, name in enumerate("abc")]
    for folder in folders[1:]:
        content = gallery()
        content["queries"] = content["queries"][: 1 if folder.name == "b" else 2]
        (folder / GALLERY_FILE).write_text(json.dumps(content))
    raylearn.join([folders[2], folders[0], folders[1]], tmp_path / "all")
    assert (tmp_path / "all" / GALLERY_FILE).read_text() == (folders[1] / GALLERY_FILE).read_text()
    raylearn.join([folders[0], make_run(tmp_path / "d", [3])], tmp_path / "all")
    assert not (tmp_path / "all" / GALLERY_FILE).exists()


def test_the_map_is_of_the_lowest_seed_that_has_one(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name, [seed]) for seed, name in enumerate("abc")]
    for folder in folders[1:]:
        (folder / MAP_FILE).write_text(json.dumps(pool_map(arms=[folder.name])))
    raylearn.join([folders[2], folders[0], folders[1]], tmp_path / "all")
    assert (tmp_path / "all" / MAP_FILE).read_text() == (folders[1] / MAP_FILE).read_text()


@pytest.mark.parametrize(
    "sections",
    [
        {"name": "other"},
        {"question": "Which other?"},
        {"resources": {"training_cpus": 2}},
        {"tracking": ["mlflow"]},
        {"scoring": {"batch_size": 7}},
    ],
)
def test_what_decides_no_result_may_differ(tmp_path: Path, sections: dict[str, Any]) -> None:
    raylearn.join([make_run(tmp_path / "a", [0]), make_run(tmp_path / "b", [1], **sections)], tmp_path / "all")
    assert experiment_of(tmp_path / "all").name == "hand-made"


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"training": {"epochs": 3}}, "training.epochs=100, not 3"),
        ({"primary": {"outcome": "last mAP50-95"}}, "primary.outcome=area over boxes, not last mAP50-95"),
        ({"budget": 6}, "budget=4, not 6"),
        ({"arms": {"query_size": [2], "uncertainty": ["margin"]}}, r"arms.uncertainty=\['entropy'\], not \['margin'\]"),
        ({"scoring": {"iou": 0.5}}, "scoring.iou=0.7, not 0.5"),
    ],
)
def test_settings_that_decide_results_must_be_equal(tmp_path: Path, sections: dict[str, Any], said: str) -> None:
    parts = [make_run(tmp_path / "a", [0]), make_run(tmp_path / "b", [1], **sections)]
    with pytest.raises(RunFolderError, match=rf"a and .*b are not of one experiment: {said}$"):
        raylearn.join(parts, tmp_path / "all")
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"dataset": {**RECORD["dataset"], "fingerprint": "beef"}}, "data set fingerprint=f00d, not beef"),
        ({"versions": {"torch": "2.10.0", "ray": "2.60.0"}}, "versions.torch=2.14.1, not 2.10.0"),
        ({"versions": {"torch": "2.14.1"}}, "versions.ray=2.60.0, not None"),
        ({"raylearn": "0.2.0"}, "raylearn=0.1.0, not 0.2.0"),
        ({"initial_weights": "abc"}, "initial weights=None, not abc"),
    ],
)
def test_data_weights_and_versions_must_be_equal(tmp_path: Path, record: dict[str, Any], said: str) -> None:
    parts = [make_run(tmp_path / "a", [0]), make_run(tmp_path / "b", [1], record)]
    with pytest.raises(RunFolderError, match=f"are not of one experiment: {said}$"):
        raylearn.join(parts, tmp_path / "all")


def test_weights_and_data_may_lie_elsewhere_on_another_machine_where_their_hashes_are_known(tmp_path: Path) -> None:
    def part(name: str, seed: int, record: dict[str, Any]) -> Path:
        dataset = {"format": "yolo", "path": f"/{name}/data"}
        return make_run(tmp_path / name, [seed], record, dataset=dataset, detector={"initial_weights": f"{name}.pt"})

    raylearn.join(
        [part("a", 0, {"initial_weights": "abc"}), part("b", 1, {"initial_weights": "abc"})], tmp_path / "all"
    )
    before = [part(name, seed, {}) for seed, name in enumerate("cd")]
    for folder in before:  # of a time that knew no hash
        record = json.loads((folder / "run.json").read_text())
        del record["initial_weights"]
        (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(RunFolderError, match=r"initial weights=c\.pt, not d\.pt"):
        raylearn.join(before, tmp_path / "other")


def test_a_seed_that_is_in_two_runs_is_refused(tmp_path: Path) -> None:
    parts = [make_run(tmp_path / "a", [0, 1]), make_run(tmp_path / "b", [2, 1])]
    with pytest.raises(RunFolderError, match=r"^seed 1 is in .*a and in .*b: "):
        raylearn.join(parts, tmp_path / "all")


def test_a_run_is_not_joined_with_itself_nor_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", [0])
    with pytest.raises(RunFolderError, match="seed 0 is in"):
        raylearn.join([run, run], tmp_path / "all")
    with pytest.raises(RunFolderError, match="two or more"):
        raylearn.join([run], tmp_path / "all")


def test_a_folder_that_holds_a_run_is_not_written_over(tmp_path: Path) -> None:
    parts = [make_run(tmp_path / "a", [0]), make_run(tmp_path / "b", [1])]
    before = {path.name: path.read_bytes() for path in parts[0].iterdir()}
    with pytest.raises(RunFolderError, match="that is not of joined runs: give another folder with --out"):
        raylearn.join(parts, parts[0])
    assert {path.name: path.read_bytes() for path in parts[0].iterdir()} == before


def test_a_sweep_does_not_run_into_a_joined_run(tmp_path: Path) -> None:
    joined = raylearn.join([make_run(tmp_path / "a", [0]), make_run(tmp_path / "b", [1])], tmp_path / "all")
    with pytest.raises(RunFolderError, match="holds joined runs: give another folder with --out"):
        refuse_another(joined.folder, tmp_path / "all", experiment_of(tmp_path / "all"))


def test_a_run_of_before_joins_with_one_of_now(tmp_path: Path) -> None:
    old, new = make_run(tmp_path / "old", [0]), make_run(tmp_path / "new", [1])
    settings = yaml.safe_load((old / "experiment.yaml").read_text())
    del settings["primary"]
    (old / "experiment.yaml").write_text(yaml.safe_dump(settings))
    table = pq.read_table(old / "results.parquet")
    pq.write_table(table.drop_columns(["options", "share_without_detections"]), old / "results.parquet")
    joined = raylearn.join([old, new], tmp_path / "all")
    assert set(joined.results.columns) == set(RESULTS_SCHEMA.names)
    assert joined.results.seed.nunique() == 2


@pytest.mark.parametrize("name", ["results.parquet", "queries.parquet", "experiment.yaml", "run.json"])
@pytest.mark.parametrize("content", [None, b"[}"])
def test_a_folder_that_is_not_of_a_finished_run_is_refused(tmp_path: Path, name: str, content: bytes | None) -> None:
    parts = [make_run(tmp_path / "a", [0]), make_run(tmp_path / "b", [1])]
    if content is None:
        (parts[1] / name).unlink()
    else:
        (parts[1] / name).write_bytes(content)
    with pytest.raises(RunFolderError, match=rf"(^no {name} in .*b: )|(b.*(cannot be joined|is not the record))"):
        raylearn.join(parts, tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_the_command_joins_and_says_where_the_page_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [make_run(tmp_path / "a", [0]), make_run(tmp_path / "b", [1])]
    with pytest.raises(SystemExit) as ended:
        main(["report", *map(str, parts), "--out", str(tmp_path / "all")])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"report:  {tmp_path}/all/report.html\n"
    assert (tmp_path / "all" / "report.html").stat().st_size > 10_000


# How many seeds a wanted difference needs, by such a run


def test_a_pilot_says_how_many_seeds_a_difference_needs(tmp_path: Path) -> None:
    pilot = make_run(tmp_path / "pilot", [0, 1, 2])
    wanted = make_experiment(seeds=[0, 1, 2, 3], arms={"query_size": [2], "aggregation": ["sum", "max"]})
    plan = raylearn.seeds_needed(wanted, pilot)
    assert (plan.num_arms, plan.num_seeds, plan.pilot.num_arms, plan.pilot.num_seeds) == (2, 4, 1, 3)
    needed = list(plan.seeds.values())
    assert list(plan.seeds) == [0.005, 0.01, 0.02, 0.03, 0.05]
    assert None not in needed
    assert needed == sorted(needed, reverse=True)  # type: ignore[type-var]
    more_arms = raylearn.seeds_needed(wanted, pilot, [0.01], arms={"uncertainty": ["entropy", "margin"]})
    assert more_arms.num_arms == 4
    assert (more_arms.seeds[0.01] or 0) > (plan.seeds[0.01] or 0)
    first, with_its_seeds, *table = plan.lines()
    assert first.startswith("seeds: area over boxes against random, 2 tested arms; the pilot's differences have")
    assert with_its_seeds.startswith("with its 4 seeds the experiment can find a difference of 0.")
    assert table[1] == f"to find a difference of 0.01 with 80 % probability it needs {plan.seeds[0.01]} seeds"


def test_an_oracle_is_no_arm_that_seeds_are_needed_for(tmp_path: Path) -> None:
    pilot = make_run(tmp_path / "pilot", [0, 1, 2])
    wanted = make_experiment(arms={"query_size": [2], "controls": ["random", "oracle"]})
    assert raylearn.seeds_needed(wanted, pilot).num_arms == 1


def test_labelling_may_cost_otherwise_in_a_run_that_is_gone_on_with(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", [0])
    experiment = experiment_of(folder)
    with_cost = experiment.model_validate({**experiment.model_dump(), "cost": {"image": 5, "box": 7}})
    refuse_another(Folder.at(folder), folder, with_cost)


def test_a_plan_with_a_pilot_ends_in_the_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reef = {"format": "reef", "reef": {"num_pool": 8, "num_test": 2}}
    pilot = make_run(tmp_path / "pilot", [0, 1], dataset=reef)
    command = ["run", str(pilot / "experiment.yaml"), "--plan", "--out", str(tmp_path / "new"), "--pilot", str(pilot)]
    for options, lines in (([], 5), (["--difference", ".015"], 1)):
        with pytest.raises(SystemExit) as ended:
            main([*command, *options])
        assert ended.value.code == 0
        told = capsys.readouterr().out.splitlines()
        assert any(line.startswith("trainings: ") for line in told)
        assert sum(line.startswith("to find a difference of ") for line in told) == lines
    assert told[-1].startswith("to find a difference of 0.015 with 80 % probability it needs ")


def test_a_pilot_that_shows_no_spread_is_refused(tmp_path: Path) -> None:
    one_seed = make_run(tmp_path / "one", [0])
    with pytest.raises(RunFolderError, match=r"one shows no spread of area over boxes against random: it needs"):
        raylearn.seeds_needed(make_experiment(), one_seed)
    other_size = make_run(tmp_path / "other", [0, 1], arms={"query_size": [4]})
    with pytest.raises(RunFolderError, match=r"an arm with query_size 2, and two seeds"):
        raylearn.seeds_needed(make_experiment(), other_size)


@pytest.mark.parametrize("controls", [["full_data"], []])
def test_an_experiment_that_tests_nothing_needs_no_seeds(tmp_path: Path, controls: list[str]) -> None:
    pilot = make_run(tmp_path / "pilot", [0, 1])
    with pytest.raises(ConfigError, match="tests nothing: it needs random among"):
        raylearn.seeds_needed(make_experiment(arms={"query_size": [2], "controls": controls}), pilot)


@pytest.mark.parametrize("difference", [0, -0.1, 1, float("nan")])
def test_a_difference_that_is_none_of_map_is_refused(tmp_path: Path, difference: float) -> None:
    with pytest.raises(ConfigError, match="differences of mAP lie between 0 and 1"):
        raylearn.seeds_needed(make_experiment(), tmp_path, [difference])
