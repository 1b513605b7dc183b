"""The frozen list of images that a scoring pass goes over."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from raylearn.data.dataset import Image

_SCHEMA = pa.schema([("image_id", pa.string()), ("uri", pa.string()), ("content_hash", pa.string())])


@dataclass(frozen=True)
class Manifest:
    """Images by id, sorted; the order they were given in has no influence.

    Args:
        table: columns image_id, uri, content_hash.
    """

    table: pa.Table

    @classmethod
    def of(cls, images: Iterable[Image]) -> "Manifest":
        rows = sorted((image.image_id, image.uri, image.content_hash) for image in images)
        columns = list(zip(*rows, strict=True)) or [(), (), ()]
        return cls(pa.table([pa.array(column, pa.string()) for column in columns], schema=_SCHEMA))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over ids and contents; where the files lie does not count."""
        digest = hashlib.sha256()
        for name in ("image_id", "content_hash"):
            for value in self.table[name].to_pylist():
                digest.update(value.encode() + b"\0")
        return digest.hexdigest()
