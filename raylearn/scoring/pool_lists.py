"""Lists of images that somebody else made: text, CSV and Parquet, read row by row."""

import codecs
import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from raylearn.data.storage import local_path, reason_of
from raylearn.errors import PoolError
from raylearn.wording import columns_in_words

_URI_COLUMNS = ("uri", "path", "image", "file_name")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ListRow(NamedTuple):
    """One image of a list.

    Args:
        line: where it stands, from 1.
        uri: a path or an address, as it is written there.
        image_id: "" where the list has none.
        content_hash: SHA-256 in lower-case hex, or "".
    """

    line: int
    uri: str
    image_id: str = ""
    content_hash: str = ""


def read_list(path: Path, ending: str) -> Iterator[ListRow]:
    """The rows of a list.

    Args:
        path: of the file.
        ending: of `LIST_ENDINGS`; what kind of file it is.

    Raises:
        PoolError: it cannot be read, has no column of paths, or a row without one or with a hash that is none.
    """
    try:
        for row in _READERS[ending](path):
            if not row.uri:
                raise PoolError(f"{path}:{row.line}: no path or address: fill it in, or remove the row")
            if local_path(row.uri) is None:
                row.uri.encode()  # of a list's odd bytes no address can be made
            if row.content_hash and not _SHA256.fullmatch(row.content_hash):
                raise PoolError(
                    f"{path}:{row.line}: content_hash {row.content_hash!r} is no SHA-256 in hex: correct it, or leave "
                    "the column out"
                )
            yield row
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        raise PoolError(f"list {path} cannot be read: {reason_of(error)}") from error


def _text_rows(path: Path) -> Iterator[ListRow]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            text = content.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", errors="surrogateescape")
            if text:
                yield ListRow(number, text)


def _csv_rows(path: Path) -> Iterator[ListRow]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        column = _uri_column(path, reader.fieldnames or ())
        for row in reader:
            yield _row(reader.line_num, column, row)


def _parquet_rows(path: Path) -> Iterator[ListRow]:
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        column = _uri_column(path, names)
        wanted = [column, *(name for name in ("image_id", "content_hash") if name in names)]
        number = 0
        for batch in file.iter_batches(columns=wanted):
            for row in batch.to_pylist():
                number += 1
                yield _row(number, column, row)


def _row(line: int, column: str, values: Mapping[str, object]) -> ListRow:
    uri, image_id, content = (_text(values.get(name)) for name in (column, "image_id", "content_hash"))
    return ListRow(line, uri, image_id, content.lower())


def _text(value: object) -> str:
    if value is None:
        return ""
    return value.decode() if isinstance(value, bytes) else str(value)


_READERS: dict[str, Callable[[Path], Iterable[ListRow]]] = {
    ".txt": _text_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}
LIST_ENDINGS = tuple(_READERS)


def _uri_column(path: Path, names: Iterable[object]) -> str:
    known = [str(name) for name in names]
    for name in _URI_COLUMNS:
        if name in known:
            return name
    raise PoolError(f"list {path} has no column {' or '.join(_URI_COLUMNS)}, only {columns_in_words(known)}")
