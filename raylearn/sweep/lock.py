"""One run at a time in an output folder."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from raylearn.errors import RunFolderError

LOCK_FILE = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder; the kernel lets go of it when the process ends, however it ends.

    Raises:
        RunFolderError: another process holds it; the message names that process.
    """
    try:
        file = (folder / LOCK_FILE).open("a+")
    except OSError as error:
        raise RunFolderError(f"{folder} cannot be written: {error.strerror}; give another folder with --out") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise RunFolderError(
                f"{folder} is in use by {holder}: wait for it, or give another folder with --out"
            ) from error
        file.truncate(0)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now}))
        file.flush()
        yield
