"""The score command: a pool becomes a ledger, however often it is interrupted."""

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from raylearn.data.storage import Folder, reason_of, redacted
from raylearn.detectors import read_checkpoint
from raylearn.detectors.base import DetectorSettings, Engine
from raylearn.errors import CheckpointError, ClusterError, LedgerError, RunFolderError
from raylearn.scoring import ledger
from raylearn.scoring.cluster import Machine, look_at_machines, ray_session
from raylearn.scoring.ledger import NOTHING, PartCounts
from raylearn.scoring.listing import list_pool
from raylearn.scoring.lock import held
from raylearn.scoring.manifest import MANIFEST_FILE, Manifest, describe_difference
from raylearn.scoring.pipeline import Part, ScoringPlan, default_batch_size, finish, score_parts

PLAN_FILE = "plan.json"
CHECKPOINT_FILE = "checkpoint.pt"
LARGE_POOL = 2000  # images from which on OpenVINO's conversion, some seconds per actor, is won back
_IMAGE_SIZE = 640
_LINE_SECONDS = 15.0  # between two lines of progress where no terminal is


@dataclass(frozen=True)
class ScoreRequest:
    """What the score command was asked for; None and "auto" leave the choice to it.

    Args:
        pool: see `list_pool`, with root, limit and shuffle_seed.
        checkpoint: of raylearn or Ultralytics.
        image_size: by default what the checkpoint was trained at, or 640 where it does not say.
        confidence, iou, max_detections, canvas, decode: see DetectorSettings.
        backend: "torch", "openvino" or "auto".
        precision: "fp32", "fp16", "bf16" or "auto".
        batch_size: images per call of the model.
        num_actors: detector actors.
        gpus_per_actor: GPUs of one; 0 scores on CPUs.
        part_size: images that are kept, or repeated after a crash, together.
    """

    pool: str
    checkpoint: Path
    image_size: int | None = None
    confidence: float = 0.05
    iou: float = 0.7
    max_detections: int = 100
    canvas: str = "square"
    decode: str = "full"
    root: Path | None = None
    limit: int | None = None
    shuffle_seed: int | None = None
    backend: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    num_actors: int | None = None
    gpus_per_actor: float | None = None
    part_size: int | None = None


def score_pool(request: ScoreRequest, out: str, *, address: str | None, console: Console) -> PartCounts:
    """Scores a pool into the ledger in `out`; parts that are there already are kept.

    Raises:
        InputError: the pool, the checkpoint or a setting is wrong, or `out` holds another pass or is in use.
        RaylearnError: a worker met an error; the same call goes on after it.
    """
    began = time.monotonic()
    if not out:
        raise RunFolderError("--out is empty: name the folder or address of the ledger")
    record = _asked(request)
    folder = Folder.at(out)
    with held(folder):
        folder.clear_unfinished()
        with _listing_shown(console) as found:
            manifest, num_other = list_pool(
                request.pool,
                root=request.root,
                limit=request.limit,
                shuffle_seed=request.shuffle_seed,
                part_size=request.part_size or _part_size_there(folder),
                progress=found,
            )
        others = f", {num_other} other or hidden files left out" if num_other else ""
        _say(console, f"{redacted(request.pool)}: {len(manifest):,} images{others}")
        record |= {"manifest": manifest.hash, "num_images": len(manifest), "part_size": manifest.part_size}
        there = _read_plan(folder)
        if there is not None:
            _refuse_another(folder, there, record, manifest)
            if ledger.FACTS_FILE in folder.sizes():
                counts = _counts_there(folder, there)
                _say(console, f"finished already: {_describe(counts)}\nledger: {folder}")
                return counts
        with ray_session(address or os.environ.get("RAY_ADDRESS")):
            machine = look_at_machines(request.gpus_per_actor)
            plan = _choose(request, there or record, machine, folder)
            if there is None:
                there = record | {"engine": asdict(plan.engine), "versions": dict(machine.versions)}
                folder.add(PLAN_FILE, json.dumps(there, indent=1, sort_keys=True).encode())
            elif dict(machine.versions) != there["versions"]:
                raise _another(folder, _first_difference(there["versions"], machine.versions, "versions."))
            # Also when going on: a start may have been cut short after the plan, and a pool of the same files moved.
            folder.replace(MANIFEST_FILE, bytes(manifest.to_buffer()))
            _add_checkpoint(folder, request.checkpoint, there["checkpoint"])
            key = _key(there)
            done, counts = _finished(folder, key)
            missing = [part for part in range(manifest.num_parts) if part not in done]
            kept = f", {len(done)} of {manifest.num_parts} parts are there already" if done else ""
            _say(console, f"scoring with {_describe_plan(plan)}{kept}")
            if missing:
                progress = _Progress(console, len(manifest), counts, began)
                with progress:
                    for part in score_parts(missing, plan, folder, key):
                        counts += part.counts
                        progress.tell(part, counts)
                _say(console, progress.rate())
        finish(folder, manifest, counts, {**there, "key": key, "num_parts": manifest.num_parts})
    _say(console, f"{_describe(counts)}\nledger: {folder}")
    return counts


