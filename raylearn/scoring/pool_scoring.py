"""The score command: a pool becomes a ledger, however often it is interrupted."""

import hashlib
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from raylearn.cluster.devices import torch_device
from raylearn.cluster.machines import Machine, look_at_machines, this_machine
from raylearn.cluster.resources import cpus_for_each, num_gpus
from raylearn.cluster.session import ray_session
from raylearn.data.lock import held
from raylearn.data.storage import Folder, reason_of
from raylearn.detectors import family_of
from raylearn.detectors.base import CHECKPOINT_FILE, DetectorSettings, Engine
from raylearn.errors import CheckpointError, ClusterError, LedgerError, RaylearnError, RunFolderError
from raylearn.progress import doing
from raylearn.scoring import ledger
from raylearn.scoring.fetching import REQUESTS
from raylearn.scoring.freezing import put_aside
from raylearn.scoring.ledger import PartCounts
from raylearn.scoring.listed_pool import first_listing, listing_of
from raylearn.scoring.pass_record import (
    Record,
    add_record,
    another_pass,
    first_difference,
    key_of,
    read_record,
    refuse_another,
)
from raylearn.scoring.pipeline import finish, score_parts
from raylearn.scoring.plan import ScoringPlan, default_batch_size
from raylearn.scoring.progress import ScoringProgress, say
from raylearn.scoring.request import ScoreRequest, decisive_facts
from raylearn.scoring.updating import Listings
from raylearn.strategies.meaning import doubt_of_pool
from raylearn.wording import counted

LARGE_POOL = 2000  # images from which on OpenVINO's conversion, some seconds per actor, is won back
_PARTS_PER_MARKS = 256


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
        asked = decisive_facts(request)
    folder = Folder.at(out)
    with held(folder), tempfile.TemporaryDirectory(prefix="raylearn-listing-") as place:
        folder.clear_unfinished()
        there = read_record(folder)
        if there is None:
            listed = first_listing(request, Path(place), console)
            (span,) = listed.listings.spans
            asked |= {"manifest": listed.listings.hash, "num_images": span.num_images, "part_size": span.part_size}
        else:
            if request.part_size and not request.update:
                asked["part_size"] = request.part_size
            refuse_another(folder, there, asked)
            listed = listing_of(request, folder, there, Path(place), console)
        listings = listed.listings
        if there is not None and _is_finished(folder, listings):
            counts = _counts_there(folder, listings)
            say(console, f"finished already: {_describe(counts)}\nledger: {folder}")
            _tell_doubt(counts, console)
            return counts
        address = address or os.environ.get("RAY_ADDRESS")
        here = address is None and _needs_no_ray(request, _missing(folder, listings))
        with nullcontext() if here else ray_session(address):
            family = family_of(request.checkpoint).name
            with doing("asking what the machines have"):
                # a private Ray without GPUs has what this process has, and no worker is to start to say so
                same = here or (address is None and not request.gpus_per_actor and not num_gpus())
                machine = this_machine(family) if same else look_at_machines(request.gpus_per_actor, family, tell)
            plan = replace(_choose(request, there or asked, machine, folder), here=here, spans=listings.spans)
            record = _begun(folder, there, asked, plan, machine)
            with put_aside(Path(place)):
                listed.put_into(folder, request)
            _add_checkpoint(folder, request.checkpoint, record["checkpoint"])
            counts = _score_missing(folder, listings, plan, key_of(record), console, began)
        _refuse_if_none_was_there(folder, counts, listings)
        counts = finish(folder, listings, counts, {**record, "key": key_of(record)})
    say(console, f"{_describe(counts)}\nledger: {folder}")
    _tell_doubt(counts, console)
    return counts


def _missing(folder: Folder, listings: Listings) -> list[int]:
    return sorted(set(listings.parts).difference(ledger.finished_parts(folder)))


