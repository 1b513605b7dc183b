"""Letterboxing: any image into the middle of one grey square, its shape kept."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylearn.detectors.letterbox import canvas_shape, letterbox
from raylearn.errors import InputError

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


# Ultralytics' rule with `auto`: the rest of each side to image_size, modulo 32, is padded, half of it on either side.
@pytest.mark.parametrize(
    ("width", "height", "shape", "expected"),
    [
        pytest.param(640, 480, (480, 640), (0, 0, 640, 480), id="4 to 3: 480 is a multiple of 32"),
        pytest.param(1920, 1080, (384, 640), (0, 12, 640, 372), id="16 to 9: 360 and 24"),
        pytest.param(1080, 1920, (640, 384), (12, 0, 372, 640), id="upright: 360 and 24"),
        pytest.param(500, 375, (480, 640), (0, 0, 640, 480), id="made larger"),
        pytest.param(640, 449, (480, 640), (0, 15, 640, 464), id="an odd rest of 31: the smaller half above"),
        pytest.param(640, 481, (512, 640), (0, 15, 640, 496), id="one pixel more than a multiple"),
        pytest.param(640, 479, (480, 640), (0, 0, 640, 479), id="a rest of 1: below"),
        pytest.param(640, 640, (640, 640), (0, 0, 640, 640), id="square"),
        pytest.param(640, 1, (32, 640), (0, 15, 640, 16), id="one pixel high"),
        pytest.param(1, 6400, (640, 32), (15, 0, 16, 640), id="less than one pixel wide"),
    ],
)
def test_the_shorter_side_of_a_rectangle_is_padded_to_the_next_multiple_of_32(width, height, shape, expected):
    canvas = letterbox(red(width, height), 640, "rectangle")
    assert canvas.shape == (*shape, 3)
    assert canvas_shape((width, height), 640, "rectangle") == shape
    assert extent(canvas) == expected


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([32, 64, 96]))
def test_a_rectangle_is_the_middle_of_the_square(width, height, size):
    image = np.random.default_rng(0).integers(0, 114, (height, width, 3), dtype=np.uint8)
    square, rectangle = letterbox(image, size), letterbox(image, size, "rectangle")
    assert max(rectangle.shape) == size
    assert all(side % 32 == 0 and side <= size for side in rectangle.shape[:2])
    left, top, right, bottom = extent(square)
    x, y, end_x, end_y = extent(rectangle)
    np.testing.assert_array_equal(square[top:bottom, left:right], rectangle[y:end_y, x:end_x])
    assert min(rectangle.shape[:2]) - min(end_x - x, end_y - y) < 32


@pytest.mark.parametrize("canvas", ["square", "rectangle"])
@pytest.mark.parametrize(("width", "height"), [(1001, 667), (667, 1001), (1920, 1080), (3, 801), (800, 800)])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_reduced_image_lies_where_the_whole_one_would(canvas, width, height, factor):
    rounded_up = red(-(-width // factor), -(-height // factor))
    whole, reduced = letterbox(red(width, height), 64, canvas), letterbox(rounded_up, 64, canvas, (width, height))
    assert extent(reduced) == extent(whole)
    np.testing.assert_array_equal(reduced, whole)


def test_without_its_size_a_reduced_image_would_lie_elsewhere():
    # 9 rows of 70 are two of an eighth: 64 x 14 pixels, where the original has 64 x 8
    assert extent(letterbox(red(9, 2), 64)) != extent(letterbox(red(9, 2), 64, size=(72, 9)))


def test_a_reduced_image_that_has_the_size_of_its_place_keeps_its_pixels():
    image = np.random.default_rng(0).integers(0, 114, (40, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(letterbox(image, 64, "square", (128, 80))[12:52], image)
    full = cv2.resize(image, (64, 64))
    np.testing.assert_array_equal(letterbox(full, 64, "rectangle", (128, 128)), full)


def test_an_unknown_canvas_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"unknown canvas 'rectangles': did you mean 'rectangle'\?"):
        letterbox(red(4, 4), 64, "rectangles")
