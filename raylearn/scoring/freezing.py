"""A manifest of any length, written as its rows come; when whole it becomes that of a pass."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raylearn.data.storage import Folder, reason_of
from raylearn.errors import StorageError
from raylearn.scoring.manifest import (
    FIRST_SPAN,
    MAX_PART_SIZE,
    SCHEMA,
    Span,
    default_part_size,
    hash_of,
    open_writer,
    refuse_twice,
)
from raylearn.scoring.spill import Buckets

_ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Frozen:
    """The files of one listing of a pool, on a disk.

    Args:
        directory: holds them.
        span: its parts.
    """

    directory: Path
    span: Span

    @property
    def num_images(self) -> int:
        return self.span.num_images

    def hash(self) -> str:
        """See `hash_of`."""
        return hash_of(lambda name: (chunk for table in self.tables([name]) for chunk in table[name].chunks))

    def tables(self, columns: Iterable[str] = SCHEMA.names) -> Iterator[pa.Table]:
        """All rows in their order, some ten thousands at a time."""
        for name in self.span.file_names:
            with pq.ParquetFile(self.directory / name) as file:
                for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(columns), use_threads=False):
                    yield pa.Table.from_batches([batch])

    def put_into(self, folder: Folder) -> None:
        """Makes them the manifest of a pass, in place of files of these names that are there."""
        for name in self.span.file_names:
            with pa.memory_map(str(self.directory / name)) as file:
                folder.replace(name, file.read_buffer())


def freeze(rows: Iterable[pa.Table], directory: Path, part_size: int | None = None, span: Span = FIRST_SPAN) -> Frozen:
    """Writes rows as the files of a manifest.

    Args:
        rows: tables of `SCHEMA`, in order.
        directory: an empty one on a disk.
        part_size: by default what suits the number of rows.
        span: says with which part they begin, and how their files are named and filled.

    Raises:
        OSError: the directory cannot be written to.
    """
    files = _Files(directory, part_size, span)
    try:
        for table in rows:
            files.add(table)
        return files.end()
    finally:
        files.close()


@contextmanager
def put_aside(place: Path) -> Iterator[None]:
    """While rows are put aside in a folder for temporary files; StorageError where it cannot be written to or read."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{place} cannot be used to put a list of the pool aside: {reason_of(error)}; make room there, or name "
            "another place for temporary files in TMPDIR"
        ) from error


class _Files:
    """Cuts rows into parts and files; the size of parts is open until so many rows have come that it is the largest."""

    def __init__(self, directory: Path, part_size: int | None, span: Span) -> None:
        self._directory, self._part_size, self._span = directory, part_size, span
        self._waiting: list[pa.Table] = []
        self._num_waiting = self._num_rows = self._num_parts = 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self._num_waiting += len(table)
        self._num_rows += len(table)
        if self._part_size is None and default_part_size(self._num_rows) == MAX_PART_SIZE:
            self._part_size = MAX_PART_SIZE
        if self._part_size and self._num_waiting >= max(_ROWS_AT_ONCE, self._part_size):
            self._write(self._part_size, self._num_waiting // self._part_size * self._part_size)

    def end(self) -> Frozen:
        size = self._part_size or default_part_size(self._num_rows)
        self._write(size, self._num_waiting)
        self.close()
        return Frozen(self._directory, replace(self._span, num_images=self._num_rows, part_size=size))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, size: int, num_rows: int) -> None:
        """The first so many of the rows that wait, part by part."""
        table = pa.concat_tables(self._waiting) if self._waiting else SCHEMA.empty_table()
        for first in range(0, num_rows, size):
            if self._num_parts % self._span.parts_per_file == 0:
                self.close()
            if self._writer is None:
                name, _ = self._span.file_of(self._span.start + self._num_parts)
                self._writer = open_writer(str(self._directory / name))
            part = table.slice(first, min(size, num_rows - first)).combine_chunks()
            self._writer.write_table(part, row_group_size=size)
            self._num_parts += 1
        rest = table.slice(num_rows)
        self._waiting, self._num_waiting = [rest], len(rest)


def refuse_ids_twice(frozen: Frozen) -> None:
    """Raises PoolError if an image id is listed twice."""
    buckets = Buckets(frozen.directory, "ids", pa.schema([SCHEMA.field("image_id")]), frozen.num_images)
    for table in frozen.tables(["image_id"]):
        buckets.add(table, quick_hashes(table["image_id"]))
    for bucket in buckets:
        refuse_twice(bucket["image_id"])


def quick_hashes(ids: pa.ChunkedArray) -> np.ndarray:
    """(N,) uint64 that tell ids apart within this process."""
    return np.fromiter(map(hash, ids.to_pylist()), np.int64, len(ids)).view(np.uint64)
