"""The score command: a pool becomes a ledger, however often it is interrupted."""

import hashlib
import math
import os
import time
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from raylearn.cluster.devices import torch_device
from raylearn.cluster.machines import Machine, look_at_machines, this_machine
from raylearn.cluster.resources import cpus_for_each, num_gpus
from raylearn.cluster.session import ray_session
from raylearn.data.endings import by_ending
from raylearn.data.lock import held
from raylearn.data.s3 import CONNECTIONS
from raylearn.data.storage import Folder, reason_of, redacted
from raylearn.detectors import family_of, read_checkpoint
from raylearn.detectors.base import CHECKPOINT_FILE, DetectorSettings, Engine
from raylearn.detectors.letterbox import CANVASES
from raylearn.errors import (
    CheckpointError,
    ClusterError,
    DetectorError,
    LedgerError,
    QueryError,
    RaylearnError,
    RunFolderError,
    nearest,
)
from raylearn.progress import doing, steps
from raylearn.scoring import ledger
from raylearn.scoring.fetching import REQUESTS
from raylearn.scoring.ledger import PartCounts
from raylearn.scoring.listing import list_pool
from raylearn.scoring.manifest import MANIFEST_FILE, Manifest
from raylearn.scoring.pass_record import (
    Record,
    add_record,
    another_pass,
    first_difference,
    key_of,
    read_record,
    refuse_another,
)
from raylearn.scoring.pipeline import ScoringPlan, default_batch_size, finish, score_parts
from raylearn.scoring.progress import ScoringProgress, say
from raylearn.strategies.meaning import doubt_of_pool
from raylearn.wording import counted

LARGE_POOL = 2000  # images from which on OpenVINO's conversion, some seconds per actor, is won back
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
    "gpus_per_actor",
    "part_size",
    "requests",
)
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("confidence", "iou"), (0, 1)),
    **dict.fromkeys(("shuffle_seed", "gpus_per_actor"), (0, math.inf)),
    **dict.fromkeys(("max_detections", "limit", "batch_size", "num_actors", "part_size"), (1, math.inf)),
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
        num_actors: detector actors.
        gpus_per_actor: GPUs of one; 0 scores on CPUs.
        part_size: images that are kept, or repeated after a crash, together.
        requests: objects that one actor asks a store for at once.

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
    gpus_per_actor: float | None = None
    part_size: int | None = None
    requests: int | None = None

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
        if not isinstance(self.embeddings, bool):
            raise QueryError(f"embeddings {self.embeddings!r} is neither True nor False")
        if self.image_size is not None and self.image_size % 32:
            raise QueryError(
                f"image_size {self.image_size} is not a multiple of 32: try {self.image_size // 32 * 32 + 32}"
            )


def score_pool(request: ScoreRequest, out: str, *, address: str | None, console: Console) -> PartCounts:
    """Scores a pool into the ledger in `out`; parts that are there already are kept.

    Raises:
        InputError: the pool, the checkpoint or a setting is wrong, or `out` holds another pass or is in use.
        RaylearnError: a worker met an error, or no image could be read; the same call goes on after it.
    """
    began, tell = time.monotonic(), partial(say, console)
    if not out:
        raise RunFolderError("--out is empty: name the folder or address of the ledger")
    with doing("reading the checkpoint"):
        asked = _asked(request)
    folder = Folder.at(out)
    with held(folder):
        folder.clear_unfinished()
        there = read_record(folder)
        manifest = _list(request, there, console)
        asked |= {"manifest": manifest.hash, "num_images": len(manifest), "part_size": manifest.part_size}
        if there is not None:
            refuse_another(folder, there, asked, manifest)
            if ledger.FACTS_FILE in folder.sizes():
                counts = _counts_there(folder, there)
                say(console, f"finished already: {_describe(counts)}\nledger: {folder}")
                _tell_doubt(counts, console)
                return counts
        address = address or os.environ.get("RAY_ADDRESS")
        here = address is None and _needs_no_ray(request, manifest, folder)
        with nullcontext() if here else ray_session(address):
            family = family_of(request.checkpoint).name
            with doing("asking what the machines have"):
                # a private Ray without GPUs has what this process has, and no worker is to start to say so
                same = here or (address is None and not request.gpus_per_actor and not num_gpus())
                machine = this_machine(family) if same else look_at_machines(request.gpus_per_actor, family, tell)
            plan = replace(_choose(request, there or asked, machine, folder), here=here)
            record = _begun(folder, there, asked, plan, machine)
            # Also when going on: a start may have been cut short after the plan, and a pool of the same files moved.
            folder.replace(MANIFEST_FILE, bytes(manifest.to_buffer()))
            _add_checkpoint(folder, request.checkpoint, record["checkpoint"])
            counts = _score_missing(folder, manifest, plan, key_of(record), console, began)
        _refuse_if_none_was_there(folder, counts)
        finish(folder, manifest, counts, {**record, "key": key_of(record), "num_parts": manifest.num_parts})
    say(console, f"{_describe(counts)}\nledger: {folder}")
    _tell_doubt(counts, console)
    return counts


