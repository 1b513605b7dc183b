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
"""Of the first parts; the files after it are named by `file_name`."""

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

    @cached_property
    def hash(self) -> str:
        """See `hash_of`."""
        return hash_of(lambda name: self.table[name].chunks)

    def write(self, folder: Folder) -> None:
        """Writes its files, over those that are there."""
        size = PARTS_PER_FILE * self.part_size
        for number, start in enumerate(range(0, max(1, len(self)), size)):
            sink = pa.BufferOutputStream()
            with open_writer(sink) as writer:
                writer.write_table(self.table.slice(start, size), row_group_size=self.part_size)
            folder.replace(file_name(number * PARTS_PER_FILE), sink.getvalue())


class ManifestFiles:
    """The manifest in a folder: Parquet files of up to `PARTS_PER_FILE` row groups, each of which is a part.

    Args:
        folder: that they lie in.
        starts: the first part of each listing of the pool, rising, the first 0: each begins a file.
    """

    def __init__(self, folder: Folder, starts: Sequence[int] = (0,)) -> None:
        self._folder, self._starts = folder, starts
        self._lock = Lock()  # a Parquet file is read by one thread at a time
        self._opened: tuple[int, pq.ParquetFile] | None = None  # the last one that was read from, by its first part

    def read(self, part: int) -> pa.Table:
        """The rows of a part.

        Raises:
            FileNotFoundError: the folder has no such file.
            LedgerError: it is damaged.
            StorageError: it cannot be read.
        """
        start = self._starts[bisect_right(self._starts, part) - 1]
        first = start + (part - start) // PARTS_PER_FILE * PARTS_PER_FILE
        name = f"{self._folder}/{file_name(first)}"
        with self._lock:
            try:
                if self._opened is None or self._opened[0] != first:
                    self._opened = first, pq.ParquetFile(self._folder.open(file_name(first)))
                return self._opened[1].read_row_group(part - first)
            except FileNotFoundError:
                raise
            except (pa.ArrowException, OSError) as error:
                if is_damage(error):
                    raise LedgerError(f"{name} is damaged ({reason_of(error)}): score into a new folder") from error
                raise storage_error(f"{name} cannot be read: {reason_of(error)}", error) from error


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
    first, *_, last = np.frombuffer(offsets, np.int32)[ended.offset : ended.offset + len(ended) + 1]
    return memoryview(characters)[first:last]


def refuse_twice(ids: pa.ChunkedArray) -> None:
    """Raises PoolError if an image id is there twice."""
    if pc.count_distinct(ids).as_py() < len(ids):
        counts = pc.value_counts(ids)
        twice = next(entry["values"].as_py() for entry in counts if entry["counts"].as_py() > 1)
        raise PoolError(f"image id {twice!r} is listed twice in the pool: give each image an id of its own")


def file_name(first_part: int) -> str:
    """Of the file of a manifest that begins with this part."""
    return f"manifest-{first_part:06d}.parquet" if first_part else MANIFEST_FILE


def file_names(start: int, num_parts: int) -> list[str]:
    """Of all files of one listing of a pool."""
    return [file_name(start + first) for first in range(0, num_parts, PARTS_PER_FILE)]


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
