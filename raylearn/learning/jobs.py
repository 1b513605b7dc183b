"""What every piece of shared work has in common, and who makes sure that each is done once."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from raylearn.data.storage import Folder
from raylearn.errors import ClusterError
from raylearn.learning.store import Artifact, Store


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
    """Runs a job and adds its result to the store, with how long it took and which trial asked first."""

    def make(folder: Folder) -> dict[str, Any]:
        start = time.perf_counter()
        facts = job.run(folder, resources)
        return {**facts, "seconds": round(time.perf_counter() - start, 3), "made_by": made_by}

    return store.add(job.kind, job.key, make)


class Workshop:
    """The one place of a run that starts work: who asks for a key in the making waits for that making.

    An async Ray actor that holds no resource. Work goes to Ray tasks, which queue for what they need; whoever waits
    here holds nothing. On a cluster without GPUs it starts no more than `cpu_slots` CPUs of heavy work at once, first
    come, first served.
    """

    def __init__(self, store: Store, resources: WorkResources) -> None:
        self._store = store
        self._resources = resources
        self._in_the_making: dict[tuple[str, str], asyncio.Task[Artifact]] = {}
        self._slots = _Slots(resources.cpu_slots)

    async def make(self, job: Job, made_by: str) -> tuple[Artifact, bool]:
        """The job's artifact, and whether this very request had to start the work."""
        name = (job.kind, job.key)
        running = self._in_the_making.get(name)
        if running:
            return await asyncio.shield(running), False
        found = self._store.find(job.kind, job.key)
        if found:
            return found, False
        task = asyncio.create_task(self._start(job, made_by))
        self._in_the_making[name] = task
        # when the work ends, not when its first asker does: one that gives up leaves the work going on
        task.add_done_callback(lambda _: self._in_the_making.pop(name, None))
        return await asyncio.shield(task), True

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
        task = ray.remote(run_and_store).options(scheduling_strategy="DEFAULT", **options)
        async with self._slots.hold(cpus):
            artifact: Artifact = await task.remote(job, self._store, wanted, made_by)
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
