"""What is chosen where the score command was left the choice: by device, pool size and what is installed."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from raylearn.cluster.machines import Machine
from raylearn.data.storage import Folder
from raylearn.detectors.base import DetectorSettings, Engine
from raylearn.errors import ClusterError
from raylearn.scoring.plan import ScoringPlan
from raylearn.scoring.pool_scoring import LARGE_POOL, _choose, _needs_no_ray
from raylearn.scoring.request import ScoreRequest

CPUS = Machine((4, 4), 0, 8, "cpu", {"torch": "2.14.1"})
WITH_OPENVINO = replace(CPUS, versions={"torch": "2.14.1", "openvino": "2025.4"})
GPUS = Machine((16,), 1, 2, "NVIDIA L4", {"torch": "2.14.1", "openvino": "2025.4"})
GPUS_WITHOUT_CUDA = replace(GPUS, device="cpu")


SETTINGS = DetectorSettings(640, 0.05, 0.7, 100)


def choose(
    machine: Machine, num_images: int = LARGE_POOL, settings: DetectorSettings = SETTINGS, **asked: Any
) -> ScoringPlan:
    request = ScoreRequest("pool", Path("best.pt"), **asked)
    record = {
        "engine": {"backend": request.backend, "precision": request.precision},
        "num_images": num_images,
        "settings": asdict(settings),
    }
    return _choose(request, record, machine, Folder("out"))


@pytest.mark.parametrize(
    ("machine", "num_images", "engine", "batch_size", "actors"),
    [
        (CPUS, LARGE_POOL, Engine("torch", "fp32"), 4, (8, 1.0, 0)),
        (WITH_OPENVINO, LARGE_POOL, Engine("openvino", "fp32"), 4, (8, 1.0, 0)),
        (WITH_OPENVINO, LARGE_POOL - 1, Engine("torch", "fp32"), 4, (8, 1.0, 0)),
        (GPUS, LARGE_POOL, Engine("torch", "fp16"), 64, (2, 0.0, 1)),
        (GPUS_WITHOUT_CUDA, LARGE_POOL, Engine("torch", "fp32"), 4, (2, 0.0, 1)),
    ],
    ids=["CPUs", "CPUs with OpenVINO", "a small pool", "GPUs", "GPUs that torch cannot use"],
)
def test_what_is_left_open_is_chosen_by_machine_and_pool(
    machine: Machine, num_images: int, engine: Engine, batch_size: int, actors: tuple[int, float, float]
) -> None:
    plan = choose(machine, num_images)
    assert (plan.engine, plan.batch_size) == (engine, batch_size)
    assert (plan.num_actors, plan.cpus_per_actor, plan.gpus_per_actor) == actors
    assert plan.needs_cuda == (machine is GPUS)
    assert ("openvino" in plan.versions) == (engine.backend == "openvino")


@pytest.mark.parametrize(("precision", "backend"), [("auto", "openvino"), ("fp32", "openvino"), ("bf16", "torch")])
def test_with_embeddings_the_backend_is_one_that_leaves_boxes_as_they_are(precision: str, backend: str) -> None:
    settings = DetectorSettings(640, 0.05, 0.7, 100, embeddings=True)
    plan = choose(WITH_OPENVINO, settings=settings, precision=precision)
    assert plan.engine.backend == backend
    assert plan.settings == settings


def test_what_was_asked_for_is_done() -> None:
    plan = choose(WITH_OPENVINO, backend="torch", precision="bf16", batch_size=7, num_actors=3)
    assert (plan.engine, plan.batch_size) == (Engine("torch", "bf16"), 7)
    assert (plan.num_actors, plan.cpus_per_actor) == (3, 2.0)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"precision": "fp16", "backend": "torch"}, "--precision fp16 needs a GPU"),
        ({"backend": "openvino"}, "backend openvino is not installed on the workers"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_pass_begins(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ClusterError, match=said):
        choose(CPUS, **asked)


def test_a_pass_begun_in_fp16_says_what_to_do_where_there_is_no_gpu() -> None:
    request = ScoreRequest("pool", Path("best.pt"))
    record = {
        "engine": {"backend": "torch", "precision": "fp16"},
        "num_images": 10,
        "settings": asdict(DetectorSettings(640, 0.05, 0.7, 100)),
    }
    with pytest.raises(ClusterError, match="out was begun in fp16, which needs a GPU"):
        _choose(request, record, CPUS, Folder("out"))


@pytest.mark.parametrize(
    ("more", "missing", "wanted"),
    [
        ({}, [1], True),
        ({}, [], True),
        ({}, [0, 1], False),
        ({"gpus_per_actor": 1.0}, [1], False),
    ],
    ids=["one part is missing", "none is", "two are", "a GPU is asked for"],
)
def test_ray_is_started_where_there_is_something_to_deal_out_or_a_gpu_to_give(more, missing, wanted):
    request = ScoreRequest("pool", Path("best.pt"), **{"gpus_per_actor": 0, **more})
    assert _needs_no_ray(request, missing) is wanted
