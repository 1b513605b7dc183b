"""What is being done, and how far it is: said by whoever does it, shown by raylearn.signs. It changes no result.

A stack of this process: `doing` puts a piece of work on top, `steps` says how far the topmost is. Where nobody shows or
hears it, that costs nothing. A Ray worker's steps reach the driver through `heard`.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

_HEARD_SECONDS = 0.5  # between two tellings to a listener, which may be on another machine
_FRACTIONS = ("epoch", "round")  # units that are told as 3/18


@dataclass(frozen=True)
class Steps:
    """How far a piece of work is.

    Args:
        unit: of what is counted, such as "epoch".
        done: so many.
        total: of so many; None where that is not known.
        counted: of those done, so many took `seconds`.
        measured: how often was told, which is what the estimate of the rest is worth.
    """

    unit: str
    done: int
    total: int | None = None
    counted: int = 0
    seconds: float = 0.0
    measured: int = 0

    @property
    def left(self) -> tuple[float, float] | None:
        """Seconds that the rest takes, at least and at most: wide at first, narrow later; None before the first."""
        if self.total is None or not self.counted or not self.measured or self.done >= self.total:
            return None
        return spread(self.seconds / self.counted * (self.total - self.done), self.measured)

    def __str__(self) -> str:
        if self.total is None:
            return f"{self.done:,} {self.unit}s so far"
        if self.unit in _FRACTIONS:
            return f"{self.unit} {self.done}/{self.total}"
        return f"{self.done:,} of {self.total:,} {self.unit}s"


def spread(seconds: float, measured: int) -> tuple[float, float]:
    """An estimate as a range: half to double after one measurement, a tenth around it after a hundred."""
    factor = 1 + 1 / math.sqrt(measured)
    return seconds / factor, seconds * factor


def in_words(left: tuple[float, float]) -> str:
    """Such as "10 to 40 s left", or "about 3 min left" where the range is narrow."""
    low, high = left
    scale, name = (1, "s") if high < 90 else (60, "min") if high < 5400 else (3600, "h")
    small, large = round(low / scale), round(high / scale)
    if large <= 1.3 * small or large <= 1:
        return f"about {max(1, round(math.sqrt(low * high) / scale))} {name} left"
    return f"{small} to {large} {name} left"


@dataclass(eq=False)
class Activity:
    """A piece of work that is being done; `what` may change on the way. Of what is `timed`, the seconds are shown."""

    what: str
    timed: bool = True
    steps: Steps | None = None
    began: float = field(default_factory=time.monotonic)
    _steps_began: float = 0.0
    _first: int = 0

    def tell(self, unit: str, done: int, total: int | None) -> Steps:
        now = time.monotonic()
        before = self.steps
        if before is None or (before.unit, before.total) != (unit, total) or done < before.done:
            self._steps_began, self._first, measured = now, done, 0
        else:
            measured = before.measured + (done > before.done)
        self.steps = Steps(unit, done, total, done - self._first, now - self._steps_began, measured)
        return self.steps

    def __str__(self) -> str:
        if self.steps is None:
            seconds = time.monotonic() - self.began
            return f"{self.what}, {seconds:.0f} s" if self.timed and seconds >= 1 else self.what
        left = self.steps.left
        return f"{self.what}, {self.steps}" + (f", {in_words(left)}" if left else "")

    @property
    def facts(self) -> dict[str, Any]:
        """For programs."""
        known: dict[str, Any] = {"doing": self.what, "seconds": round(time.monotonic() - self.began, 1)}
        if self.steps:
            known |= {"unit": self.steps.unit, "done": self.steps.done, "total": self.steps.total}
            if self.steps.left:
                known["seconds_left"] = [round(seconds, 1) for seconds in self.steps.left]
        return known


_stack: list[Activity] = []
_hearers: list[Callable[[Steps], None]] = []
_followers: list[Callable[[str, Mapping[str, Any]], None]] = []


@contextmanager
def doing(what: str, timed: bool = True) -> Iterator[Activity]:
    """While it lasts, this is what is being done: a few words without a full stop, such as "starting Ray"."""
    activity = Activity(what, timed)
    _stack.append(activity)
    try:
        yield activity
    finally:
        _stack.remove(activity)


def steps(unit: str, done: int, total: int | None = None) -> None:
    """Says how far what is being done is: so many of `total` units are done. Tell 0 first: time counts from there."""
    if not _stack:
        return
    told = _stack[-1].tell(unit, done, total)
    for hear in _hearers:
        hear(told)


def now() -> Activity | None:
    """What is being done."""
    return _stack[-1] if _stack else None


@contextmanager
def heard(listen: Callable[[Steps], None]) -> Iterator[None]:
    """While it lasts, `listen` is called with the steps that are told, though not with each of many in a moment."""
    last = -math.inf

    def hear(told: Steps) -> None:
        nonlocal last
        if time.monotonic() - last >= _HEARD_SECONDS or told.done == told.total:
            last = time.monotonic()
            listen(told)

    _hearers.append(hear)
    try:
        with doing("working"):
            yield
    finally:
        _hearers.remove(hear)


def happened(event: str, **facts: Any) -> None:
    """Tells a program that follows what a person reads in a line of its own, such as a finished round."""
    for follow in _followers:
        follow(event, facts)


@contextmanager
def followed(follow: Callable[[str, Mapping[str, Any]], None]) -> Iterator[None]:
    """While it lasts, `follow` is called with every event and its facts."""
    _followers.append(follow)
    try:
        yield
    finally:
        _followers.remove(follow)
