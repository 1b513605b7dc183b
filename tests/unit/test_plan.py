"""What a sweep would do, counted by hand and against what it then does."""

from pathlib import Path
from typing import Any

import pytest

from raylearn.config import Experiment
from raylearn.data.storage import Folder
from raylearn.errors import DetectorError
from raylearn.sweep.grid import trials
from raylearn.sweep.plan import SweepPlan, plan_lines, plan_sweep
from raylearn.sweep.runner import plan_experiment
from raylearn.sweep.trial import Bench, run_trial
from raylearn.work.store import DiskStore
from tests.unit.test_trial import BENCH, CONTENT, EXPERIMENT, HandMaker

TRIALS = trials(EXPERIMENT)  # of each seed: random, box_count and two by entropy, three rounds each; full_data, one


def counts(plan: SweepPlan) -> dict[str, tuple[int, int, int, int]]:
    return {kind: (work.wanted, work.shared, work.made, work.left) for kind, work in plan.work.items()}


def test_before_anything_is_made_initial_models_and_first_passes_are_certainly_shared(tmp_path: Path) -> None:
    plan = plan_sweep(TRIALS, BENCH, DiskStore(tmp_path))
    assert (plan.num_trials, plan.num_rounds) == (10, 26)
    assert counts(plan) == {
        "trainings": (26, 6, 0, 20),
        "evaluations": (26, 6, 0, 20),
        "scoring passes": (12, 4, 0, 8),
    }
    assert plan.seconds is None
    assert not list(tmp_path.iterdir())


def test_random_arms_of_several_query_sizes_certainly_share_what_they_both_reach(tmp_path: Path) -> None:
    content = {**CONTENT, "arms": {"uncertainty": [], "query_size": [1, 2, 4], "controls": ["random"]}, "seeds": [0]}
    experiment = Experiment.model_validate(content)
    plan = plan_sweep(trials(experiment), Bench.of(experiment, BENCH.dataset), DiskStore(tmp_path))
    # 5 + 3 + 2 rounds; images 3 4 5 6 7, 3 5 7 and 3 7
    assert counts(plan)["trainings"] == (10, 5, 0, 5)


def test_what_is_left_is_never_less_than_what_is_then_made(tmp_path: Path) -> None:
    maker = HandMaker(tmp_path)
    for trial in TRIALS:
        before = plan_sweep(TRIALS, BENCH, maker.store)
        asked = len(maker.jobs)
        list(run_trial(trial, BENCH, maker))
        assert len(maker.jobs) > asked
        after = plan_sweep(TRIALS, BENCH, maker.store)
        for kind, work in after.work.items():
            assert work.left <= before.work[kind].left
    distinct = len({job.key for job in maker.jobs if job.kind == "training"})
    assert counts(after)["trainings"] == (26, 26 - distinct, distinct, 0)
    assert after.seconds == 0


def test_the_time_that_is_left_is_told_by_what_finished_work_took(tmp_path: Path) -> None:
    maker = HandMaker(tmp_path)
    for trial in TRIALS[:2]:
        list(run_trial(trial, BENCH, maker))
    plan = plan_sweep(TRIALS, BENCH, maker.store)
    mean_wanted, mean_made = (8 * (3 + 5 + 7) + 2 * 12) / 26, (3 + 5 + 7 + 5 + 7) / 5
    assert plan.work["trainings"].seconds_each == pytest.approx(mean_wanted / mean_made)  # each was noted as 1 s
    assert plan.seconds == pytest.approx(
        plan.work["trainings"].left * mean_wanted / mean_made
        + plan.work["evaluations"].left
        + plan.work["scoring passes"].left
    )


def test_a_plan_is_told_and_leaves_nothing_behind(tmp_path: Path) -> None:
    content: dict[str, Any] = {**CONTENT, "dataset": {"format": "reef", "reef": {"num_pool": 8, "num_test": 2}}}
    experiment = Experiment.model_validate(content)
    lines = list(plan_lines(experiment, plan_experiment(experiment, Folder(str(tmp_path / "run")))))
    assert "trainings: 26 wanted, 6 certainly shared, 0 in the store, at most 20 left" in lines
    assert lines[-1].startswith("time: not known")
    assert not (tmp_path / "run").exists()
    wrong = experiment.model_copy(update={"detector": experiment.detector.model_copy(update={"model": "yolov99"})})
    with pytest.raises(DetectorError, match="yolov99"):
        plan_experiment(wrong, Folder(str(tmp_path / "run")))
