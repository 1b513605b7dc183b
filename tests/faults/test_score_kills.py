"""Scoring is killed at seeded points: the ledger ends with the content of an undisturbed run's."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from raylearn.data.storage import Folder
from raylearn.scoring.ledger import finished_parts
from tests.faults.conftest import PART_SIZE, content_of, refused_score, run_score, score_command, succeeded

NUM_PARTS = 104 // PART_SIZE


def _num_parts(out: Path) -> int:
    return len(finished_parts(Folder(str(out)))) if out.exists() else 0


def _wait_for_parts(out: Path, wanted: int, driver: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 100
    while _num_parts(out) < wanted:
        assert driver.poll() is None, "the run ended before it could be disturbed"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def _written(out: Path) -> dict[str, int]:
    """Part -> when it was written, in nanoseconds."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}


def _start(pool: Path, trained: Path, out: Path, *more: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        score_command(pool, trained, out, *more),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # where the tests themselves run in the background, they were told to ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def _kill_driver_at(pool: Path, trained: Path, out: Path, parts: int, delay: float) -> None:
    driver = _start(pool, trained, out)
    try:
        _wait_for_parts(out, parts, driver)
        time.sleep(delay)
        family = psutil.Process(driver.pid).children(recursive=True)
        driver.kill()
    finally:
        driver.kill()
        driver.wait()
    for process in family:
        with suppress(psutil.Error):
            process.kill()


def _same(out: Path, undisturbed: Path) -> None:
    ours, theirs = content_of(out), content_of(undisturbed)
    assert [row["image_id"] for row in ours] == [row["image_id"] for row in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one == other


def test_a_second_driver_is_refused_and_one_that_was_killed_or_asked_to_end_goes_on_and_repeats_nothing(
    pool: Path, trained: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ledger"
    _kill_driver_at(pool, trained, out, parts=1, delay=0.02)
    killed = _written(out)
    driver = _start(pool, trained, out)
    try:
        _wait_for_parts(out, 8, driver)
        driver.send_signal(signal.SIGSTOP)  # so that it is not done before the second one asks
        message = refused_score(capsys, pool, trained, out)
        assert f'"pid": {driver.pid}' in message
        assert str(out) in message
        family = psutil.Process(driver.pid).children(recursive=True)
        driver.terminate()  # as a scheduler does; Ray's own answer would be a trace of its C++ part
        driver.send_signal(signal.SIGCONT)
        _, said = driver.communicate(timeout=60)
        assert driver.returncode == 130, said.decode()
    finally:
        driver.kill()
        driver.wait()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    assert killed.items() <= _written(out).items()
    (out / min(killed)).unlink()  # wherever parts are missing, they are made
    written = _written(out)
    assert len(written) < NUM_PARTS - 1
    printed = succeeded(run_score(pool, trained, out))
    assert f"{len(written)} of {NUM_PARTS} parts are there already" in printed
    assert written.items() <= _written(out).items()
    assert not list(out.glob(".*.unfinished"))
    _same(out, undisturbed)


def _actors(driver: "subprocess.Popen[bytes]", ancestor: int) -> list[int]:
    """The detector actors among the processes below one, as soon as the driver has any: the pool is small."""
    while driver.poll() is None:
        with suppress(psutil.Error):
            family = psutil.Process(ancestor).children(recursive=True)
            found = [process.pid for process in family if "MapWorker" in " ".join(process.cmdline())]
            if found:
                return found
        time.sleep(0.05)
    raise AssertionError("the run ended before it had actors")


@pytest.fixture
def two_nodes() -> Iterator[tuple[Any, list[Any]]]:
    """A cluster of a head without GPUs and two nodes with one each, as Ray believes."""
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    checks = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": checks})
    nodes = [cluster.add_node(num_cpus=1, num_gpus=1) for _ in range(2)]
    try:
        yield cluster, nodes
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.timeout(400)
def test_an_actor_that_dies_is_replaced_and_a_node_takes_nothing_along(
    pool: Path, trained: Path, undisturbed: Path, tmp_path: Path, two_nodes: tuple[Any, list[Any]]
) -> None:
    """The other node is lost, so that only what came in the actor's place can bring the pass to its end."""
    cluster, nodes = two_nodes
    out = tmp_path / "ledger"
    command = score_command(pool, trained, out, "--address", cluster.address)
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        actor = psutil.Process(_actors(driver, os.getpid())[0])
        raylets = {node.all_processes["raylet"][0].process.pid: node for node in nodes}
        own = raylets.pop(actor.ppid())
        _wait_for_parts(out, 3, driver)
        actor.kill()
        _wait_for_parts(out, 6, driver)
        cluster.remove_node(*raylets.values(), allow_graceful=False)
        told, _ = driver.communicate(timeout=150)
    finally:
        driver.kill()
        driver.wait()
    printed = told.decode()
    assert driver.returncode == 0, printed
    assert own.any_processes_alive()
    assert "torch can use none of them" in printed
    assert "torch in fp32, batches of 4, 2 actors of 1 GPUs" in printed
    _same(out, undisturbed)


def test_a_finished_pass_is_not_made_again(pool: Path, trained: Path, undisturbed: Path) -> None:
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in undisturbed.iterdir()}
    printed = succeeded(run_score(pool, trained, undisturbed))
    assert "finished already: 104 images" in printed
    assert "scoring with" not in printed
    after = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in undisturbed.iterdir()}
    assert {**after, ".lock": 0} == {**before, ".lock": 0}


def test_a_pool_that_is_lost_on_the_way_ends_the_run_and_costs_no_image(
    pool: Path, trained: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out, mount = tmp_path / "ledger", tmp_path / "mount"
    shutil.copytree(pool, mount)
    driver = _start(mount, trained, out)
    _wait_for_parts(out, 3, driver)
    mount.rename(tmp_path / "away")
    _, told = driver.communicate(timeout=60)
    assert driver.returncode == 1, told
    assert b"is the pool at the same place on every node?" in told
    (tmp_path / "away").rename(mount)
    printed = succeeded(run_score(mount, trained, out))
    assert "parts are there already" in printed
    assert "104 images, no errors" in printed
    _same(out, undisturbed)


def test_what_changed_since_the_start_is_refused_with_the_difference(
    pool: Path, trained: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, changed = tmp_path / "ledger", tmp_path / "pool"
    shutil.copytree(undisturbed, out)
    parts = _written(out)
    assert "settings.iou=0.7, not 0.6" in refused_score(capsys, pool, trained, out, "--iou", "0.6")
    other = tmp_path / "other.pt"
    other.write_bytes(trained.read_bytes() + b"\0")
    assert "checkpoint=" in refused_score(capsys, pool, other, out)
    shutil.copytree(pool, changed)
    victim = sorted(changed.rglob("*.jpg"))[0]
    victim.write_bytes(victim.read_bytes() + b"\0")
    message = refused_score(capsys, changed, trained, out)
    assert "1 changed" in message
    assert victim.name in message
    victim.unlink()
    (changed / "new.jpg").write_bytes(b"new")
    message = refused_score(capsys, changed, trained, out)
    assert "1 added" in message
    assert "1 removed" in message
    assert _written(out) == parts


def test_a_checkpoint_in_the_output_folder_is_refused_and_kept(
    pool: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "checkpoint.pt"
    shutil.copyfile(trained, own)
    assert "holds checkpoint.pt, but no plan.json" in refused_score(capsys, pool, own, tmp_path)
    assert own.read_bytes() == trained.read_bytes()


def test_a_part_that_was_lost_after_the_end_is_told(
    pool: Path, trained: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ledger"
    shutil.copytree(undisturbed, out)
    (out / "part-00003.parquet").unlink()
    message = refused_score(capsys, pool, trained, out)
    assert "was finished, and lacks 1 part of 26" in message
    assert "remove its ledger.json to score the missing ones again" in message


@pytest.mark.long
@pytest.mark.parametrize("point", range(20))
def test_twenty_seeded_kill_points_of_driver_actor_and_node(
    point: int, pool: Path, trained: Path, undisturbed: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    out = tmp_path / "ledger"
    rng = random.Random(point)
    parts, delay = rng.randrange(NUM_PARTS - 3), rng.uniform(0, 0.3)
    victim = ("driver", "actor", "node")[point % 3]
    if victim == "driver":
        _kill_driver_at(pool, trained, out, parts, delay)
        succeeded(run_score(pool, trained, out))
    elif victim == "actor":
        driver = _start(pool, trained, out)
        actors = _actors(driver, driver.pid)
        _wait_for_parts(out, max(1, parts), driver)
        os.kill(rng.choice(actors), signal.SIGKILL)
        assert driver.wait(timeout=150) == 0
    else:
        cluster, nodes = request.getfixturevalue("two_nodes")
        driver = subprocess.Popen(
            score_command(pool, trained, out, "--address", cluster.address), stdout=subprocess.DEVNULL
        )
        _wait_for_parts(out, max(1, parts), driver)
        time.sleep(delay)
        cluster.remove_node(rng.choice(nodes), allow_graceful=False)
        assert driver.wait(timeout=150) == 0
    _same(out, undisturbed)