def _asked(request: ScoreRequest) -> Record:
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


def _list(request: ScoreRequest, there: Record | None, console: Console) -> Manifest:
    with doing(f"listing {redacted(request.pool)}"):
        manifest, left_out = list_pool(
            request.pool,
            root=Path(request.root) if request.root is not None else None,
            limit=request.limit,
            shuffle_seed=request.shuffle_seed,
            part_size=request.part_size or (there["part_size"] if there else None),
            progress=partial(steps, "image"),
            tell=lambda note: say(console, f"note: {note}"),
        )
    others = f", {left_out.total()} other or hidden files left out ({by_ending(left_out)})" if left_out else ""
    say(console, f"{redacted(request.pool)}: {counted(len(manifest), 'image')}{others}")
    return manifest


def _needs_no_ray(request: ScoreRequest, manifest: Manifest, folder: Folder) -> bool:
    """Whether only one part is missing, which one CPU of this machine is to score.

    This process then has done so before a private Ray, its workers and their torch would have started.
    """
    missing = manifest.num_parts - len(ledger.finished_parts(folder))
    if missing > 1 or request.gpus_per_actor:
        return False
    return request.gpus_per_actor == 0 or torch_device(1) == "cpu"


def _choose(request: ScoreRequest, record: Record, machine: Machine, folder: Folder) -> ScoringPlan:
    """Fills in what was left open; a pass that was begun goes on with the engine that it was begun with."""
    gpus, settings = machine.gpus_per_actor, DetectorSettings(**record["settings"])
    backend, precision = record["engine"]["backend"], record["engine"]["precision"]
    if backend == "auto":
        large = record["num_images"] >= LARGE_POOL
        fits = not settings.embeddings or precision in ("auto", "fp32")
        backend = "openvino" if machine.has_openvino and not gpus and large and fits else "torch"
    if precision == "auto":
        precision = "fp16" if machine.has_cuda else "fp32"
    if backend == "openvino" and not machine.has_openvino:
        raise ClusterError('backend openvino is not installed on the workers: pip install "raylearn[openvino]"')
    if (backend, precision) == ("torch", "fp16") and not machine.has_cuda:
        begun = f"{folder} was begun in fp16, which" if request.precision == "auto" else "--precision fp16"
        raise ClusterError(
            f"{begun} needs a GPU, and Ray has none that torch can use: go on where there is one, or score in fp32 "
            "into another folder with --out"
        )
    if settings.decode == "gpu" and not machine.has_cuda:
        raise ClusterError(
            "--decode gpu needs actors with a GPU that torch can use: leave --gpus-per-actor 0 out, or score into "
            "another folder with --decode full"
        )
    num_actors = request.num_actors or machine.num_actors
    return ScoringPlan(
        checkpoint=folder.address_of(CHECKPOINT_FILE),
        settings=settings,
        engine=Engine(backend, precision),
        batch_size=request.batch_size or default_batch_size(machine.has_cuda),
        num_actors=num_actors,
        # beside a GPU no CPU is reserved, so that nothing on its node can keep an actor from starting
        cpus_per_actor=0.0 if gpus else cpus_for_each(num_actors, machine.node_cpus),
        gpus_per_actor=gpus,
        needs_cuda=machine.has_cuda,
        requests=request.requests or REQUESTS,
        versions={name: v for name, v in machine.versions.items() if name != "openvino" or backend == "openvino"},
    )


