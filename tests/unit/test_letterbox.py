"""Letterboxing: any image into the middle of one grey square, its shape kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylearn.detectors.letterbox import letterbox

GREY = [114, 114, 114]


def red(width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), (255, 0, 0), dtype=np.uint8)


def extent(square: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is not padding; all else must be grey."""
    image = (square != GREY).any(axis=2)
    rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    left, top, right, bottom = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    assert image[top:bottom, left:right].all()
    return left, top, right, bottom


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        pytest.param(64, 64, (0, 0, 64, 64), id="square"),
        pytest.param(200, 200, (0, 0, 64, 64), id="large square"),
        pytest.param(16, 16, (0, 0, 64, 64), id="small square, made larger"),
        pytest.param(128, 64, (0, 16, 64, 48), id="landscape"),
        pytest.param(64, 128, (16, 0, 48, 64), id="portrait"),
        pytest.param(64, 33, (0, 15, 64, 48), id="an odd rest: the smaller half above"),
        pytest.param(33, 64, (15, 0, 48, 64), id="an odd rest: the smaller half on the left"),
        pytest.param(192, 144, (0, 8, 64, 56), id="4 to 3"),
        pytest.param(640, 1, (0, 31, 64, 32), id="one pixel high"),
        pytest.param(1, 640, (31, 0, 32, 64), id="one pixel wide"),
        pytest.param(1, 1, (0, 0, 64, 64), id="one pixel"),
    ],
)
def test_an_image_lies_in_the_middle_with_its_shape_kept(width, height, expected):
    assert extent(letterbox(red(width, height), 64)) == expected


def test_the_padding_is_the_grey_that_training_saw():
    square = letterbox(red(64, 32), 64)
    assert square[0, 0].tolist() == square[63, 63].tolist() == GREY
    assert square[32, 32].tolist() == [255, 0, 0]


def test_an_image_of_the_size_of_the_square_is_not_touched():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(letterbox(image, 64), image)


def test_an_image_that_fits_in_one_direction_keeps_its_pixels():
    image = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(letterbox(image, 64)[12:52], image)


def test_the_image_given_is_left_alone():
    image = red(64, 32)
    letterbox(image, 64)[:] = 0
    assert (image == [255, 0, 0]).all()


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([32, 64, 96]))
def test_every_shape_becomes_the_same_square(width, height, size):
    square = letterbox(red(width, height), size)
    assert (square.shape, square.dtype) == ((size, size, 3), np.uint8)
    left, top, right, bottom = extent(square)
    assert max(right - left, bottom - top) == size
    assert 0 <= (size - right) - left <= 1
    assert 0 <= (size - bottom) - top <= 1
