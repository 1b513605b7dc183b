"""Ray as raylearn uses it: a private one on this machine, or the cluster that was named."""

import gc
import logging
import math
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from raylearn import __version__
from raylearn.data.storage import reason_of
from raylearn.detectors import openvino_is_installed
from raylearn.errors import ClusterError

_CONNECT_SECONDS = 10.0
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of cgroup v2; microseconds per period of microseconds
_WAIT_SECONDS = 15.0  # between two lines that say what is waited for

TRIAL_RESOURCE = "raylearn_trial"
"""A resource that the head node may offer (1 per trial, say 100000), so that waiting trials cost no CPU."""


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Starts a private Ray, or joins the cluster at `address`, and leaves it at the end.

    Raises:
        ClusterError: no cluster answers at the address.
    """
    if address:
        _refuse_if_nobody_listens(address)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
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
    before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL  # Ray puts a handler of its own in its place
    try:
        try:
            with _stderr_set_aside():
                ray.init(**({"address": address} if address else private), **quiet)
        except SystemExit as ended:  # what Ray, while it starts, makes of SIGTERM
            raise KeyboardInterrupt from ended
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            where = f"the Ray cluster at {address}" if address else "a private Ray on this machine"
            cause = (str(error).splitlines() or [type(error).__name__])[0]
            raise ClusterError(f"cannot reach {where}: {cause}") from error
        # as Ctrl+C; otherwise Ray's C++ part aborts with a trace
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        yield
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, before)


def _refuse_if_nobody_listens(address: str) -> None:
    """Raises ClusterError if no port answers: Ray itself goes on trying for minutes. "auto" has no port to look at."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise ClusterError(f"cannot reach the Ray cluster at {address}: {reason_of(error)}") from error


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


def cause_line(error: BaseException) -> str:
    """The line of a long message of Ray's where the cause stands, such as "ValueError: no such thing"."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt): ", line)]
    own = [line for line in causes if not line.startswith("ray.")]
    return (own or causes or lines or [type(error).__name__])[-1]


def num_local_cpus() -> int:
    """CPUs this process may use: those it may run on, or fewer where its container has a quota."""
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = _CPU_QUOTA.read_text().split()
    except (OSError, ValueError):
        return cpus
    return cpus if quota == "max" else max(1, min(cpus, int(quota) // int(period)))


def num_gpus() -> float:
    """GPUs of the cluster as Ray reports them."""
    import ray

    return float(ray.cluster_resources().get("GPU", 0))


def num_cluster_cpus() -> int:
    """CPUs of the cluster as Ray reports them."""
    import ray

    return int(ray.cluster_resources().get("CPU", 0))


def a_node_has(cpus: float, gpus: float) -> bool:
    """Whether a machine that is up could ever run a task that asks for so much."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes)


def heavy_cpu_slots() -> int:
    """How many CPUs heavy work may hold at once: all of the cluster's.

    Raises:
        ClusterError: there is none.
    """
    cpus = num_cluster_cpus()
    if cpus < 1:
        raise ClusterError(f"Ray has {cpus} CPUs, and at least one is needed: add some")
    return cpus


TRIAL_MEMORY = 300_000_000
"""Bytes that a waiting trial takes; what it asks for where the cluster does not offer TRIAL_RESOURCE."""


def trial_resources() -> dict[str, float]:
    """What one Tune trial asks for: no part of a CPU, as a node of one could then do no other work.

    Tune refuses a trial that asks for nothing.
    """
    import ray

    return {
        "cpu": 0,
        **({TRIAL_RESOURCE: 1} if TRIAL_RESOURCE in ray.cluster_resources() else {"memory": TRIAL_MEMORY}),
    }


def room_for_trials() -> int:
    """How many trials have room at once in the memory of nodes that offer TRIAL_RESOURCE; without it, Ray counts."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    rooms = [int(node.get("memory", 0) // TRIAL_MEMORY) for node in nodes if TRIAL_RESOURCE in node]
    return max(1, sum(rooms)) if rooms else sys.maxsize


def torch_device(num_gpus: float) -> str:
    """The device of a Ray task that asked for this many GPUs: the one Ray gave it, else the CPU."""
    if not num_gpus:
        return "cpu"
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


PRETEND_GPUS = "RAYLEARN_PRETEND_GPUS"
"""Set in the environment, work that was given a GPU which torch cannot use goes to the CPU: for tests of clusters."""


def refuse_unusable_gpu(num_gpus: float) -> None:
    """Raises ClusterError in a Ray task that was given GPUs of which torch can use none."""
    if num_gpus and torch_device(num_gpus) == "cpu" and not os.environ.get(PRETEND_GPUS):
        raise ClusterError(
            f"Ray offers a GPU on {socket.gethostname()}, but torch cannot use it: look at its driver and its torch "
            "(raylearn doctor), or set resources.gpus_per_task=0"
        )


def give_back_gpu_memory() -> None:
    """Frees what torch keeps of a GPU's memory for the next work of this process, which may be long in coming."""
    torch = sys.modules.get("torch")  # work that did not import it has nothing to free
    if torch is not None:
        gc.collect()  # Ultralytics' trainer is in a cycle of references
        torch.cuda.empty_cache()


