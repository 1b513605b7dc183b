"""Greedy coverage: lazily the same as plainly, and never far from the best; and how many boxes an image will have."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylearn.measures import greedy
from raylearn.measures.coverage import greedy_coverage
from raylearn.measures.expected_boxes import expected_boxes

seeds = st.integers(0, 2**32)


def value(masses, covered, chosen):
    return float((np.log1p(covered + masses[list(chosen)].sum(axis=0)) - np.log1p(covered)).sum())


def plain(masses, covered, costs, size, known=None):
    held, picks = 1.0 + covered, []
    groups, of_group = (
        (np.arange(len(masses)), np.zeros(len(masses))) if known is None else (known[:, 0], known[:, 1] + 0)
    )
    for _ in range(size):
        gains = (np.log1p(masses / held).sum(axis=1) / costs / (1 + of_group * (known is not None))).astype(np.float32)
        gains[picks] = -1
        picks.append(int(gains.argmax()))
        held = held + masses[picks[-1]]
        of_group[groups == groups[picks[-1]]] += 1
    return picks


@given(seeds, st.integers(1, 40))
def test_lazy_picks_are_the_plain_ones(seed, active):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 40))
    # few values, so that many gains are equal, and many are 0
    masses = rng.choice([0.0, 0.0, 0.5, 1.0, 4.0], (count, 3)).astype(np.float32)
    covered, costs = rng.integers(0, 3, 3), rng.choice([1.0, 2.0], count)
    size = int(rng.integers(1, count + 1))
    groups = rng.integers(0, 5, count)
    known = None if rng.random() < 0.5 else np.column_stack([groups, rng.integers(0, 3, 5)[groups]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(greedy, "_num_active", lambda count: min(count, active))
        patch.setattr(greedy, "_BLOCK", 7)
        picks, gains = greedy_coverage(masses, covered, costs, size, known)
    assert picks == plain(masses, covered, costs, size, known)
    assert gains == sorted(gains, reverse=True)


def test_lazy_picks_are_the_plain_ones_among_thousands():
    rng = np.random.default_rng(0)
    masses = rng.exponential(size=(20_000, 5)).astype(np.float32)
    costs = rng.uniform(1, 5, 20_000)
    picks, _ = greedy_coverage(masses, np.zeros(5), costs, 60)
    assert picks == plain(masses, np.zeros(5), costs, 60)


def test_of_an_image_and_a_bound_that_are_equal_the_first_is_taken(monkeypatch):
    monkeypatch.setattr(greedy, "_num_active", lambda _: 2)
    values = np.array([1, 3, 2], np.float32)

    def choose(_):
        values[2] = 1  # as the image that was not looked at again

    assert greedy.lazy_greedy(lambda positions: values[positions], choose, 3, 3) == ([1, 0, 2], [3, 1, 1])


def test_images_whose_classes_only_have_other_names_are_equal():
    rng = np.random.default_rng(0)
    for _ in range(50):
        numbers = rng.random(7)
        masses = np.stack([rng.permutation(numbers) for _ in range(9)])
        assert greedy_coverage(masses, np.full(7, 3), np.full(9, 1.7), 1)[0] == [0]


@given(seeds)
def test_greedy_reaches_1_minus_1_over_e_of_the_best_set(seed):
    rng = np.random.default_rng(seed)
    masses = rng.exponential(size=(8, 3)) * rng.integers(0, 2, (8, 3))
    covered = rng.integers(0, 3, 3)
    size = int(rng.integers(1, 5))
    picks, gains = greedy_coverage(masses.astype(np.float32), covered, np.ones(8), size)
    best = max(value(masses, covered, chosen) for chosen in combinations(range(8), size))
    assert value(masses, covered, picks) >= (1 - 1 / np.e) * best - 1e-6
    assert sum(gains) == pytest.approx(value(masses, covered, picks), abs=1e-5)


def test_expected_boxes_by_hand():
    # s and true boxes go together exactly: E is y s / s_pool
    assert expected_boxes(np.array([1.0, 3.0]), np.arange(4), 2 * np.arange(4)).tolist() == [1.5, 4.5]
    # correlation .5, so lam .25: 2 (.75 + .25 s / s_pool)
    labelled, true = np.array([1.0, 2.0, 3.0]), np.array([1, 3, 2])
    assert expected_boxes(np.array([0.0, 4.0]), labelled, true) == pytest.approx([1.5, 2.5])


@pytest.mark.parametrize(
    ("labelled", "true"),
    [([1, 2], [1, 2]), ([0.1] * 3, [1, 2, 3]), ([1, 2, 3], [2, 2, 2]), ([1, 2, 3], [3, 2, 1])],
    ids=["two images", "all seen alike", "all alike", "more seen where there is less"],
)
def test_a_detector_that_says_nothing_of_boxes_expects_the_mean_everywhere(labelled, true):
    found = expected_boxes(np.array([0.0, 5.0]), np.array(labelled), np.array(true))
    assert found.tolist() == [np.mean(true)] * 2


def test_expected_boxes_are_what_is_seen_where_no_true_ones_are_known():
    assert expected_boxes(np.array([0.0, 2.5]), np.array([1.0]), None).tolist() == [0.0, 2.5]
    assert expected_boxes(np.array([0.0, 2.5]), np.empty(0), np.empty(0)).tolist() == [0.0, 2.5]


def test_a_pool_in_which_nothing_is_seen_costs_the_mean():
    assert expected_boxes(np.zeros(2), np.arange(4), np.arange(4)).tolist() == [1.5, 1.5]


@given(seeds)
def test_expected_boxes_are_never_negative_and_their_mean_is_that_of_the_labelled_images(seed):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 9, int(rng.integers(1, 7)))
    found = expected_boxes(rng.exponential(size=5), rng.exponential(size=len(true)), true)
    assert found.min() >= 0
    assert found.mean() == pytest.approx(true.mean())
