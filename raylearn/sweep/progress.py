"""What a person sees while a sweep runs: one line per finished round, and on a terminal a bar below them."""

import time
from types import TracebackType
from typing import Any

from ray.tune import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


class SweepProgress(Callback):  # type: ignore[misc]
    """Follows the rounds of all trials as Tune reports them."""

    def __init__(self, num_trials: int, rounds_wanted: int, console: Console) -> None:
        self._num_trials = num_trials
        self._rounds_wanted = rounds_wanted
        self._rounds_done: set[tuple[str, int]] = set()  # a trial that lost its process tells its rounds again
        self._trained = 0
        self._finished: set[str] = set()
        self.failed: dict[str, str] = {}
        self._start = time.monotonic()
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} rounds"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("sweep", total=rounds_wanted)

    def __enter__(self) -> "SweepProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __getstate__(self) -> dict[str, Any]:
        # Tune saves its callbacks for a restore, which raylearn does without: the store is what remembers.
        return {}

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:  # noqa: ARG002
        if "failed" in result:
            self.failed[result["trial_name"]] = result["failed"]
            self._console.print(f"failed: {result['trial_name']}; the others go on", highlight=False, markup=False)
            return
        self._rounds_done.add((result["trial_name"], result["round"]))
        self._trained += result["trained"]
        if result["round"] + 1 == result["num_rounds"]:
            self._finished.add(result["trial_name"])
        self._bar.update(self._task, completed=len(self._rounds_done), description=self._counts())
        made = f"trained on {result['device']}" if result["trained"] else "reused"
        self._console.print(
            f"{result['trial_name']}  round {result['round']}/{result['num_rounds'] - 1}  "
            f"{result['num_images']} images, {result['num_boxes']} boxes  mAP50 {result['map50']:.3f}  "
            f"{made}  [{self._counts()}, {self._time_left()}]",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )

    @property
    def trained(self) -> int:
        return self._trained

    def _counts(self) -> str:
        reused = len(self._rounds_done) - self._trained
        return f"trials {len(self._finished)}/{self._num_trials}, trained {self._trained}, reused {reused}"

    def _time_left(self) -> str:
        elapsed = time.monotonic() - self._start
        done = len(self._rounds_done)
        left = elapsed / done * (self._rounds_wanted - done)
        return f"about {left / 60:.0f} min left" if left >= 90 else f"about {left:.0f} s left"
