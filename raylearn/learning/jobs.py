"""What every piece of shared work has in common, and who makes sure that each is done once."""

import asyncio
import logging
import os
import platform
import time
import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from raylearn.data.storage import Folder, reason_of
from raylearn.errors import ClusterError, RaylearnError, StorageError
from raylearn.learning.store import Artifact, Store
from raylearn.scoring.cluster import give_back_gpu_memory, reuses_gpu_processes

_RETRIES = 3  # of work whose process or machine was lost

WORKSHOP_ENVIRONMENT = {"RAY_task_oom_retries": str(_RETRIES)}
"""Of the workshop's process: otherwise Ray tries what it killed for want of memory again without end."""


@dataclass(frozen=True)
class WorkResources:
    """What one piece of work asks Ray for; for how fast a result comes, and no part of its key.

    Other devices or numbers of threads add floats in another order, so a result can differ in its last bits.

    Args:
        cpus: of a training or an evaluation, and torch threads on a CPU.
        gpus: of a training, an evaluation or one scoring actor; 0 on a cluster without GPUs.
        scoring_actors: detector actors of one scoring pass.
        cpu_slots: CPUs that heavy work may hold at once; None where GPUs bound it and Ray's queue is enough.
    """

    cpus: int
    gpus: float
    scoring_actors: int
    cpu_slots: int | None

    def __post_init__(self) -> None:
        if self.cpu_slots is not None and max(self.cpus, self.scoring_actors) > self.cpu_slots:
            raise ClusterError(
                f"resources.training_cpus {self.cpus} and scoring_actors {self.scoring_actors} are asked for, but only "
                f"{self.cpu_slots} CPUs can be used at once: lower them"
            )


class Job(Protocol):
    """A piece of work whose result is decided by its key alone."""

    @property
    def kind(self) -> str: ...

    @property
    def key(self) -> str: ...

    def run(self, folder: Folder, resources: WorkResources) -> Mapping[str, Any]:
        """Does the work, writes its files into the folder, and returns facts that JSON can hold."""
        ...


def run_and_store(job: Job, store: Store, resources: WorkResources, made_by: str) -> Artifact:
    """Runs a job and adds its result to the store, with how long it took and which trial asked first.

    Raises:
        RaylearnError: what went wrong, and where; StorageError for what may be better in the next run.
    """

    def make(folder: Folder) -> dict[str, Any]:
        start = time.perf_counter()
        try:
            facts = job.run(folder, resources)
        except (RaylearnError, OSError):
            raise
        except Exception as error:  # of torch or the detector's library: it would only fail again
            logging.getLogger(__name__).exception("%s %s", job.kind, job.key)
            if type(error).__name__ == "AcceleratorError":
                os._exit(1)  # in this process CUDA answers nothing any more; in a new one it may
            traceback.clear_frames(error.__traceback__)  # they hold what is on the GPU
            advice = (
                "lower training.batch_size or scoring.batch_size; " if "OutOfMemory" in type(error).__name__ else ""
            )
            raise RaylearnError(
                f"{job.kind} on {platform.node()}: {type(error).__name__}: {reason_of(error)}; {advice}"
                "Ray's log of the worker has more"
            ) from error
        finally:
            if resources.gpus:
                give_back_gpu_memory()
        return {**facts, "seconds": round(time.perf_counter() - start, 3), "made_by": made_by}

    try:
        return store.add(job.kind, job.key, make)
    except OSError as error:
        logging.getLogger(__name__).exception("%s %s", job.kind, job.key)
        where = error.filename or type(error).__name__
        raise StorageError(f"{job.kind} on {platform.node()}: {where}: {reason_of(error)}") from error


class Workshop:
    """The one place of a run that starts work: who asks for a key in the making waits for that making.

    An async Ray actor that holds no resource. Work goes to Ray tasks, which queue for what they need; whoever waits
    here holds nothing. What failed by itself fails for all who ask, and is not tried again before the next run. On a
    cluster without GPUs it starts no more than `cpu_slots` CPUs of heavy work at once, first
    come, first served.
    """

    def __init__(self, store: Store, resources: WorkResources) -> None:
        self._store = store
        self._resources = resources
        self._in_the_making: dict[tuple[str, str], asyncio.Task[Artifact]] = {}
        self._failed: dict[tuple[str, str], RaylearnError] = {}
        self._slots = _Slots(resources.cpu_slots)

    async def make(self, job: Job, made_by: str) -> tuple[Artifact, bool]:
        """The job's artifact, and whether this very request had to start the work."""
        name = (job.kind, job.key)
        running = self._in_the_making.get(name)
        if running:
            return await asyncio.shield(running), False
        if name in self._failed:
            raise self._failed[name]
        found = self._store.find(job.kind, job.key)
        if found:
            return found, False
        task = asyncio.create_task(self._start(job, made_by))
        self._in_the_making[name] = task
        # when the work ends, not when its first asker does: one that gives up leaves the work going on
        task.add_done_callback(lambda ended: self._remember(name, ended))
        return await asyncio.shield(task), True

    def _remember(self, name: tuple[str, str], ended: "asyncio.Task[Artifact]") -> None:
        self._in_the_making.pop(name, None)
        error = None if ended.cancelled() else ended.exception()
        cause = getattr(error, "cause", error)  # Ray's wrapper has it
        # a disk that was full and a machine that was wrong may be better now
        if isinstance(cause, RaylearnError) and not isinstance(cause, StorageError | ClusterError):
            self._failed[name] = cause

    async def _start(self, job: Job, made_by: str) -> Artifact:
        import ray

        wanted = self._resources
        if job.kind == "ledger" and wanted.scoring_actors > 1:
            # The pass itself only waits; its actors ask for what they need.
            cpus, options = wanted.scoring_actors, {"num_cpus": 0.0}
        elif job.kind == "ledger":
            cpus, options = 1, {"num_cpus": 0.0 if wanted.gpus else 1.0, "num_gpus": wanted.gpus}
        else:
            cpus, options = wanted.cpus, {"num_cpus": wanted.cpus, "num_gpus": wanted.gpus}
        if options.get("num_gpus"):
            options["max_calls"] = 0 if reuses_gpu_processes() else 1
        # Where memory is short Ray ends what can be tried again, the newest first: this work, and not the workshop.
        task = ray.remote(scheduling_strategy="DEFAULT", max_retries=_RETRIES, **options)(run_and_store)
        async with self._slots.hold(cpus):
            try:
                artifact: Artifact = await task.remote(job, self._store, wanted, made_by)
            except ray.exceptions.OutOfMemoryError as error:
                batch = "scoring.batch_size" if job.kind == "ledger" else "training.batch_size"
                raise RaylearnError(
                    f"{job.kind}: ended {1 + _RETRIES} times as its machine ran out of memory; raise "
                    f"resources.training_cpus, so that fewer run beside it, or lower {batch}"
                ) from error
            except ray.exceptions.WorkerCrashedError as error:
                raise RaylearnError(
                    f"{job.kind}: its process was lost {1 + _RETRIES} times; Ray's log of the worker has more"
                ) from error
        return artifact


class _Slots:
    """Counts what is in use; who came first is served first, so that a large request is not starved by small ones."""

    def __init__(self, total: int | None) -> None:
        self._free = total
        self._turn = asyncio.Lock()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def hold(self, count: int) -> AsyncIterator[None]:
        if self._free is None:
            yield
            return
        async with self._turn, self._changed:
            await self._changed.wait_for(lambda: self._free is not None and self._free >= count)
            self._free -= count
        try:
            yield
        finally:
            async with self._changed:
                self._free += count
                self._changed.notify_all()
