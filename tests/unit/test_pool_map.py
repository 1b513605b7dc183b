"""The map of the pool: where a run says that each arm asked, and how a page shows it."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raylearn.config import Experiment
from raylearn.errors import RunFolderError
from raylearn.reporting.page import write_report
from raylearn.reporting.pool_map import MAP_FILE, PoolMap, read_map
from raylearn.sweep.grid import Trial, trials
from raylearn.sweep.pool_map import MOST_ASKED, MOST_POINTS, SIDE, _sample, principal_components, write_map
from raylearn.sweep.trial import Bench, TrialRound, run_trial
from tests.unit.test_report_page import Elements, run_folder
from tests.unit.test_trial import CONTENT, DATASET, HandMaker


def finished(tmp_path: Path, strategies: Sequence[str]) -> dict[Trial, list[TrialRound]]:
    """A run of two seeds with random, the plain ranking and these."""
    arms = {"query_size": [2], "controls": ["random", "full_data"], "strategies": list(strategies)}
    bench = Bench.of(Experiment.model_validate({**CONTENT, "arms": arms}), DATASET)
    maker = HandMaker(tmp_path / "store")
    return {trial: list(run_trial(trial, bench, maker)) for trial in reversed(trials(bench.experiment))}


def written(rounds: dict[Trial, list[TrialRound]], folder: Path) -> dict[str, Any]:
    write_map(rounds, folder / MAP_FILE)
    content: dict[str, Any] = json.loads((folder / MAP_FILE).read_text())
    return content


# What a run writes


def test_two_components_keep_the_distances_of_vectors_in_a_plane() -> None:
    rng = np.random.default_rng(0)
    plane, _ = np.linalg.qr(rng.normal(size=(128, 2)))
    angles = rng.uniform(0, 2 * np.pi, 40)
    vectors = np.column_stack([np.cos(angles), np.sin(angles)]) @ plane.T
    places, shares = principal_components(vectors * rng.uniform(1, 9, (40, 1)))
    assert sum(shares) == pytest.approx(1)
    assert shares[0] >= shares[1]
    between = np.linalg.norm(vectors[:, None] - vectors, axis=2)
    assert np.linalg.norm(places[:, None] - places, axis=2) == pytest.approx(between, abs=1e-5)


def test_the_order_of_the_images_turns_no_axis_round() -> None:
    rng = np.random.default_rng(1)
    vectors, order = rng.normal(size=(30, 8)), rng.permutation(30)
    assert principal_components(vectors[order])[0] == pytest.approx(principal_components(vectors)[0][order], abs=1e-6)


@pytest.mark.parametrize("vectors", [np.ones((5, 4)), np.ones((1, 4)), np.zeros((3, 4))])
def test_images_that_are_all_alike_are_one_spot(vectors: np.ndarray) -> None:
    places, shares = principal_components(vectors)
    assert places == pytest.approx(np.zeros((len(vectors), 2)))
    assert shares == (0, 0)


def test_every_arm_of_the_lowest_seed_is_on_the_map_with_what_it_chose(tmp_path: Path) -> None:
    rounds = finished(tmp_path, ["diverse", "coverage"])
    content = written(rounds, tmp_path)
    of_seed = {trial.name: done for trial, done in rounds.items() if trial.seed == 0 and trial.arm.strategy.asks}
    assert content["seed"] == 0
    assert content["trials"].keys() == of_seed.keys()
    assert "random-q2-s0" in content["trials"]
    assert (content["num_images"], content["num_pool"], len(content["points"])) == (12, 12, 12)
    ids = sorted(image.image_id for image in DATASET.pool)
    shown = sorted(
        ids, key=lambda name: name in next(iter(of_seed.values()))[0].pool.labelled
    )  # as the passes are read
    for name, done in of_seed.items():
        assert {shown[i] for i in content["start"]} == done[0].pool.labelled.keys()
        for one in done[1:]:
            assert one.query is not None
            assert [shown[i] for i in content["trials"][name][str(one.index)]] == list(one.query.image_ids)
    assert all(0 <= x <= SIDE and 0 <= y <= SIDE for x, y in content["points"])


def test_where_no_arm_kept_embeddings_there_is_no_map_and_an_earlier_one_goes(tmp_path: Path) -> None:
    (tmp_path / MAP_FILE).write_text("of before")
    write_map(finished(tmp_path, []), tmp_path / MAP_FILE)
    assert not (tmp_path / MAP_FILE).exists()
    assert read_map(tmp_path / MAP_FILE) is None


def test_images_that_were_chosen_are_drawn_before_those_that_were_left() -> None:
    ids = np.array([f"{i}.jpg" for i in range(5000)], object)
    few, many = ({f"{i}.jpg" for i in range(count)} for count in (300, 4000))
    shown = _sample(ids, few, seed=0)
    assert len(shown) == len(set(shown.tolist())) == MOST_POINTS
    assert set(range(300)) <= set(shown.tolist())
    assert shown.tolist() == _sample(ids, few, seed=0).tolist()
    assert sum(_sample(ids, many, seed=0) < 4000) == MOST_ASKED


# What a page shows


def content(num_points: int = 40, arms: Sequence[str] = ("uncertainty-s0", "random-s0"), rounds: int = 2) -> Any:
    rng = np.random.default_rng(2)
    each = min(10, num_points // (rounds + 1)) if num_points < 100 else MOST_ASKED // rounds
    return {
        "seed": 0,
        "points": rng.integers(0, 1001, (num_points, 2)).tolist(),
        "shares": [0.5, 0.25],
        "num_images": 5000,
        "num_pool": 5003,
        "start": [0, 1, 2],
        "trials": {
            arm: {str(i): rng.integers(0, num_points, each).tolist() for i in range(1, rounds + 1)} for arm in arms
        },
    }


def page_of(folder: Path, made: Any) -> str:
    (run_folder(folder) / MAP_FILE).write_text(json.dumps(made))
    return write_report(folder).read_text(encoding="utf-8")


def test_the_page_draws_the_pool_once_and_each_arm_in_it(tmp_path: Path) -> None:
    made = content()
    page = page_of(tmp_path, made)
    seen = Elements(page)
    maps = [attributes["aria-label"] for tag, attributes in seen.elements if attributes.get("class") == "map"]
    assert maps == ["map of entropy · sum", "map of random"]
    (pool,) = (attributes["d"] for _, attributes in seen.elements if attributes.get("id") == "map-points")
    assert pool is not None
    assert pool.count("M") == 40
    x, y = made["points"][made["trials"]["random-s0"]["2"][0]]
    top = max(other for _, other in made["points"])
    assert f'stroke="var(--series-1)" d="M{x} {top - y}h0' in page.split('aria-label="map of random"')[1]
    told = " ".join(seen.text.split())
    assert "they hold 50 % and 25 % of the variance" in told
    assert "Drawn are 40 of 5000 images, those that were chosen first. Not on the map: 3 images of the pool" in told
    assert "chosen for round 2" in told
    assert {tag for tag, _ in seen.elements} & {"script", "img", "link"} == set()
    assert all((attributes.get("href") or "#").startswith(("#", "data:")) for _, attributes in seen.elements)


def test_a_run_without_a_map_has_a_page_all_the_same(tmp_path: Path) -> None:
    assert "Map of the pool" not in write_report(run_folder(tmp_path)).read_text(encoding="utf-8")


def test_eight_arms_of_five_rounds_stay_below_a_megabyte_and_a_half(tmp_path: Path) -> None:
    made = content(MOST_POINTS, [f"arm{i}" for i in range(8)], 5)
    (tmp_path / MAP_FILE).write_text(json.dumps(made))
    assert (tmp_path / MAP_FILE).stat().st_size < 1.5e6
    found = read_map(tmp_path / MAP_FILE)
    assert found is not None
    drawn = sum(len(found.path(of_round)) for rounds in found.chosen.values() for of_round in rounds.values())
    assert len(found.path()) + drawn < 1.5e6


def test_of_many_rounds_neighbours_share_a_colour_and_none_is_left_without() -> None:
    chosen = {"t": {number: [0] for number in range(1, 21)}}
    found = PoolMap(0, [(0, 0)], (0, 0), 1, 1, [], chosen)
    assert found.colours[0] == "rounds 1 to 3"
    assert list(found.colours) == list(range(7))
    assert found.colours[6] == "rounds 19 to 20"
    assert replace(found, chosen={"t": {1: [0], 2: [0]}}).colours == {0: "round 1", 1: "round 2"}


@pytest.mark.parametrize(
    "change",
    [
        {"points": [[0, "x"]]},
        {"points": [[0, 1e9]]},
        {"points": 3},
        {"shares": [0.5]},
        {"shares": [0.5, float("nan")]},
        {"start": [40]},
        {"start": [-1]},
        {"trials": {"t": {"0": [1]}}},
        {"trials": {"t": {"one": [1]}}},
        {"trials": []},
        {"num_pool": None},
    ],
)
def test_what_is_no_map_is_refused_by_name(change: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / MAP_FILE).write_text(json.dumps({**content(), **change}))
    with pytest.raises(RunFolderError, match=r"map\.json cannot be read \(.*\): remove it, and run again$"):
        read_map(tmp_path / MAP_FILE)


def test_names_of_arms_are_text_on_the_map(tmp_path: Path) -> None:
    page = page_of(tmp_path, content(arms=["<script>alert(1)</script>", "random-s0"]))
    assert not re.search("<script", page)
