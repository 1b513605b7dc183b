"""The frozen list of images that a scoring pass goes over, cut into parts."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raylearn.data.dataset import Image
from raylearn.data.storage import is_damage, reason_of, storage_error
from raylearn.errors import LedgerError, PoolError

MANIFEST_FILE = "manifest.parquet"
MAX_PART_SIZE = 2048
_GRAIN = 64  # parts are multiples of it, so that batches of any usual size come out full
_SCHEMA = pa.schema([(name, pa.string()) for name in ("image_id", "uri", "content_hash", "version")])


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
            PoolError: an image id stands twice.
        """
        table = pa.table([_strings(column) for column in columns], schema=_SCHEMA)
        ids = table["image_id"]
        if pc.count_distinct(ids).as_py() < len(ids):
            counts = pc.value_counts(ids)
            twice = next(entry["values"].as_py() for entry in counts if entry["counts"].as_py() > 1)
            raise PoolError(f"image id {twice!r} stands twice in the pool: give each image an id of its own")
        return cls(table, part_size or default_part_size(table.num_rows))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def num_parts(self) -> int:
        return -(-len(self) // self.part_size)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over ids and contents, or versions where contents are not known; where the files lie does not count.

        Order counts: it decides the parts.
        """
        digest = hashlib.sha256()
        for name in ("image_id", "content_hash", "version"):
            for batch in self.table[name].chunks:
                for value in batch.to_pylist():
                    digest.update(value.encode() + b"\0")
            digest.update(b"\1")
        return digest.hexdigest()

    def to_buffer(self) -> pa.Buffer:
        """The manifest as a Parquet file with one row group per part."""
        sink = pa.BufferOutputStream()
        pq.write_table(self.table, sink, row_group_size=self.part_size, compression="zstd", use_dictionary=False)
        return sink.getvalue()

    @classmethod
    def from_file(cls, file: Any, part_size: int) -> "Manifest":
        """Reads what `to_buffer` wrote."""
        return cls(read_manifest_file(file).read(), part_size)


def default_part_size(num_images: int) -> int:
    """Images per part: some sixty parts of a small pool, and never so many images that their repetition would hurt."""
    return min(MAX_PART_SIZE, _GRAIN * max(1, -(-num_images // (64 * _GRAIN))))


def known_size(version: str) -> int | None:
    """Bytes of an image by its version in a manifest; None where that does not say."""
    size = version.partition("-")[0]
    return int(size) if size.isdecimal() else None


def read_manifest_file(file: Any) -> pq.ParquetFile:
    """Opens a manifest to read it part by part.

    Raises:
        LedgerError: it is damaged.
        StorageError: it cannot be read.
    """
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        if is_damage(error):
            raise LedgerError(f"{MANIFEST_FILE} is damaged ({reason_of(error)}): score into a new folder") from error
        raise storage_error(f"{MANIFEST_FILE} cannot be read: {reason_of(error)}", error) from error


def describe_difference(before: Manifest, now: Manifest) -> str:
    """What makes two manifests differ, in words, with the first example."""
    old, new = _by_id(before), _by_id(now)
    changes = {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "changed": [name for name in new if name in old and new[name] != old[name]],
    }
    told = [f"{len(names)} {what} (the first {names[0]!r})" for what, names in changes.items() if names]
    return ", ".join(told) or "the order of its images"


def _by_id(manifest: Manifest) -> dict[str, tuple[str, str]]:
    columns = (manifest.table[name].to_pylist() for name in ("image_id", "content_hash", "version"))
    return {image_id: (content, version) for image_id, content, version in zip(*columns, strict=True)}


def _strings(column: Any) -> Any:
    return column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column, pa.string())
