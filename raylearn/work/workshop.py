"""Who makes sure that each piece of work is done once: the workshop on Ray, and how it is asked."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from raylearn.cluster.devices import reuses_gpu_processes
from raylearn.errors import ClusterError, RaylearnError, StorageError
from raylearn.progress import Steps, heard
from raylearn.work.jobs import Job, run_and_store
from raylearn.work.resources import WorkResources
from raylearn.work.store import Artifact, Store

_RETRIES = 3  # of work whose process or machine was lost

WORKSHOP_ENVIRONMENT = {"RAY_task_oom_retries": str(_RETRIES)}
"""Of the workshop's process: otherwise Ray tries what it killed for want of memory again without end."""


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
        self._under_way: dict[tuple[str, str], UnderWay] = {}
        self._num_begun: Counter[str] = Counter()

    async def works(self) -> list["UnderWay"]:
        """What is waited for or being done, the oldest first."""
        return list(self._under_way.values())

    async def hear(self, kind: str, key: str, steps: Steps) -> None:
        """Told by a worker how far its work is."""
        work = self._under_way.get((kind, key))
        if work is not None:
            self._under_way[kind, key] = replace(work, steps=steps)

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
        self._num_begun[job.kind] += 1
        self._under_way[name] = UnderWay(job.kind, self._num_begun[job.kind])
        # when the work ends, not when its first asker does: one that gives up leaves the work going on
        task.add_done_callback(lambda ended: self._remember(name, ended))
        return await asyncio.shield(task), True

    def _remember(self, name: tuple[str, str], ended: "asyncio.Task[Artifact]") -> None:
        self._in_the_making.pop(name, None)
        self._under_way.pop(name, None)
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
        task = ray.remote(scheduling_strategy="DEFAULT", max_retries=_RETRIES, **options)(_run_and_tell)
        async with self._slots.hold(cpus):
            try:
                artifact: Artifact = await task.remote(job, self._store, wanted, made_by, _this_actor())
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


@dataclass(frozen=True)
class UnderWay:
    """A piece of work that was asked for and is not finished.

    Args:
        kind: of the job.
        number: it is the so manieth of its kind that this workshop began.
        steps: how far it is; None while it waits, or does what has no steps.
    """

    kind: str
    number: int
    steps: Steps | None = None


def _run_and_tell(job: Job, store: Store, resources: WorkResources, made_by: str, workshop: Any) -> Artifact:
    """In a worker: `run_and_store`, whose steps the workshop hears."""
    with heard(lambda steps: workshop.hear.remote(job.kind, job.key, steps)):
        return run_and_store(job, store, resources, made_by)


def _this_actor() -> Any:
    """Of the workshop, for its workers."""
    import ray

    return ray.get_runtime_context().current_actor


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


def open_workshop(store: Store, resources: WorkResources) -> Any:
    """The workshop as an actor.

    It needs no memory but the store's: one that dies with its process or node begins anew, and is asked again.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    options = {"num_cpus": 0, "max_concurrency": 10_000, "max_restarts": -1, "max_task_retries": -1}
    environment = {"env_vars": WORKSHOP_ENVIRONMENT}
    # beside the driver: what it has started ends with it, and it would keep any other machine from being given back
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    made = ray.remote(Workshop).options(scheduling_strategy=here, runtime_env=environment, **options)
    return made.remote(store, resources)


def ask_workshop(workshop: Any, job: Job, made_by: str) -> tuple[Artifact, bool]:
    """What `Workshop.make` gives.

    Raises:
        RaylearnError: what failed by itself, and would fail again.
        RayTaskError: what Ray met, such as a machine that went.
    """
    import ray

    try:
        artifact, started = ray.get(workshop.make.remote(job, made_by))
    except ray.exceptions.RayTaskError as error:
        own = _own_cause(error)
        if own is None:
            raise
        raise own from error
    return artifact, started


def _own_cause(error: BaseException) -> RaylearnError | None:
    """The error of raylearn's that a chain of Ray's wraps."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, RaylearnError) and not hasattr(inner, "cause"):
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    return None
