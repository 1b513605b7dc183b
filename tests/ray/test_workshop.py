"""The workshop on a real Ray: each key is made once, whoever asks and however often."""

import errno
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from raylearn.data.storage import Folder
from raylearn.errors import DivergedError, RaylearnError, StorageError
from raylearn.progress import steps
from raylearn.work.resources import WorkResources
from raylearn.work.store import DiskStore, artifact_key
from raylearn.work.workshop import Workshop, ask_workshop

pytestmark = pytest.mark.usefixtures("local_ray")
RESOURCES = WorkResources(cpus=1, gpus=0, scoring_actors=1, cpu_slots=2)


@dataclass(frozen=True)
class SlowJob:
    """Leaves a mark for each time that it is really run."""

    name: str
    marks: Path
    raises: Exception | None = None
    falls: int = 0

    kind = "training"

    @property
    def key(self) -> str:
        return artifact_key(name=self.name)

    def run(self, folder: Folder, resources: WorkResources) -> dict[str, int]:
        import time

        (self.marks / f"{self.name}-{os.getpid()}-{time.monotonic_ns()}").touch()
        if len(list(self.marks.glob(f"{self.name}-*"))) <= self.falls:
            if self.raises:
                raise self.raises
            os.kill(os.getpid(), signal.SIGKILL)
        steps("epoch", 3, 18)
        time.sleep(0.5)
        if self.raises and not self.falls:
            raise self.raises
        folder.add("made", self.name.encode())
        return {"cpus": resources.cpus}


@pytest.fixture
def workshop(tmp_path: Path):
    import ray

    return (
        ray.remote(Workshop).options(num_cpus=0, max_concurrency=100).remote(DiskStore(tmp_path / "store"), RESOURCES)
    )


def test_many_requests_for_one_key_are_one_making(workshop, tmp_path: Path) -> None:
    import ray

    job = SlowJob("one", tmp_path)
    answers = ray.get([workshop.make.remote(job, f"trial {n}") for n in range(8)])
    assert len(list(tmp_path.glob("one-*"))) == 1
    assert sum(started for _, started in answers) == 1
    assert len({artifact.facts["made_by"] for artifact, _ in answers}) == 1
    again, started = ray.get(workshop.make.remote(job, "later"))
    assert not started
    assert again == DiskStore(tmp_path / "store").find("training", job.key)


def test_who_waits_can_see_how_far_the_work_is(workshop, tmp_path: Path) -> None:
    import ray

    making = workshop.make.remote(SlowJob("told", tmp_path), "trial")
    seen = set()
    while not ray.wait([making], timeout=0.05)[0]:
        seen |= {(work.kind, work.number, str(work.steps)) for work in ray.get(workshop.works.remote())}
    assert ("training", 1, "epoch 3/18") in seen
    assert ray.get(workshop.works.remote()) == []


def test_a_failed_making_reaches_all_who_ask_and_is_tried_again_in_the_next_run_only(workshop, tmp_path: Path) -> None:
    import ray

    job = SlowJob("bad", tmp_path, raises=DivergedError("planted"))
    waiting = [workshop.make.remote(job, f"trial {n}") for n in range(3)]
    for reference in waiting:
        with pytest.raises(ray.exceptions.RayTaskError, match="planted"):
            ray.get(reference)
    assert len(list(tmp_path.glob("bad-*"))) == 1
    with pytest.raises(ray.exceptions.RayTaskError, match="planted"):
        ray.get(workshop.make.remote(job, "later"))
    assert len(list(tmp_path.glob("bad-*"))) == 1
    next_run = ray.remote(Workshop).remote(DiskStore(tmp_path / "store"), RESOURCES)
    assert ray.get(next_run.make.remote(SlowJob("bad", tmp_path), "later"))[1]


def test_what_a_library_raises_is_an_error_in_a_line_that_says_where(workshop, tmp_path: Path) -> None:
    with pytest.raises(RaylearnError, match=r"training on .*: ZeroDivisionError: planted; "):
        ask_workshop(workshop, SlowJob("strange", tmp_path, raises=ZeroDivisionError("planted")), "trial")
    full = OSError(errno.ENOSPC, "No space left on device", "/disk/file")
    with pytest.raises(StorageError, match=r"training on .*: /disk/file: No space left on device"):
        ask_workshop(workshop, SlowJob("full", tmp_path, raises=full), "trial")


def test_work_whose_process_is_lost_is_tried_again_a_few_times(workshop, tmp_path: Path) -> None:
    import ray

    assert ray.get(workshop.make.remote(SlowJob("falls", tmp_path, falls=2), "trial"))[1]
    assert len(list(tmp_path.glob("falls-*"))) == 3
    for _ in range(2):  # who asks later is told, and nothing is tried once more
        with pytest.raises(RaylearnError, match="training: its process was lost 4 times; "):
            ask_workshop(workshop, SlowJob("never", tmp_path, falls=9), "trial")
    assert len(list(tmp_path.glob("never-*"))) == 4


def test_a_process_whose_gpu_answers_no_more_does_nothing_else(workshop, tmp_path: Path) -> None:
    import torch

    job = SlowJob("dead", tmp_path, raises=torch.AcceleratorError("planted"), falls=1)
    assert ask_workshop(workshop, job, "trial")[1]
    assert len({path.name.split("-")[1] for path in tmp_path.glob("dead-*")}) == 2


def test_more_jobs_than_slots_are_all_made(workshop, tmp_path: Path) -> None:
    import ray

    jobs = [SlowJob(f"job{n}", tmp_path) for n in range(7)]
    artifacts = ray.get([workshop.make.remote(job, "trial") for job in jobs])
    assert {artifact.key for artifact, _ in artifacts} == {job.key for job in jobs}