def _asked(request: ScoreRequest) -> dict[str, Any]:
    """What decides the ledger, of what was asked for."""
    try:
        with request.checkpoint.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"checkpoint {request.checkpoint} cannot be read: {reason_of(error)}") from error
    facts = read_checkpoint(request.checkpoint)
    settings = DetectorSettings(
        image_size=request.image_size or facts.image_size or _IMAGE_SIZE,
        confidence=request.confidence,
        iou=request.iou,
        max_detections=request.max_detections,
        canvas=request.canvas,
        decode=request.decode,
    )
    return {
        "checkpoint": digest,
        "model": facts.model,
        "class_names": list(facts.class_names),
        "settings": asdict(settings),
        "engine": {"backend": request.backend, "precision": request.precision},
    }


def _add_checkpoint(folder: Folder, checkpoint: Path, digest: str) -> None:
    """Puts the checkpoint where every worker reads it; CheckpointError if it is not what the plan was made with."""
    content = checkpoint.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise CheckpointError(
            f"checkpoint {checkpoint} changed while the pool was listed: start again when it is final"
        )
    folder.add(CHECKPOINT_FILE, content)


def _choose(request: ScoreRequest, record: Mapping[str, Any], machine: Machine, folder: Folder) -> ScoringPlan:
    """Fills in what was left open; a pass that was begun goes on with the engine that it was begun with."""
    gpus = machine.gpus_per_actor
    backend, precision = record["engine"]["backend"], record["engine"]["precision"]
    if backend == "auto":
        large = record["num_images"] >= LARGE_POOL
        backend = "openvino" if machine.has_openvino and not gpus and large else "torch"
    if precision == "auto":
        precision = "fp16" if gpus else "fp32"
    if backend == "openvino" and not machine.has_openvino:
        raise ClusterError('backend openvino is not installed on the workers: pip install "raylearn[openvino]"')
    if request.num_actors is None:
        num_actors = max(1, int(machine.num_gpus / gpus)) if gpus else machine.num_cpus
    else:
        num_actors = request.num_actors
    cpus = 0.0  # beside a GPU none is reserved, so that nothing on its node can keep it from starting
    if not gpus:  # all CPUs are shared out, in whole ones where there are enough
        share = machine.num_cpus / num_actors
        cpus = float(math.floor(share)) if share >= 1 else math.floor(100 * share) / 100
    return ScoringPlan(
        checkpoint=folder.address_of(CHECKPOINT_FILE),
        settings=DetectorSettings(**record["settings"]),
        engine=Engine(backend, precision),
        batch_size=request.batch_size or default_batch_size(gpus),
        num_actors=num_actors,
        cpus_per_actor=cpus,
        gpus_per_actor=gpus,
    )


def _read_plan(folder: Folder) -> dict[str, Any] | None:
    text = folder.read(PLAN_FILE)
    if text is None:
        # The plan is what a pass writes first, so without it these are of something else.
        foreign = [name for name in (MANIFEST_FILE, CHECKPOINT_FILE) if name in folder.sizes()]
        if foreign or ledger.finished_parts(folder):
            what = foreign[0] if foreign else "parts of a ledger"
            raise LedgerError(f"{folder} holds {what}, but no {PLAN_FILE}: give another folder with --out")
        return None
    try:
        return dict(json.loads(text))
    except ValueError as error:
        raise LedgerError(f"{folder}/{PLAN_FILE} is damaged: give another folder with --out") from error


def _part_size_there(folder: Folder) -> int | None:
    plan = folder.read(PLAN_FILE)
    try:
        return int(json.loads(plan)["part_size"]) if plan else None
    except (ValueError, KeyError, TypeError):
        return None


