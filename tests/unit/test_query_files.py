"""Query files and lists of ids: every name comes back, and no spreadsheet runs one."""

import csv
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raylearn.errors import InputError, QueryError
from raylearn.handoff.query_files import read_image_ids, refuse_another_query, write_query
from raylearn.learning.collectors import QueriedImage
from raylearn.strategies import Reason

COLUMNS = ["rank", "image_id", "uri", "score", "num_detections", "predicted_classes"]
COLUMNS += ["predicted_boxes", "distance", "nearest", "note"]
RUN_BY_SPREADSHEETS = ("=", "+", "-", "@", "\t", "\r")
HOSTILE = [
    "a,b.jpg",
    'say "crab".jpg',
    "two\nlines.jpg",
    "two\r\nlines.jpg",
    "\rreturn.jpg",
    "Krabbe/größe/海胆.jpg",
    "=HYPERLINK(1)",
    "+1.jpg",
    "-1.jpg",
    "@SUM(A1)",
    "\ttab.jpg",
    "in\tside.jpg",
    "'apostrophe.jpg",
    "'=x",
    "''=x",
    "'",
    " space ",
    "\u2028separator.jpg",
    "next\x85line.jpg",
    "\x0cfeed.jpg",
    "\ufeffmark.jpg",
    "nul\x00.jpg",
    '"',
]
names = st.text(max_size=12) | st.sampled_from(HOSTILE)
id_lists = st.lists(names, min_size=1, max_size=5, unique=True)


def image(image_id="a.jpg", rank=1, uri="/data/a.jpg", score=0.5, classes=None) -> QueriedImage:
    classes = {"crab": 2, "fish": 1} if classes is None else classes
    return QueriedImage(rank, image_id, uri, score, sum(classes.values()), classes)


def images(image_ids: list[str]) -> list[QueriedImage]:
    return [
        image(image_id, rank, f"/data/{image_id}", 1 / rank, {image_id: rank})
        for rank, image_id in enumerate(image_ids, start=1)
    ]


def csv_rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


# Writing


def test_the_three_files_have_the_same_rows(tmp_path):
    first = replace(image("b.jpg", 1, "s3://bucket/b.jpg", 0.1 + 0.2), reason=Reason("=z.jpg", 0.25, 3.5, "tied"))
    asked = [first, image("a.jpg", 2, score=1e-9, classes={})]
    paths = write_query(asked, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["query.parquet", "query.csv", "query.txt"]
    rows = [
        (1, "b.jpg", "s3://bucket/b.jpg", 0.1 + 0.2, 3, "crab:2; fish:1", 3.5, 0.25, "=z.jpg", "tied"),
        (2, "a.jpg", "/data/a.jpg", 1e-9, 0, "", None, None, None, ""),
    ]
    table = pq.read_table(paths[0])
    assert table.column_names == COLUMNS
    assert [tuple(row.values()) for row in table.to_pylist()] == rows
    as_text = [COLUMNS, *(["" if value is None else str(value) for value in row] for row in rows)]
    assert csv_rows(paths[1]) == [[cell.replace("=z", "'=z") for cell in row] for row in as_text]
    assert [line.split("\t") for line in paths[2].read_text().splitlines()] == as_text


def test_a_query_written_again_replaces_the_one_before(tmp_path):
    write_query(images(["a.jpg", "b.jpg"]), tmp_path)
    for path in write_query(images(["c.jpg"]), tmp_path)[:2]:
        assert read_image_ids(path) == ["c.jpg"]
    assert len((tmp_path / "query.txt").read_text().splitlines()) == 2


def test_only_another_query_is_refused_whichever_of_its_files_is_left(tmp_path):
    asked = images(["a.jpg", "b.jpg"])
    for path in write_query(asked, tmp_path):
        refuse_another_query(asked, tmp_path)
        with pytest.raises(QueryError, match=f"{path.name} is of another query: give another --out, or --force"):
            refuse_another_query(images(["b.jpg", "a.jpg"]), tmp_path)
        path.unlink()
    refuse_another_query(images(["c.jpg"]), tmp_path)


def test_a_damaged_query_is_not_written_over(tmp_path):
    (tmp_path / "query.parquet").write_bytes(b"torn")
    with pytest.raises(QueryError, match="is of another query"):
        refuse_another_query(images(["a.jpg"]), tmp_path)


@given(id_lists)
@example(HOSTILE)
def test_every_name_comes_back_from_parquet_and_from_csv(tmp_path_factory, image_ids):
    parquet, table, _ = write_query(images(image_ids), tmp_path_factory.mktemp("query"))
    assert read_image_ids(parquet) == image_ids
    assert pq.read_table(parquet)["uri"].to_pylist() == [f"/data/{image_id}" for image_id in image_ids]
    assert read_image_ids(table) == image_ids


@given(id_lists)
@example(HOSTILE)
def test_no_cell_of_the_csv_is_one_that_a_spreadsheet_would_run(tmp_path_factory, image_ids):
    asked = [image(image_id, 1, uri=image_id, classes={image_id: 1}) for image_id in image_ids]
    header, *rows = csv_rows(write_query(asked, tmp_path_factory.mktemp("query"))[1])
    assert header == COLUMNS
    assert len(rows) == len(image_ids)
    assert not [cell for row in rows for cell in row if cell.startswith(RUN_BY_SPREADSHEETS)]


def test_a_plain_name_stands_in_the_csv_as_it_is(tmp_path):
    table = write_query([image("it's-a=b@c+d.jpg")], tmp_path)[1]
    assert csv_rows(table)[1][1] == "it's-a=b@c+d.jpg"


@given(id_lists)
@example(HOSTILE)
def test_the_text_file_has_one_line_for_every_image(tmp_path_factory, image_ids):
    text = write_query(images(image_ids), tmp_path_factory.mktemp("query"))[2].read_bytes().decode()
    # whatever a program takes for the end of a line
    assert len(text.splitlines()) == 1 + len(image_ids)
    assert all(line.count("\t") == len(COLUMNS) - 1 for line in text.splitlines())
    assert text.endswith("\n")


def test_a_readable_name_stands_in_the_text_file_as_it_is_and_a_line_break_as_json(tmp_path):
    lines = write_query(images(["größe/海胆 1.jpg", "two\nlines.jpg"]), tmp_path)[2].read_text("utf-8").splitlines()
    assert lines[1].split("\t")[1] == "größe/海胆 1.jpg"
    assert lines[2].split("\t")[1] == '"two\\nlines.jpg"'


@pytest.mark.parametrize(("folder", "reason"), [("file", "File exists"), ("file/below", "Not a directory")])
def test_a_folder_that_cannot_be_one_is_refused(tmp_path, folder, reason):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(InputError, match=f"{folder} cannot be written: {reason}; give another with --out"):
        write_query([image()], tmp_path / folder)
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("name", ["query.parquet", "query.csv", "query.txt"])
def test_a_file_that_cannot_be_written_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=r"cannot be written: .*give another with --out"):
        write_query([image()], tmp_path)


