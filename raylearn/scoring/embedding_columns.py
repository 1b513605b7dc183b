"""The columns of a ledger that keep embeddings."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from raylearn.detectors.base import BOX_EMBEDDING, IMAGE_EMBEDDING, Detections
from raylearn.errors import DetectorError

_HALF = np.dtype("<f2")
# As bytes: columns of numbers take Parquet ten to twenty times as long to write and to read.
FIELDS = (
    pa.field("box_embeddings", pa.list_(pa.binary(BOX_EMBEDDING * _HALF.itemsize))),
    pa.field("image_embedding", pa.binary(IMAGE_EMBEDDING * _HALF.itemsize)),
)
"""An embedding is the bytes of its little-endian float16 numbers; zeros for an image with an error."""
NAMES = tuple(field.name for field in FIELDS)
IMAGE_COLUMN = NAMES[1]


def embedding_columns(
    detections: Sequence[Detections], status: Sequence[str] | np.ndarray, offsets: np.ndarray
) -> list[pa.Array]:
    """The columns of N images.

    Args:
        detections: of each image.
        status: of each image; one that is not "ok" needs no embeddings.
        offsets: (N + 1,) int32; image i owns boxes offsets[i] to offsets[i + 1].

    Raises:
        DetectorError: the detector gave no embeddings.
    """
    of_boxes = [np.empty((0, BOX_EMBEDDING), _HALF)]
    of_images = np.zeros((len(detections), IMAGE_EMBEDDING), _HALF)
    for position, found in enumerate(detections):
        if found.box_embeddings is not None and found.image_embedding is not None:
            of_boxes.append(found.box_embeddings)
            of_images[position] = found.image_embedding
        elif status[position] == "ok":
            raise DetectorError(
                "the detector gave no embeddings, though its family says that it does: score without them"
            )
    return [pa.ListArray.from_arrays(pa.array(offsets), _as_bytes(np.concatenate(of_boxes))), _as_bytes(of_images)]


def embeddings_of(table: pa.Table) -> dict[str, np.ndarray]:
    """`box_embeddings`, (D, E) float16, and `image_embeddings`, (N, F), of N rows; nothing where they were not read."""
    if not set(NAMES).issubset(table.column_names):
        return {}
    of_boxes = [chunk.flatten() for chunk in table[NAMES[0]].chunks]
    return {
        "box_embeddings": _from_bytes(of_boxes, BOX_EMBEDDING),
        "image_embeddings": image_embeddings_of(table[IMAGE_COLUMN]),
    }


def image_embeddings_of(column: pa.ChunkedArray) -> np.ndarray:
    """(N, F) float16: the column IMAGE_COLUMN of N rows."""
    return _from_bytes(column.chunks, IMAGE_EMBEDDING)


def _as_bytes(embeddings: np.ndarray) -> pa.FixedSizeBinaryArray:
    values = np.ascontiguousarray(embeddings, _HALF)
    kind = pa.binary(values.shape[1] * _HALF.itemsize)
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def _from_bytes(chunks: Sequence[pa.FixedSizeBinaryArray], numbers: int) -> np.ndarray:
    width = numbers * _HALF.itemsize
    parts = [
        np.frombuffer(chunk.buffers()[1], _HALF, len(chunk) * numbers, chunk.offset * width)
        for chunk in chunks
        if len(chunk)
    ]
    return np.concatenate([np.empty(0, _HALF), *parts]).reshape(-1, numbers)
