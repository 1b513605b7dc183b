"""The grid: which arms and trials an experiment has, what they are called, how many rounds they go."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylearn.strategies import BoxCount, FullData, Random, Uncertainty
from raylearn.sweep.grid import Arm, Trial, arms, num_rounds, trials
from tests.unit.hand_made import make_experiment

AXES = {
    "uncertainty": ["least_confidence", "margin", "margin_squared", "entropy"],
    "aggregation": ["sum", "max", "mean"],
    "weighting": ["none", "inverse_frequency", "inverse_sqrt"],
    "probabilities": ["background", "conditional", "independent"],
}


def test_an_arm_is_a_combination_of_the_axes_and_controls_stand_beside_them():
    experiment = make_experiment(
        budget=12,
        arms={"uncertainty": ["entropy"], "aggregation": ["sum", "max"], "query_size": [2, 3], "controls": ["random"]},
    )
    assert arms(experiment) == [
        Arm(Random(), 2),
        Arm(Random(), 3),
        Arm(Uncertainty("entropy", "sum", "none", "background"), 2),
        Arm(Uncertainty("entropy", "sum", "none", "background"), 3),
        Arm(Uncertainty("entropy", "max", "none", "background"), 2),
        Arm(Uncertainty("entropy", "max", "none", "background"), 3),
    ]


def test_a_control_is_there_once_for_each_query_size_and_full_data_once():
    controls = ["random", "box_count", "full_data"]
    experiment = make_experiment(budget=12, arms={"uncertainty": [], "query_size": [2, 3, 4], "controls": controls})
    found = [(arm.strategy.name, arm.query_size) for arm in arms(experiment)]
    assert found == [
        *[("random", size) for size in (2, 3, 4)],
        *[("box_count", size) for size in (2, 3, 4)],
        ("full_data", None),
    ]


def test_an_experiment_may_have_no_controls():
    experiment = make_experiment(arms={"query_size": [2], "controls": []})
    assert [arm.strategy.name for arm in arms(experiment)] == ["uncertainty"]


def test_the_full_grid_has_every_combination():
    experiment = make_experiment(budget=12, seeds=[0, 1], arms={**AXES, "query_size": [2, 3], "controls": ["random"]})
    assert len(arms(experiment)) == 2 + 4 * 3 * 3 * 3 * 2
    assert len(set(arms(experiment))) == len(arms(experiment))
    assert len(trials(experiment)) == 2 * len(arms(experiment))


def test_trials_go_seed_by_seed_so_that_a_comparison_is_complete_early():
    experiment = make_experiment(seeds=[5, 3])
    both = trials(experiment)
    assert [trial.seed for trial in both] == [5] * 3 + [3] * 3
    assert [trial.arm for trial in both[:3]] == [trial.arm for trial in both[3:]] == arms(experiment)


# Names


def test_the_name_of_a_trial_says_what_it_is():
    names = [
        trial.name for trial in trials(make_experiment(seeds=[7], arms={"query_size": [2], "controls": ["random"]}))
    ]
    assert names == ["random-q2-s7", "entropy-sum-none-background-q2-s7"]
    assert Trial(Arm(FullData(), None), 0).name == "full_data-s0"


@st.composite
def experiments(draw):
    some = {name: draw(st.lists(st.sampled_from(values), min_size=1, unique=True)) for name, values in AXES.items()}
    controls = draw(st.lists(st.sampled_from(["random", "box_count", "full_data"]), unique=True))
    sizes = draw(st.lists(st.sampled_from([1, 2, 3, 4, 6, 12, 24]), min_size=1, unique=True))
    seeds = draw(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3, unique=True))
    return make_experiment(budget=24, seeds=seeds, arms={**some, "controls": controls, "query_size": sizes})


@settings(deadline=None, max_examples=30)
@given(experiments())
def test_names_are_unique_fit_for_a_file_and_the_same_every_time(experiment):
    names = [trial.name for trial in trials(experiment)]
    assert len({name.lower() for name in names}) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_-]{0,99}", name) for name in names)
    assert names == [trial.name for trial in trials(experiment)]


# Rounds


@pytest.mark.parametrize(("query_size", "rounds"), [(1, 13), (4, 4), (6, 3), (12, 2)])
def test_every_query_size_spends_the_same_budget(query_size, rounds):
    experiment = make_experiment(budget=12, arms={"query_size": [query_size]})
    for arm in arms(experiment):
        assert num_rounds(experiment, arm) == (1 if arm.strategy == FullData() else rounds)


def test_a_scoring_pass_is_needed_by_those_that_look_at_detections():
    needing = [strategy for strategy in (Uncertainty(), Random(), BoxCount(), FullData()) if strategy.needs_pass]
    assert needing == [Uncertainty(), BoxCount()]
