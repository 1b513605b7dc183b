"""What arms have in common, and what two that draw lots would."""

import numpy as np
import pytest

from raylearn.reporting.overlap import overlaps
from raylearn.reporting.summary import Arm, ArmKey, Point


def arm(strategy: str, size: int | None = 2, seeds: tuple[int, ...] = (0, 1)) -> Arm:
    point = Point(0, len(seeds), 0, 4, 9, None, None, (), (), (), None, None, None, None)
    names = tuple(f"{strategy}-q{size}-s{seed}" for seed in seeds)
    return Arm(ArmKey(strategy, query_size=size), strategy, seeds, names, (point,), None)


ASKED = {
    "random-q2-s0": {"a", "b", "c", "d"},
    "random-q2-s1": {"a", "b", "c", "d"},
    "box_count-q2-s0": {"a", "x", "y", "z"},
    "box_count-q2-s1": {"a", "b", "c", "z"},
    "random-q4-s0": {"a", "b", "c", "d"},
}


def test_shares_are_means_over_the_seeds_that_both_have():
    (found,) = overlaps([arm("random"), arm("box_count"), arm("full_data", None)], ASKED, 50, 10)
    assert np.allclose(found.shares, [[1, 0.5], [0.5, 1]])
    assert found.by_chance == pytest.approx(4 / 40)


def test_query_sizes_are_kept_apart_and_one_arm_is_no_comparison():
    sizes = [found.query_size for found in overlaps([arm("random"), arm("box_count"), arm("random", 4)], ASKED, 50, 10)]
    assert sizes == [2]


def test_arms_without_a_seed_in_common_have_no_share():
    (found,) = overlaps([arm("random", seeds=(0,)), arm("box_count", seeds=(1,))], ASKED, None, 10)
    assert np.isnan(found.shares[0, 1])
    assert found.by_chance is None


def test_random_pairs_have_in_common_what_chance_says():
    rng = np.random.default_rng(0)
    seeds = tuple(range(200))
    asked = {
        f"{name}-q2-s{seed}": {str(i) for i in rng.choice(100, 20, replace=False)}
        for name in ("random", "box_count")
        for seed in seeds
    }
    (found,) = overlaps([arm("random", seeds=seeds), arm("box_count", seeds=seeds)], asked, 110, 10)
    assert found.by_chance is not None
    assert found.shares[0, 1] == pytest.approx(found.by_chance, abs=0.02)
