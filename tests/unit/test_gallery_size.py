"""The pictures that a run leaves for its page: how many it can hold, and what stands beside them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from raylearn.config import Experiment
from raylearn.learning.cycle import Query
from raylearn.strategies import Reason
from raylearn.sweep.gallery import MOST_PER_QUERY, most_that_fit, write_gallery
from raylearn.sweep.grid import trials
from raylearn.sweep.trial import Bench, run_trial
from tests.unit.hand_made import make_dataset
from tests.unit.test_trial import CONTENT, DATASET, HandMaker

TRUTH = make_dataset({f"{i}.jpg": [0] * 100 for i in range(20)}).truth
QUERY = Query(tuple(name for name in TRUTH if not name.startswith("test")), (0.0,) * 20)


@pytest.mark.parametrize(
    ("num_queries", "shown"),
    [(0, MOST_PER_QUERY), (1, MOST_PER_QUERY), (38 * 2, 5), (38 * 5, 2), (38 * 50, 1)],
)
def test_the_more_queries_the_fewer_images_of_each_are_shown(num_queries: int, shown: int) -> None:
    assert most_that_fit([QUERY] * num_queries, TRUTH) == shown


def test_short_queries_leave_room_for_more_of_others() -> None:
    short = Query(QUERY.image_ids[:1], (0.0,))
    assert most_that_fit([QUERY] * 10 + [short] * 300, TRUTH) == MOST_PER_QUERY
    assert most_that_fit([QUERY] * 310, TRUTH) < MOST_PER_QUERY


def test_pictures_of_nearest_images_take_room_too() -> None:
    with_nearest = replace(QUERY, reasons=(Reason("0.jpg", 0.5, 3.0),) * 20)
    assert most_that_fit([with_nearest] * (38 * 2), TRUTH) < most_that_fit([QUERY] * (38 * 2), TRUTH)


def test_an_image_comes_with_its_nearest_labelled_one_and_what_was_expected(tmp_path: Path) -> None:
    arms = {"query_size": [2], "controls": ["random"], "uncertainty": ["entropy"], "strategies": ["diverse"]}
    bench = Bench.of(Experiment.model_validate({**CONTENT, "arms": arms}), DATASET)
    maker = HandMaker(tmp_path / "store")
    rounds = {trial: list(run_trial(trial, bench, maker)) for trial in trials(bench.experiment) if trial.seed == 0}
    write_gallery(rounds, bench, tmp_path / "gallery.json")
    content = json.loads((tmp_path / "gallery.json").read_text())
    by_trial = {query["trial"].split("-")[0]: query for query in content["queries"] if query["round"] == 1}
    keys = {
        name: query["images"][0].keys() & {"nearest", "distance", "predicted_boxes"} for name, query in by_trial.items()
    }
    assert keys == {
        "random": set(),
        "entropy": {"predicted_boxes"},
        "diverse": {"nearest", "distance", "predicted_boxes"},
    }
    start = next(iter(rounds.values()))[0].pool.labelled
    first = by_trial["diverse"]["images"][0]
    assert first["nearest"] in start
    assert first["distance"] == 0  # hand-made embeddings are all alike
    picture = content["images"][first["nearest"]]
    assert picture["jpeg"]
    asked = {image["image_id"] for query in content["queries"] for image in query["images"]}
    assert (picture["truth"] == []) == (first["nearest"] not in asked)
