"""What the score command can be asked for, and what of it decides the ledger."""

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylearn.data.s3 import CONNECTIONS
from raylearn.data.storage import local_path, reason_of
from raylearn.detectors import family_of, read_checkpoint
from raylearn.detectors.base import DetectorSettings, Engine
from raylearn.detectors.letterbox import CANVASES
from raylearn.errors import CheckpointError, DetectorError, QueryError, nearest
from raylearn.scoring.pass_record import Record

_IMAGE_SIZE = 640


_CHOICES = {
    "canvas": CANVASES,
    "decode": ("full", "reduced", "gpu"),
    "backend": ("auto", "torch", "openvino"),
    "precision": ("auto", "fp32", "fp16", "bf16"),
}
_MAY_BE_LEFT_OUT = (
    "image_size",
    "limit",
    "shuffle_seed",
    "batch_size",
    "num_actors",
    "max_actors",
    "gpus_per_actor",
    "part_size",
    "requests",
)
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("confidence", "iou"), (0, 1)),
    **dict.fromkeys(("shuffle_seed", "gpus_per_actor"), (0, math.inf)),
    **dict.fromkeys(("max_detections", "limit", "batch_size", "num_actors", "max_actors", "part_size"), (1, math.inf)),
    "image_size": (32, 8192),
    "requests": (1, CONNECTIONS),
}


@dataclass(frozen=True)
class ScoreRequest:
    """What the score command was asked for; None and "auto" leave the choice to it.

    Args:
        pool: see `list_pool`, with root, limit and shuffle_seed.
        checkpoint: of raylearn, or of a library whose detectors raylearn knows.
        image_size: by default what the checkpoint was trained at, or 640 where it does not say.
        confidence, iou, max_detections, canvas, decode, embeddings: see DetectorSettings.
        backend: "torch", "openvino" or "auto".
        precision: "fp32", "fp16", "bf16" or "auto".
        batch_size: images per call of the model.
        num_actors: detector actors; with `max_actors` the fewest.
        max_actors: they grow to so many, and shrink again, as the cluster has room.
        gpus_per_actor: GPUs of one; 0 scores on CPUs.
        part_size: images that are kept, or repeated after a crash, together.
        requests: objects that one actor asks a store for at once.
        update: list the pool of a pass that was begun again, and score what is new or changed.

    Raises:
        QueryError: a value that is out of its range.
    """

    pool: str
    checkpoint: Path
    image_size: int | None = None
    confidence: float = 0.05
    iou: float = 0.7
    max_detections: int = 100
    canvas: str = "square"
    decode: str = "full"
    embeddings: bool = False
    root: str | Path | None = None
    limit: int | None = None
    shuffle_seed: int | None = None
    backend: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    num_actors: int | None = None
    max_actors: int | None = None
    gpus_per_actor: float | None = None
    part_size: int | None = None
    requests: int | None = None
    update: bool = False

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise QueryError(f"unknown {name} {getattr(self, name)!r}: {nearest(str(getattr(self, name)), known)}")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            whole = name not in ("confidence", "iou", "gpus_per_actor")
            if value is None and name in _MAY_BE_LEFT_OUT:
                continue
            if not isinstance(value, int if whole else int | float) or not low <= value <= high:
                kind = "a whole number" if whole else "a number"
                raise QueryError(f"{name} {value!r} is not {kind} in the range {low:g} to {high:g}")
        for name in ("embeddings", "update"):
            if not isinstance(getattr(self, name), bool):
                raise QueryError(f"{name} {getattr(self, name)!r} is neither True nor False")
        if self.max_actors is not None and self.max_actors < (self.num_actors or 1):
            raise QueryError(f"max_actors {self.max_actors} is below num_actors {self.num_actors}")
        if self.image_size is not None and self.image_size % 32:
            raise QueryError(
                f"image_size {self.image_size} is not a multiple of 32: try {self.image_size // 32 * 32 + 32}"
            )


def decisive_facts(request: ScoreRequest) -> Record:
    """What decides the ledger, of what was asked for."""
    family, facts = family_of(request.checkpoint), read_checkpoint(request.checkpoint)
    try:
        with request.checkpoint.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"checkpoint {request.checkpoint} cannot be read: {reason_of(error)}") from error
    if request.backend not in ("auto", *family.backends):
        raise DetectorError(
            f"backend {request.backend} cannot run a checkpoint of the family {family.name}: use {family.backends[0]}"
        )
    if request.embeddings and not family.embeddings:
        raise DetectorError(f"detector family {family.name} gives no embeddings: score without them")
    if request.decode == "gpu" and not family.device_canvases:
        raise DetectorError(f"decode gpu cannot be used with detectors of the family {family.name}: use decode full")
    if request.embeddings and request.precision != "auto":
        Engine(request.backend, request.precision).refuse_embeddings()
    size = image_size_of(request)
    settings = DetectorSettings(
        image_size=size,
        confidence=request.confidence,
        iou=request.iou,
        max_detections=request.max_detections,
        canvas=request.canvas,
        decode=request.decode,
        embeddings=request.embeddings,
    )
    return {
        "checkpoint": digest,
        "model": facts.model,
        **family.facts(facts.model),
        "class_names": list(facts.class_names),
        "settings": settings.facts,
        "engine": {"backend": request.backend, "precision": request.precision},
    }


def image_size_of(request: ScoreRequest) -> int:
    """The side in pixels that a request's images are scaled to.

    Raises:
        CheckpointError: the checkpoint cannot be opened, or was trained at a size that cannot be used.
    """
    size = request.image_size or read_checkpoint(request.checkpoint).image_size or _IMAGE_SIZE
    if size % 32 or not 32 <= size <= 8192:
        raise CheckpointError(
            f"{request.checkpoint} was trained at {size} pixels, which cannot be used: give image_size"
        )
    return size


def source_of(request: ScoreRequest) -> dict[str, Any]:
    """Which pool a request names, and what of it."""
    path = local_path(request.pool)
    return {
        "pool": request.pool if path is None else os.path.realpath(path),
        "root": None if request.root is None else os.path.realpath(request.root),
        "limit": request.limit,
        "shuffle_seed": request.shuffle_seed,
    }
