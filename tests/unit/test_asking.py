"""Asking a strategy within limits: so many images of a group, so many boxes."""

from dataclasses import replace

import numpy as np
import pytest

from raylearn.errors import QueryError
from raylearn.strategies import BoxCount, Candidates, Context, Random, Uncertainty, ask, ask_within

IDS = ["a1.jpg", "a2.jpg", "a3.jpg", "b1.jpg", "b2.jpg", "c1.jpg"]
COUNTS = np.array([9, 8, 7, 6, 5, 1])
CONTEXT = Context(0, np.zeros(2, np.int64))
CANDIDATES = Candidates(
    IDS,
    np.concatenate([[0], np.cumsum(COUNTS)]),
    np.tile(np.float32([[0.5, 0.1]]), (COUNTS.sum(), 1)),
    groups=np.array([name[0] for name in IDS], object),
)


@pytest.mark.parametrize("strategy", [BoxCount(max_per_group=1), Uncertainty(max_per_group=1)])
def test_a_limit_of_one_takes_the_first_of_each_group(strategy):
    assert ask(strategy, CANDIDATES, 3, CONTEXT).image_ids == ("a1.jpg", "b1.jpg", "c1.jpg")


def test_a_limit_of_two_leaves_the_order_of_the_strategy():
    assert ask(BoxCount(max_per_group=2), CANDIDATES, 4, CONTEXT).image_ids == ("a1.jpg", "a2.jpg", "b1.jpg", "b2.jpg")


def test_chance_keeps_to_a_limit_too():
    for seed in range(20):
        chosen = ask(Random(max_per_group=1), CANDIDATES, 3, Context(seed, CONTEXT.class_counts)).image_ids
        assert sorted(name[0] for name in chosen) == ["a", "b", "c"]


def test_a_limit_that_leaves_too_few_images_is_refused():
    with pytest.raises(QueryError, match="query of 4 images, but groups of at most 1 images each give 3"):
        ask(BoxCount(max_per_group=1), CANDIDATES, 4, CONTEXT)


def test_a_limit_without_groups_is_refused_and_says_where_they_come_from():
    with pytest.raises(QueryError, match="these images have none: a data set names them"):
        ask(BoxCount(max_per_group=1), replace(CANDIDATES, groups=None), 2, CONTEXT)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "2"])
def test_a_limit_is_a_whole_number_of_at_least_one(limit):
    with pytest.raises(QueryError, match="max_per_group is"):
        BoxCount(max_per_group=limit)


def test_a_limit_is_in_the_names_of_an_arm_and_none_is_not():
    assert Uncertainty(max_per_group=1).label == "entropy sum max_per_group=1"
    assert Uncertainty(max_per_group=1).words == ("entropy", "sum", "none", "background", "max_per_group_1")
    assert Uncertainty().label == "entropy sum"
    assert Random().words == ("random",)


@pytest.mark.parametrize(("budget", "chosen"), [(1, 1), (9, 1), (10, 2), (17, 2), (18, 3), (36, 6), (99, 6)])
def test_a_budget_is_paid_by_the_first_images_that_cost_as_much(budget, chosen):
    query = ask_within(BoxCount(), CANDIDATES, COUNTS, budget, CONTEXT)
    assert query.image_ids == tuple(IDS[:chosen])


def test_images_that_cost_nothing_are_taken_along_until_the_budget_is_paid():
    costs = np.array([0, 0, 3, 0, 3, 1])
    assert ask_within(BoxCount(), CANDIDATES, costs, 4, CONTEXT).image_ids == tuple(IDS[:5])
