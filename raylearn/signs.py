"""Signs of life for whoever waits: a line that changes on a terminal, lines elsewhere, JSON for programs.

Written here and not by rich, as the first is to be there before any library is imported.
"""

import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from threading import Event, RLock, Thread
from typing import Any, Literal, TextIO, cast

from raylearn import progress

Style = Literal["auto", "plain", "json"]

QUIET_SECONDS = 4.0
"""A line comes when nothing was written for so long: five seconds, less what a busy machine takes to write it."""
FIRST_HOUR, LATER_SECONDS = 3600.0, 60.0
"""After the first hour lines come more rarely, so that the log of a night stays readable."""
_REDRAW_SECONDS = 0.25
_ERASE = "\r\x1b[2K"

_shown: "_Signs | None" = None


class _Watched:
    """A stream that tells the signs when something is written, so that nobody hears twice in a moment."""

    def __init__(self, stream: TextIO, signs: "_Signs") -> None:
        self.stream, self._signs = stream, signs

    def write(self, text: str) -> int:
        return self._signs.pass_on(self.stream, text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _Signs:
    """Shows what is being done, from a thread of its own, until it is stopped."""

    def __init__(self, style: Style) -> None:
        self._out, self._err = sys.stdout, sys.stderr
        self._json = style == "json"
        self._own = _own_stream(self._err)
        self._live = style == "auto" and self._own.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._lock = RLock()
        self._began = self._last = time.monotonic()
        self._drawn, self._whole, self._begun_line = "", True, ""
        self._spinner = itertools.cycle("|/-\\")
        self._ended = Event()
        self._thread = Thread(target=self._run, name="raylearn-signs", daemon=True)
        self._open = ExitStack()

    def start(self) -> None:
        sys.stdout = cast(TextIO, _Watched(self._out, self))
        sys.stderr = cast(TextIO, _Watched(self._err, self))
        if self._json:
            self._open.enter_context(progress.followed(self._write_json))
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        with self._lock:
            self._erase()
            if self._begun_line:
                self.pass_on(self._err, "\n")
        self._open.close()
        for name, stream in (("stdout", self._out), ("stderr", self._err)):
            if isinstance(getattr(sys, name), _Watched):  # nobody has put another in its place
                setattr(sys, name, stream)
        if self._own is not self._err:
            self._own.close()

    def pass_on(self, stream: TextIO, text: str) -> int:
        with self._lock:
            self._erase()
            if text:
                self._last, self._whole = time.monotonic(), text.endswith("\n")
            if self._json and stream is self._err:
                *lines, self._begun_line = (self._begun_line + text).split("\n")
                for line in lines:
                    self._write_json("line", {"text": line})
                return len(text)
            return stream.write(text)

    def _run(self) -> None:
        while not self._ended.wait(_REDRAW_SECONDS):
            activity = progress.now()
            if activity is not None:
                with suppress(OSError, ValueError), self._lock:  # a terminal that was closed ends no work
                    self._show(activity)

    def _show(self, activity: progress.Activity) -> None:
        now = time.monotonic()
        if self._live:
            if self._whole:  # else somebody's line would be written over
                width = shutil.get_terminal_size().columns - 1
                self._drawn = f"{next(self._spinner)} {activity}"[:width]
                self._write(_ERASE + self._drawn)
            return
        rare = not self._json and now - self._began > FIRST_HOUR
        if now - self._last < (LATER_SECONDS if rare else QUIET_SECONDS):
            return
        self._last = now
        if self._json:
            self._write_json("progress", activity.facts)
        else:
            minutes, seconds = divmod(int(now - self._began), 60)
            self._write(f"{minutes}:{seconds:02}  {activity}\n")

    def _write_json(self, event: str, facts: Mapping[str, Any]) -> None:
        elapsed = round(time.monotonic() - self._began, 1)
        with self._lock:
            self._write(json.dumps({"event": event, "elapsed": elapsed, **facts}) + "\n")

    def _erase(self) -> None:
        if self._drawn:
            self._drawn = ""
            self._write(_ERASE)

    def _write(self, text: str) -> None:
        self._own.write(text)
        self._own.flush()


def _own_stream(stream: TextIO) -> TextIO:
    """The same place under a descriptor of its own: while Ray starts, that of stderr leads nowhere."""
    try:
        return os.fdopen(os.dup(stream.fileno()), "w", encoding="utf-8", errors="replace")
    except (OSError, ValueError):  # a stream that is no file, as in a notebook
        return stream


def begin(what: str, style: Style = "auto") -> None:
    """Shows what is being done from now on, `what` to begin with, until `end`."""
    global _shown
    end()
    _shown = _Signs(style)
    _shown.start()
    _shown._open.enter_context(progress.doing(what))


def end() -> None:
    """Nothing is shown any more."""
    global _shown
    if _shown is not None:
        _shown.stop()
        _shown = None


@contextmanager
def shown(what: str, wanted: bool) -> Iterator[None]:
    """Shows what is being done while it lasts, if that is wanted and not shown already."""
    if not wanted or _shown is not None:
        yield
        return
    begin(what)
    try:
        yield
    finally:
        end()
