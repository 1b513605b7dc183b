import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylearn.errors import QueryError
from raylearn.measures.aggregation import AGGREGATIONS, aggregate

quick = settings(deadline=None, max_examples=50)

LOOP = {"sum": sum, "max": max, "mean": lambda values: sum(values) / len(values)}

ragged = st.lists(st.lists(st.floats(0, 1), max_size=4), max_size=8)


def flat(images: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([value for image in images for value in image], dtype=np.float64)
    return values, np.cumsum([0, *map(len, images)])


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sum", [0, 0.75, 0, 0, 1, 0]), ("max", [0, 0.5, 0, 0, 1, 0]), ("mean", [0, 0.375, 0, 0, 1, 0])],
)
def test_images_without_detections_score_zero_wherever_they_stand(name, expected):
    values, offsets = flat([[], [0.25, 0.5], [], [], [1.0], []])
    np.testing.assert_array_equal(aggregate(values, offsets, name), expected)


@pytest.mark.parametrize("name", AGGREGATIONS)
@pytest.mark.parametrize("num_images", [0, 1, 3])
def test_no_detections_at_all(name, num_images):
    scores = aggregate(np.zeros(0), np.zeros(num_images + 1, dtype=np.int64), name)
    np.testing.assert_array_equal(scores, np.zeros(num_images))
    assert scores.dtype == np.float64


@quick
@given(ragged, st.sampled_from(AGGREGATIONS))
def test_same_as_a_plain_loop(images, name):
    values, offsets = flat(images)
    expected = [LOOP[name](image) if image else 0.0 for image in images]
    np.testing.assert_allclose(aggregate(values, offsets, name), expected, rtol=1e-12)


@quick
@given(ragged, st.sampled_from(AGGREGATIONS))
def test_ranges(images, name):
    values, offsets = flat(images)
    scores = aggregate(values, offsets, name)
    limits = np.diff(offsets) if name == "sum" else 1
    assert (scores >= 0).all()
    assert (scores <= limits + 1e-12).all()


@quick
@given(ragged, st.sampled_from(AGGREGATIONS), st.randoms(use_true_random=False))
def test_order_of_detections_does_not_matter(images, name, random):
    shuffled = [random.sample(image, len(image)) for image in images]
    np.testing.assert_allclose(aggregate(*flat(shuffled), name), aggregate(*flat(images), name), rtol=1e-12)


@quick
@given(ragged, st.sampled_from(AGGREGATIONS), st.data())
def test_images_do_not_see_each_other(images, name, data):
    order = data.draw(st.permutations(range(len(images))))
    scores = aggregate(*flat([images[i] for i in order]), name)
    np.testing.assert_array_equal(scores, aggregate(*flat(images), name)[order])


def test_a_small_sum_survives_large_neighbours():
    # a difference of running sums would give 0
    values, offsets = flat([[1e17], [1e-3], [1e17]])
    np.testing.assert_array_equal(aggregate(values, offsets, "sum"), [1e17, 1e-3, 1e17])


def test_float32_values_are_added_in_float64():
    values = np.array([2**24, 1.0], dtype=np.float32)
    assert aggregate(values, np.array([0, 2]), "sum") == [2**24 + 1]


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_nan_stays_nan_in_its_own_image(name):
    values, offsets = flat([[0.5], [0.1, np.nan, 0.2], [0.5]])
    np.testing.assert_array_equal(aggregate(values, offsets, name), [0.5, np.nan, 0.5])


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        (np.array([0, 2]), "offsets end at 2, but there are 3 values"),
        (np.array([0, 4]), "offsets end at 4, but there are 3 values"),
        (np.array([1, 3]), "offsets must start at 0, got 1"),
        (np.array([0, 2, 1, 3]), "offsets fall at image 1: from 2 to 1"),
        (np.array([], dtype=np.int64), r"offsets \(N\+1,\) of int64 wanted, got shape \(0,\)"),
        (np.array([[0, 3]]), r"offsets \(N\+1,\) of int64 wanted, got shape \(1, 2\)"),
        (np.array([0.0, 3.0]), "of int64 wanted, got shape .* of float64"),
    ],
)
def test_offsets_that_do_not_divide_the_values_are_refused(offsets, message):
    with pytest.raises(ValueError, match=message):
        aggregate(np.ones(3), offsets, "sum")


def test_unsigned_offsets_are_refused():
    # their differences never fall below 0
    with pytest.raises(ValueError, match="of uint64"):
        aggregate(np.ones(3), np.array([0, 2, 1, 3], dtype=np.uint64), "sum")


def test_values_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"values \(D,\) wanted, got shape \(3, 2\)"):
        aggregate(np.ones((3, 2)), np.array([0, 3]), "sum")


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(QueryError, match="unknown aggregation 'maximum': did you mean 'max'"):
        aggregate(np.ones(1), np.array([0, 1]), "maximum")
    with pytest.raises(QueryError, match="unknown aggregation 'zzz': known: max, mean, sum"):
        aggregate(np.ones(1), np.array([0, 1]), "zzz")
