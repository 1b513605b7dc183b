"""Groups of near-duplicates: by hand, in chains, as comparing all pairs finds them, and without that work."""

import csv
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import raylearn
from raylearn.data.groups import group_of
from raylearn.data.storage import Folder
from raylearn.detectors.base import IMAGE_EMBEDDING
from raylearn.errors import LedgerError, QueryError
from raylearn.measures import near_duplicates as module
from raylearn.measures.near_duplicates import near_duplicates
from raylearn.measures.novelty import unit_distances, unit_vectors
from raylearn.scoring.ledger import add_part, rows, write_facts
from tests.unit.hand_made import make_detections, write_ledger


def on_circle(*degrees: float) -> np.ndarray:
    """Directions; two that are a degrees apart have the distance sin(a / 2)."""
    angles = np.radians(degrees)
    return unit_vectors(np.stack([np.cos(angles), np.sin(angles)], axis=1))


def by_all_pairs(vectors: np.ndarray, distance: float) -> np.ndarray:
    """The lowest position that a walk over near pairs reaches from each vector."""
    plain = vectors.astype(np.float64)
    lengths = (plain**2).sum(axis=1)
    near = unit_distances(np.maximum(lengths[:, None] + lengths - 2 * plain @ plain.T, 0)) <= distance
    found = np.full(len(vectors), -1)
    for first in range(len(vectors)):
        waiting = [first] if found[first] < 0 else []
        found[waiting] = first
        while waiting:
            reached = np.flatnonzero(near[waiting.pop()] & (found < 0))
            found[reached] = first
            waiting.extend(reached.tolist())
    return found


