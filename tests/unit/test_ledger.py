"""The ledger on disk: what was found comes back as it was, in the order of image ids, byte for byte the same."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylearn.data.storage import Folder
from raylearn.detectors.base import BOX_EMBEDDING, IMAGE_EMBEDDING
from raylearn.errors import DetectorError, LedgerError
from raylearn.scoring.ledger import (
    Ledger,
    PartCounts,
    add_marks,
    add_part,
    finished_parts,
    map_parts,
    part_name,
    read_all_counts,
    read_counts,
    read_facts,
    remove_marks,
    rows,
    schema,
)
from tests.unit.hand_made import make_detections, make_ledger, make_rows, write_ledger

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
    folder = write_ledger(SCORES, tmp_path, part_size=3)
    tables = list(map_parts(folder, read_facts(folder), schema(2).names, lambda table: table))
    assert [table.num_rows for table in tables] == [3, 1]
    assert all(table.schema.equals(schema(2)) for table in tables)
    table = pa.concat_tables(tables)
    assert table["image_id"].to_pylist() == list(SCORES)
    assert table["status"].to_pylist() == ["ok", "ok", "error", "ok"]
    assert table["error_kind"].to_pylist() == ["", "", "broken", ""]
    assert table["boxes"].to_pylist()[1] == table["boxes"].to_pylist()[2] == []


def test_what_made_it_comes_back(tmp_path):
    write_ledger(SCORES, tmp_path, training="ab", settings={"iou": 0.7})
    facts = Ledger.read(Folder.at(tmp_path)).facts
    assert (facts["training"], facts["settings"]) == ("ab", {"iou": 0.7})


def test_a_part_knows_what_it_holds_and_which_pass_made_it(tmp_path):
    folder = Folder.at(tmp_path)
    told = add_part(folder, 3, "this pass", make_rows(SCORES))
    assert told == PartCounts(num_images=4, num_detections=3, errors={"broken": 1}, num_without_detections=1)
    assert read_counts(folder, 3, "this pass") == told
    assert finished_parts(folder) == [3]
    with pytest.raises(LedgerError, match=r"part-00003.parquet is of another scoring pass"):
        read_counts(folder, 3, "another pass")


def test_a_part_that_is_there_is_not_written_again(tmp_path):
    folder = Folder.at(tmp_path)
    add_part(folder, 0, "first", make_rows(SCORES))
    assert add_part(folder, 0, "first", make_rows({"z.jpg": []})).num_images == 4
    with pytest.raises(LedgerError, match=r"part-00000\.parquet is of another scoring pass"):
        add_part(folder, 0, "late", make_rows({"z.jpg": []}))
    assert read_counts(folder, 0, "first").num_images == 4


def test_counts_add_up():
    assert PartCounts(3, 5, {"empty": 1}) + PartCounts(2, 0, {"empty": 1, "broken": 2}) == PartCounts(
        5, 5, {"broken": 2, "empty": 2}
    )


def test_a_torn_part_is_named(tmp_path):
    folder = write_ledger(SCORES, tmp_path)
    part = tmp_path / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(LedgerError, match=r"part-00000.parquet is damaged"):
        read_counts(folder, 0, "hand-made")


def test_what_is_no_finished_ledger_is_refused(tmp_path):
    with pytest.raises(LedgerError, match=r"is not a ledger: it has no ledger.json"):
        read_facts(Folder(str(tmp_path / "nothing")))
    add_part(Folder.at(tmp_path), 0, "key", make_rows(SCORES))
    with pytest.raises(LedgerError, match=r"1 finished parts, but is not complete"):
        read_facts(Folder(str(tmp_path)))


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


def test_equal_content_is_equal_bytes(tmp_path):
    for name in ("one", "two"):
        write_ledger(SCORES, tmp_path / name, part_size=2, settings={"iou": 0.7})
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["ledger.json", "part-00000.parquet", "part-00001.parquet"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@settings(deadline=None, max_examples=15)
@given(st.permutations(sorted(SCORES)), st.integers(1, 4))
def test_the_ledger_in_memory_does_not_depend_on_the_order_or_the_parts(tmp_path_factory, order, part_size):
    folder = tmp_path_factory.mktemp("ledger")
    write_ledger({image_id: SCORES[image_id] for image_id in order}, folder, part_size=part_size)
    ledger = Ledger.read(Folder.at(folder))
    assert ledger.image_ids.tolist() == ["a.jpg", "b.jpg", "c.jpg"]
    assert ledger.offsets.tolist() == [0, 0, 2, 3]
    np.testing.assert_array_equal(ledger.class_scores, np.float32([[0.6, 0.2], [0.5, 0.5], [0.9, 0.1]]))


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
    columns = {name: ["a"] for name in ("image_id", "uri", "status", "error_kind", "error")}
    columns |= {"width": [1], "height": [1]}
    with pytest.raises(ValueError, match="must match exactly"):
        rows(columns, [make_detections([[0.1, 0.2]])], num_classes=3)


@pytest.mark.parametrize("text", ["[]", "7", "null", "{}", '{"num_parts": "1", "num_images": 4}'])
def test_facts_of_another_shape_are_refused(tmp_path, text):
    (tmp_path / "ledger.json").write_text(text)
    with pytest.raises(LedgerError, match=r"ledger\.json is damaged: score into a new folder"):
        read_facts(Folder.at(tmp_path))


def test_images_without_detections_are_counted_over_all_parts(tmp_path):
    scores = {"a": [], "b": [[0.5, 0.1]], "c": [], "d": [[0.2, 0.3]], "e": []}
    some = Folder.at(tmp_path)
    parts = [dict(list(scores.items())[start : start + 2]) for start in (0, 2, 4)]
    counts = [add_part(some, number, "key", make_rows(part)) for number, part in enumerate(parts)]
    assert [count.num_without_detections for count in counts] == [1, 1, 1]
    assert read_all_counts(some, [0, 1, 2], "key").num_without_detections == 3


def test_a_part_of_before_does_not_say_how_many_images_have_no_detections(tmp_path):
    folder = Folder.at(tmp_path)
    add_part(folder, 0, "key", make_rows(SCORES))
    table = pq.read_table(tmp_path / "part-00000.parquet")
    mark = json.dumps({"key": "key", "num_detections": 3, "errors": {"broken": 1}})
    pq.write_table(table.replace_schema_metadata({b"raylearn": mark}), tmp_path / "part-00000.parquet")
    assert read_all_counts(folder, [0], "key") == PartCounts(4, 3, {"broken": 1}, None)


# Embeddings


@pytest.mark.parametrize("part_size", [1, 3, 100])
def test_embeddings_come_back_with_their_boxes_and_images(tmp_path, part_size):
    write_ledger(SCORES, tmp_path, part_size=part_size, embeddings=True)
    ledger = Ledger.read(Folder.at(tmp_path))
    assert ledger.image_ids.tolist() == ["a.jpg", "b.jpg", "c.jpg"]
    expected = np.array([[0.6, 0.2], [0.5, 0.5], [0.9, 0.1]], np.float16)
    np.testing.assert_array_equal(ledger.box_embeddings[:, :2], expected)
    np.testing.assert_array_equal(ledger.image_embeddings[:, 0], [1, 3, 2])
    assert ledger.box_embeddings.shape == (3, BOX_EMBEDDING)
    assert ledger.image_embeddings.shape == (3, IMAGE_EMBEDDING)
    assert ledger.box_embeddings.dtype == ledger.image_embeddings.dtype == np.float16


def test_a_ledger_without_embeddings_has_none_and_its_columns_are_what_they_were(tmp_path):
    ledger = make_ledger(SCORES, tmp_path)
    assert (ledger.box_embeddings, ledger.image_embeddings) == (None, None)
    assert "embedding" not in str(make_rows(SCORES).schema)


def test_embeddings_change_no_other_column_and_are_zeros_where_an_image_could_not_be_read():
    plain, table = make_rows(SCORES), make_rows(SCORES, embeddings=True)
    assert table.select(plain.column_names).equals(plain)
    assert table.schema.equals(schema(2, embeddings=True))
    by_id = dict(zip(table["image_id"].to_pylist(), table["image_embedding"].to_pylist(), strict=True))
    assert by_id["d.jpg"] == bytes(2 * IMAGE_EMBEDDING)


def test_a_ledger_of_no_boxes_keeps_the_shapes_of_embeddings(tmp_path):
    write_ledger({"a.jpg": [], "b.jpg": "broken"}, tmp_path, embeddings=True)
    ledger = Ledger.read(Folder.at(tmp_path))
    assert (ledger.box_embeddings.shape, ledger.image_embeddings.shape) == ((0, BOX_EMBEDDING), (1, IMAGE_EMBEDDING))


def test_an_embedding_of_a_box_costs_no_more_than_its_bytes(tmp_path):
    rng = np.random.default_rng(0)
    content = {f"{i}.jpg": rng.random((20, 2)).tolist() for i in range(100)}
    sizes = []
    for embeddings in (False, True):
        folder = tmp_path / str(embeddings)
        write_ledger(content, folder, embeddings=embeddings)
        sizes.append((folder / "part-00000.parquet").stat().st_size)
    assert sizes[1] - sizes[0] < 2000 * 2 * BOX_EMBEDDING + 100 * 2 * IMAGE_EMBEDDING + 2000


def test_a_detector_that_gives_no_embeddings_though_they_are_asked_for_is_an_error():
    columns = {name: ["ok"] for name in ("image_id", "uri", "status", "error_kind", "error")}
    columns |= {"width": [1], "height": [1]}
    with pytest.raises(DetectorError, match="the detector gave no embeddings"):
        rows(columns, [make_detections([[0.1, 0.2]])], 2, embeddings=True)


def test_marks_are_believed_of_parts_that_are_as_they_were(tmp_path):
    folder = Folder.at(tmp_path)
    first = add_part(folder, 0, "key", make_rows({"a.jpg": [[0.5, 0.5]]}))
    add_part(folder, 1, "key", make_rows({"b.jpg": [[0.5, 0.5]] * 3}))
    add_marks(folder, "key", {0: first, 1: PartCounts(100, 7, {"missing": 1}, 3)})
    (marks,) = tmp_path.glob("marks-*.json")
    counts = read_all_counts(folder, [0, 1], "key")
    assert (counts.num_images, counts.num_detections, counts.errors) == (101, 8, {"missing": 1})  # nobody opened part 1
    folder.remove(part_name(1))
    add_part(folder, 1, "key", make_rows({"b.jpg": [[0.5, 0.5]] * 30, "c.jpg": []}))
    assert read_all_counts(folder, [0, 1], "key") == PartCounts(3, 31, {}, 1)
    for damaged in ("{", "[]", "{}", '{"key": "key", "counts": {"0": 7}}'):
        marks.write_text(damaged)
        assert read_all_counts(folder, [0, 1], "key").num_images == 3
    remove_marks(folder)
    assert not list(tmp_path.glob("marks-*.json"))
