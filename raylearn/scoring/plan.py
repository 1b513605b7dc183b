"""How a scoring pass is made: the plan that the driver draws up and every actor follows."""

import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from raylearn.cluster.devices import torch_device
from raylearn.cluster.machines import installed_versions
from raylearn.data.storage import read_address, reason_of, storage_error
from raylearn.detectors import build_detector, family_of
from raylearn.detectors.base import Detector, DetectorSettings, Engine
from raylearn.errors import ClusterError
from raylearn.scoring.fetching import REQUESTS
from raylearn.scoring.manifest import FIRST_SPAN, Span

PARTS_ON_GPU = 3
"""Parts that one actor with a GPU works on at once: one is decoded while another is in the network."""


@dataclass(frozen=True)
class ScoringPlan:
    """How one pass of one checkpoint is made.

    Args:
        checkpoint: the address of a file that every worker can read.
        settings: what decides the detections.
        engine: what runs the network.
        batch_size: images per call of the model; no influence on the result beyond the last bits.
        num_actors: detector actors, at most; no influence on the result.
        min_actors: with which it begins; more come and go as the cluster has room. None is as many as `num_actors`.
        cpus_per_actor, gpus_per_actor: what one actor asks Ray for.
        needs_cuda: an actor whose GPU torch cannot use is an error; otherwise the CPU does the work.
        versions: package -> version that every worker must have; empty where they are not looked at.
        here: the process that holds the plan scores, without Ray.
        requests: objects that one actor asks a store for at once; 0 reads each where it is decoded.
        spans: of the manifest; see ManifestFiles.
        num_threads: that read, in one actor; None is as many as it has CPUs.
    """

    checkpoint: str
    settings: DetectorSettings
    engine: Engine = field(default_factory=Engine)
    batch_size: int = 4
    num_actors: int = 1
    min_actors: int | None = None
    cpus_per_actor: float = 1
    gpus_per_actor: float = 0
    needs_cuda: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)
    here: bool = False
    requests: int = REQUESTS
    spans: tuple[Span, ...] = (FIRST_SPAN,)
    num_threads: int | None = None


def default_batch_size(on_gpu: bool) -> int:
    """Images per call of the model: many keep a GPU busy, few stay in a CPU's cache."""
    return 64 if on_gpu else 4


def open_detector(plan: ScoringPlan) -> Detector:
    """In an actor: the detector of the plan, loaded."""
    import cv2

    here = socket.gethostname()
    device = torch_device(plan.gpus_per_actor)
    if plan.needs_cuda and device == "cpu":
        raise ClusterError(f"Ray offers a GPU on {here}, but torch cannot use it: look at its driver and its torch")
    cv2.setNumThreads(1)  # images are read side by side; threads within one would only get in each other's way
    with tempfile.TemporaryDirectory(prefix="raylearn-checkpoint-") as name:
        path = Path(name) / "checkpoint.pt"
        try:
            path.write_bytes(read_address(plan.checkpoint))
        except (OSError, ValueError) as error:
            message = f"a worker cannot read the checkpoint {plan.checkpoint}: {reason_of(error)}"
            raise storage_error(message, error) from error
        family = family_of(path).name
        _refuse_other_versions(plan, family)
        detector = build_detector(
            "",
            plan.settings,
            device=device,
            num_threads=max(1, int(plan.cpus_per_actor)),
            engine=plan.engine,
            family=family,
        )
        detector.load(path)
    return detector


def _refuse_other_versions(plan: ScoringPlan, family: str) -> None:
    installed = installed_versions(family) if plan.versions else {}
    for name, wanted in plan.versions.items():
        if installed.get(name) != wanted:
            raise ClusterError(
                f"{socket.gethostname()} has {name} {installed.get(name)}, but the pass was begun with {wanted}: "
                "install the same versions on every node"
            )
