"""What a scoring pass tells while it runs, and at its end."""

import time

from rich.console import Console

from raylearn.progress import Activity, steps
from raylearn.scoring.ledger import PartCounts
from raylearn.scoring.score_part import Part


def say(console: Console, text: str) -> None:
    """One line, as it is: names of files hold what looks like markup."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


class ScoringProgress:
    """Says how far a pass is; rates count from the first image, not from Ray's start.

    Args:
        console: for what stays to be read.
        activity: that is under way, whose words become those of the pass with its first part.
        num_images: of the pool.
        before: what was there before.
        began: by time.monotonic, when the command began.
        batch_size: of the plan.
    """

    def __init__(
        self,
        console: Console,
        activity: Activity,
        num_images: int,
        before: PartCounts,
        began: float,
        batch_size: int,
    ) -> None:
        self._console, self._activity, self._num_images, self._before = console, activity, num_images, before
        self._began = began
        self._first, self._last = float("inf"), float("-inf")  # seconds since the epoch, by the actors' clocks
        self._done = before
        self._batch_size = batch_size

    def tell(self, part: Part, counts: PartCounts) -> None:
        if part.batch_size < self._batch_size:
            self._batch_size = part.batch_size
            say(self._console, f"a GPU has too little memory: {part.batch_size} images in a batch from now on")
        self._first, self._last = min(self._first, part.started), max(self._last, part.finished)
        self._done = counts
        errors = f", {counts.num_errors:,} errors" if counts.num_errors else ""
        self._activity.what = f"scoring at {self._speed():.1f} img/s{errors}"
        steps("image", counts.num_images, self._num_images)

    def rate(self) -> str:
        scored = self._done.num_images - self._before.num_images
        seconds = self._last - self._first
        other = time.monotonic() - self._began - seconds
        return f"scored {scored:,} images in {seconds:.1f} s: {self._speed():.1f} img/s; all else took {other:.1f} s"

    def _speed(self) -> float:
        """Images per second from the first image on, without the start of Ray and of the detectors."""
        return (self._done.num_images - self._before.num_images) / max(1e-9, self._last - self._first)
