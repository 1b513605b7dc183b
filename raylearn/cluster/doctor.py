"""Looks over a machine or a cluster before a sweep does: what is wrong is said with what to do about it."""

import os
import shutil
import socket
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from tempfile import gettempdir
from typing import Any, Literal

from raylearn.cluster.machines import installed_versions
from raylearn.cluster.resources import TRIAL_RESOURCE
from raylearn.cluster.session import ray_session
from raylearn.data.storage import Folder
from raylearn.detectors import all_families, default_family
from raylearn.errors import InputError, RaylearnError
from raylearn.plugins import versions_of

_NODE_SECONDS = 120.0  # for a node's first task: a worker is started there, and torch imported
_DISK_GB, _SHM_GB = 5.0, 1.0
_SHARED_MEMORY = "/dev/shm"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        level: a "problem" would stop or spoil a sweep; a "warning" makes it slow, or less safe.
        text: what was found and, if it is not fine, what to do.
    """

    level: Literal["ok", "warning", "problem"]
    text: str


@dataclass(frozen=True)
class Node:
    """What a worker on one node finds.

    Args:
        host: its name.
        cpus, gpus: as Ray counts them.
        cuda_gpus: as torch counts them.
        versions: package -> version.
        disk_gb: free where trainings put their copies.
        shm_gb: size of the shared memory that Ray's object store lives in.
        storage: why the storage cannot be used from there, or "".
    """

    host: str
    cpus: float
    gpus: float
    cuda_gpus: int
    versions: Mapping[str, str]
    disk_gb: float
    shm_gb: float
    storage: str


def examine(address: str | None, storage: str) -> Iterator[Finding]:
    """Looks at everything, and tells of each thing as soon as it is known.

    Args:
        address: of a Ray cluster; None starts a private Ray on this machine, as a sweep would.
        storage: folder or address that runs and ledgers are to be written to.
    """
    if address and os.environ.get("RAY_AUTH_MODE") != "token":
        yield Finding("warning", "RAY_AUTH_MODE is not token: whoever reaches the cluster's ports can run code on it")
    try:
        folder = Folder.at(storage)
        mark = f"doctor-{uuid.uuid4().hex}"
        folder.add(mark, b"driver")
    except RaylearnError as error:
        yield Finding("problem", f"storage: {error}")
        return
    try:
        with ray_session(address):
            yield from _examine_cluster(folder, mark)
    except RaylearnError as error:
        yield Finding("problem", f"ray: {error}")
    finally:
        for name in folder.sizes():
            if name.startswith(mark):
                folder.remove(name)


def judge(here: Mapping[str, str], nodes: Sequence[Node]) -> Iterator[Finding]:
    """What is right and wrong with nodes that answered.

    Args:
        here: the versions that the driver has.
        nodes: at least one.
    """
    for node in nodes:
        gpus = f", {node.gpus:g} GPUs" if node.gpus else ""
        yield Finding("ok", f"{node.host}: {node.cpus:g} CPUs{gpus}, {node.disk_gb:.0f} GB free")
        for name in sorted(here.keys() | node.versions.keys()):
            if here.get(name) != node.versions.get(name):
                yield Finding(
                    "problem",
                    f"{node.host}: {name} is {node.versions.get(name, 'missing')}, here {here.get(name, 'missing')}: "
                    "install the same versions on every node",
                )
        if node.cuda_gpus < node.gpus:
            yield Finding(
                "problem",
                f"{node.host}: Ray offers {node.gpus:g} GPUs, torch sees {node.cuda_gpus}: look at nvidia-smi and at "
                "torch's CUDA build there",
            )
        if node.storage:
            yield Finding("problem", f"{node.host}: {node.storage}")
        if node.disk_gb < _DISK_GB:
            yield Finding("warning", f"{node.host}: only {node.disk_gb:.1f} GB are free in {gettempdir()}: make room")
        if node.shm_gb < _SHM_GB:
            yield Finding(
                "warning",
                f"{node.host}: {_SHARED_MEMORY} has {node.shm_gb:.2f} GB, so Ray's objects go to disk: start its "
                "container with --shm-size, or mount a memory volume there",
            )
    if not any(node.cpus or node.gpus for node in nodes):
        yield Finding("problem", "Ray has neither CPUs nor GPUs for any work: add workers, or wait for them")


def _examine_cluster(folder: Folder, mark: str) -> Iterator[Finding]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    alive = [node for node in ray.nodes() if node["Alive"]]
    yield Finding("ok", f"ray: {len(alive)} nodes, {ray.cluster_resources().get('GPU', 0):g} GPUs")
    if TRIAL_RESOURCE not in ray.cluster_resources():
        yield Finding(
            "warning",
            f"ray: no node offers {TRIAL_RESOURCE}, so trials wait on any node, which then cannot be given back: "
            f"""start the head with --resources '{{"{TRIAL_RESOURCE}": 100000}}'""",
        )
    asked = {
        ray.remote(_look_around)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0), str(folder), mark): node
        for node in alive
    }
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_NODE_SECONDS)
    for reference in silent:
        name = asked[reference]["NodeManagerHostname"]
        yield Finding("problem", f"{name}: no answer within {_NODE_SECONDS:.0f} s: look at its memory and Ray's logs")
    nodes = []
    for reference in answered:
        try:
            nodes.append(ray.get(reference))
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            yield Finding("problem", f"{asked[reference]['NodeManagerHostname']}: a worker cannot start: {reason}")
    if nodes:
        yield from judge(_versions(), sorted(nodes, key=lambda node: node.host))
    there = {name for name in folder.sizes() if name.startswith(mark)}
    written = sum(not node.storage for node in nodes)
    if len(there) == 1 + written:
        yield Finding("ok", f"storage: {folder} is written from here and from {written} nodes, and is the same one")
    else:
        yield Finding("problem", f"storage: of {written} files that nodes wrote to {folder}, {len(there) - 1} are seen")


def _look_around(cpus: float, gpus: float, storage: str, mark: str) -> Node:
    """In a worker."""
    import torch

    shm = 0.0
    with suppress(OSError):
        shm = shutil.disk_usage(_SHARED_MEMORY).total / 1e9
    return Node(
        host=socket.gethostname(),
        cpus=cpus,
        gpus=gpus,
        # the count alone also counts those whose driver is too old for this torch
        cuda_gpus=torch.cuda.device_count() if torch.cuda.is_available() else 0,
        versions=_versions(),
        disk_gb=shutil.disk_usage(gettempdir()).free / 1e9,
        shm_gb=shm,
        storage=_try_storage(storage, mark),
    )


def _try_storage(storage: str, mark: str) -> str:
    folder = Folder(storage)
    try:
        if folder.read(mark) != b"driver":
            return f"{storage} is not the driver's: use a shared file system or an address such as s3://bucket/runs"
        folder.add(f"{mark}-{uuid.uuid4().hex}", b"worker")
    except RaylearnError as error:
        return str(error)
    return ""


def _packages() -> dict[str, str]:
    """Versions of what decides the results of any family; of what is not installed none."""
    names = {name for family in all_families().values() for name in (*family.packages, *family.training_packages)}
    found = installed_versions(default_family())
    for name in sorted(names):
        with suppress(InputError):
            found |= versions_of([name])
    return found


def _versions() -> dict[str, Any]:
    python = ".".join(map(str, sys.version_info[:3]))
    return {"python": python, "ray": version("ray"), **_packages()}
