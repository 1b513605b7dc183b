"""The frozen list of images that a scoring pass goes over, cut into parts, and the files that it lies in."""

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raylearn.data.dataset import Image
from raylearn.data.storage import Folder, is_damage, reason_of, storage_error
from raylearn.errors import LedgerError, PoolError

MANIFEST_FILE = "manifest.parquet"
"""Of the first parts; `Span` names the others."""

PARTS_PER_FILE = 512
MAX_PART_SIZE = 2048
SCHEMA = pa.schema([(name, pa.string()) for name in ("image_id", "uri", "content_hash", "version")])
HASHED = ("image_id", "content_hash", "version")
_GRAIN = 64  # parts are multiples of it, so that batches of any usual size come out full


@dataclass(frozen=True)
class Manifest:
    """Images in a fixed order. A part is `part_size` of them one after the other: what is scored and kept as a whole.

    Args:
        table: columns image_id, uri, content_hash (SHA-256, or "" where the bytes were not looked at) and version (what
            the file system tells of a file without reading it, or "").
        part_size: rows of a part; the last one may have fewer.
    """

    table: pa.Table
    part_size: int

    @classmethod
    def of(cls, images: Iterable[Image], part_size: int | None = None) -> "Manifest":
        """Of images whose content is known; sorted by id, so the order they are given in has no influence."""
        rows = sorted((image.image_id, image.uri, image.content_hash, "") for image in images)
        return cls.of_columns(list(zip(*rows, strict=True)) or [(), (), (), ()], part_size)

    @classmethod
    def of_columns(cls, columns: Sequence[Any], part_size: int | None = None) -> "Manifest":
        """Of the four columns, in their order.

        Raises:
            PoolError: an image id is listed twice.
        """
        table = pa.table([_strings(column) for column in columns], schema=SCHEMA)
        refuse_twice(table["image_id"])
        return cls(table, part_size or default_part_size(table.num_rows))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def num_parts(self) -> int:
        return -(-len(self) // self.part_size)

    @property
    def span(self) -> "Span":
        return Span(0, len(self), self.part_size)

    @cached_property
    def hash(self) -> str:
        """See `hash_of`."""
        return hash_of(lambda name: self.table[name].chunks)

    def write(self, folder: Folder) -> None:
        """Writes its files, over those that are there."""
        size = PARTS_PER_FILE * self.part_size
        for number, name in enumerate(self.span.file_names or [MANIFEST_FILE]):
            sink = pa.BufferOutputStream()
            with open_writer(sink) as writer:
                writer.write_table(self.table.slice(number * size, size), row_group_size=self.part_size)
            folder.replace(name, sink.getvalue())


@dataclass(frozen=True)
class Span:
    """The parts of one listing of a pool, and the files that their rows lie in: row groups of Parquet, one for a part.

    Args:
        start: the number of its first part.
        num_images: that it lists.
        part_size: rows of a part; the last one may have fewer.
        suffix: of the names of its files; "" for the first listing.
        parts_per_file: the last file may have fewer.
    """

    start: int = 0
    num_images: int = 0
    part_size: int = 1
    suffix: str = ""
    parts_per_file: int = PARTS_PER_FILE

    @property
    def end(self) -> int:
        """The number after that of its last part."""
        return self.start + -(-self.num_images // self.part_size)

    @property
    def file_names(self) -> list[str]:
        return [self.file_of(part)[0] for part in range(self.start, self.end, self.parts_per_file)]

    def file_of(self, part: int) -> tuple[str, int]:
        """The name of the file that holds a part, and the row group in it."""
        place, group = divmod(part - self.start, self.parts_per_file)
        first = self.start + place * self.parts_per_file
        name = f"manifest-{first:06d}{self.suffix and '-'}{self.suffix}.parquet"
        return name if first or self.suffix else MANIFEST_FILE, group

    def rows_of(self, part: int) -> int:
        return min(self.part_size, self.num_images - (part - self.start) * self.part_size)


FIRST_SPAN = Span()


class ManifestFiles:
    """The manifest in a folder.

    Args:
        folder: that its files lie in.
        spans: of each listing of the pool, by rising parts.
    """

    def __init__(self, folder: Folder, spans: Sequence[Span] = (FIRST_SPAN,)) -> None:
        self._folder, self._spans = folder, spans
        self._lock = Lock()  # a Parquet file is read by one thread at a time
        self._opened: tuple[str, pq.ParquetFile] | None = None  # the last one that was read from

    def read(self, part: int) -> pa.Table:
        """The rows of a part.

        Raises:
            FileNotFoundError: the folder has no such file; it is named.
            LedgerError: it is damaged.
            StorageError: it cannot be read.
        """
        span = self._spans[bisect_right(self._spans, part, key=lambda span: span.start) - 1]
        name, group = span.file_of(part)
        with self._lock:
            try:
                if self._opened is None or self._opened[0] != name:
                    self._opened = name, pq.ParquetFile(self._folder.open(name))
                return self._opened[1].read_row_group(group)
            except FileNotFoundError as error:
                raise FileNotFoundError(name) from error
            except (pa.ArrowException, OSError) as error:
                where = f"{self._folder}/{name}"
                if is_damage(error):
                    raise LedgerError(f"{where} is damaged ({reason_of(error)}): score into a new folder") from error
                raise storage_error(f"{where} cannot be read: {reason_of(error)}", error) from error


def hash_of(chunks_of: Callable[[str], Iterable[pa.Array]]) -> str:
    """SHA-256 over ids and contents, or versions where contents are not known; where the files lie does not count.

    Order counts: it decides the parts.

    Args:
        chunks_of: gives a column of a manifest, piece by piece.
    """
    digest = hashlib.sha256()
    for name in HASHED:
        for chunk in chunks_of(name):
            digest.update(_ended(chunk))
        digest.update(b"\1")
    return digest.hexdigest()


def _ended(chunk: pa.Array) -> memoryview | bytes:
    """Strings one after the other, each with a NUL at its end."""
    if not len(chunk):
        return b""
    ended = pc.binary_join_element_wise(chunk, "", "\0")
    _, offsets, characters = ended.buffers()
    ends = np.frombuffer(offsets, np.int32)
    return memoryview(characters)[ends[ended.offset] : ends[ended.offset + len(ended)]]


def refuse_twice(ids: pa.ChunkedArray) -> None:
    """Raises PoolError if an image id is there twice."""
    if pc.count_distinct(ids).as_py() < len(ids):
        counts = pc.value_counts(ids)
        twice = next(entry["values"].as_py() for entry in counts if entry["counts"].as_py() > 1)
        raise PoolError(f"image id {twice!r} is listed twice in the pool: give each image an id of its own")


def open_writer(sink: Any) -> pq.ParquetWriter:
    """Writes a file of a manifest."""
    return pq.ParquetWriter(sink, SCHEMA, compression="zstd", use_dictionary=False, write_statistics=False)


def default_part_size(num_images: int) -> int:
    """Images per part: some sixty parts of a small pool, and never so many images that their repetition would hurt."""
    return min(MAX_PART_SIZE, _GRAIN * max(1, -(-num_images // (64 * _GRAIN))))


def known_size(version: str) -> int | None:
    """Bytes of an image by its version in a manifest; None where that does not say."""
    size = version.partition("-")[0]
    return int(size) if size.isdecimal() else None


def _strings(column: Any) -> Any:
    return column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column, pa.string())
