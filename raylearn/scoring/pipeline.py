"""The scoring pass: Ray Data deals the parts of a manifest out to detector actors, which write them into a ledger."""

import logging
import os
import socket
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import Any

import numpy as np

from raylearn.cluster.devices import give_back_gpu_memory, own_stream, torch_device
from raylearn.cluster.machines import installed_versions
from raylearn.cluster.resources import cpus_beside_gpu
from raylearn.cluster.session import cause_line
from raylearn.data.images import read_bytes
from raylearn.data.storage import Folder, read_address, reason_of, storage_error
from raylearn.detectors import build_detector, family_of
from raylearn.detectors.base import Detections, Detector, DetectorSettings, Engine
from raylearn.errors import ClusterError, ImageError, LedgerError, RaylearnError, StorageError
from raylearn.progress import doing, steps
from raylearn.scoring import ledger
from raylearn.scoring.fetching import REQUESTS, Fetches, Source
from raylearn.scoring.ledger import NOTHING, PartCounts
from raylearn.scoring.manifest import MANIFEST_FILE, Manifest, ManifestFiles, known_size
from raylearn.scoring.patience import patiently, until_all_are_there
from raylearn.scoring.reading import Reader, ReadImage, gathered, groups, read_ahead, read_image
from raylearn.scoring.updating import Listings

# A part whose actor dies is tried again so often: machines go, but an image that kills its actor would do so for ever.
_ATTEMPTS = 8


PARTS_ON_GPU = 3
"""Parts that one actor with a GPU works on at once: one is decoded while another is in the network."""


@dataclass(frozen=True)
class ScoringPlan:
    """How one pass of one checkpoint is made.

    Args:
        checkpoint: the address of a file that every worker can read.
        settings: what decides the detections.
        engine: what runs the network.
        batch_size: images per call of the model; no influence on the result beyond the last bits.
        num_actors: detector actors, at most; no influence on the result.
        min_actors: with which it begins; more come and go as the cluster has room. None is as many as `num_actors`.
        cpus_per_actor, gpus_per_actor: what one actor asks Ray for.
        needs_cuda: an actor whose GPU torch cannot use is an error; otherwise the CPU does the work.
        versions: package -> version that every worker must have; empty where they are not looked at.
        here: the process that holds the plan scores, without Ray.
        requests: objects that one actor asks a store for at once; 0 reads each where it is decoded.
        starts: of the manifest's listings; see ManifestFiles.
    """

    checkpoint: str
    settings: DetectorSettings
    engine: Engine = field(default_factory=Engine)
    batch_size: int = 4
    num_actors: int = 1
    min_actors: int | None = None
    cpus_per_actor: float = 1
    gpus_per_actor: float = 0
    needs_cuda: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)
    here: bool = False
    requests: int = REQUESTS
    starts: tuple[int, ...] = (0,)


def default_batch_size(on_gpu: bool) -> int:
    """Images per call of the model: many keep a GPU busy, few stay in a CPU's cache."""
    return 64 if on_gpu else 4


@dataclass(frozen=True)
class Part:
    """A part that has just been finished.

    Args:
        number: which.
        counts: what it holds.
        started, finished: seconds since the epoch, by the actor's clock.
        worker: the process that made it, as "host:pid".
        batch_size: images per call of the model; fewer than the plan's where those did not fit into a GPU's memory.
    """

    number: int
    counts: PartCounts
    started: float
    finished: float
    worker: str
    batch_size: int


