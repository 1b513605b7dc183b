"""Two runs into one folder."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raylearn.data import lock
from raylearn.data.lock import LOCK_FILE, _leased, locked
from raylearn.data.storage import Folder
from raylearn.errors import RunFolderError

HOLD = "import sys, time, pathlib; from raylearn.data.lock import locked\n"
HOLD += "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


def test_the_second_is_refused_by_name_and_a_dead_holder_does_not_count(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunFolderError, match=rf'"pid": {holder.pid}.*another folder'), locked(tmp_path):
            pass
        holder.kill()
    with locked(tmp_path):
        pass


def test_a_lease_that_was_taken_over_is_neither_renewed_nor_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.02)
    folder = Folder.at(str(tmp_path))
    file = tmp_path / LOCK_FILE
    with _leased(folder):
        first = json.loads(file.read_text())
        time.sleep(0.2)
        assert json.loads(file.read_text())["beat"] > first["beat"]
        others = json.dumps({**first, "lease": "another's", "beat": 1.0})
        folder.replace(LOCK_FILE, others.encode())
        time.sleep(0.2)
        if file.read_text() != others:  # a beat was on its way in that very moment; the next look sees another's
            folder.replace(LOCK_FILE, others.encode())
            time.sleep(0.2)
        assert file.read_text() == others
    assert file.read_text() == others
