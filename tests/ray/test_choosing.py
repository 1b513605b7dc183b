"""Experiments whose arms weigh images against each other, keep to a limit per clip, or pay in boxes."""

from pathlib import Path
from typing import Any

import pytest

from tests.small_sweep import CONTENT, results_of, rows_of, run_sweep

CHOOSING: dict[str, Any] = {
    **CONTENT,
    "budget": 4,
    "arms": {
        "uncertainty": [],
        "query_size": [4],
        "strategies": [
            "diverse",
            {"name": "coverage", "clusters": 4},
            {"name": "uncertainty", "aggregation": "mean", "max_per_group": 1},
        ],
        "controls": ["random", "core_set", "ppal", "oracle"],
    },
}
BOXES: dict[str, Any] = {
    **CONTENT,
    "budget": {"boxes": 24},
    "arms": {"uncertainty": ["entropy"], "query_size": [12], "controls": ["random"]},
}


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("choosing") / "run"
    run_sweep(CHOOSING, folder)
    return folder


def test_every_way_of_weighing_images_runs_and_the_first_model_is_shared(chosen: Path) -> None:
    rows = rows_of(chosen, "results")
    assert {row["strategy"] for row in rows} == {
        "random",
        "core_set",
        "ppal",
        "oracle",
        "diverse",
        "coverage",
        "uncertainty",
    }
    assert len({row["checkpoint"] for row in rows if row["round"] == 0}) == 1
    assert {row["num_images"] for row in rows if row["round"] == 1} == {12}
    options = {row["options"] for row in rows}
    assert {None, '{"clusters": 4}', '{"max_per_group": 1}'} == options


def test_queries_say_what_they_are_near_to_and_what_they_cost(chosen: Path) -> None:
    rows = rows_of(chosen, "queries")
    labelled_first = {row["nearest"] for row in rows if row["nearest"]}
    assert labelled_first
    for row in rows:
        looked_at_both = str(row["trial"]).split("-")[0] in ("diverse", "coverage", "core_set", "ppal")
        assert (row["distance"] is not None) == looked_at_both, row
        assert (row["predicted_boxes"] is not None) == (str(row["trial"]).split("-")[0] not in ("random", "oracle"))
        assert isinstance(row["boxes"], int)


def test_a_limit_per_clip_is_kept(chosen: Path) -> None:
    rows = [row for row in rows_of(chosen, "queries") if "max_per_group" in str(row["trial"])]
    clips = [str(row["image_id"]).rsplit("_", 1)[0] for row in rows]
    assert len(set(clips)) == len(clips) == 4


def test_the_same_experiment_again_makes_nothing_and_gives_the_same(chosen: Path) -> None:
    before = results_of(chosen)
    assert "0 made now" in run_sweep(CHOOSING, chosen)
    assert results_of(chosen) == before


def test_a_budget_in_boxes_pays_all_arms_alike(tmp_path: Path) -> None:
    run_sweep(BOXES, tmp_path / "run")
    rows = rows_of(tmp_path / "run", "results")
    start = {row["num_boxes"] for row in rows if row["round"] == 0}
    assert len(start) == 1
    for row in rows:
        paid, due = int(str(row["num_boxes"])) - min(map(int, map(str, start))), 12 * int(str(row["round"]))
        assert due <= paid < due + 12, row
    assert (tmp_path / "run/report.html").exists()