def reuses_gpu_processes() -> bool:
    """Whether one process may do GPU work after GPU work, which saves the seconds that a new one takes to start.

    CUDA stays on the GPU that a process began with, whatever Ray gives it later: so where a machine has several, or may
    have when it comes up, each piece of work needs a process of its own.
    """
    import ray

    gpus = [node["Resources"]["GPU"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    return bool(os.environ.get(PRETEND_GPUS)) or (bool(gpus) and max(gpus) <= 1)


def cpus_beside_gpu(gpus: float) -> int:
    """How many CPUs the cluster has beside so many GPUs, on the node where they are fewest; at least 1."""
    import ray

    shares = [
        node["Resources"].get("CPU", 0) / node["Resources"]["GPU"] * gpus
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("GPU")
    ]
    return max(1, int(min(shares, default=1)))


@dataclass(frozen=True)
class Machine:
    """What scoring finds on a cluster.

    Args:
        node_cpus: CPUs of each node.
        gpus_per_actor: as asked for, or 1 where Ray has GPUs.
        num_actors: as many as there is room for: one per so many GPUs, or one per CPU.
        device: what a worker's torch computes on: "cpu", or the name of a GPU.
        versions: of the packages that decide detections, in a worker; of openvino only if it is installed.
    """

    node_cpus: tuple[int, ...]
    gpus_per_actor: float
    num_actors: int
    device: str
    versions: Mapping[str, str]

    @property
    def has_openvino(self) -> bool:
        return "openvino" in self.versions

    @property
    def has_cuda(self) -> bool:
        return self.device != "cpu"


def look_at_machines(gpus_per_actor: float | None, tell: Callable[[str], None]) -> Machine:
    """Asks Ray what there is, and a worker what is installed on it.

    Args:
        gpus_per_actor: None takes a GPU where there is one.
        tell: told what a user would want to know of.

    Raises:
        ClusterError: GPUs are asked for and no machine has so many, or an actor would need part of a second one; or
            there are no CPUs either.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    node_gpus = [node.get("GPU", 0.0) for node in nodes]
    most = max(node_gpus, default=0.0)
    if gpus_per_actor is None:
        gpus_per_actor = min(most, 1.0)
    if gpus_per_actor > 1 and gpus_per_actor % 1:
        raise ClusterError(f"--gpus-per-actor {gpus_per_actor:g} must be whole above 1")
    if gpus_per_actor > most:
        raise ClusterError(
            f"--gpus-per-actor {gpus_per_actor:g} is asked for, but no machine of Ray's has more than {most:g} GPUs: "
            "lower it"
        )
    node_cpus = tuple(int(node.get("CPU", 0)) for node in nodes)
    if not gpus_per_actor and not any(node_cpus):
        raise ClusterError("Ray has neither CPUs nor GPUs that could score: add some")
    room = sum(int(gpus / gpus_per_actor) for gpus in node_gpus) if gpus_per_actor else sum(node_cpus)
    # GPUs go to `remote`, not to `options`: only then does Ray end the process afterwards, and its hold on the GPU
    asked = ray.remote(num_cpus=0, num_gpus=gpus_per_actor)(_look_around).remote(gpus_per_actor)
    while not ray.wait([asked], timeout=_WAIT_SECONDS)[0]:
        tell(f"waiting for {gpus_per_actor:g} GPUs: others use them")
    try:
        device, versions = ray.get(asked)
    except ray.exceptions.RayError as error:
        raise ClusterError(f"a worker cannot be asked what is installed on it: {cause_line(error)}") from error
    if gpus_per_actor and device == "cpu":
        tell("Ray offers GPUs, but torch can use none of them: the CPUs beside them do the work")
    return Machine(node_cpus, gpus_per_actor, max(1, room), device, versions)


def cpus_for_each(num_actors: int, node_cpus: Sequence[int]) -> float:
    """The most CPUs that each of so many actors can have at once: whole ones, or a half, a third and so on of one.

    No node lends part of its CPUs to an actor on another, so 2 and 6 CPUs give two actors 3 each, not 4.
    """
    for share in range(max(node_cpus, default=0), 0, -1):
        if sum(cpus // share for cpus in node_cpus) >= num_actors:
            return float(share)
    return math.floor(100 / math.ceil(num_actors / sum(node_cpus))) / 100


def _look_around(gpus: float) -> tuple[str, dict[str, str]]:
    """In a worker: the device it computes on, and what is installed there."""
    device = "cpu"
    if torch_device(gpus) != "cpu":
        import torch

        device = torch.cuda.get_device_name(0)
    return device, installed_versions()


def installed_versions() -> dict[str, str]:
    """Versions of the packages that decide detections, as this Python has them."""
    import cv2

    names = ["torch", "torchvision", "ultralytics", "numpy", "pillow"]
    if openvino_is_installed():
        names.append("openvino")
    return {**{name: version(name) for name in names}, "opencv": cv2.__version__, "raylearn": __version__}
