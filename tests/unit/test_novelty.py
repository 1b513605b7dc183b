"""Distances between embeddings, block by block, against plain loops; objects matched class by class; medoids."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylearn.measures import matching, novelty
from raylearn.measures.clusters import cluster_centres, cluster_of
from raylearn.measures.matching import matching_distances, medoids
from raylearn.measures.novelty import Nearest, farthest_first, nearest_squares, unit_distances, unit_vectors

seeds = st.integers(0, 2**32)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(novelty, "_ROWS", 3)
    monkeypatch.setattr(novelty, "_REFERENCES", 2)
    monkeypatch.setattr(matching, "_ROWS", 2)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("rows", "references"), [(8, 5), (3, 2), (0, 4), (4, 0)])
def test_nearest_squares_are_those_of_a_plain_loop(rows, references):
    rng = np.random.default_rng(0)
    vectors, others = (rng.normal(size=(count, 4)).astype(np.float32) for count in (rows, references))
    plain = [min((((v - o) ** 2).sum() for o in others), default=np.inf) for v in vectors]
    assert nearest_squares(vectors, others) == pytest.approx(np.array(plain), rel=1e-5)


def test_what_is_nearest_is_brought_up_to_date_where_it_is_asked_for():
    rng = np.random.default_rng(0)
    vectors, others = rng.normal(size=(9, 3)).astype(np.float32), rng.normal(size=(7, 3)).astype(np.float32)
    found = Nearest(vectors, others[:2])
    some, everything = np.array([1, 4, 7]), np.arange(9)
    for start, rows in ((2, some), (3, some), (4, everything), (5, everything[:0]), (5, some), (6, everything)):
        found.add(others[start : start + 1])
        assert found.squares(rows) == pytest.approx(nearest_squares(vectors, others[: start + 1])[rows], rel=1e-5)
    found.add(others[:0])
    assert found.squares(everything) == pytest.approx(nearest_squares(vectors, others), rel=1e-5)


def test_memory_does_not_grow_with_the_number_of_pairs():
    rng = np.random.default_rng(0)
    embeddings, references = rng.normal(size=(30_000, 8)).astype(np.float16), rng.normal(size=(5_000, 8))
    references = unit_vectors(references)
    tracemalloc.start()
    novelty.novelty(embeddings, references)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6  # of all pairs: 600 MB


@pytest.mark.usefixtures("small_blocks")
def test_novelty_by_hand():
    references = unit_vectors(np.array([[1, 0], [0, 3]], np.float16))
    found = novelty.novelty(np.array([[5, 0], [-1, 0], [0, 0], [1, 1], [-1, -1]], np.float16), references)
    assert found.tolist() == [0, 0.707, 0.5, 0.383, 0.924]
    assert novelty.novelty(np.array([[-1, 0], [0, 0]], np.float16), references[:1]).tolist() == [1, 0.5]
    assert novelty.novelty(np.ones((2, 2)), references[:0]).tolist() == [1, 1]


def test_embeddings_of_zeros_are_at_0_from_each_other():
    zeros = unit_vectors(np.zeros((2, 3)))
    assert unit_distances(nearest_squares(zeros, zeros)).tolist() == [0, 0]


@given(seeds)
def test_distances_do_not_depend_on_lengths(seed):
    rng = np.random.default_rng(seed)
    embeddings, references = rng.normal(size=(5, 3)), unit_vectors(rng.normal(size=(4, 3)))
    longer = embeddings * rng.uniform(0.1, 9, (5, 1))
    # a value between two steps may be rounded to either
    assert novelty.novelty(longer, references) == pytest.approx(novelty.novelty(embeddings, references), abs=1.1e-3)


@given(seeds)
def test_farthest_first_is_at_most_twice_as_far_as_any_choice(seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(9, 2)).astype(np.float32)
    apart = np.linalg.norm(vectors[:, None] - vectors, axis=2)
    chosen = farthest_first(vectors, 2)
    best = min(apart[:, [i, j]].min(axis=1).max() for i in range(9) for j in range(i))
    assert apart[:, chosen].min(axis=1).max() <= 2 * best + 1e-5
    assert farthest_first(vectors, 9).tolist() == list(range(9))


@pytest.mark.usefixtures("small_blocks")
def test_matching_distances_by_hand():
    # a: class 0 east (.9) and class 1 north (.3); b: class 0 north (.5); c: nothing; d: nothing
    offsets = np.array([0, 2, 3, 3, 3])
    found = matching_distances(
        offsets, np.array([0, 1, 0]), np.array([0.9, 0.3, 0.5]), np.array([[2, 0], [0, 1], [0, 1]])
    )
    of_a = (0.9 * 1 + 0.3 * 2) / 1.2  # b has no object of class 1
    assert found[0, 1] == pytest.approx((of_a + 1) / 2, abs=1e-4)
    assert found[[0, 2, 2], [2, 0, 3]].tolist() == [2, 2, 0]
    assert (found == found.T).all()
    assert (found.diagonal() == 0).all()


@pytest.mark.usefixtures("small_blocks")
@given(seeds)
def test_matching_distances_are_those_of_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, 6)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    classes, confidences = rng.integers(0, 3, offsets[-1]), rng.choice([0.0, 0.5, 1.0], offsets[-1])
    embeddings = rng.integers(-1, 2, (offsets[-1], 3))
    unit = unit_vectors(embeddings)

    def directed(a, b):
        own, other = range(offsets[a], offsets[a + 1]), range(offsets[b], offsets[b + 1])
        if not own:
            return 2.0 if other else 0.0
        near = [min((1 - unit[i] @ unit[j] for j in other if classes[i] == classes[j]), default=2.0) for i in own]
        weights = confidences[own.start : own.stop]
        return float(np.average(near, weights=weights if weights.any() else None))

    plain = [[0.0 if a == b else (directed(a, b) + directed(b, a)) / 2 for b in range(6)] for a in range(6)]
    assert matching_distances(offsets, classes, confidences, embeddings) == pytest.approx(np.array(plain), abs=1e-3)


def test_the_order_of_the_classes_changes_no_matching_distance():
    rng = np.random.default_rng(0)
    offsets, confidences, embeddings = np.arange(0, 81, 8), rng.random(80), rng.normal(size=(80, 5))
    classes, order = rng.integers(0, 6, 80), rng.permutation(6)
    found = matching_distances(offsets, classes, confidences, embeddings)
    assert (matching_distances(offsets, order[classes], confidences, embeddings) == found).all()


def test_clusters_by_hand():
    vectors = np.array([[0, 0], [0, 1], [9, 0], [9, 1], [9, 2]], np.float32)
    assert sorted(cluster_centres(vectors, 2).tolist()) == [[0, 0.5], [9, 1]]
    assert cluster_of(vectors, np.array([[9, 1], [0, 0.5]], np.float32)).tolist() == [1, 1, 0, 0, 0]
    assert cluster_centres(vectors, 7).tolist() == vectors.tolist()
    assert cluster_centres(vectors[:0], 3).shape == (0, 2)


def test_clusters_of_equal_vectors_have_centres_that_are_numbers():
    assert cluster_centres(np.ones((5, 2), np.float32), 3).tolist() == [[1, 1]] * 3


def test_medoids_by_hand():
    places = np.array([0.0, 1.0, 2.5, 10.0, 11.0, 13.0])
    assert medoids(np.abs(places[:, None] - places), 2, 0).tolist() == [1, 4]
    assert medoids(np.abs(places[:, None] - places), 6, 3).tolist() == list(range(6))


@given(seeds, st.integers(1, 6))
def test_medoids_are_different_images_even_among_duplicates(seed, size):
    rng = np.random.default_rng(seed)
    places = rng.integers(0, 3, 6).astype(float)
    chosen = medoids(np.abs(places[:, None] - places), size, int(rng.integers(6)))
    assert len(set(chosen.tolist())) == size
