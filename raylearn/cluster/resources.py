"""What a machine or a cluster has, and how work shares it."""

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from raylearn.errors import ClusterError

_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of cgroup v2; microseconds per period of microseconds


TRIAL_RESOURCE = "raylearn_trial"
"""A resource that the head node may offer (1 per trial, say 100000), so that waiting trials cost no CPU."""


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


def cpus_beside_gpu(gpus: float) -> int:
    """How many CPUs the cluster has beside so many GPUs, on the node where they are fewest; at least 1."""
    import ray

    shares = [
        node["Resources"].get("CPU", 0) / node["Resources"]["GPU"] * gpus
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("GPU")
    ]
    return max(1, int(min(shares, default=1)))


def cpus_for_each(num_actors: int, node_cpus: Sequence[int]) -> float:
    """The most CPUs that each of so many actors can have at once: whole ones, or a half, a third and so on of one.

    No node lends part of its CPUs to an actor on another, so 2 and 6 CPUs give two actors 3 each, not 4.
    """
    for share in range(max(node_cpus, default=0), 0, -1):
        if sum(cpus // share for cpus in node_cpus) >= num_actors:
            return float(share)
    return math.floor(100 / math.ceil(num_actors / sum(node_cpus))) / 100
