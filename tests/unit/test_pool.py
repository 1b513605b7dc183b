"""The pool: labelled and unlabelled are a partition, and no label is seen before it is paid for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylearn.data.pool import Pool, SimulatedOracle, initial_set
from raylearn.errors import QueryError
from tests.unit.hand_made import make_dataset, make_image, make_truth

quick = settings(deadline=None, max_examples=50)

# mostly crabs, two fish, one squid, one empty frame
POOL = {f"{i:02}.jpg": [0] * (1 + i % 3) for i in range(16)} | {
    "16.jpg": [0, 1],
    "17.jpg": [1],
    "18.jpg": [2],
    "19.jpg": [],
}
DATASET = make_dataset(POOL)
ORACLE = SimulatedOracle(DATASET.truth)


def all_unlabelled() -> Pool:
    return Pool(DATASET.pool, {})


def ids(images) -> list[str]:
    return [image.image_id for image in images]


# The partition


@st.composite
def queries(draw):
    """Some of the pool's images in any order, cut into queries of any size."""
    order = draw(st.permutations(sorted(POOL)))[: draw(st.integers(0, len(POOL)))]
    cuts = sorted(draw(st.sets(st.integers(0, len(order)))))
    return [order[start:end] for start, end in zip([0, *cuts], [*cuts, len(order)], strict=True)]


@quick
@given(queries())
def test_labelled_and_unlabelled_partition_the_pool_whatever_is_asked_in_whatever_order(asked):
    pool, paid = all_unlabelled(), set()
    for query in asked:
        pool = pool.label(ORACLE.label(query))
        paid |= set(query)
        labelled, unlabelled = ids(pool.labelled_images), ids(pool.unlabelled_images)
        assert set(labelled) == paid
        assert sorted(labelled + unlabelled) == sorted(POOL)
        # and the pool knows no other ground truth than what was paid for
        assert pool.labelled == {image_id: DATASET.truth[image_id] for image_id in paid}


@quick
@given(queries())
def test_a_pool_does_not_depend_on_the_order_of_its_queries(asked):
    forwards, backwards = all_unlabelled(), all_unlabelled()
    for query in asked:
        forwards = forwards.label(ORACLE.label(query))
    for query in reversed(asked):
        backwards = backwards.label(ORACLE.label(reversed(query)))
    assert forwards.labelled_images == backwards.labelled_images
    assert forwards.unlabelled_images == backwards.unlabelled_images
    assert forwards.num_boxes == backwards.num_boxes


def test_labelling_an_image_twice_is_refused():
    pool = all_unlabelled().label(ORACLE.label(["03.jpg"]))
    with pytest.raises(QueryError, match=r"'03\.jpg' is labelled already"):
        pool.label(ORACLE.label(["04.jpg", "03.jpg"]))


def test_labelling_leaves_the_pool_before_it_as_it_was():
    before = all_unlabelled()
    after = before.label(ORACLE.label(["03.jpg"]))
    assert ids(before.labelled_images) == []
    assert ids(after.labelled_images) == ["03.jpg"]


@pytest.mark.parametrize("image_id", ["test/0.jpg", "nowhere.jpg"])
def test_an_image_that_is_not_in_the_pool_cannot_be_labelled(image_id):
    with pytest.raises(QueryError, match=f"image '{image_id}' is not in the pool"):
        all_unlabelled().label({image_id: make_truth(0)})


# What has been spent


def test_counts_are_of_the_labelled_images_only():
    pool = all_unlabelled()
    assert pool.class_counts(3).tolist() == [0, 0, 0]
    assert pool.num_boxes == 0
    pool = pool.label(ORACLE.label(["02.jpg", "16.jpg", "19.jpg"]))
    assert pool.class_counts(3).tolist() == [4, 1, 0]
    assert pool.num_boxes == 5


def test_the_oracle_answers_for_what_it_is_asked_only():
    assert list(ORACLE.label(["18.jpg", "00.jpg"])) == ["18.jpg", "00.jpg"]


# The initial set


def draw(size: int, seed: int = 0, dataset=DATASET) -> list[str]:
    return initial_set(dataset, size, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(5))
def test_the_initial_set_shows_a_class_of_a_single_image(seed):
    drawn = draw(3, seed)
    classes = {int(class_id) for image_id in drawn for class_id in DATASET.truth[image_id].class_ids}
    assert classes == {0, 1, 2}
    assert "18.jpg" in drawn


@pytest.mark.parametrize("seed", range(5))
def test_the_initial_set_is_balanced_as_far_as_the_images_go(seed):
    dataset = make_dataset({f"{class_id}/{i}.jpg": [class_id] for class_id in range(3) for i in range(6)})
    drawn = draw(9, seed, dataset)
    assert sorted(image_id[0] for image_id in drawn) == list("000111222")


def test_the_initial_set_is_decided_by_the_seed():
    assert draw(8, seed=1) == draw(8, seed=1)
    assert len({tuple(draw(8, seed)) for seed in range(5)}) == 5


@quick
@given(st.permutations(sorted(POOL)), st.integers(1, len(POOL)))
def test_the_initial_set_does_not_depend_on_file_order(order, size):
    shuffled = make_dataset(POOL, pool=tuple(make_image(image_id) for image_id in order))
    assert draw(size, dataset=shuffled) == draw(size)


def test_a_smaller_initial_set_is_the_start_of_a_larger_one():
    assert draw(12)[:5] == draw(5)


def test_an_initial_set_of_the_whole_pool_has_every_image_once_and_none_of_the_test_split():
    assert sorted(draw(len(POOL))) == sorted(POOL)


def test_an_initial_set_larger_than_the_pool_is_refused():
    with pytest.raises(QueryError, match=r"an initial set of 21 images, but the pool has 20: lower initial_size"):
        draw(21)


def test_a_class_that_no_image_shows_keeps_nobody_waiting():
    dataset = make_dataset({"a.jpg": [0], "b.jpg": [0], "c.jpg": []})
    assert sorted(draw(3, dataset=dataset)) == ["a.jpg", "b.jpg", "c.jpg"]


def test_the_test_split_never_enters_the_pool():
    drawn = Pool(DATASET.pool, ORACLE.label(draw(20)))
    assert "test/0.jpg" not in ids(drawn.labelled_images) + ids(drawn.unlabelled_images)
