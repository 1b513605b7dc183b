"""What is said of a ranking that means nothing: no detections, ties at the border, queries that had to be filled."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylearn.api_results import Comparison
from raylearn.data.storage import Folder
from raylearn.learning.ledger_query import compare_strategies, query_ledger, query_ledger_for_boxes
from raylearn.strategies import BoxCount, Candidates, Context, Random, Tie, Uncertainty, ask, ask_within
from raylearn.strategies.meaning import DRAWN, NO_DETECTIONS, TIED, doubt_of_pool, doubts_of_query, notes
from tests.unit.hand_made import write_ledger
from tests.unit.test_cli import call
from tests.unit.test_cli_scoring import NAMES

ENTROPY = Uncertainty("entropy", "sum", "none", "background")
SEEN = [[0.6, 0.2]]


def pool(folder: Path, *, seen: int, unseen: int) -> Folder:
    """A ledger of images with one detection, each another, and of images without."""
    content = {f"seen/{i:02}.jpg": [[0.5 + i / 100, 0.2]] for i in range(seen)}
    content |= {f"unseen/{i:02}.jpg": [] for i in range(unseen)}
    return write_ledger(content, folder / "ledger", 2, 3, class_names=NAMES)


def typed(command: str) -> int:
    return call(*command.split())


# A pool


@pytest.mark.parametrize(
    ("without", "images", "size", "said"),
    [
        (100, 100, 5, "100 of 100 images have no detections: this ranking is arbitrary; lower --confidence or train"),
        (1, 1, 1, "1 of 1 image has no detections: this ranking is arbitrary"),
        (51, 100, 5, "51 of 100 images have no detections: nothing ranks them"),
        (20, 100, 81, "20 of 100 images have no detections: nothing ranks them"),
    ],
)
def test_a_pool_with_few_detections_is_told(without, images, size, said):
    assert str(doubt_of_pool(without, images, "--confidence", size)).startswith(said)


@pytest.mark.parametrize(("without", "images", "size"), [(0, 0, 1), (0, 5, 5), (50, 100, 50), (20, 100, 80)])
def test_of_a_pool_whose_detections_are_enough_nothing_is_told(without, images, size):
    assert doubt_of_pool(without, images, "--confidence", size) is None


# A query of a ledger


def test_images_without_detections_that_fill_a_query_are_drawn_with_the_seed_and_marked(tmp_path):
    folder = pool(tmp_path, seen=4, unseen=8)
    query = query_ledger(folder, ENTROPY, 6, seed=0)
    assert [image.reason.note for image in query.images] == [""] * 4 + [DRAWN] * 2
    assert query.tie == Tie(0.0, 2, 8)
    assert query.doubts == [
        "8 of 12 images have no detections: nothing ranks them, and a query of more than the others is filled with "
        "them at random; lower --confidence or train longer",
        "2 of the query's 6 images have no detections, all drawn at random; lower --confidence or train longer",
    ]
    fills = {tuple(image.image_id for image in query_ledger(folder, ENTROPY, 6, seed=s).images[4:]) for s in range(9)}
    assert len(fills) > 4  # drawn, and not the first ones by name


def test_a_query_of_all_images_draws_none_and_says_which_have_no_detections(tmp_path):
    query = query_ledger(pool(tmp_path, seen=4, unseen=2), ENTROPY, 6, seed=0)
    assert [image.reason.note for image in query.images[4:]] == [NO_DETECTIONS] * 2
    assert query.doubts == ["2 of the query's 6 images have no detections; lower --confidence or train longer"]


def test_images_of_one_score_at_the_border_are_called_tied_and_others_of_one_score_are_not(tmp_path):
    content = {"a.jpg": SEEN * 2, "b.jpg": SEEN * 2, **{f"c{i}.jpg": SEEN for i in range(5)}}
    query = query_ledger(write_ledger(content, tmp_path, 2, 2, class_names=NAMES), BoxCount(), 4, seed=0)
    assert [image.reason.note for image in query.images] == ["", "", TIED, TIED]
    (doubt,) = query.doubts
    assert doubt == ("5 images are tied at the border of the query, with a score of 1: 2 of them were drawn at random")


def test_nothing_is_doubted_of_a_query_by_chance_or_of_one_that_detections_decide(tmp_path):
    assert query_ledger(pool(tmp_path, seen=8, unseen=8), ENTROPY, 8, seed=0).doubts == []
    by_chance = query_ledger(pool(tmp_path, seen=0, unseen=8), Random(), 4, seed=0)
    assert by_chance.doubts == []
    assert {image.reason.note for image in by_chance.images} == {""}


def test_a_query_of_boxes_is_tied_where_it_ends(tmp_path):
    content = {f"{i}.jpg": [[0.9, 0.0]] for i in range(6)}
    folder = write_ledger(content, tmp_path, 2, 2, class_names=NAMES)
    query = query_ledger_for_boxes(folder, BoxCount(), 2, candidates=6, seed=0)
    assert query.tie == Tie(1.0, len(query.images), 6)
    assert {image.reason.note for image in query.images} == {TIED}


def test_a_query_says_of_how_many_groups_its_images_are(tmp_path):
    folder = pool(tmp_path, seen=4, unseen=2)
    query = query_ledger(folder, ENTROPY, 5, seed=0, group_of=lambda name: name.split("/")[0])
    assert query.num_groups == 2
    assert query_ledger(folder, ENTROPY, 5, seed=0).num_groups is None


# In a simulation


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.data())
def test_a_simulation_has_the_ties_of_the_ledger(tmp_path_factory, counts, data):
    size = data.draw(st.integers(1, len(counts)))
    folder = tmp_path_factory.mktemp("ledger")
    content = {f"{i}.jpg": SEEN * count for i, count in enumerate(counts)}
    streamed = query_ledger(write_ledger(content, folder, 2, 2, class_names=NAMES), BoxCount(), size, seed=1)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    candidates = Candidates(list(content), offsets, np.full((offsets[-1], 2), 0.2, np.float32))
    context = Context(1, np.zeros(2, np.int64))
    assert ask(BoxCount(), candidates, size, context).tie == streamed.tie
    first = ask_within(BoxCount(), candidates, np.ones(len(counts)), size, context)
    assert first.tie == streamed.tie


def test_notes_tell_apart_what_chance_chose():
    tie = Tie(0.0, 2, 5)
    assert notes([2, 0, 1], tie, [0.5, 0.0, 0.0]) == ["", DRAWN, TIED]
    assert notes([2, 0], None, [0.5, 0.0]) == ["", NO_DETECTIONS]
    assert doubts_of_query([2, 1], None, [0.5, 0.1], "scoring.confidence") == []


# The commands


def test_compare_says_that_the_queries_had_to_be_filled(tmp_path):
    overlaps, totals = compare_strategies(pool(tmp_path, seen=5, unseen=4), [ENTROPY, BoxCount()], 6, seed=0)
    found = Comparison(("a", "b"), overlaps, 6, totals.candidates, totals.without_detections)
    assert str(found).splitlines()[-1].startswith("warning: 4 of 9 images have no detections: nothing ranks them")
    enough = Comparison(("a", "b"), overlaps, 5, totals.candidates, totals.without_detections)
    assert enough.doubt is None


def test_query_marks_and_counts_what_chance_chose(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pool(tmp_path, seen=1, unseen=5)
    typed("query ledger --size 3 --group-by folder --out out")
    said = capsys.readouterr().out
    assert said.startswith("3 of 6 images from 2 groups, ")
    assert "warning: 5 of 6 images have no detections" in said
    assert pq.read_table("out/query.parquet")["note"].to_pylist() == ["", DRAWN, DRAWN]
    assert Path("out/query.csv").read_text().count(DRAWN) == 2


def test_query_refuses_to_write_over_another_and_force_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pool(tmp_path, seen=4, unseen=0)
    typed("query ledger --size 2 --out out")
    before = Path("out/query.txt").read_bytes()
    typed("query ledger --size 2 --out out")  # the same again
    assert typed("query ledger --size 3 --out out") == 2
    assert "is of another query: give another --out, or --force to write over it" in capsys.readouterr().err
    assert Path("out/query.txt").read_bytes() == before
    typed("query ledger --size 3 --out out --force")
    assert len(Path("out/query.txt").read_text().splitlines()) == 4
