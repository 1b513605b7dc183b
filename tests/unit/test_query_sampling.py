import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylearn.errors import QueryError
from raylearn.measures import sampling
from raylearn.measures.sampling import box_counts, draw_random, random_generator, top_n

quick = settings(deadline=None, max_examples=50)

IDS = [f"video/frame_{i:04}.jpg" for i in range(20)]


# top_n


def test_highest_scores_come_first():
    np.testing.assert_array_equal(top_n(IDS[:4], np.array([0.1, 0.9, 0.0, 0.5]), 3, seed=0), [1, 3, 0])


@quick
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.data(), st.integers(0, 3))
def test_query_has_the_highest_scores_each_once_and_in_order(scores, data, seed):
    size = data.draw(st.integers(1, len(scores)))
    chosen = top_n(IDS[: len(scores)], np.array(scores), size, seed)
    assert len(set(chosen)) == size
    assert [scores[i] for i in chosen] == sorted(scores, reverse=True)[:size]


@quick
@given(st.lists(st.sampled_from([0.0, 0.25, 0.5]), min_size=1, max_size=20), st.data(), st.integers(0, 3))
def test_query_does_not_depend_on_the_order_of_the_input(scores, data, seed):
    size = data.draw(st.integers(1, len(scores)))
    order = data.draw(st.permutations(range(len(scores))))
    before = [IDS[i] for i in top_n(IDS[: len(scores)], np.array(scores), size, seed)]
    shuffled_ids = [IDS[i] for i in order]
    after = [shuffled_ids[i] for i in top_n(shuffled_ids, np.array(scores)[order], size, seed)]
    assert before == after


@quick
@given(st.lists(st.sampled_from([0.0, 0.25, 0.5]), min_size=2, max_size=20), st.integers(0, 3))
def test_a_smaller_query_is_the_start_of_a_larger_one(scores, seed):
    ids = IDS[: len(scores)]
    larger = top_n(ids, np.array(scores), len(ids), seed)
    np.testing.assert_array_equal(top_n(ids, np.array(scores), len(ids) - 1, seed), larger[:-1])


def test_ties_are_not_broken_by_order_and_depend_on_the_seed():
    queries = {tuple(top_n(IDS, np.zeros(20), 5, seed).tolist()) for seed in range(10)}
    assert len(queries) == 10
    assert tuple(range(5)) not in queries
    assert tuple(range(19, 14, -1)) not in queries


def test_tie_order_is_the_same_on_every_machine():
    # recorded: a change of it changes the query of every experiment
    assert top_n(IDS, np.zeros(20), 5, seed=0).tolist() == [4, 1, 9, 7, 14]


def test_ties_are_broken_only_among_equals():
    scores = np.array([0.5, 0.9, 0.5, 0.5, 0.7, 0.1])
    for seed in range(5):
        chosen = top_n(IDS[:6], scores, 4, seed)
        assert chosen[:2].tolist() == [1, 4]
        assert set(chosen[2:]) < {0, 2, 3}


def test_ids_are_hashed_only_where_scores_are_equal_and_high_enough(monkeypatch):
    hashed = []
    monkeypatch.setattr(sampling, "_hash64", lambda text: hashed.append(text) or len(hashed))
    top_n(IDS, np.arange(20.0), 5, seed=0)
    assert hashed == []
    top_n(IDS[:6], np.array([0.0, 0.0, 0.5, 0.5, 0.9, 0.9]), 3, seed=7)
    assert hashed == [f"7/{IDS[i]}" for i in (2, 3, 4, 5)]


def test_ids_may_be_a_numpy_array():
    scores = np.array([0.5, 0.5, 0.1, 0.5])
    expected = top_n(IDS[:4], scores, 3, seed=1)
    np.testing.assert_array_equal(top_n(np.array(IDS[:4]), scores, 3, seed=1), expected)
    np.testing.assert_array_equal(top_n(np.array(IDS[:4], dtype=object), scores, 3, seed=1), expected)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_is_an_error_and_no_silent_zero(wrong):
    with pytest.raises(ValueError, match=r"1 of 3 image scores are not finite numbers, the first is .* of image 'b'"):
        top_n(["a", "b", "c"], np.array([0.1, wrong, 0.3]), 1, seed=0)


