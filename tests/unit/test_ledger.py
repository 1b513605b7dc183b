"""The ledger on disk: what was found comes back as it was, in the order of image ids, byte for byte the same."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylearn.scoring.ledger import FACTS_FILE, ROWS_FILE, Ledger, rows, schema, write_ledger
from tests.unit.hand_made import make_detections, make_ledger, make_rows

SCORES = {
    "b.jpg": [[0.6, 0.2], [0.5, 0.5]],
    "a.jpg": [],
    "d.jpg": "image has 0 bytes",
    "c.jpg": [[0.9, 0.1]],
}


def test_what_was_found_comes_back_by_image_id(tmp_path):
    ledger = make_ledger(SCORES, tmp_path)
    assert ledger.image_ids.tolist() == ["a.jpg", "b.jpg", "c.jpg"]
    assert ledger.offsets.tolist() == [0, 0, 2, 3]
    np.testing.assert_array_equal(ledger.class_scores, np.float32([[0.6, 0.2], [0.5, 0.5], [0.9, 0.1]]))
    # boxes are numbered within their image, see make_detections
    assert ledger.boxes.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3]]
    assert (ledger.boxes.dtype, ledger.class_scores.dtype, ledger.offsets.dtype) == (np.float32, np.float32, np.int64)


def test_an_image_that_could_not_be_read_is_an_error_and_no_empty_image(tmp_path):
    assert make_ledger(SCORES, tmp_path).errors == {"d.jpg": "image has 0 bytes"}


def test_a_ledger_has_as_many_rows_as_images_were_asked_for(tmp_path):
    write_ledger(make_rows(SCORES), {}, tmp_path)
    table = pq.read_table(tmp_path / ROWS_FILE)
    assert table.num_rows == 4
    assert table.schema.equals(schema(2))
    assert table["image_id"].to_pylist() == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert table["status"].to_pylist() == ["ok", "ok", "ok", "error"]
    assert table["boxes"].to_pylist()[0] == table["boxes"].to_pylist()[3] == []


def test_what_made_it_comes_back(tmp_path):
    facts = {"training": "ab", "settings": {"iou": 0.7}, "num_images": 4}
    write_ledger(make_rows(SCORES), facts, tmp_path)
    assert Ledger.read(tmp_path).facts == facts


@pytest.mark.parametrize(
    ("scores", "ids", "errors"),
    [
        ({"a.jpg": [], "b.jpg": []}, ["a.jpg", "b.jpg"], {}),
        ({"a.jpg": "broken"}, [], {"a.jpg": "broken"}),
        ({}, [], {}),
    ],
    ids=["no detections", "errors only", "no images"],
)
@pytest.mark.parametrize("num_classes", [1, 3])
def test_a_ledger_without_detections_keeps_its_shapes(tmp_path, scores, ids, errors, num_classes):
    ledger = make_ledger(scores, tmp_path, num_classes)
    assert ledger.image_ids.tolist() == ids
    assert ledger.offsets.tolist() == [0] * (len(ids) + 1)
    assert ledger.boxes.shape == (0, 4)
    assert ledger.class_scores.shape == (0, num_classes)
    assert ledger.errors == errors


@settings(deadline=None, max_examples=15)
@given(st.permutations(sorted(SCORES)))
def test_equal_content_is_equal_bytes_whatever_order_it_came_in(tmp_path_factory, order):
    folders = [tmp_path_factory.mktemp("ledger") for _ in range(2)]
    write_ledger(make_rows(SCORES), {"a": 1, "b": 2}, folders[0])
    write_ledger(make_rows({image_id: SCORES[image_id] for image_id in order}), {"b": 2, "a": 1}, folders[1])
    for name in (ROWS_FILE, FACTS_FILE):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_equal_content_is_equal_bytes_whatever_batches_it_came_in(tmp_path):
    found = set()
    for size in (1, 3, 4):
        batches = [dict(list(SCORES.items())[start : start + size]) for start in range(0, 4, size)]
        write_ledger(pa.concat_tables([make_rows(batch) for batch in reversed(batches)]), {}, tmp_path)
        found.add((tmp_path / ROWS_FILE).read_bytes())
    assert len(found) == 1


def test_names_come_back_as_they_were(tmp_path):
    names = ["a b,c.jpg", 'quote".jpg', "näme.jpg", "line\nbreak.jpg", "-dash.jpg", "x/y.jpg", "z/y.jpg"]
    assert make_ledger({name: [] for name in names}, tmp_path).image_ids.tolist() == sorted(names)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.integers(1, 3))
def test_each_image_keeps_its_own_detections(tmp_path_factory, counts, num_classes):
    rng = np.random.default_rng(len(counts))
    given_scores = {f"{i}.jpg": rng.random((count, num_classes)).tolist() for i, count in enumerate(counts)}
    ledger = make_ledger(given_scores, tmp_path_factory.mktemp("ledger"), num_classes)
    for i, image_id in enumerate(ledger.image_ids):
        mine = ledger.class_scores[ledger.offsets[i] : ledger.offsets[i + 1]]
        np.testing.assert_array_equal(mine, np.float32(given_scores[image_id]).reshape(-1, num_classes))


def test_rows_refuse_detections_of_another_number_of_classes():
    columns = {"image_id": ["a"], "uri": ["a"], "width": [1], "height": [1], "status": ["ok"], "error": [""]}
    with pytest.raises(ValueError, match="must match exactly"):
        rows(columns, [make_detections([[0.1, 0.2]])], num_classes=3)