# Reading


def test_ids_are_the_lines_of_a_text_file(tmp_path):
    path = tmp_path / "labelled.txt"
    path.write_bytes("a.jpg\n\nb c.jpg\n'=d.jpg\ngröße.jpg".encode())
    assert read_image_ids(path) == ["a.jpg", "b c.jpg", "'=d.jpg", "größe.jpg"]
    path.write_bytes(b"a.jpg\r\nb.jpg\r\n")
    assert read_image_ids(path) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "as Excel writes it"])
def test_ids_are_the_column_of_a_csv_wherever_it_stands(tmp_path, mark):
    path = tmp_path / "labelled.CSV"
    path.write_text(f'{mark}image_id,who\r\na.jpg,me\r\n"b,c.jpg",you\r\n', encoding="utf-8", newline="")
    assert read_image_ids(path) == ["a.jpg", "b,c.jpg"]
    path.write_text("who,image_id\nme,a.jpg\n")
    assert read_image_ids(path) == ["a.jpg"]


def test_ids_are_the_column_of_a_parquet_file_and_numbers_are_taken_as_text(tmp_path):
    path = tmp_path / "labelled.parquet"
    pq.write_table(pa.table({"who": ["me", "you"], "image_id": ["a.jpg", "b.jpg"]}), path)
    assert read_image_ids(path) == ["a.jpg", "b.jpg"]
    pq.write_table(pa.table({"image_id": [7, 12]}), path)
    assert read_image_ids(path) == ["7", "12"]


def test_a_list_of_no_ids_is_one(tmp_path):
    (tmp_path / "none.txt").write_text("")
    (tmp_path / "none.csv").write_text("image_id\n")
    pq.write_table(pa.table({"image_id": pa.array([], pa.string())}), tmp_path / "none.parquet")
    assert [read_image_ids(tmp_path / f"none.{ending}") for ending in ("txt", "csv", "parquet")] == [[], [], []]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_without_the_column_is_refused(tmp_path, ending):
    path = tmp_path / f"labelled.{ending}"
    if ending == "csv":
        path.write_text("file,image_ids\na.jpg,a.jpg\n")
    else:
        pq.write_table(pa.table({"file": ["a.jpg"]}), path)
    with pytest.raises(QueryError, match=rf"labelled\.{ending} has no column image_id"):
        read_image_ids(path)


def test_an_empty_csv_has_no_column(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(QueryError, match=r"empty\.csv has no column image_id"):
        read_image_ids(tmp_path / "empty.csv")


def test_a_row_too_short_for_an_id_is_refused_with_its_line(tmp_path):
    path = tmp_path / "short.csv"
    path.write_text("who,image_id\nme,a.jpg\nyou\n")
    with pytest.raises(QueryError, match=r"short\.csv:3: no image_id"):
        read_image_ids(path)


@pytest.mark.parametrize("ending", ["txt", "csv", "parquet"])
def test_a_list_that_cannot_be_read_is_refused_with_its_name(tmp_path, ending):
    path = tmp_path / f"labelled.{ending}"
    with pytest.raises(QueryError, match=rf"labelled\.{ending} cannot be read: .*No such file or directory"):
        read_image_ids(path)
    path.write_bytes(b"image_id\n\xff\n")
    with pytest.raises(QueryError, match=rf"labelled\.{ending} cannot be read: ") as caught:
        read_image_ids(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ['"x".jpg', '"a"', "line\nbreak.jpg", "tab\t.jpg", "plain.jpg"])
def test_names_come_back_from_the_text_file_too(tmp_path, name):
    write_query([QueriedImage(1, name, name, 0.5, 0, {})], tmp_path)
    assert read_image_ids(tmp_path / "query.txt") == [name]
