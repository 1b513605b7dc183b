"""A machine that runs out of memory in a sweep."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from raylearn.cluster.session import ray_session
from raylearn.data.storage import Folder
from raylearn.errors import RaylearnError
from raylearn.work.resources import WorkResources
from raylearn.work.store import DiskStore, artifact_key
from raylearn.work.workshop import ask_workshop, open_workshop

ROOM = 6e9  # bytes until Ray calls the machine full


@dataclass(frozen=True)
class HungryJob:
    """Takes memory until it is ended, and leaves a mark for each time that it is run."""

    marks: Path

    kind = "training"
    key = artifact_key(name="hungry")

    def run(self, folder: Folder, resources: WorkResources) -> dict[str, int]:  # noqa: ARG002  a Job's signature
        (self.marks / f"hungry-{os.getpid()}").touch()
        taken = []
        while len(taken) < 3 * ROOM / 1e8:
            taken.append(b"x" * int(1e8))
            time.sleep(0.02)
        return {"taken": len(taken)}


@pytest.mark.long
@pytest.mark.timeout(150)
def test_what_needs_too_much_is_ended_told_and_tried_a_few_times_and_the_workshop_lives_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    ray.shutdown()
    memory = psutil.virtual_memory()
    monkeypatch.setenv("RAY_memory_usage_threshold", str((memory.total - memory.available + ROOM) / memory.total))
    with ray_session(None):
        resources = WorkResources(cpus=1, gpus=0, scoring_actors=1, cpu_slots=2)
        workshop = open_workshop(DiskStore(tmp_path / "store"), resources)
        for _ in range(2):
            with pytest.raises(RaylearnError, match="training: ended 4 times as its machine ran out of memory; raise "):
                ask_workshop(workshop, HungryJob(tmp_path), "trial")
    assert len(list(tmp_path.glob("hungry-*"))) == 4
