"""The scoring pass: a manifest goes through Ray Data and comes out as a ledger."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raylearn.data.images import content_hash, decode, read_bytes
from raylearn.detectors import build_detector
from raylearn.detectors.base import Detections, DetectorSettings
from raylearn.detectors.letterbox import letterbox
from raylearn.errors import ImageError, RaylearnError
from raylearn.scoring import ledger
from raylearn.scoring.cluster import torch_device
from raylearn.scoring.manifest import Manifest


@dataclass(frozen=True)
class ScoringPlan:
    """One pass of one checkpoint over one manifest.

    Args:
        model: the detector's name.
        checkpoint: written by the detector's `fit`.
        num_classes: of the checkpoint.
        settings: what decides the detections.
        batch_size: images per call of the model; no influence on the result.
        num_actors: detector actors; no influence on the result.
        cpus_per_actor, gpus_per_actor: what one actor asks Ray for.
    """

    model: str
    checkpoint: Path
    num_classes: int
    settings: DetectorSettings
    batch_size: int = 32
    num_actors: int = 1
    cpus_per_actor: float = 1
    gpus_per_actor: float = 0


def read_images(batch: dict[str, np.ndarray], image_size: int) -> dict[str, np.ndarray]:
    """Ray Data function on CPU tasks: bytes to letterboxed squares; what cannot be read becomes an error row."""
    num_images = len(batch["uri"])
    squares = np.zeros((num_images, image_size, image_size, 3), dtype=np.uint8)
    sizes = np.zeros((num_images, 2), dtype=np.int32)
    errors = np.array([""] * num_images, dtype=object)
    for i, (uri, expected) in enumerate(zip(batch["uri"], batch["content_hash"], strict=True)):
        try:
            data = read_bytes(str(uri))
            if content_hash(data) != expected:
                raise ImageError(f"image {str(uri)!r} changed since the run began")
            image = decode(data)
        except ImageError as error:
            errors[i] = str(error)
            continue
        squares[i] = letterbox(image, image_size)
        sizes[i] = image.shape[1], image.shape[0]
    return {"image_id": batch["image_id"], "uri": batch["uri"], "error": errors, "size": sizes, "square": squares}


class ScoreImages:
    """Ray Data callable: one detector per actor, loaded once; squares to ledger rows."""

    def __init__(self, plan: ScoringPlan) -> None:
        self._num_classes = plan.num_classes
        self._detector = build_detector(
            plan.model,
            plan.settings,
            device=torch_device(plan.gpus_per_actor),
            num_threads=int(plan.cpus_per_actor) or 1,
        )
        self._detector.load(plan.checkpoint)

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        readable = np.flatnonzero(batch["error"] == "")
        found = [_no_detections(self._num_classes)] * len(batch["error"])
        if len(readable):
            predicted = self._detector.predict(batch["square"][readable], batch["size"][readable])
            for i, detections in zip(readable, predicted, strict=True):
                found[i] = detections
        columns: dict[str, Any] = {
            "image_id": batch["image_id"],
            "uri": batch["uri"],
            "width": batch["size"][:, 0],
            "height": batch["size"][:, 1],
            "status": ["error" if error else "ok" for error in batch["error"]],
            "error": batch["error"],
        }
        return ledger.rows(columns, found, self._num_classes)


def score_manifest(manifest: Manifest, plan: ScoringPlan, facts: Mapping[str, Any], folder: Path) -> dict[str, int]:
    """Scores every image of the manifest and writes the ledger into `folder`.

    Args:
        manifest: at least one image.
        plan: how.
        facts: written into ledger.json beside the settings and the counts.
        folder: exists, and is this pass's own.

    Returns:
        num_images, num_errors and num_detections.

    Raises:
        RaylearnError: Ray gave back other rows than it was given.
        DivergedError: the model gives NaN.
    """
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)

    rows_per_block = max(1, min(plan.batch_size, -(-len(manifest) // (2 * plan.num_actors))))
    blocks = [manifest.table.slice(start, rows_per_block) for start in range(0, len(manifest), rows_per_block)]
    scored = (
        ray.data.from_arrow([block.combine_chunks() for block in blocks])
        .map_batches(
            read_images,
            fn_kwargs={"image_size": plan.settings.image_size},
            batch_size=rows_per_block,
            num_cpus=1,
        )
        .map_batches(
            ScoreImages,
            fn_constructor_args=(plan,),
            batch_size=plan.batch_size,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=plan.num_actors),
            num_cpus=plan.cpus_per_actor,
            num_gpus=plan.gpus_per_actor,
        )
    )
    table = pa.concat_tables(scored.iter_batches(batch_size=None, batch_format="pyarrow"))
    if sorted(table["image_id"].to_pylist()) != manifest.table["image_id"].to_pylist():
        raise RaylearnError(f"the scoring pass gave {table.num_rows} rows for {len(manifest)} images: run it again")
    counts = {
        "num_images": table.num_rows,
        "num_errors": table["status"].to_pylist().count("error"),
        "num_detections": int(pa.compute.sum(pa.compute.list_value_length(table["boxes"])).as_py()),
    }
    made_by = {"model": plan.model, "settings": asdict(plan.settings), "manifest": manifest.hash, **counts}
    ledger.write_ledger(table, {**facts, **made_by}, folder)
    return counts


def _no_detections(num_classes: int) -> Detections:
    return Detections(np.empty((0, 4), np.float32), np.empty((0, num_classes), np.float32))