class ScorePart:
    """Ray Data callable: one detector per actor, loaded once; part numbers in, finished parts of the ledger out.

    Reading runs in threads, ahead of the model. What travels between the two stays in this process, and what leaves it
    is a file in the ledger's folder: a part is committed where it was made, and the driver hears of it after that.

    Args:
        open_detector: gives the loaded detector.
        read: reads one image.
        folder: of the ledger; holds the manifest.
        key: of the pass, put as a mark into every part.
        batch_size: images per call of the model.
        num_threads: that read.
        embeddings: whether the ledger keeps embeddings.
        gpus: GPUs of this actor.
        streams: whether parts that are worked on at once have streams of their own on the GPU.
        requests, starts: see ScoringPlan.
    """

    def __init__(
        self,
        open_detector: Callable[[], Detector],
        read: Reader,
        folder: Folder,
        key: str,
        batch_size: int,
        num_threads: int,
        embeddings: bool = False,
        gpus: float = 0,
        streams: bool = False,
        requests: int = 0,
        starts: Sequence[int] = (0,),
    ) -> None:
        self._read, self._folder, self._key, self._batch_size = read, folder, key, batch_size
        self._embeddings, self._gpus = embeddings, gpus
        self._stream = own_stream if streams else nullcontext
        self._num_threads = num_threads
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="read")
        self._fetches = Fetches(requests) if requests else None
        self._manifest = ManifestFiles(folder, starts)
        self._opening, self._given_up = Lock(), Event()
        self._open_detector = open_detector
        self._failure = self._opened()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Part | RaylearnError]]:
        """Scores parts. An error of raylearn's comes in place of the part: what is raised, Ray turns into text."""
        with self._opening:  # or each of several parts at once would load a detector of its own
            if isinstance(self._failure, StorageError) and self._failure.may_pass:
                self._failure = self._opened()
            failure = self._failure
        return {"part": [failure or self._part_or_error(int(number)) for number in batch["number"]]}

    def _opened(self) -> RaylearnError | None:
        """Loads the detector, or says why that cannot be."""
        try:
            self._detector = patiently(self._open_detector, self._given_up)
        except RaylearnError as error:
            return error
        return None

    def close(self) -> None:
        """Ends what its threads still read."""
        self._given_up.set()
        if self._fetches:
            self._fetches.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _part_or_error(self, number: int) -> Part | RaylearnError:
        try:
            return self._score(number)
        except RaylearnError as error:
            return error
        except Exception as error:  # of torch or Ray's worker: the part is named, or nobody would know where to look
            out = "OutOfMemory" in type(error).__name__
            advice = "give it more of a GPU (--gpus-per-actor)" if out else "it is logged by Ray's worker"
            logging.getLogger(__name__).exception("part %d", number)
            return RaylearnError(
                f"part {number} of {MANIFEST_FILE}: {type(error).__name__}: {reason_of(error)}; {advice}"
            )

    def _score(self, number: int) -> Part:
        started = time.time()
        rows = patiently(partial(self._rows, number), self._given_up)
        num_classes = len(self._detector.class_names)
        found = [_no_detections(num_classes)] * len(rows["uri"])
        images: list[ReadImage] = []

        def reading() -> Iterator[ReadImage]:
            ahead = 2 * max(self._batch_size, self._num_threads)
            with closing(self._sources(rows)) as sources:
                for image in read_ahead(sources, rows["content_hash"], self._read, self._threads, ahead):
                    # kept without its pixels, of which only a few batches may be in memory
                    images.append(ReadImage(None, image.size, image.error))
                    yield image

        for positions, group in groups(reading(), self._batch_size):
            for position, detections in zip(positions, self._detect(group), strict=True):
                if isinstance(detections, ImageError):
                    images[position] = ReadImage(None, (0, 0), detections)
                else:
                    found[position] = detections
        _refuse_a_lost_mount(rows, images)
        columns: dict[str, Any] = {
            "image_id": rows["image_id"],
            "uri": rows["uri"],
            "width": [image.size[0] for image in images],
            "height": [image.size[1] for image in images],
            "status": ["error" if image.error else "ok" for image in images],
            "error_kind": [image.error.kind if image.error else "" for image in images],
            "error": [str(image.error or "") for image in images],
        }
        table = ledger.rows(columns, found, num_classes, self._embeddings)
        counts = patiently(partial(ledger.add_part, self._folder, number, self._key, table), self._given_up)
        worker = f"{socket.gethostname()}:{os.getpid()}"
        return Part(number, counts, started, time.time(), worker, self._batch_size)

    def _rows(self, number: int) -> dict[str, list[Any]]:
        try:
            rows: dict[str, list[Any]] = self._manifest.read(number).to_pydict()
        except FileNotFoundError as error:
            raise LedgerError(
                f"a worker does not find {self._folder}/{MANIFEST_FILE}: --out must be at the same place on every node"
            ) from error
        return rows

    def _sources(self, rows: Mapping[str, Sequence[str]]) -> Generator[Source, None, None]:
        if self._fetches is None:
            yield from rows["uri"]
        else:
            yield from self._fetches.ahead(rows["uri"], map(known_size, rows["version"]))

    def _detect(self, group: Sequence[ReadImage]) -> list[Detections | ImageError]:
        """The detections of images of one shape, or why one could not be decoded; in batches that fit into memory."""
        size = self._batch_size
        if len(group) > size:
            return [
                found for start in range(0, len(group), size) for found in self._detect(group[start : start + size])
            ]
        try:
            return self._detect_at_once(group)
        except RuntimeError as error:
            if "OutOfMemory" not in type(error).__name__:
                raise
        # Outside of the clause that holds the error, and with it what was on the GPU.
        give_back_gpu_memory()
        if len(group) == 1:
            return self._detect_at_once(group)  # others on the GPU may have given memory back too
        if len(group) == size:  # of fewer it was others that took the memory
            self._batch_size = min(self._batch_size, size // 2)
        half = len(group) // 2
        return self._detect(group[:half]) + self._detect(group[half:])

    def _detect_at_once(self, group: Sequence[ReadImage]) -> list[Detections | ImageError]:
        sizes = np.array([image.size for image in group])
        with self._stream():
            canvases, failed = gathered(group, torch_device(self._gpus))
            found: list[Detections | ImageError] = list(self._detector.predict(canvases, sizes))
        for position, why in failed.items():
            found[position] = why
        return found


def score_manifest(manifest: Manifest, plan: ScoringPlan, facts: Mapping[str, Any], folder: Folder) -> PartCounts:
    """Scores every image of the manifest and writes the ledger into `folder`.

    With one actor there is nothing to deal out: this process scores, and no other has to start and load torch first.

    Args:
        manifest: at least one image.
        plan: how.
        facts: written into ledger.json beside the settings and the counts.
        folder: this pass's own; exists.

    Raises:
        RaylearnError: Ray lost a part, or a worker met an error.
        DivergedError: the model gives NaN.
    """
    manifest.write(folder)
    made_by = {
        **facts,
        "settings": plan.settings.facts,
        "engine": asdict(plan.engine),
        "manifest": manifest.hash,
    }
    counts = NOTHING
    score = score_parts if plan.num_actors > 1 else score_parts_here
    for part in score(range(manifest.num_parts), plan, folder, manifest.hash):
        counts += part.counts
        steps("image", counts.num_images, len(manifest))
    finish(folder, Listings(((0, len(manifest), manifest.part_size),), manifest.hash), counts, made_by)
    return counts


def finish(folder: Folder, listings: Listings, counts: PartCounts, facts: Mapping[str, Any]) -> PartCounts:
    """Writes ledger.json, after a look at whether all is there.

    Args:
        folder: of the pass.
        listings: of its pool.
        counts: what its parts hold.
        facts: what made it.

    Returns:
        What stands for images of the pool.

    Raises:
        RaylearnError: a part is missing, or has other rows than the manifest.
    """
    wanted, there = listings.parts, ledger.finished_parts(folder)
    if not set(wanted) <= set(there) or counts.num_images != listings.num_rows:
        raise RaylearnError(
            f"{folder} has {len(there)} of {len(wanted)} parts, with {counts.num_images} of {listings.num_rows} "
            "rows: run it again"
        )
    counts -= ledger.count_void(folder, listings.void)
    numbers = {**asdict(counts), "num_errors": counts.num_errors}
    ledger.write_facts(folder, {**facts, **listings.facts, **numbers})
    return counts


def score_parts(parts: Sequence[int], plan: ScoringPlan, folder: Folder, key: str) -> Generator[Part, None, None]:
    """Scores parts of the manifest in `folder`, and tells of each when it is in the ledger; in no order.

    Raises:
        RaylearnError: what a worker met, or a part whose actors died again and again.
    """
    if plan.here:
        return score_parts_here(parts, plan, folder, key)
    read = partial(read_image, settings=plan.settings)
    return deal_out(parts, partial(_open_detector, plan), read, plan, folder, key)


def score_parts_here(parts: Sequence[int], plan: ScoringPlan, folder: Folder, key: str) -> Generator[Part, None, None]:
    """`score_parts` in this process, which holds what one actor would ask for."""
    read = partial(read_image, settings=plan.settings)
    import cv2
    import torch

    threads = torch.get_num_threads(), cv2.getNumThreads()  # of a notebook, say, which goes on
    scorer = None
    try:
        with doing("loading the detector"):
            scorer = ScorePart(partial(_open_detector, plan), read, folder, key, *_of_plan(plan))
        yield from until_all_are_there(parts, partial(_score_each, scorer), _number_of, 1)
    finally:
        if scorer:
            scorer.close()
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def _score_each(scorer: ScorePart, parts: Sequence[int]) -> Generator[Part | StorageError, None, None]:
    for number in parts:
        (part,) = scorer({"number": np.array([number])})["part"]
        yield _or_raise(part)


def _or_raise(part: Part | RaylearnError) -> Part | StorageError:
    """What an actor gave for a part; raises an error that is no passing one."""
    if isinstance(part, Part) or (isinstance(part, StorageError) and part.may_pass):
        return part
    raise part


def _number_of(part: Part) -> int:
    return part.number


def _of_plan(plan: ScoringPlan) -> tuple[int, int, bool, float, bool, int, tuple[int, ...]]:
    """What `ScorePart` takes after the key: batch size, threads, embeddings, GPUs, streams, requests, starts."""
    threads = max(2, cpus_beside_gpu(plan.gpus_per_actor) if plan.gpus_per_actor else int(plan.cpus_per_actor))
    streams = plan.settings.decode == "gpu"  # which only families have that are safe with them
    return plan.batch_size, threads, plan.settings.embeddings, plan.gpus_per_actor, streams, plan.requests, plan.starts


def deal_out(
    parts: Sequence[int],
    open_detector: Callable[[], Detector],
    read: Reader,
    plan: ScoringPlan,
    folder: Folder,
    key: str,
) -> Generator[Part, None, None]:
    """`score_parts` for any detector and any way of reading."""
    once = partial(_deal_out_once, open_detector=open_detector, read=read, plan=plan, folder=folder, key=key)
    return until_all_are_there(parts, once, _number_of, plan.num_actors)


def _deal_out_once(
    parts: Sequence[int],
    open_detector: Callable[[], Detector],
    read: Reader,
    plan: ScoringPlan,
    folder: Folder,
    key: str,
) -> Generator[Part | StorageError, None, None]:
    """Each part, or a StorageError that may pass in its place."""
    import ray.data
    from ray.util.annotations import RayDeprecationWarning

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_consecutive_actor_init_deaths = _ATTEMPTS
    context.execution_no_progress_timeout_s = -1  # a part of large images, or a wait for a GPU, may take hours
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    at_once = PARTS_ON_GPU if plan.gpus_per_actor else 1
    numbers = ray.data.from_items([{"number": part} for part in parts], override_num_blocks=len(parts))
    with warnings.catch_warnings():
        # Ray Data's own names for what an actor is created with leave out how often a task is tried.
        warnings.simplefilter("ignore", category=RayDeprecationWarning)
        scored = numbers.map_batches(
            ScorePart,
            fn_constructor_args=(open_detector, read, folder, key, *_of_plan(plan)),
            batch_size=1,  # a part at a time; its images are batched in the actor
            compute=ray.data.ActorPoolStrategy(
                min_size=min(plan.min_actors or plan.num_actors, len(parts)),
                max_size=min(plan.num_actors, len(parts)),
                max_concurrent_calls_per_actor=at_once,
                max_tasks_in_flight_per_actor=at_once + 1,
                enable_true_multi_threading=True,
            ),
            num_cpus=plan.cpus_per_actor,
            num_gpus=plan.gpus_per_actor,
            ray_remote_args_fn=lambda: {"max_task_retries": _ATTEMPTS},
        )
    finished = None
    try:
        # Bundles and not batches, which Ray Data would read ahead in threads that nobody can wait for.
        finished = scored.iter_internal_ref_bundles()
        for bundle in finished:  # each as soon as it is there
            for block in bundle.block_refs:
                for row in ray.data.block.BlockAccessor.for_block(ray.get(block)).iter_rows(public_row_format=True):
                    yield _or_raise(row["part"])
    except ray.exceptions.RayError as error:
        raise RaylearnError(f"scoring stopped: {cause_line(error)}; the same command goes on from here") from error
    finally:
        del finished  # which ends Ray Data's thread, also where an error still holds this frame


def _open_detector(plan: ScoringPlan) -> Detector:
    """In an actor: the detector of the plan, loaded."""
    import tempfile

    import cv2

    here = socket.gethostname()
    device = torch_device(plan.gpus_per_actor)
    if plan.needs_cuda and device == "cpu":
        raise ClusterError(f"Ray offers a GPU on {here}, but torch cannot use it: look at its driver and its torch")
    cv2.setNumThreads(1)  # images are read side by side; threads within one would only get in each other's way
    with tempfile.TemporaryDirectory(prefix="raylearn-checkpoint-") as name:
        path = Path(name) / "checkpoint.pt"
        try:
            path.write_bytes(read_address(plan.checkpoint))
        except (OSError, ValueError) as error:
            message = f"a worker cannot read the checkpoint {plan.checkpoint}: {reason_of(error)}"
            raise storage_error(message, error) from error
        family = family_of(path).name
        _refuse_other_versions(plan, family)
        detector = build_detector(
            "",
            plan.settings,
            device=device,
            num_threads=max(1, int(plan.cpus_per_actor)),
            engine=plan.engine,
            family=family,
        )
        detector.load(path)
    return detector


def _refuse_other_versions(plan: ScoringPlan, family: str) -> None:
    installed = installed_versions(family) if plan.versions else {}
    for name, wanted in plan.versions.items():
        if installed.get(name) != wanted:
            raise ClusterError(
                f"{socket.gethostname()} has {name} {installed.get(name)}, but the pass was begun with {wanted}: "
                "install the same versions on every node"
            )


def _refuse_a_lost_mount(rows: Mapping[str, Sequence[str]], images: Sequence[ReadImage]) -> None:
    """Raises StorageError if files that were there when they were listed are gone, and all others of the part too."""
    listed = [position for position, version in enumerate(rows["version"]) if version]
    kinds = [image.error.kind if image.error else "" for image in images]
    gone = [position for position in listed if kinds[position] == "missing"]
    rest = sorted(set(listed).difference(gone))
    # The last of the others is looked at again: a mount may have been lost after it was read.
    if not gone or len(listed) == 1 or (rest and _is_there(rows["uri"][rest[-1]])):
        return
    raise StorageError(
        f"{socket.gethostname()} does not find {len(gone)} images any more that were there when they were listed, nor "
        f"others beside them, the first: {images[gone[0]].error}; is the pool at the same place on every node? If they "
        "were removed, --update goes on without them"
    )


def _is_there(uri: str) -> bool:
    try:
        read_bytes(uri)
    except ImageError as error:
        return error.kind != "missing"
    return True


def _no_detections(num_classes: int) -> Detections:
    return Detections(np.empty((0, 4), np.float32), np.empty((0, num_classes), np.float32))
