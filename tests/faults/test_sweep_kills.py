"""A sweep whose driver, workers or nodes are killed: its tables are an undisturbed one's, and nothing is repeated."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from tests.small_sweep import CONTENT as SMALL

CONTENT = {
    **SMALL,
    "arms": {"uncertainty": ["entropy"], "query_size": [4], "controls": ["random", "full_data"]},
    "seeds": [0, 1],
}
NUM_TRAININGS = 12  # of each seed: the initial one, two of each arm, and one on all data


def _command(folder: Path, *more: str) -> list[str]:
    file = folder.with_suffix(".yaml")
    file.write_text(json.dumps(CONTENT))
    program = str(Path(sys.executable).with_name("raylearn"))
    return [program, "run", str(file), "--out", str(folder), *more]


def _finish(folder: Path, *more: str) -> str:
    done = subprocess.run(_command(folder, *more), capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _made_now(printed: str) -> int:
    (number,) = re.findall(r"(\d+) made now", printed)
    return int(number)


def _tables(folder: Path) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Both tables, but for how long things took."""
    results, queries = (pq.read_table(folder / f"{name}.parquet").to_pylist() for name in ("results", "queries"))
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in results], queries


def _finished_trainings(folder: Path) -> dict[str, int]:
    """Key -> when it was written, in nanoseconds."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("store/training/*/artifact.json")}


def _wait_for_trainings(folder: Path, wanted: int, driver: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 200
    while len(_finished_trainings(folder)) < wanted:
        assert driver.poll() is None, "the sweep ended before it could be disturbed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _start(folder: Path, *more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(_command(folder, *more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _at_work(driver: "subprocess.Popen[str]") -> list[int]:
    """Processes of Ray's workers that are not idle: trials, the workshop, trainings, passes, detector actors.

    Not the agents of a node, which takes its end from theirs.
    """
    found = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        with suppress(psutil.Error):
            name = process.cmdline()[0]
            if name.startswith("ray::") and not name.startswith("ray::IDLE") and not name.endswith("Agent"):
                found.append(process.pid)
    return sorted(found)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep") / "small"
    assert _made_now(_finish(folder)) == NUM_TRAININGS
    return folder


@pytest.fixture
def two_nodes() -> Iterator[tuple[object, list[object]]]:
    """A cluster of a head with a CPU and two nodes with one each."""
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    checks = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": checks})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    try:
        yield cluster, nodes
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.long
@pytest.mark.timeout(500)
@pytest.mark.parametrize("point", range(20))
def test_twenty_seeded_kill_points_of_driver_worker_and_node(
    point: int, undisturbed: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = tmp_path / "small"
    rng = random.Random(point)
    finished, delay = rng.randrange(NUM_TRAININGS - 2), rng.uniform(0, 1)
    victim = ("driver", "worker", "node")[point % 3]
    if victim == "node":
        cluster, nodes = request.getfixturevalue("two_nodes")
        driver = _start(folder, "--address", cluster.address)
    else:
        driver = _start(folder)
    try:
        _wait_for_trainings(folder, finished, driver)
        time.sleep(delay)
        if victim == "driver":
            family = psutil.Process(driver.pid).children(recursive=True)
            driver.kill()
            driver.wait()
            for process in family:
                with suppress(psutil.Error):
                    process.kill()
            before = _finished_trainings(folder)
            printed = _finish(folder)
            assert _made_now(printed) == NUM_TRAININGS - len(before)
        else:
            before = _finished_trainings(folder)
            if victim == "worker":
                at_work = _at_work(driver)
                if at_work:
                    os.kill(rng.choice(at_work), signal.SIGKILL)
            else:
                cluster.remove_node(rng.choice(nodes), allow_graceful=False)
            printed, _ = driver.communicate(timeout=280)
            assert driver.returncode == 0, printed
        assert before.items() <= _finished_trainings(folder).items()
        assert _tables(folder) == _tables(undisturbed)
    finally:
        driver.kill()
        driver.wait()