def _refuse_another(folder: Folder, there: Mapping[str, Any], asked: Mapping[str, Any], manifest: Manifest) -> None:
    if there["manifest"] != asked["manifest"]:
        try:
            before = Manifest.from_file(folder.open(MANIFEST_FILE), there["part_size"])
        except FileNotFoundError as error:
            raise LedgerError(f"{folder} has lost its {MANIFEST_FILE}: give another folder with --out") from error
        raise LedgerError(
            f"the pool is not what {folder} was begun with: {describe_difference(before, manifest)}; "
            "give another folder with --out, or the pool as it was"
        )
    open_choice = {name: value for name, value in asked["engine"].items() if value == "auto"}
    asked = {**asked, "engine": {**asked["engine"], **{name: there["engine"][name] for name in open_choice}}}
    difference = _first_difference({name: there[name] for name in asked}, asked)
    if difference:
        raise _another(folder, difference)


def _another(folder: Folder, difference: str | None) -> LedgerError:
    return LedgerError(
        f"{folder} holds a scoring pass with {difference}: give another folder with --out, or the same settings"
    )


def _first_difference(there: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> str | None:
    for name in sorted(there.keys() | asked.keys()):
        before, now = there.get(name), asked.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            inner = _first_difference(before, now, f"{prefix}{name}.")
            if inner:
                return inner
        elif before != now:
            return f"{prefix}{name}={before}, not {now}"
    return None


def _key(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _finished(folder: Folder, key: str) -> tuple[set[int], PartCounts]:
    parts = ledger.finished_parts(folder)
    return set(parts), sum((ledger.read_counts(folder, part, key) for part in parts), NOTHING)


def _counts_there(folder: Folder, there: Mapping[str, Any]) -> PartCounts:
    facts = ledger.read_facts(folder)
    parts, counts = _finished(folder, _key(there))
    if len(parts) != facts["num_parts"]:
        raise LedgerError(
            f"{folder} was finished with {facts['num_parts']} parts and has {len(parts)}: "
            f"remove its {ledger.FACTS_FILE} to score the missing ones again"
        )
    return counts


def _describe(counts: PartCounts) -> str:
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in counts.errors.items())
    errors = f"{counts.num_errors:,} errors ({kinds})" if counts.num_errors else "no errors"
    return f"{counts.num_images:,} images, {errors}, {counts.num_detections:,} detections"


def _describe_plan(plan: ScoringPlan) -> str:
    each = f"{plan.gpus_per_actor:g} GPUs" if plan.gpus_per_actor else f"{plan.cpus_per_actor:g} CPUs"
    where = f"{plan.num_actors} actors of {each}"
    return f"{plan.engine.backend} in {plan.engine.precision}, batches of {plan.batch_size}, {where}"


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _listing_shown(console: Console) -> Iterator[Any]:
    last = time.monotonic()

    def found(count: int) -> None:
        nonlocal last
        if time.monotonic() - last >= (1 if console.is_terminal else _LINE_SECONDS):
            last = time.monotonic()
            _say(console, f"listing: {count:,} images so far")

    yield found


class _Progress:
    """A bar on a terminal, a line now and then elsewhere; rates count from the first image, not from Ray's start."""

    def __init__(self, console: Console, num_images: int, before: PartCounts, began: float) -> None:
        self._console, self._num_images, self._before = console, num_images, before
        self._began = began
        self._first, self._last = float("inf"), float("-inf")  # seconds since the epoch, by the actors' clocks
        self._done = before
        self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,}/{task.total:,} images"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=num_images, completed=before.num_images)

    def __enter__(self) -> "_Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tell(self, part: Part, counts: PartCounts) -> None:
        now = time.monotonic()
        self._first, self._last = min(self._first, part.started), max(self._last, part.finished)
        self._done = counts
        speed = self._speed()
        left = (self._num_images - counts.num_images) / speed if speed else 0
        told = f"{speed:.1f} img/s, {_minutes(left)} left"
        if counts.num_errors:
            told += f", {counts.num_errors:,} errors"
        self._bar.update(self._task, completed=counts.num_images, description=told)
        if not self._console.is_terminal and now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            _say(self._console, f"scored {counts.num_images:,} of {self._num_images:,} images: {told}")

    def rate(self) -> str:
        scored = self._done.num_images - self._before.num_images
        seconds = self._last - self._first
        other = time.monotonic() - self._began - seconds
        return f"scored {scored:,} images in {seconds:.1f} s: {self._speed():.1f} img/s; all else took {other:.1f} s"

    def _speed(self) -> float:
        """Images per second from the first image on, without the start of Ray and of the detectors."""
        return (self._done.num_images - self._before.num_images) / max(1e-9, self._last - self._first)


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
