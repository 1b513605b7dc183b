"""Two runs into one folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from raylearn.data.lock import locked
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
