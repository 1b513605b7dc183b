"""What a scoring pass tells while it runs: a bar on a terminal, a line now and then elsewhere."""

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from raylearn.scoring.ledger import PartCounts
from raylearn.scoring.pipeline import Part

LINE_SECONDS = 15.0  # between two lines where no terminal is


def say(console: Console, text: str) -> None:
    """One line, as it is: names of files hold what looks like markup."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


class ScoringProgress:
    """A bar on a terminal, a line now and then elsewhere; rates count from the first image, not from Ray's start."""

    def __init__(self, console: Console, num_images: int, before: PartCounts, began: float, batch_size: int) -> None:
        self._console, self._num_images, self._before = console, num_images, before
        self._began = began
        self._first, self._last = float("inf"), float("-inf")  # seconds since the epoch, by the actors' clocks
        self._done = before
        self._last_line = time.monotonic()
        self._batch_size = batch_size
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,}/{task.total:,} images"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=num_images, completed=before.num_images)

    def __enter__(self) -> "ScoringProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tell(self, part: Part, counts: PartCounts) -> None:
        now = time.monotonic()
        if part.batch_size < self._batch_size:
            self._batch_size = part.batch_size
            say(self._console, f"a GPU has too little memory: {part.batch_size} images in a batch from now on")
        self._first, self._last = min(self._first, part.started), max(self._last, part.finished)
        self._done = counts
        speed = self._speed()
        left = (self._num_images - counts.num_images) / speed if speed else 0
        told = f"{speed:.1f} img/s, {_minutes(left)} left"
        if counts.num_errors:
            told += f", {counts.num_errors:,} errors"
        self._bar.update(self._task, completed=counts.num_images, description=told)
        if not self._console.is_terminal and now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            say(self._console, f"scored {counts.num_images:,} of {self._num_images:,} images: {told}")

    def rate(self) -> str:
        scored = self._done.num_images - self._before.num_images
        seconds = self._last - self._first
        other = time.monotonic() - self._began - seconds
        return f"scored {scored:,} images in {seconds:.1f} s: {self._speed():.1f} img/s; all else took {other:.1f} s"

    def _speed(self) -> float:
        """Images per second from the first image on, without the start of Ray and of the detectors."""
        return (self._done.num_images - self._before.num_images) / max(1e-9, self._last - self._first)


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
