"""Detections are checked where they are made: what is wrong is refused, and NaN is a diverged model."""

import numpy as np
import pytest

from raylearn.detectors.base import BOX_EMBEDDING, IMAGE_EMBEDDING, Detections
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


def embedded(of_boxes, of_image, num_boxes=2) -> Detections:
    return Detections(np.zeros((num_boxes, 4), np.float32), np.zeros((num_boxes, 3), np.float32), of_boxes, of_image)


OF_BOXES, OF_IMAGE = np.zeros((2, BOX_EMBEDDING), np.float16), np.zeros(IMAGE_EMBEDDING, np.float16)


def test_embeddings_come_for_every_box_and_for_the_image_also_where_it_has_no_boxes():
    assert embedded(OF_BOXES, OF_IMAGE).image_embedding is OF_IMAGE
    assert embedded(OF_BOXES[:0], OF_IMAGE, num_boxes=0).box_embeddings.shape == (0, BOX_EMBEDDING)


@pytest.mark.parametrize(
    ("of_boxes", "of_image", "said"),
    [
        (OF_BOXES, None, "come together: give both, or neither"),
        (None, OF_IMAGE, "come together: give both, or neither"),
        (OF_BOXES[:1], OF_IMAGE, r"expected box embeddings of shape \(2, 64\) in float16, got \(1, 64\)"),
        (OF_BOXES[:, :9], OF_IMAGE, r"got \(2, 9\) in float16"),
        (OF_BOXES, OF_IMAGE[:9], r"expected an image embedding of shape \(128,\) in float16, got \(9,\)"),
        (OF_BOXES.astype(np.float32), OF_IMAGE, "got .* in float32"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(of_boxes, of_image, said):
    with pytest.raises(ValueError, match=said):
        embedded(of_boxes, of_image)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_an_embedding_that_is_not_finite_is_a_diverged_model(wrong):
    with pytest.raises(DivergedError, match="embedding that is not finite"):
        embedded(OF_BOXES + np.float16(wrong), OF_IMAGE)
    with pytest.raises(DivergedError, match="embedding that is not finite"):
        embedded(OF_BOXES, OF_IMAGE + np.float16(wrong))
