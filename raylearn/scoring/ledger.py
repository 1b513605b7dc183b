"""The ledger: everything that one scoring pass found, one row per image, from which any query is arithmetic."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raylearn.detectors.base import Detections

ROWS_FILE = "ledger.parquet"
FACTS_FILE = "ledger.json"


def schema(num_classes: int) -> pa.Schema:
    """One row per image; boxes are xyxy pixels of the upright original."""
    return pa.schema(
        [
            ("image_id", pa.string()),
            ("uri", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("status", pa.string()),
            ("error", pa.string()),
            ("boxes", pa.list_(pa.list_(pa.float32(), 4))),
            ("class_scores", pa.list_(pa.list_(pa.float32(), num_classes))),
        ]
    )


def rows(
    images: Mapping[str, Sequence[Any] | np.ndarray], detections: Sequence[Detections], num_classes: int
) -> pa.Table:
    """Ledger rows from the columns before `boxes` and one Detections per image."""
    offsets = np.cumsum([0, *(len(found) for found in detections)]).astype(np.int32)
    empty = [np.empty((0, 4), np.float32)], [np.empty((0, num_classes), np.float32)]
    boxes = np.concatenate(empty[0] + [found.boxes for found in detections]).astype(np.float32)
    scores = np.concatenate(empty[1] + [found.class_scores for found in detections]).astype(np.float32)
    names = ("image_id", "uri", "width", "height", "status", "error")
    wanted = schema(num_classes)
    columns = [pa.array(list(images[name]), wanted.field(name).type) for name in names]
    columns += [_ragged(boxes, offsets), _ragged(scores, offsets)]
    return pa.table(columns, schema=wanted)


def _ragged(values: np.ndarray, offsets: np.ndarray) -> pa.Array:
    inner = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    return pa.ListArray.from_arrays(pa.array(offsets), inner)


@dataclass(frozen=True, eq=False)
class Ledger:
    """A ledger in memory, ordered by image id.

    Args:
        image_ids: (N,) str, the images that were scored; those whose bytes could not be read are in `errors`.
        offsets: (N + 1,) int64; image i owns detections offsets[i] to offsets[i + 1].
        boxes: (D, 4) float32 xyxy pixels.
        class_scores: (D, K) float32.
        errors: image id -> what was wrong with it.
        facts: what made it: checkpoint, settings, manifest, versions, counts.
    """

    image_ids: np.ndarray
    offsets: np.ndarray
    boxes: np.ndarray
    class_scores: np.ndarray
    errors: Mapping[str, str]
    facts: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Ledger":
        facts = json.loads((folder / FACTS_FILE).read_text())
        table = pq.read_table(folder / ROWS_FILE)
        failed = table.filter(pa.compute.equal(table["status"], "error"))
        table = table.filter(pa.compute.equal(table["status"], "ok")).combine_chunks()
        counts = pa.compute.list_value_length(table["boxes"]).to_numpy()
        return cls(
            image_ids=np.array(table["image_id"].to_pylist(), dtype=object),
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            boxes=_flat(table["boxes"], 4),
            class_scores=_flat(table["class_scores"], table.schema.field("class_scores").type.value_type.list_size),
            errors=dict(zip(failed["image_id"].to_pylist(), failed["error"].to_pylist(), strict=True)),
            facts=facts,
        )


def _flat(column: pa.ChunkedArray, width: int) -> np.ndarray:
    parts = [chunk.flatten().flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate([np.empty(0, np.float32), *parts]).reshape(-1, width)


def write_ledger(table: pa.Table, facts: Mapping[str, Any], folder: Path) -> None:
    """Writes a ledger; equal content gives equal bytes."""
    pq.write_table(table.sort_by("image_id").combine_chunks(), folder / ROWS_FILE)
    (folder / FACTS_FILE).write_text(json.dumps(facts, indent=1, sort_keys=True))
