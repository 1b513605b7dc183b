"""What scoring finds on the machines of a cluster: devices, room for actors, versions of packages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from raylearn import __version__
from raylearn.cluster.devices import torch_device
from raylearn.cluster.resources import num_local_cpus
from raylearn.cluster.session import cause_line
from raylearn.detectors import family_named, openvino_is_installed
from raylearn.errors import ClusterError
from raylearn.plugins import versions_of

_WAIT_SECONDS = 15.0  # between two lines that say what is waited for


@dataclass(frozen=True)
class Machine:
    """What scoring finds on a cluster.

    Args:
        node_cpus: CPUs of each node.
        gpus_per_actor: as asked for, or where Ray has GPUs a whole one, a half or a quarter.
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


def look_at_machines(gpus_per_actor: float | None, family: str, tell: Callable[[str], None]) -> Machine:
    """Asks Ray what there is, and a worker what is installed on it.

    Args:
        gpus_per_actor: None takes GPUs where there are some, and shares each between as many actors as its CPUs feed.
        family: of the detector.
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
        gpus_per_actor = min(most, 1 / _actors_on_a_gpu([n for n in nodes if n.get("GPU")])) if most else 0.0
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
    asked = ray.remote(num_cpus=0, num_gpus=gpus_per_actor)(_look_around).remote(gpus_per_actor, family)
    while not ray.wait([asked], timeout=_WAIT_SECONDS)[0]:
        tell(f"waiting for {gpus_per_actor:g} GPUs: others use them")
    try:
        device, versions = ray.get(asked)
    except ray.exceptions.RayError as error:
        raise ClusterError(f"a worker cannot be asked what is installed on it: {cause_line(error)}") from error
    if gpus_per_actor and device == "cpu":
        tell("Ray offers GPUs, but torch can use none of them: the CPUs beside them do the work")
    return Machine(node_cpus, gpus_per_actor, max(1, room), device, versions)


def _actors_on_a_gpu(nodes: Sequence[Mapping[str, float]]) -> int:
    """4, 2 or 1, by the CPUs beside a GPU on the node where they are fewest.

    One process cannot feed a large GPU: beside 16 CPUs four actors scored twice what one did (docs/log.md).
    """
    cpus = min((node.get("CPU", 0) / node["GPU"] for node in nodes), default=0)
    return 4 if cpus >= 16 else 2 if cpus >= 8 else 1


def this_machine(family: str) -> Machine:
    """What a private Ray would find on this machine if it had no GPUs; `family` is the detector's."""
    cpus = num_local_cpus()
    return Machine((cpus,), gpus_per_actor=0, num_actors=cpus, device="cpu", versions=installed_versions(family))


def _look_around(gpus: float, family: str) -> tuple[str, dict[str, str]]:
    """In a worker: the device it computes on, and what is installed there."""
    device = "cpu"
    if torch_device(gpus) != "cpu":
        import torch

        device = torch.cuda.get_device_name(0)
    return device, installed_versions(family)


def installed_versions(family: str) -> dict[str, str]:
    """Versions of what decides the ledger of a pass with a detector of a family, as this Python has them."""
    found = {**detection_versions(family), "raylearn": __version__}
    if "openvino" in family_named(family).backends and openvino_is_installed():
        found |= versions_of(("openvino",))
    return found


@cache  # every job of a sweep asks
def detection_versions(family: str) -> Mapping[str, str]:
    """Versions of the packages that decide what torch and a family make of an image file, as this Python has them."""
    import cv2

    versions = versions_of((*family_named(family).packages, "numpy", "pillow"))
    return MappingProxyType({**versions, "opencv": cv2.__version__})
