"""A data set refuses what would make a measurement dishonest, and has a fingerprint of its content alone."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylearn.data.dataset import Dataset, GroundTruth
from raylearn.errors import DatasetError
from tests.unit.hand_made import make_dataset, make_image, make_truth

POOL = {"a.jpg": [0, 1], "b.jpg": [], "c.jpg": [2]}


def refusal(**changes) -> str:
    with pytest.raises(DatasetError) as caught:
        make_dataset(POOL, **changes)
    return str(caught.value)


# What is refused


def test_a_good_data_set_gives_its_images_the_pool_first():
    dataset = make_dataset(POOL)
    assert [image.image_id for image in dataset.images()] == ["a.jpg", "b.jpg", "c.jpg", "test/0.jpg"]
    assert dataset.num_classes == 3


def test_the_same_id_twice_in_one_split_is_refused():
    twice = (make_image("a.jpg"), make_image("a.jpg", content="other bytes"))
    assert "image 'a.jpg' stands twice in the data set" in refusal(pool=twice)
    assert "image 'a.jpg' stands twice in the data set" in refusal(pool=(make_image("b.jpg"),), test=twice)


def test_the_same_id_in_pool_and_test_is_refused():
    assert "image 'b.jpg' stands twice" in refusal(test=(make_image("b.jpg", content="other bytes"),))


def test_a_test_image_with_the_bytes_of_a_pool_image_is_refused():
    message = refusal(test=(make_image("copy.jpg", content="c.jpg"),), truth={**_truth(), "copy.jpg": make_truth(2)})
    assert "'copy.jpg' has the same bytes as pool image 'c.jpg'" in message


def test_a_clip_in_both_splits_is_refused():
    pool = (make_image("a.jpg", clip="dive 1"), make_image("b.jpg", clip="dive 2"))
    message = refusal(pool=pool, test=(make_image("test/0.jpg", clip="dive 2"),))
    assert "'test/0.jpg' is of the same clip as pool image 'b.jpg'" in message


def test_images_without_a_clip_have_no_clip_in_common():
    assert make_dataset(POOL).pool[0].clip_id == make_dataset(POOL).test[0].clip_id == ""


@pytest.mark.parametrize("class_id", [3, -1])
def test_an_unknown_class_id_is_refused(class_id):
    message = refusal(truth={**_truth(), "c.jpg": make_truth(0, class_id)})
    assert message == "image 'c.jpg' has a class id outside 0..2"


def test_a_test_image_without_ground_truth_is_refused():
    truth = _truth()
    del truth["test/0.jpg"]
    assert refusal(truth=truth) == "test image 'test/0.jpg' has no ground truth"


def test_pool_images_may_be_without_labels_as_those_that_people_are_to_label():
    truth = _truth()
    del truth["b.jpg"]
    assert make_dataset(POOL, truth=truth).fingerprint


def test_a_data_set_without_classes_is_refused():
    assert refusal(class_names=()) == "data set 'hand-made' names no classes"


@pytest.mark.parametrize("split", ["pool", "test"])
def test_an_empty_split_is_refused(split):
    assert refusal(**{split: ()}) == f"data set 'hand-made' has no images in its {split} split"


def _truth() -> dict[str, GroundTruth]:
    return dict(make_dataset(POOL).truth)


# The fingerprint


def test_the_fingerprint_does_not_depend_on_where_the_files_lie():
    elsewhere = tuple(make_image(image_id, folder="s3://bucket") for image_id in POOL)
    assert make_dataset(POOL, pool=elsewhere).fingerprint == make_dataset(POOL).fingerprint


def test_the_fingerprint_does_not_depend_on_name_and_notes():
    assert make_dataset(POOL, name="other", notes=("left out",)).fingerprint == make_dataset(POOL).fingerprint


@settings(deadline=None, max_examples=20)
@given(st.permutations(sorted(POOL)))
def test_the_fingerprint_does_not_depend_on_file_order(order):
    shuffled = make_dataset(POOL, pool=tuple(make_image(image_id) for image_id in order))
    assert shuffled.fingerprint == make_dataset(POOL).fingerprint


def _with_truth(image_id: str, truth: GroundTruth) -> Dataset:
    return make_dataset(POOL, truth={**_truth(), image_id: truth})


CHANGES = {
    "a class name": lambda: make_dataset(POOL, class_names=("crab", "fish", "octopus")),
    "the order of the class names": lambda: make_dataset(POOL, class_names=("fish", "crab", "squid")),
    "one more class": lambda: make_dataset(POOL, class_names=("crab", "fish", "squid", "eel")),
    "the bytes of an image": lambda: make_dataset(
        POOL, pool=(*make_dataset(POOL).pool[:2], make_image("c.jpg", content="edited"))
    ),
    "the id of an image": lambda: make_dataset({"a.jpg": [0, 1], "b.jpg": [], "d.jpg": [2]}),
    "a box, by a pixel": lambda: _with_truth("c.jpg", GroundTruth(make_truth(2).boxes + np.float32(1), np.array([2]))),
    "a box more": lambda: _with_truth("c.jpg", make_truth(2, 2)),
    "the class of a box": lambda: _with_truth("a.jpg", make_truth(0, 2)),
    "a box of a test image": lambda: _with_truth("test/0.jpg", make_truth()),
    "the split of an image": lambda: make_dataset(
        POOL, pool=make_dataset(POOL).pool[:2], test=(make_image("c.jpg"), make_image("test/0.jpg"))
    ),
}


def test_the_fingerprint_changes_with_all_that_a_result_can_depend_on():
    prints = {name: change().fingerprint for name, change in CHANGES.items()}
    prints["nothing"] = make_dataset(POOL).fingerprint
    assert len(set(prints.values())) == len(prints), prints


# Ground truth


def test_ground_truth_without_boxes_has_their_shape():
    empty = GroundTruth(np.array([]), np.array([]))
    assert empty.boxes.shape == (0, 4)
    assert (empty.boxes.dtype, empty.class_ids.dtype) == (np.float32, np.int64)
    assert len(empty) == 0


def test_ground_truth_of_boxes_without_classes_is_refused():
    with pytest.raises(ValueError, match="2 boxes but 1 class ids"):
        GroundTruth(np.zeros((2, 4)), np.array([0]))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_coordinate_that_is_not_finite_is_refused(wrong):
    with pytest.raises(ValueError, match="not finite"):
        GroundTruth(np.array([[0, 0, wrong, 1]]), np.array([0]))


def test_ground_truth_is_equal_by_content():
    assert make_truth(0, 1) == make_truth(0, 1)
    assert make_truth(0, 1) != make_truth(0, 2)
    assert make_truth(0) != make_truth(0, 0)
    assert make_truth() != "nothing"


def test_an_image_is_equal_by_its_facts():
    assert replace(make_image("a.jpg"), uri="/elsewhere") != make_image("a.jpg")
