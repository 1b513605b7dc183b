"""Detections are checked where they are made: what is wrong is refused, and NaN is a diverged model."""

import numpy as np
import pytest

from raylearn.detectors.base import Detections
from raylearn.errors import DivergedError


def detections(boxes=((0, 0, 4, 4), (1, 1, 2, 2)), scores=((0.1, 0.7, 0.2), (0.5, 0.5, 0.0))) -> Detections:
    return Detections(np.array(boxes, dtype=np.float32), np.array(scores, dtype=np.float32))


def test_a_detection_is_of_the_class_with_the_highest_score_the_first_among_equals():
    assert detections().class_ids.tolist() == [1, 0]
    np.testing.assert_array_equal(detections().confidences, np.float32([0.7, 0.5]))
    assert len(detections()) == 2


def test_an_image_may_have_no_detections():
    empty = Detections(np.empty((0, 4), np.float32), np.empty((0, 3), np.float32))
    assert len(empty) == 0
    assert empty.class_ids.shape == empty.confidences.shape == (0,)


@pytest.mark.parametrize(
    ("boxes", "scores"),
    [((2, 4), (1, 3)), ((0, 4), (1, 3)), ((2, 5), (2, 3)), ((4,), (1, 3)), ((2, 4), (2,)), ((1, 2, 4), (1, 3))],
)
def test_shapes_that_do_not_fit_are_refused(boxes, scores):
    with pytest.raises(ValueError, match=r"boxes \(n, 4\) and class scores \(n, K\) wanted, got"):
        Detections(np.zeros(boxes, np.float32), np.zeros(scores, np.float32))


@pytest.mark.parametrize(("score", "range_"), [(1.5, "0 to 1.5"), (-0.25, "-0.25 to 0")])
def test_a_score_outside_0_to_1_is_refused(score, range_):
    with pytest.raises(ValueError, match=rf"class scores must be in \[0, 1\], got {range_}"):
        detections(boxes=[[0, 0, 1, 1]], scores=[[0, score]])


def test_0_and_1_are_scores():
    assert detections(boxes=[[0, 0, 1, 1]], scores=[[0, 1]]).confidences.tolist() == [1]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_a_diverged_model_and_no_silent_zero(wrong):
    with pytest.raises(DivergedError, match="its training diverged"):
        detections(scores=[[0.1, wrong, 0.2], [0.5, 0.5, 0.0]])
    with pytest.raises(DivergedError, match="its training diverged"):
        detections(boxes=[[0, 0, 4, 4], [1, wrong, 2, 2]])


def test_a_diverged_model_is_failed_work_and_not_a_wrong_question():
    assert DivergedError("").exit_code == 1
