"""What every piece of shared work has in common."""

import logging
import os
import platform
import time
import traceback
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from raylearn.cluster.devices import give_back_gpu_memory
from raylearn.data.storage import Folder, reason_of
from raylearn.errors import ClusterError, RaylearnError, StorageError
from raylearn.work.resources import WorkResources
from raylearn.work.store import Artifact, Store


class Job(Protocol):
    """A piece of work whose result is decided by its key alone."""

    @property
    def kind(self) -> str: ...

    @property
    def key(self) -> str: ...

    def run(self, folder: Folder, resources: WorkResources) -> Mapping[str, Any]:
        """Does the work, writes its files into the folder, and returns facts that JSON can hold."""
        ...


def refuse_other_versions(fresh: Job, job: Job, packages: Iterable[str]) -> None:
    """Raises ClusterError on a node whose versions are not those that the key of a job was made of.

    Args:
        fresh: a copy of the job that has not made its key yet.
        job: as it came from the driver.
        packages: whose versions are in the key.
    """
    if fresh.key != job.key:
        raise ClusterError(
            f"node {platform.node()} has other versions of {', '.join(packages)} than the driver: `raylearn doctor` "
            "compares them"
        )


class NotMadeError(Exception):
    """The store lacks something that is only to be looked up."""


def made_before(store: Store, job: Job) -> Artifact:
    """The result of a job that was done before.

    Raises:
        NotMadeError: it was not.
    """
    found = store.find(job.kind, job.key)
    if found is None:
        raise NotMadeError
    return found


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
