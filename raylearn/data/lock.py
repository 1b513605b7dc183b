"""One run at a time in an output folder."""

import fcntl
import json
import os
import signal
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
from raylearn.errors import RaylearnError, RunFolderError, StorageError
from raylearn.progress import doing

LOCK_FILE = ".lock"
BEAT_SECONDS = 5.0
STALE_SECONDS = 60.0  # without a beat for so long, a holder at an address counts as dead
LOOK_SECONDS = 1.0
_LOST = signal.SIGUSR2  # ends the work of a holder that is none any more


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

    No clock is compared with another one's: whoever finds the file watches it, and takes the folder over when it has
    not changed for `STALE_SECONDS` by the watcher's own clock. A holder whose renewal finds another's file, or that
    could not renew for nearly as long, is stopped as by Ctrl+C, and told why; outside of the main thread, which nobody
    can stop, it is told at the end. Where the store knows no conditions, two that start within the same second could
    both get it: a part of another pass is noticed by its mark, and a part of the same pass has the same content whoever
    writes it, so no ledger is spoilt then, but work is done twice.
    """
    holder, dead = {**_holder(), "lease": uuid.uuid4().hex}, _tag_of_the_dead(folder)
    asked = time.monotonic()
    tag = folder.swap(LOCK_FILE, _renewed(holder, 0), dead)
    if tag is None:
        raise _in_use(folder, _shown(folder.read_tagged(LOCK_FILE)))
    in_main = threading.current_thread() is threading.main_thread()
    lease = _Lease(folder, holder, tag, asked, in_main)
    # not SIGINT, which a job in the background of a shell does not hear
    before = (signal.signal(_LOST, signal.default_int_handler) or signal.SIG_DFL) if in_main else None
    threads = [threading.Thread(target=work, daemon=True) for work in (lease.beat, lease.watch)]
    for thread in threads:
        thread.start()
    try:
        yield
    except KeyboardInterrupt:
        lease.refuse_if_lost()
        raise
    finally:
        lease.ended.set()
        for thread in threads:
            thread.join()
        if in_main:
            signal.signal(_LOST, before)
        with suppress(StorageError):  # what was done is done; the hold that is left ends by itself
            lease.let_go()
    lease.refuse_if_lost()


def _tag_of_the_dead(folder: Folder) -> str | None:
    """Of a hold that nobody renews any more; None where nobody holds the folder.

    Raises:
        RunFolderError: it is renewed.
    """
    there = first = folder.read_tagged(LOCK_FILE)
    end = time.monotonic() + STALE_SECONDS
    while there is not None and time.monotonic() < end:
        with doing(f"waiting to see whether {_name_of(there)} still works in {folder}"):
            time.sleep(min(LOOK_SECONDS, STALE_SECONDS))
        there = folder.read_tagged(LOCK_FILE)
        if there is not None and there != first:
            raise _in_use(folder, _shown(there))
    return None if there is None else there[1]


class _Lease:
    def __init__(self, folder: Folder, holder: dict[str, Any], tag: str, renewed: float, interrupts: bool) -> None:
        self._folder, self._holder, self._tag, self._renewed = folder, holder, tag, renewed
        self._interrupts = interrupts
        self.ended, self._lost, self._losing = threading.Event(), threading.Event(), threading.Lock()

    def beat(self) -> None:
        """Renews it until it ends; in a thread."""
        number = 0
        while not (self.ended.wait(BEAT_SECONDS) or self._lost.is_set()):
            number, asked = number + 1, time.monotonic()
            try:
                tag = self._folder.swap(LOCK_FILE, _renewed(self._holder, number), self._tag)
            except RaylearnError:
                continue  # the next beat tries again; `watch` counts the time
            if tag is None:
                self._lose()
            else:
                self._tag, self._renewed = tag, asked

    def watch(self) -> None:
        """Gives it up in time where it cannot be renewed, also while a request for that is under way; in a thread."""
        while not (self.ended.wait(BEAT_SECONDS / 2) or self._lost.is_set()):
            if time.monotonic() - self._renewed > STALE_SECONDS - BEAT_SECONDS:
                self._lose()

    def _lose(self) -> None:
        with self._losing:  # or both threads would stop the work, and one of them what tells of it
            if self._interrupts and not self.ended.is_set() and not self._lost.is_set():
                signal.pthread_kill(threading.main_thread().ident or 0, _LOST)
            self._lost.set()

    def let_go(self) -> None:
        there = self._folder.read_tagged(LOCK_FILE)
        if there and there[1] == self._tag and not self._lost.is_set():
            self._folder.remove(LOCK_FILE)

    def refuse_if_lost(self) -> None:
        if self._lost.is_set():
            other = "another process"
            with suppress(RaylearnError):
                other = _name_of(self._folder.read_tagged(LOCK_FILE))
            raise StorageError(
                f"{self._folder} could not be held any longer: it was out of reach for {STALE_SECONDS:.0f} s, or "
                f"{other} has taken it over; run the same command again to resume"
            )


def _renewed(holder: dict[str, Any], number: int) -> bytes:
    return json.dumps({**holder, "beat": number}).encode()


def _holder_in(there: tuple[bytes, str] | None) -> dict[str, Any]:
    try:
        return dict(json.loads(there[0] if there else b"{}"))
    except (ValueError, TypeError):
        return {}


def _shown(there: tuple[bytes, str] | None) -> str:
    holder = _holder_in(there)
    return json.dumps({key: holder.get(key) for key in ("pid", "host", "since")})


def _name_of(there: tuple[bytes, str] | None) -> str:
    holder = _holder_in(there)
    return f"process {holder['pid']} on {holder['host']}" if {"pid", "host"} <= holder.keys() else "another process"


def _holder() -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": now}


def _in_use(folder: Path | Folder, holder: str) -> RunFolderError:
    return RunFolderError(f"{folder} is in use by {holder or 'another process'}: wait for it, or give another folder")
