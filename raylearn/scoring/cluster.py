"""Ray as raylearn uses it: a private one on this machine, or the cluster that was named."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

from raylearn.errors import ClusterError, RaylearnError

TRIAL_RESOURCE = "raylearn_trial"
"""A resource that the head node may offer (1 per trial, say 100000), so that waiting trials cost no CPU."""


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Starts a private Ray, or joins the cluster at `address`, and leaves it at the end.

    Raises:
        ClusterError: no cluster answers at the address.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the coming default; unset, Ray warns of it
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # otherwise Tune prints a banner even when told to be silent
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # otherwise Tune answers Ctrl+C as if the trials had failed
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"  # otherwise its C++ part warns of what Ray Data itself does
    import ray

    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    private = {
        "address": "local",
        "num_cpus": num_local_cpus(),
        "resources": {TRIAL_RESOURCE: 100_000},
        "include_dashboard": False,
    }
    try:
        with _stderr_set_aside():
            ray.init(**({"address": address} if address else private), **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = f"the Ray cluster at {address}" if address else "a private Ray on this machine"
        raise ClusterError(f"cannot reach {where}: {(str(error).splitlines() or [type(error).__name__])[0]}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _stderr_set_aside() -> Iterator[None]:
    """While Ray starts: its C++ part tells the terminal that it was told to be quiet. What fails is raised."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def num_local_cpus() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0))


def num_gpus() -> float:
    """GPUs of the cluster as Ray reports them."""
    import ray

    return float(ray.cluster_resources().get("GPU", 0))


def heavy_cpu_slots(num_trials: int) -> int:
    """How many CPUs heavy work may hold at once: all, less what trials hold.

    Raises:
        ClusterError: there is none.
    """
    import ray

    resources = ray.cluster_resources()
    free = resources.get("CPU", 0)
    if TRIAL_RESOURCE not in resources:
        free -= num_trials * TRIAL_CPUS
    if free < 1:
        raise ClusterError(f"Ray has {resources.get('CPU', 0):g} CPUs, and at least one is needed: add some")
    return int(free)


TRIAL_CPUS = 0.001
"""What a trial asks for where the cluster does not offer TRIAL_RESOURCE; Tune refuses a trial without resources."""


def trial_resources() -> dict[str, float]:
    """What one Tune trial asks for."""
    import ray

    return {"cpu": 0, TRIAL_RESOURCE: 1} if TRIAL_RESOURCE in ray.cluster_resources() else {"cpu": TRIAL_CPUS}


def torch_device(num_gpus: float) -> str:
    """The device of a Ray task that asked for this many GPUs: the one Ray gave it, else the CPU."""
    import torch

    return "cuda:0" if num_gpus and torch.cuda.is_available() else "cpu"


def cpus_beside_gpu(gpus: float) -> int:
    """How many CPUs the cluster has beside so many GPUs, on the node where they are fewest; at least 1."""
    import ray

    shares = [
        node["Resources"].get("CPU", 0) / node["Resources"]["GPU"] * gpus
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("GPU")
    ]
    return max(1, int(min(shares, default=1)))


def own_cause(error: BaseException) -> BaseException:
    """The error of raylearn's that a chain of Ray's wraps, or the outermost."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, RaylearnError) and not hasattr(inner, "cause"):
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    return error


@dataclass(frozen=True)
class Machine:
    """What scoring finds on a cluster.

    Args:
        num_cpus: that detector actors may hold, all nodes together.
        num_gpus: all nodes together, as Ray reports them.
        gpus_per_actor: as asked for, or 1 where Ray has GPUs.
        has_openvino: whether a worker can import it.
        versions: of the packages that decide detections, in a worker.
    """

    num_cpus: int
    num_gpus: float
    gpus_per_actor: float
    has_openvino: bool
    versions: Mapping[str, str]


def look_at_machines(gpus_per_actor: float | None) -> Machine:
    """Asks Ray what there is, and a worker what is installed on it.

    Raises:
        ClusterError: GPUs are asked for and Ray has none, or an actor would need part of a second one.
    """
    import ray

    gpus = num_gpus()
    if gpus_per_actor is None:
        gpus_per_actor = min(gpus, 1.0)
    if gpus_per_actor > 1 and gpus_per_actor % 1:
        raise ClusterError(f"--gpus-per-actor {gpus_per_actor:g} must be whole above 1")
    if gpus_per_actor > gpus:
        raise ClusterError(f"--gpus-per-actor {gpus_per_actor:g} is asked for, but Ray has {gpus:g} GPUs: lower it")
    num_cpus = int(ray.cluster_resources().get("CPU", 0))
    installed = ray.remote(_installed).options(num_cpus=0, num_gpus=gpus_per_actor)
    has_openvino, versions = ray.get(installed.remote())
    return Machine(max(1, num_cpus), gpus, gpus_per_actor, has_openvino, versions)


def _installed() -> tuple[bool, dict[str, str]]:
    from importlib.util import find_spec

    import cv2

    versions = {name: version(name) for name in ("torch", "torchvision", "ultralytics")}
    return find_spec("openvino") is not None, {**versions, "opencv": cv2.__version__}