def _begun(folder: Folder, there: Record | None, asked: Record, plan: ScoringPlan, machine: Machine) -> Record:
    """The record of the pass, which is begun here if it was not before.

    Raises:
        LedgerError: it was begun with other versions of what decides the detections.
    """
    if there is None:
        record = {**asked, "engine": asdict(plan.engine), "versions": dict(plan.versions), "device": machine.device}
        add_record(folder, record)
        return record
    difference = first_difference(there["versions"], plan.versions, "versions.")
    if difference:
        raise another_pass(folder, difference)
    return there


def _add_checkpoint(folder: Folder, checkpoint: Path, digest: str) -> None:
    """Puts the checkpoint where every worker reads it; CheckpointError if it is not what the plan was made with."""
    try:
        content = checkpoint.read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint {checkpoint} cannot be read: {reason_of(error)}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise CheckpointError(
            f"checkpoint {checkpoint} changed while the pool was listed: start again when it is final"
        )
    folder.add(CHECKPOINT_FILE, content)


def _score_missing(
    folder: Folder, manifest: Manifest, plan: ScoringPlan, key: str, console: Console, began: float
) -> PartCounts:
    done = ledger.finished_parts(folder)
    counts = ledger.read_all_counts(folder, done, key)
    missing = sorted(set(range(manifest.num_parts)).difference(done))
    kept = f", {len(done)} of {manifest.num_parts} parts are there already" if done else ""
    say(console, f"scoring with {_describe_plan(plan)}{kept}")
    if missing:
        with (
            doing("loading the detector, scoring the first images") as activity,
            closing(score_parts(missing, plan, folder, key)) as finished,
        ):
            progress = ScoringProgress(console, activity, len(manifest), counts, began, plan.batch_size)
            for part in finished:
                counts += part.counts
                progress.tell(part, counts)
        say(console, progress.rate())
    return counts


def _refuse_if_none_was_there(folder: Folder, counts: PartCounts) -> None:
    """A pool of which nothing can be opened is a wrong path or a lost mount, and no result: its parts are removed."""
    if counts.num_errors == counts.num_images and counts.errors.keys() <= {"missing", "unreadable"}:
        first = ledger.open_part(folder, 0).read(["error"])["error"][0].as_py()
        for part in ledger.finished_parts(folder):
            folder.remove(ledger.part_name(part))
        raise RaylearnError(
            f"none of {counts.num_images:,} images could be opened, the first: {first}; once they can be, the same "
            "command scores them, or another --out if they are other files by then"
        )


def _counts_there(folder: Folder, there: Record) -> PartCounts:
    wanted, parts = ledger.read_facts(folder)["num_parts"], ledger.finished_parts(folder)
    if len(parts) != wanted:
        raise LedgerError(
            f"{folder} was finished with {wanted} parts and has {len(parts)}: "
            f"remove its {ledger.FACTS_FILE} to score the missing ones again"
        )
    return ledger.read_all_counts(folder, parts, key_of(there))


def _tell_doubt(counts: PartCounts, console: Console) -> None:
    readable = counts.num_images - counts.num_errors
    doubt = doubt_of_pool(counts.num_without_detections or 0, readable, "--confidence")
    if doubt:
        say(console, f"warning: {doubt}")


def _describe(counts: PartCounts) -> str:
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in counts.errors.items())
    errors = f"{counted(counts.num_errors, 'error')} ({kinds})" if counts.num_errors else "no errors"
    return f"{counted(counts.num_images, 'image')}, {errors}, {counted(counts.num_detections, 'detection')}"


def _describe_plan(plan: ScoringPlan) -> str:
    each = f"{plan.gpus_per_actor:g} GPUs" if plan.gpus_per_actor else f"{plan.cpus_per_actor:g} CPUs"
    where = f"this process with {each}" if plan.here else f"{plan.num_actors} actors of {each}"
    return f"{plan.engine.backend} in {plan.engine.precision}, batches of {plan.batch_size}, {where}"
