"""What one scoring actor does: parts of a manifest become parts of a ledger."""

import logging
import os
import socket
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from threading import Event, Lock
from typing import Any

import numpy as np

from raylearn.cluster.devices import give_back_gpu_memory, own_stream, torch_device
from raylearn.cluster.resources import cpus_beside_gpu
from raylearn.data.images import read_bytes
from raylearn.data.storage import Folder, reason_of
from raylearn.detectors.base import Detections, Detector
from raylearn.errors import ImageError, LedgerError, RaylearnError, StorageError
from raylearn.scoring import ledger
from raylearn.scoring.fetching import Fetches, Source
from raylearn.scoring.ledger import PartCounts
from raylearn.scoring.manifest import MANIFEST_FILE, ManifestFiles, known_size
from raylearn.scoring.patience import patiently
from raylearn.scoring.plan import ScoringPlan
from raylearn.scoring.reading import Reader, ReadImage, gathered, groups, read_ahead


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
        plan: of the pass.
    """

    def __init__(
        self,
        open_detector: Callable[[], Detector],
        read: Reader,
        folder: Folder,
        key: str,
        plan: ScoringPlan,
    ) -> None:
        self._read, self._folder, self._key, self._batch_size = read, folder, key, plan.batch_size
        self._embeddings, self._gpus = plan.settings.embeddings, plan.gpus_per_actor
        # only families that are safe with them decode on the GPU: parts at once then have streams of their own there
        self._stream = own_stream if plan.settings.decode == "gpu" else nullcontext
        cpus = cpus_beside_gpu(plan.gpus_per_actor) if plan.gpus_per_actor else int(plan.cpus_per_actor)
        self._num_threads = plan.num_threads or max(2, cpus)
        self._threads = ThreadPoolExecutor(self._num_threads, thread_name_prefix="read")
        self._fetches = Fetches(plan.requests) if plan.requests else None
        self._manifest = ManifestFiles(folder, plan.spans)
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
                f"a worker does not find {self._folder}/{error}: --out must be at the same place on every node"
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
        "were removed, list the pool again with --update"
    )


def _is_there(uri: str) -> bool:
    try:
        read_bytes(uri)
    except ImageError as error:
        return error.kind != "missing"
    return True


def _no_detections(num_classes: int) -> Detections:
    return Detections(np.empty((0, 4), np.float32), np.empty((0, num_classes), np.float32))
