"""One run at a time in an output folder."""

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raylearn.data.storage import Folder, not_writable
from raylearn.errors import RunFolderError, StorageError

LOCK_FILE = ".lock"
BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0  # without a beat for so long, a holder at an address counts as dead


@contextmanager
def held(folder: Folder) -> Iterator[None]:
    """Holds a folder on a disk or at an address.

    Raises:
        RunFolderError: another process holds it; the message names that process.
    """
    with locked(folder.path) if folder.path is not None else _leased(folder):
        yield


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder on a disk; the kernel lets go of it when the process ends, however it ends.

    Raises:
        RunFolderError: another process holds it; the message names that process.
        InputError, StorageError: it cannot be written.
    """
    try:
        file = (folder / LOCK_FILE).open("a+")
    except OSError as error:
        raise not_writable(folder, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            file.write(json.dumps(_holder()))
            file.flush()
        except BlockingIOError as error:
            file.seek(0)
            raise _in_use(folder, file.read().strip()) from error
        except OSError as error:
            raise not_writable(folder, error) from error
        yield


@contextmanager
def _leased(folder: Folder) -> Iterator[None]:
    """Holds a folder at an address by a file that is renewed while this process lives.

    Object stores have no locks: two that start within the same second could both get it. A part of another pass is
    noticed by its mark, and a part of the same pass has the same content whoever writes it: no ledger is spoilt then,
    but work is done twice.
    """
    holder = {**_holder(), "lease": uuid.uuid4().hex}
    there = _read(folder)
    if there and time.time() - there.get("beat", 0) < STALE_SECONDS:
        shown = {key: there.get(key) for key in ("pid", "host", "since")}
        raise _in_use(folder, json.dumps(shown), f" (a dead one's hold ends after {STALE_SECONDS:.0f} s)")
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_SECONDS):
            try:
                if not _is_ours(folder, holder):
                    return  # taken over by another, who counted this process as dead
                folder.replace(LOCK_FILE, json.dumps({**holder, "beat": time.time()}).encode())
            except StorageError:
                continue  # the next beat tries again; the work itself will report a store that stays away

    folder.replace(LOCK_FILE, json.dumps({**holder, "beat": time.time()}).encode())
    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        with suppress(StorageError):  # what was done is done; the hold that is left ends by itself
            if _is_ours(folder, holder):
                folder.remove(LOCK_FILE)


def _is_ours(folder: Folder, holder: dict[str, Any]) -> bool:
    return bool((_read(folder) or {}).get("lease") == holder["lease"])


def _read(folder: Folder) -> dict[str, Any] | None:
    try:
        return dict(json.loads(folder.read(LOCK_FILE) or b"null") or {})
    except (ValueError, TypeError):
        return None


def _holder() -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": now}


def _in_use(folder: Path | Folder, holder: str, remark: str = "") -> RunFolderError:
    return RunFolderError(
        f"{folder} is in use by {holder or 'another process'}{remark}: wait for it, or give another folder"
    )
