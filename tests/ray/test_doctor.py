"""The doctor on a real Ray, as a user calls it."""

import subprocess
import sys
from pathlib import Path


def _doctor(*arguments: str) -> "subprocess.CompletedProcess[str]":
    program = str(Path(sys.executable).with_name("raylearn"))
    return subprocess.run([program, "doctor", *arguments], capture_output=True, text=True, timeout=200, check=False)


def test_a_machine_that_is_fine_is_told_so_and_nothing_is_left_behind(tmp_path: Path) -> None:
    done = _doctor(str(tmp_path / "runs"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "problem" not in done.stdout
    assert "is written from here and from 1 nodes, and is the same one" in done.stdout
    assert done.stdout.endswith("fine: a sweep can run here\n")
    assert not [path for path in (tmp_path / "runs").iterdir() if "doctor" in path.name]


def test_a_cluster_that_does_not_answer_is_a_problem(tmp_path: Path) -> None:
    done = _doctor(str(tmp_path), "--address", "127.0.0.1:1")
    assert done.returncode == 1
    assert "problem: ray: cannot reach the Ray cluster at 127.0.0.1:1" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
