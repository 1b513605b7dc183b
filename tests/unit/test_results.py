"""The tables of a run: what was done in a round, what it cost, and what was trained for it."""

import pyarrow.parquet as pq
import pytest

from raylearn.data.pool import Pool, SimulatedOracle
from raylearn.data.storage import Folder
from raylearn.learning.cycle import Round
from raylearn.strategies import FullData, Query, Random, Uncertainty
from raylearn.sweep.grid import Arm, Trial
from raylearn.sweep.results import query_rows, result_row, write_tables
from raylearn.sweep.trial import Scored, TrialRound
from raylearn.work.store import Artifact
from tests.unit.hand_made import make_dataset

DATASET = make_dataset({"a.jpg": [0, 0], "b.jpg": [1], "c.jpg": [], "d.jpg": [2]})
ENTROPY = Trial(Arm(Uncertainty("entropy", "sum", "none", "background"), 1), seed=3)
RANDOM = Trial(Arm(Random(), 1), seed=3)
MEASURED = {"map50_95": 0.25, "map50": 0.5, "class_ap": [0.1, 0.4, None], "seconds": 9.0}


def make_round(index: int, labelled: str, queried: str = "", checkpoint: str = "") -> TrialRound:
    """A round after which the images of these letters are labelled."""
    pool = Pool(DATASET.pool, SimulatedOracle(DATASET.truth).label(f"{letter}.jpg" for letter in labelled))
    query = Query(tuple(f"{letter}.jpg" for letter in queried), tuple(0.9 - i / 10 for i in range(len(queried))))
    model = Artifact(checkpoint or labelled, Folder("/store"), {"seconds": 2.5, "made_by": "somebody"})
    passed = {"seconds": 1.5, "num_images": 4, "num_without_detections": 1}
    ledger = Scored(Artifact("ledger", Folder("/store"), passed)) if queried else None
    return Round(index, query if queried else None, ledger, pool, model, Artifact("e", Folder("/store"), MEASURED))


def test_a_result_row_says_what_a_round_was_and_what_it_cost():
    row = result_row(ENTROPY, make_round(1, "abc", queried="c"), num_classes=3, reused=False)
    assert len(row.pop("labelled_ids_hash")) == 64
    assert row == {
        "trial": "entropy-sum-none-background-q1-s3",
        "strategy": "uncertainty",
        "uncertainty": "entropy",
        "aggregation": "sum",
        "weighting": "none",
        "probabilities": "background",
        "query_size": 1,
        "seed": 3,
        "round": 1,
        "num_images": 3,
        "num_boxes": 3,
        "map50_95": 0.25,
        "map50": 0.5,
        "class_ap": [0.1, 0.4, None],
        "class_counts": [2, 1, 0],
        "checkpoint": "abc",
        "reused": False,
        "train_seconds": 2.5,
        "score_seconds": 1.5,
        "share_without_detections": 0.25,
        "options": None,
    }


def test_a_round_without_a_scoring_pass_has_no_figures_of_it():
    row = result_row(RANDOM, make_round(0, "a"), num_classes=3, reused=False)
    assert (row["score_seconds"], row["share_without_detections"]) == (None, None)


def test_the_hash_of_labelled_ids_is_equal_for_equal_sets_only():
    hashes = [
        result_row(RANDOM, make_round(0, labelled), num_classes=3, reused=False)["labelled_ids_hash"]
        for labelled in ("ab", "ba", "abc", "c", "")
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4


def test_query_rows_are_what_a_round_newly_labelled_best_first_and_ranked_from_1():
    rows = query_rows(ENTROPY, make_round(2, "abc", queried="cb"))
    assert [(row["round"], row["rank"], row["image_id"]) for row in rows] == [(2, 1, "c.jpg"), (2, 2, "b.jpg")]
    assert [row["score"] for row in rows] == pytest.approx([0.9, 0.8])
    assert {row["trial"] for row in rows} == {ENTROPY.name}
    assert query_rows(ENTROPY, make_round(0, "a")) == []


def test_both_tables_have_a_row_for_all_that_was_done_and_the_types_of_their_schema(tmp_path):
    done = {
        RANDOM: [make_round(0, "a"), make_round(1, "ab", queried="b")],
        ENTROPY: [make_round(0, "a"), make_round(1, "ac", queried="c")],
    }
    rows = write_tables(done, 3, tmp_path)
    results, queries = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("results", "queries"))
    assert results.to_pylist() == rows
    assert [row["round"] for row in rows] == [0, 1, 0, 1]
    assert queries["image_id"].to_pylist() == ["b.jpg", "c.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["queries.parquet", "results.parquet"]


def test_of_the_rows_that_share_a_training_the_first_made_it_and_the_others_reused_it(tmp_path):
    done = {
        RANDOM: [make_round(0, "a"), make_round(1, "ab", queried="b")],
        ENTROPY: [make_round(0, "a"), make_round(1, "ac", queried="c")],
    }
    assert [row["reused"] for row in write_tables(done, 3, tmp_path)] == [False, False, True, False]


def test_tables_of_a_run_without_queries_can_be_read(tmp_path):
    write_tables({Trial(Arm(FullData(), None), 0): [make_round(0, "abcd")]}, 3, tmp_path)
    assert pq.read_table(tmp_path / "queries.parquet").num_rows == 0
    assert pq.read_table(tmp_path / "results.parquet")["query_size"].to_pylist() == [None]
