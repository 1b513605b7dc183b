"""A query as files that people and programs open, and lists of image ids back."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raylearn.data.storage import not_writable, reason_of, write_whole
from raylearn.errors import QueryError
from raylearn.learning.collectors import QueriedImage
from raylearn.strategies import Reason

_COLUMNS = (
    "rank",
    "image_id",
    "uri",
    "score",
    "num_detections",
    "predicted_classes",
    "predicted_boxes",
    "distance",
    "nearest",
    "note",
)
_ENDINGS = ("parquet", "csv", "txt")
_FIRST = _COLUMNS[:4]
"""What a query.txt begins with, of any version."""
# A spreadsheet runs a cell that begins with one of these; "'" is here so that guarding can be undone.
_GUARDED = ("=", "+", "-", "@", "\t", "\r", "'")


def write_query(images: Sequence[QueriedImage], folder: Path) -> list[Path]:
    """Writes query.parquet, query.csv and query.txt, each with the same rows in order of rank.

    `predicted_classes` is "name:detections", most frequent first, joined by "; ". `predicted_boxes` is what people will
    draw, as far as the detector sees it; `nearest` is the labelled image most like it, and `distance` how far that is,
    in [0, 1]; each is empty where nobody knows. `note` says of an image that it has no detections, or that chance chose
    it. In the CSV a text that a spreadsheet would run is preceded by an apostrophe; in the text file a name with a line
    break or a tab stands as a JSON string.

    Raises:
        InputError, StorageError: the folder cannot be written.
    """
    rows = _rows(images)
    paths = [folder / f"query.{ending}" for ending in _ENDINGS]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_writable(folder, error) from error
    table, sheet = pa.BufferOutputStream(), io.StringIO()
    pq.write_table(query_table(images), table)
    writer = csv.writer(sheet)
    writer.writerow(_COLUMNS)
    writer.writerows([guarded(value) for value in row] for row in rows)
    lines = ["\t".join(_COLUMNS), *("\t".join(_in_one_field(value) for value in row) for row in rows), ""]
    contents = (table.getvalue().to_pybytes(), sheet.getvalue().encode(), "\n".join(lines).encode())
    for path, content in zip(paths, contents, strict=True):
        write_whole(path, content)
    return paths


def refuse_another_query(images: Sequence[QueriedImage], folder: Path) -> None:
    """Raises QueryError where a folder holds a query of other images, or in another order, or one that is damaged."""
    for path in (folder / f"query.{ending}" for ending in _ENDINGS):
        if not path.is_file():
            continue
        try:
            same = read_image_ids(path) == [image.image_id for image in images]
        except QueryError:
            same = False
        if not same:
            raise QueryError(f"{path} is of another query: give another --out, or --force to write over it")


def query_table(images: Sequence[QueriedImage]) -> pa.Table:
    """A query as a table in order of rank, as query.parquet has it; see `write_query`."""
    first = (pa.int64(), pa.string(), pa.string(), pa.float64(), pa.int64(), pa.string())
    types = (*first, pa.float64(), pa.float64(), pa.string(), pa.string())
    columns = [pa.array(column, kind) for column, kind in zip(zip(*_rows(images), strict=True), types, strict=True)]
    return pa.table(columns, names=list(_COLUMNS))


def _rows(images: Sequence[QueriedImage]) -> list[tuple[object, ...]]:
    return [
        (
            image.rank,
            image.image_id,
            image.uri,
            image.score,
            image.num_detections,
            "; ".join(f"{name}:{count}" for name, count in image.classes.items()),
            image.reason.boxes,
            image.reason.distance,
            image.reason.nearest,
            image.reason.note,
        )
        for image in images
    ]


def read_query(path: Path) -> list[QueriedImage]:
    """The images of a query.parquet, in order of rank; what an older one does not tell of them is not known.

    Raises:
        QueryError: it cannot be read, or is something else.
    """
    try:
        rows = sorted(pq.read_table(path).to_pylist(), key=lambda row: int(row["rank"]))
        return [
            QueriedImage(
                rank,
                str(row["image_id"]),
                str(row["uri"]),
                float(row["score"]),
                int(row["num_detections"]),
                {},
                Reason(row.get("nearest"), row.get("distance"), row.get("predicted_boxes"), row.get("note") or ""),
            )
            for rank, row in enumerate(rows, start=1)
        ]
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        raise QueryError(f"query {path} cannot be read: {reason_of(error)}") from error


def read_image_ids(path: Path) -> list[str]:
    """Image ids from a text file with one per line, or the column image_id of a CSV or Parquet file.

    Raises:
        QueryError: it cannot be read, or has no such column.
    """
    try:
        if path.suffix.lower() == ".parquet":
            if "image_id" in pq.read_schema(path).names:
                return [str(value) for value in pq.read_table(path, columns=["image_id"])["image_id"].to_pylist()]
        elif path.suffix.lower() == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                if "image_id" in (reader.fieldnames or ()):
                    return [unguarded(_id_of(row, path, reader.line_num)) for row in reader]
        else:
            lines = [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line]
            if not lines or tuple(lines[0].split("\t")[: len(_FIRST)]) != _FIRST:
                return lines
            ids = (line.split("\t")[_COLUMNS.index("image_id")] for line in lines[1:])  # a query.txt
            return [json.loads(text) if text.startswith('"') else text for text in ids]
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        raise QueryError(f"image ids {path} cannot be read: {reason_of(error)}") from error
    raise QueryError(f"{path} has no column image_id")


def guarded(value: object) -> object:
    """A cell that a spreadsheet would run, preceded by an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_GUARDED) else value


def _id_of(row: Mapping[str, str | None], path: Path, line: int) -> str:
    image_id = row["image_id"]
    if image_id is None:
        raise QueryError(f"{path}:{line}: no image_id: the row is too short")
    return image_id


def unguarded(text: str) -> str:
    """The text of a cell, without the apostrophe of `guarded`."""
    return text[1:] if text.startswith("'") and text[1:].startswith(_GUARDED) else text


def _in_one_field(value: object) -> str:
    text = "" if value is None else str(value)
    return (
        text if text.isprintable() and not text.startswith('"') else json.dumps(text)
    )  # in ASCII: U+2028 and others end lines too
