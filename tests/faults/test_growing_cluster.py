"""Machines that come and go while a pool is scored."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raylearn.data.storage import Folder
from raylearn.detectors.base import Detections, DetectorSettings
from raylearn.scoring.ledger import finished_parts
from raylearn.scoring.manifest import Manifest
from raylearn.scoring.pipeline import deal_out
from raylearn.scoring.plan import ScoringPlan
from raylearn.scoring.reading import ReadImage
from raylearn.scoring.score_part import Part
from tests.unit.hand_made import make_image

NUM_PARTS = 240


def _read(_uri: str, _content_hash: str) -> ReadImage:
    return ReadImage(np.zeros((1, 1, 3), np.uint8), (640, 480))


class _Slow:
    """Finds nothing, in half a second."""

    class_names = ("crab",)

    def predict(self, canvases: np.ndarray, sizes: np.ndarray) -> list[Detections]:  # noqa: ARG002
        time.sleep(0.5)
        return [Detections(np.zeros((0, 4), np.float32), np.zeros((0, 1), np.float32))] * len(canvases)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without GPUs, and a node with one, as Ray believes."""
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    checks = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": checks})
    found.add_node(num_cpus=1, num_gpus=1)
    ray.init(address=found.address, log_to_driver=False)
    try:
        yield found
    finally:
        ray.shutdown()
        found.shutdown()


@pytest.mark.long
@pytest.mark.timeout(200)
def test_a_machine_that_joins_gets_parts_and_one_that_goes_takes_none_along(cluster: Any, tmp_path: Path) -> None:
    manifest = Manifest.of((make_image(f"{number:03}.jpg") for number in range(NUM_PARTS)), part_size=1)
    folder = Folder.at(tmp_path / "ledger")
    manifest.write(folder)
    settings = DetectorSettings(64, confidence=0.05, iou=0.7, max_detections=100)
    plan = ScoringPlan("", settings, num_actors=3, min_actors=1, gpus_per_actor=1, requests=0)
    made: list[Part] = []
    joined = None
    for part in deal_out(range(NUM_PARTS), _Slow, _read, plan, folder, "key"):
        made.append(part)
        workers = {part.worker for part in made}
        if len(made) == 3:
            assert len(workers) == 1
            joined = cluster.add_node(num_cpus=1, num_gpus=1)
        if len(workers) == 2 and joined is not None:
            cluster.remove_node(joined, allow_graceful=False)
            joined = None
    assert joined is None, "the machine that joined was given nothing"
    assert sorted({part.number for part in made}) == list(range(NUM_PARTS)) == finished_parts(folder)
