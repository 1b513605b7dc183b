"""Signs of life: they come whatever the program does, spoil nobody's line, and are JSON for programs."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from raylearn import signs
from raylearn.cluster.session import _stderr_set_aside
from raylearn.progress import doing, steps

TICK = 0.02


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(signs, "_REDRAW_SECONDS", TICK)
    monkeypatch.setattr(signs, "QUIET_SECONDS", 5 * TICK)
    yield
    signs.end()


def test_whoever_waits_is_told_again_and_again(capfd: pytest.CaptureFixture[str]) -> None:
    signs.begin("reading photos")
    with doing("loading the detector"):
        time.sleep(25 * TICK)
    signs.end()
    told = capfd.readouterr()
    assert not told.out
    assert 2 <= len(told.err.splitlines()) <= 5
    assert all(re.fullmatch(r"0:0\d  loading the detector", line) for line in told.err.splitlines())


def test_a_line_of_anybodys_is_a_sign(capfd: pytest.CaptureFixture[str]) -> None:
    signs.begin("reading photos")
    for _ in range(20):
        print("a round is finished")
        time.sleep(TICK)
    signs.end()
    assert not capfd.readouterr().err


def test_signs_come_while_stderr_leads_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    signs.begin("starting Ray")
    with _stderr_set_aside():
        time.sleep(15 * TICK)
    signs.end()
    assert "starting Ray" in capfd.readouterr().err


def test_after_the_first_hour_lines_are_rare(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signs, "FIRST_HOUR", 0.0)
    signs.begin("training")
    time.sleep(15 * TICK)
    signs.end()
    assert not capfd.readouterr().err
    assert signs.LATER_SECONDS >= 60


def test_for_programs_every_line_of_stderr_is_an_object(capfd: pytest.CaptureFixture[str]) -> None:
    signs.begin("reading photos", "json")
    print("reading photos ...", file=sys.stderr)
    with doing("scoring"):
        steps("image", 0, 1000)
        time.sleep(TICK)
        steps("image", 10, 1000)
        time.sleep(12 * TICK)
    print("no newline", end="", file=sys.stderr)
    print("a result")
    signs.end()
    told = capfd.readouterr()
    assert told.out == "a result\n"
    first, *between, last = map(json.loads, told.err.splitlines())
    assert (first["event"], first["text"], last["text"]) == ("line", "reading photos ...", "no newline")
    assert {event["event"] for event in between} == {"progress"}
    assert between[0] | {"elapsed": 0, "seconds": 0, "seconds_left": 0} == {
        "event": "progress",
        "doing": "scoring",
        "unit": "image",
        "done": 10,
        "total": 1000,
        "elapsed": 0,
        "seconds": 0,
        "seconds_left": 0,
    }
    low, high = between[0]["seconds_left"]
    assert 0 <= low < high


def test_on_a_terminal_a_line_changes_and_goes_before_another_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    terminal = os.fdopen(theirs, "w", buffering=1)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    signs.begin("starting Ray")
    time.sleep(4 * TICK)
    print("round 1")
    time.sleep(4 * TICK)
    signs.end()
    terminal.close()
    seen = ""
    with suppress(OSError):  # at the end
        while True:
            seen += os.read(ours, 4096).decode()
    before, after = seen.split("round 1\r\n")
    assert before.endswith("\r\x1b[2K")  # the line is gone where the other begins
    assert len(re.findall(r"[|/\\-] starting Ray", before)) > 1
    assert "starting Ray" in after
    assert after.endswith("\r\x1b[2K")
    os.close(ours)


def test_streams_are_given_back(capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    before = sys.stdout, sys.stderr
    signs.begin("reading")
    assert sys.stdout is not before[0]
    signs.end()
    assert (sys.stdout, sys.stderr) == before


def test_an_error_is_an_object_for_programs_too(tmp_path: Path) -> None:
    program = "from raylearn.cli import main; main()"
    command = [sys.executable, "-c", program, "run", "none.yaml", "--progress", "json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["text"] for event in events if event["event"] == "line"] == [
        "reading none.yaml ...",
        "error: cannot read none.yaml: No such file or directory",
    ]