def clustered(rng: np.random.Generator, size: int, spread: float, width: int = 16) -> np.ndarray:
    centres = rng.normal(size=(max(1, size // 10), width))
    return unit_vectors(centres[rng.integers(len(centres), size=size)] + spread * rng.normal(size=(size, width)))


def test_groups_by_hand():
    # .1 is 11.48 degrees; 40 and 51 are near, 180 is alone, the last two are the same
    vectors = on_circle(0, 40, 180, 51, 11, 300, 300)
    assert near_duplicates(vectors, 0.1).tolist() == [0, 1, 2, 1, 0, 5, 5]
    assert near_duplicates(vectors, 0).tolist() == [0, 1, 2, 3, 4, 5, 5]
    assert near_duplicates(vectors, 1).tolist() == [0] * 7


def test_a_distance_is_within_as_it_is_told_in_steps_of_a_thousandth():
    vectors = on_circle(0, 11.5)  # .1002
    assert len(set(near_duplicates(vectors, 0.1))) == 1
    assert len(set(near_duplicates(vectors, 0.099))) == 2


def test_a_chain_of_near_pairs_is_one_group_whatever_its_order():
    order = np.random.default_rng(0).permutation(180)
    vectors = on_circle(*range(180))[order]  # half a circle in steps of .0087
    assert near_duplicates(vectors, 0.01).tolist() == [0] * 180
    assert near_duplicates(vectors, 0.008).tolist() == list(range(180))
    without_one = np.delete(vectors, np.flatnonzero(order == 90), axis=0)
    assert len(set(near_duplicates(without_one, 0.01))) == 2


@pytest.mark.parametrize(("spread", "distance"), [(0.05, 0.02), (0.3, 0.1), (0.3, 0.2), (1.0, 0.3), (1.0, 0.35)])
def test_two_thousand_vectors_are_grouped_as_all_pairs_say(spread, distance):
    vectors = clustered(np.random.default_rng(1), 2000, spread)
    found = near_duplicates(vectors, distance)
    assert 1 < len(set(found)) < 2000
    assert found.tolist() == by_all_pairs(vectors, distance).tolist()


@given(st.integers(0, 40), st.sampled_from([0.0, 0.05, 0.2, 0.5, 1.0]), st.integers(0, 2**32))
@settings(max_examples=60)
def test_few_vectors_are_grouped_as_all_pairs_say(size, distance, seed):
    vectors = unit_vectors(np.random.default_rng(seed).integers(-1, 2, (size, 3)))  # many are the same, some are zeros
    assert near_duplicates(vectors, distance).tolist() == by_all_pairs(vectors, distance).tolist()


def test_blocks_do_not_change_the_groups(monkeypatch):
    vectors = clustered(np.random.default_rng(2), 300, 0.3)
    whole = near_duplicates(vectors, 0.1).tolist()
    monkeypatch.setattr(module, "_ROWS", 3)
    assert near_duplicates(vectors, 0.1).tolist() == whole


def test_work_grows_less_than_the_number_of_pairs(monkeypatch):
    def compared(size: int) -> int:
        pairs = 0
        plain = module._join_near

        def counting(vectors, some, others, reach, groups):
            nonlocal pairs
            pairs += len(some) * len(others)
            plain(vectors, some, others, reach, groups)

        with monkeypatch.context() as patch:
            patch.setattr(module, "_join_near", counting)
            near_duplicates(clustered(np.random.default_rng(3), size, 0.1), 0.03)
        return pairs

    small, large = compared(2_000), compared(8_000)
    assert large < 8_000**2 / 20
    assert large < 10 * small  # 4 times the vectors: 16 times the pairs, 8 times n sqrt(n)


def test_memory_does_not_grow_with_the_number_of_pairs():
    vectors = unit_vectors(np.ones((10_000, 8)))  # all the same, so of one cluster
    tracemalloc.start()
    assert set(near_duplicates(vectors, 0.05)) == {0}
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150e6  # of all pairs at once: 7.8 GB


# Ledgers

IDS = [f"clip/{i}.jpg" for i in range(6)]
ANGLES = dict(zip(IDS, [0, 90, 1, 180, 91, 2], strict=True))
GROUPS = (("clip/0.jpg", "clip/2.jpg", "clip/5.jpg"), ("clip/1.jpg", "clip/4.jpg"))


def make(folder: Path, parts: list[list[str]]) -> str:
    """A finished ledger whose image embeddings are directions; an id without an angle could not be read."""
    target = Folder.at(folder)
    for number, ids in enumerate(parts):
        columns = {name: [0] * len(ids) for name in ("width", "height")} | {"image_id": ids, "uri": ids}
        broken = [name not in ANGLES for name in ids]
        columns |= {"status": ["error" if bad else "ok" for bad in broken], "error": [""] * len(ids)}
        columns |= {"error_kind": ["broken" if bad else "" for bad in broken]}
        found = []
        for name in ids:
            embedding = np.zeros(IMAGE_EMBEDDING, np.float16)
            embedding[:2] = on_circle(ANGLES.get(name, 0))[0]
            found.append(replace(make_detections([], embeddings=True), image_embedding=embedding))
        add_part(target, number, "hand-made", rows(columns, found, 2, True))
    num_images = sum(map(len, parts))
    write_facts(target, {"num_parts": len(parts), "num_images": num_images, "settings": {"embeddings": True}})
    return str(folder)


def test_the_groups_of_a_ledger_are_the_largest_first_whatever_its_parts(tmp_path):
    for number, parts in enumerate(([IDS], [IDS[3:], IDS[:3]], [IDS[::-1][:1], [], IDS[::-1][1:]])):
        found = raylearn.dedup(make(tmp_path / str(number), parts), 0.02)
        assert found.groups == GROUPS
        assert (found.num_images, found.num_grouped) == (6, 5)
    assert str(found) == (
        "2 groups of near-duplicates at distance 0.02 or less: 5 of 6 images, 3 in the largest group; one image of "
        "each leaves 3"
    )


def test_images_that_could_not_be_read_are_in_no_group(tmp_path):
    found = raylearn.open_ledger(make(tmp_path, [[*IDS, "torn.jpg", "torn too.jpg"]])).near_duplicates(0.02)
    assert (found.groups, found.num_images) == (GROUPS, 6)
    nothing = raylearn.dedup(make(tmp_path / "torn", [["torn.jpg", "torn too.jpg"]]))
    assert (nothing.groups, str(nothing)[:8]) == ((), "0 groups")


def test_the_table_is_one_for_a_limit_per_group(tmp_path):
    raylearn.dedup(make(tmp_path / "ledger", [IDS]), 0.02).write(tmp_path / "groups.csv")
    with (tmp_path / "groups.csv").open(newline="") as file:
        rows_of = [["image", "group"], *([name, "1"] for name in GROUPS[0]), *([name, "2"] for name in GROUPS[1])]
        assert list(csv.reader(file)) == rows_of
    of = group_of(tmp_path / "groups.csv")
    assert len({of(name) for name in IDS}) == 3


def test_a_ledger_without_embeddings_and_a_distance_that_is_none_are_refused(tmp_path):
    write_ledger({"a.jpg": [[0.4, 0.1]]}, tmp_path / "plain")
    with pytest.raises(LedgerError, match=r"holds no embeddings, .*: score with --embeddings into another"):
        raylearn.dedup(tmp_path / "plain")
    for distance in (-0.1, 1.5, float("nan"), "near"):
        with pytest.raises(QueryError, match=r"distance is .*: it must be a number from 0 to 1"):
            raylearn.dedup(make(tmp_path / "ledger", [IDS]), distance)