@pytest.mark.parametrize("shape", [(2,), (3, 1)])
def test_scores_of_other_images_are_refused(shape):
    with pytest.raises(ValueError, match="3 image ids, but scores of shape"):
        top_n(["a", "b", "c"], np.zeros(shape), 1, seed=0)


def draw_top(size):
    return top_n(IDS[:3], np.zeros(3), size, seed=0)


def draw_any(size):
    return draw_random(IDS[:3], size, random_generator(0, "test"))


@pytest.mark.parametrize("draw", [draw_top, draw_any])
def test_a_query_larger_than_the_pool_is_refused_with_the_numbers(draw):
    assert sorted(draw(3)) == [0, 1, 2]
    with pytest.raises(QueryError, match=r"^query of 5 images, but only 3 are unlabelled: lower query_size or budget$"):
        draw(5)


@pytest.mark.parametrize("draw", [draw_top, draw_any])
@pytest.mark.parametrize("size", [0, -1])
def test_a_query_of_nothing_is_refused(draw, size):
    with pytest.raises(QueryError, match=f"query of {size} images: query_size must be at least 1"):
        draw(size)


# draw_random


@quick
@given(st.integers(1, 20), st.data(), st.integers(0, 100))
def test_a_random_draw_does_not_depend_on_the_order_of_the_input(num_images, data, seed):
    size = data.draw(st.integers(1, num_images))
    shuffled = data.draw(st.permutations(IDS[:num_images]))
    drawn = [IDS[i] for i in draw_random(IDS[:num_images], size, random_generator(seed, "query"))]
    again = [shuffled[i] for i in draw_random(shuffled, size, random_generator(seed, "query"))]
    assert drawn == again
    assert len(set(drawn)) == size


def test_a_random_draw_reaches_every_image_and_keeps_no_order():
    rng = random_generator(0, "test")
    draws = np.array([draw_random(IDS, 2, rng) for _ in range(400)])
    # 400 draws of 2 from 20: 40 each, standard deviation 6
    counts = np.bincount(draws.ravel(), minlength=20)
    assert counts.min() > 15
    assert counts.max() < 65
    assert 140 < (draws[:, 0] < draws[:, 1]).sum() < 260


# box_counts


def test_box_count_is_the_number_of_detections():
    counts = box_counts(np.array([0, 0, 3, 3, 4]))
    np.testing.assert_array_equal(counts, [0, 3, 0, 1])
    assert counts.dtype == np.float64


def test_box_count_refuses_offsets_that_fall():
    with pytest.raises(ValueError, match="offsets fall at image 1"):
        box_counts(np.array([0, 3, 2]))


# random_generator


def test_seed_purpose_and_round_each_give_a_stream_of_their_own():
    asked = [(s, p, r) for s in (0, 1, 2**32) for p in ("query", "initial set", "") for r in (0, 1, 2)]
    draws = {tuple(random_generator(*what).integers(2**32, size=2).tolist()) for what in asked}
    assert len(draws) == len(asked)


def test_the_stream_is_the_same_in_another_process():
    code = "from raylearn.measures.sampling import random_generator as draw; "
    code += "print(draw(3, 'query', 2).integers(10**9, size=3).tolist())"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == str(random_generator(3, "query", 2).integers(10**9, size=3).tolist())


def test_drawing_leaves_the_global_random_state_alone():
    before = np.random.get_state()[1].tolist()
    draw_random(IDS, 5, random_generator(0, "query"))
    top_n(IDS, np.zeros(20), 5, seed=0)
    assert np.random.get_state()[1].tolist() == before


@pytest.mark.parametrize(("seed", "round_index"), [(-1, 0), (0, -1)])
def test_a_negative_seed_or_round_is_refused(seed, round_index):
    with pytest.raises(ValueError, match="seed and round must be >= 0"):
        random_generator(seed, "query", round_index)