def _needs_no_ray(request: ScoreRequest, missing: Sequence[int]) -> bool:
    """Whether only one part is missing, which one CPU of this machine is to score.

    This process then has done so before a private Ray, its workers and their torch would have started.
    """
    if len(missing) > 1 or request.gpus_per_actor:
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
    num_actors = request.max_actors or request.num_actors or machine.num_actors
    return ScoringPlan(
        checkpoint=folder.address_of(CHECKPOINT_FILE),
        settings=settings,
        engine=Engine(backend, precision),
        batch_size=request.batch_size or default_batch_size(machine.has_cuda),
        num_actors=num_actors,
        min_actors=(request.num_actors or 1) if request.max_actors else None,
        # beside a GPU no CPU is reserved, so that nothing on its node can keep an actor from starting
        # actors that come and go have one CPU each, as nobody knows the nodes that will come
        cpus_per_actor=0.0 if gpus else 1.0 if request.max_actors else cpus_for_each(num_actors, machine.node_cpus),
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
        made_with = {"engine": asdict(plan.engine), "versions": dict(plan.versions), "device": machine.device}
        record = {"format": ledger.FORMAT, **asked, **made_with}
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
    if CHECKPOINT_FILE not in folder.sizes():
        folder.add(CHECKPOINT_FILE, content)


def _score_missing(
    folder: Folder, listings: Listings, plan: ScoringPlan, key: str, console: Console, began: float
) -> PartCounts:
    missing = _missing(folder, listings)
    done = sorted(set(listings.parts).difference(missing))
    counts = ledger.read_all_counts(folder, done, key)
    kept = f", {len(done):,} of {len(listings.parts):,} parts are there already" if done else ""
    say(console, f"scoring with {_describe_plan(plan)}{kept}")
    if missing:
        marks: dict[int, PartCounts] = {}
        with (
            doing("loading the detector, scoring the first images") as activity,
            closing(score_parts(missing, plan, folder, key)) as finished,
        ):
            progress = ScoringProgress(console, activity, listings.num_rows, counts, began, plan.batch_size)
            for part in finished:
                counts += part.counts
                marks[part.number] = part.counts
                if len(marks) == _PARTS_PER_MARKS:
                    ledger.add_marks(folder, key, marks)
                    marks = {}
                progress.tell(part, counts)
        say(console, progress.rate())
    return counts


def _refuse_if_none_was_there(folder: Folder, counts: PartCounts, listings: Listings) -> None:
    """A pool of which nothing can be opened is a wrong path or a lost mount, and no result: its parts are removed."""
    if counts.num_errors == counts.num_images and counts.errors.keys() <= {"missing", "unreadable"}:
        first = ledger.open_part(folder, listings.parts[0]).read(["error"])["error"][0].as_py()
        for part in ledger.finished_parts(folder):
            folder.remove(ledger.part_name(part))
        ledger.remove_marks(folder)
        raise RaylearnError(
            f"none of {counts.num_images:,} images could be opened, the first: {first}; once they can be, the same "
            "command scores them, or another --out if they are other files by then"
        )


def _is_finished(folder: Folder, listings: Listings) -> bool:
    """Whether there is a ledger of the last listing."""
    there = ledger.FACTS_FILE in folder.sizes()
    return there and ledger.read_facts(folder).get("update", 0) == listings.number


def _counts_there(folder: Folder, listings: Listings) -> PartCounts:
    missing = _missing(folder, listings)
    if missing:
        raise LedgerError(
            f"{folder} was finished, and lacks {counted(len(missing), 'part')} of {len(listings.parts):,}: "
            f"remove its {ledger.FACTS_FILE} to score the missing ones again"
        )
    return ledger.counts_of(ledger.read_facts(folder))


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
    numbers = f"{plan.min_actors} to {plan.num_actors}" if plan.min_actors else str(plan.num_actors)
    where = f"this process with {each}" if plan.here else f"{numbers} actors of {each}"
    return f"{plan.engine.backend} in {plan.engine.precision}, batches of {plan.batch_size}, {where}"
