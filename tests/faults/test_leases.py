"""Who holds a folder at an address, where there are no locks, and clocks differ from each other."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from raylearn.data import lock, s3
from raylearn.data.lock import LOCK_FILE, held
from raylearn.data.storage import Folder
from raylearn.errors import RunFolderError, StorageError
from tests.faults.object_store import BUCKET, ObjectStore, object_store, used_here

HOLD = """
import sys, time
from raylearn.data import lock
from raylearn.data.storage import Folder
from raylearn.errors import RaylearnError
lock.BEAT_SECONDS, lock.STALE_SECONDS = 0.1, 1.0
if sys.argv[2] == "skewed":
    there = time.time
    time.time = lambda: there() + float(sys.argv[3])
try:
    with lock.held(Folder.at(sys.argv[1])):
        print("held", flush=True)
        time.sleep(60)
except RaylearnError as error:
    print(f"{type(error).__name__}: {error}", flush=True)
"""


@pytest.fixture(scope="module")
def running() -> Iterator[ObjectStore]:
    with object_store() as store:
        yield store


@pytest.fixture
def store(running: ObjectStore) -> Iterator[ObjectStore]:
    with used_here(running):
        yield running


@pytest.fixture(params=["conditions", "none"])
def folder(
    request: pytest.FixtureRequest,
    store: ObjectStore,  # noqa: ARG001  in use while it is
    monkeypatch: pytest.MonkeyPatch,
) -> Folder:
    """At an address; with botocore, and without it, where nothing is written on a condition."""
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(lock, "STALE_SECONDS", 1.0)
    monkeypatch.setattr(lock, "LOOK_SECONDS", 0.1)
    if request.param == "none":
        monkeypatch.setattr("raylearn.data.s3.find_spec", lambda _: None)
    return Folder.at(f"s3://{BUCKET}/{request.node.name.replace('[', '-').rstrip(']')}")


def holder_of(folder: Folder, *more: str) -> "subprocess.Popen[str]":
    """Another process that holds the folder, from the moment this returns."""
    started = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder.address, *(more or ("plain",))], stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "held\n"
    return started


@pytest.mark.parametrize("skew", ["-600", "0", "600"])
def test_a_living_holder_is_refused_by_name_however_wrong_its_clock(folder: Folder, skew: str) -> None:
    with holder_of(folder, "skewed", skew) as other:
        try:
            with pytest.raises(RunFolderError, match=rf'in use by .*"pid": {other.pid},'), held(folder):
                pass
        finally:
            other.kill()


def test_a_dead_holder_is_waited_out_and_its_folder_taken_over(folder: Folder) -> None:
    with holder_of(folder) as other:
        other.kill()
    start = time.monotonic()
    with held(folder):
        assert time.monotonic() - start >= 1.0
        assert json.loads(folder.read(LOCK_FILE) or b"")["pid"] == os.getpid()
    assert folder.read(LOCK_FILE) is None


def test_a_holder_that_slept_while_it_was_taken_over_is_stopped_and_leaves_the_other_alone(folder: Folder) -> None:
    with holder_of(folder) as other:
        try:
            other.send_signal(signal.SIGSTOP)
            with held(folder):
                other.send_signal(signal.SIGCONT)
                assert other.stdout is not None
                said = other.stdout.readline()
                assert said.startswith("StorageError: ")
                assert f"process {os.getpid()} on" in said
                assert "has taken it over; run the same command again to resume" in said
                assert json.loads(folder.read(LOCK_FILE) or b"")["pid"] == os.getpid()
        finally:
            other.kill()


def test_a_holder_whose_store_is_away_for_too_long_is_stopped(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise StorageError("away")

    def hold_on() -> None:
        with held(folder), monkeypatch.context() as patch:
            patch.setattr(Folder, "swap", away)
            time.sleep(20)

    start = time.monotonic()
    with pytest.raises(StorageError, match=r"could not be held any longer: it was out of reach for 1 s"):
        hold_on()
    assert time.monotonic() - start < 10


def test_a_holder_that_waits_for_an_answer_is_stopped_in_time_all_the_same(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: object) -> None:
        time.sleep(8)

    def broken(*_: object) -> None:
        raise StorageError("away")

    def hold_on() -> None:
        with held(folder):
            monkeypatch.setattr(Folder, "swap", silent)
            monkeypatch.setattr(Folder, "read_tagged", broken)
            start = time.monotonic()
            try:
                time.sleep(20)
            finally:
                stopped.append(time.monotonic() - start)

    stopped: list[float] = []
    with pytest.raises(
        StorageError, match=r"could not be held any longer: it was out of reach for 1 s, or another process"
    ):
        hold_on()
    assert stopped[0] < 3


def test_a_store_that_takes_no_notice_of_conditions_is_found_out(
    store: ObjectStore,  # noqa: ARG001  in use while it is
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = s3._asked

    def without(pool: Any, method: str, path: str, data: bytes, headers: dict[str, str]) -> Any:
        sent = {name: value for name, value in headers.items() if name not in ("If-Match", "If-None-Match")}
        return asked(pool, method, path, data, sent)

    monkeypatch.setattr(s3, "_asked", without)
    folder = Folder.at(f"s3://{BUCKET}/heedless")
    assert folder.add("first", b"1")
    assert folder.add("second", b"2")
    assert not folder.add("second", b"3")
    assert folder.read("second") == b"2"
    tag = folder.swap("third", b"4", None)
    assert tag is not None
    assert folder.swap("third", b"5", "another") is None
    assert folder.swap("third", b"5", tag) is not None


def test_of_many_that_come_at_once_one_gets_it(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    monkeypatch.setattr(lock, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.1)
    folder, gate = Folder.at(f"s3://{BUCKET}/at-once"), threading.Barrier(8)
    done, got = threading.Event(), []

    def come(number: int) -> None:
        gate.wait()
        try:
            with held(folder):
                got.append(number)
                done.wait(10)
        except RunFolderError:
            return
        finally:
            if len(got) == 1:
                time.sleep(1)
                done.set()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(come, range(8)))
    assert len(got) == 1


def test_of_many_that_add_one_file_at_once_the_first_stays(store: ObjectStore) -> None:
    folder, gate = Folder.at(f"s3://{BUCKET}/files"), threading.Barrier(12)

    def add(number: int) -> bool:
        gate.wait()
        return folder.add("part", f"of {number}".encode())

    for _ in range(5):
        with ThreadPoolExecutor(12) as threads:
            added = list(threads.map(add, range(12)))
        assert added.count(True) == 1
        assert folder.read("part") == f"of {added.index(True)}".encode()
        folder.remove("part")
    store.asked.clear()
    folder.add("one", b"1")
    assert not any(key.endswith("/one") for key in store.asked)  # neither a HEAD nor a GET before it
