"""What a person reads while a sweep runs: a line per finished round, and between them what is being done."""

import time
from collections.abc import Sequence
from typing import Any

from ray.tune import Callback
from rich.console import Console

from raylearn.progress import happened, in_words, spread
from raylearn.scoring.progress import say
from raylearn.work.watching import in_one_line
from raylearn.work.workshop import UnderWay

_BESIDE_TRAINING = 1.3  # of a training's time, until it is measured: starting workers, scoring, measuring


class SweepProgress(Callback):  # type: ignore[misc]
    """Follows the rounds of all trials as Tune reports them.

    Args:
        num_trials: that run.
        rounds_wanted: of them together.
        num_trainings: that these need, at most.
        console: for the lines.
    """

    def __init__(self, num_trials: int, rounds_wanted: int, num_trainings: int, console: Console) -> None:
        self._num_trials = num_trials
        self._rounds_wanted = rounds_wanted
        self._num_trainings = num_trainings
        self._rounds_done: set[tuple[str, int]] = set()  # a trial that lost its process tells its rounds again
        self._trained = 0
        self._finished: set[str] = set()
        self.failed: dict[str, str] = {}
        self._start = time.monotonic()
        self._console = console

    def __getstate__(self) -> dict[str, Any]:
        # Tune saves its callbacks for a restore, which raylearn does without: the store is what remembers.
        return {}

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:  # noqa: ARG002
        if "failed" in result:
            self.failed[result["trial_name"]] = result["failed"]
            say(self._console, f"failed: {result['trial_name']}; the others go on")
            return
        self._rounds_done.add((result["trial_name"], result["round"]))
        self._trained += result["trained"]
        if result["round"] + 1 == result["num_rounds"]:
            self._finished.add(result["trial_name"])
        made = f"trained on {result['device']}" if result["trained"] else "reused"
        left = self._left()
        say(
            self._console,
            f"{result['trial_name']}  round {result['round']}/{result['num_rounds'] - 1}  "
            f"{result['num_images']} images, {result['num_boxes']} boxes  mAP50 {result['map50']:.3f}  "
            f"{made}  [{self._counts()}{', ' + in_words(left) if left else ''}]",
        )
        told = ("trial_name", "round", "num_images", "num_boxes", "map50", "map50_95")
        happened(
            "round",
            **{name: result[name] for name in told},
            rounds_done=len(self._rounds_done),
            rounds=self._rounds_wanted,
            seconds_left=left,
        )

    @property
    def trained(self) -> int:
        return self._trained

    def describe(self, works: Sequence[UnderWay]) -> str:
        """What is under way, and how long all of it takes yet."""
        left = self._left() or self._first_guess(works)
        told = in_one_line(works, self._num_trainings) if works or self._rounds_done else "starting the trials"
        return told + (f"; in all {in_words(left)}" if left else "")

    def _counts(self) -> str:
        reused = len(self._rounds_done) - self._trained
        return f"trials {len(self._finished)}/{self._num_trials}, trained {self._trained}, reused {reused}"

    def _left(self) -> tuple[float, float] | None:
        """Seconds, by the trainings that were done here, or by the rounds where none was to be done."""
        done, wanted = len(self._rounds_done), self._rounds_wanted
        if self._trained:
            done, wanted = self._trained, max(self._num_trainings, self._trained)
        if not done or len(self._rounds_done) == self._rounds_wanted:
            return None
        return spread((time.monotonic() - self._start) / done * (wanted - done), done)

    def _first_guess(self, works: Sequence[UnderWay]) -> tuple[float, float] | None:
        """By the epochs of the first training, before any is finished."""
        told = [work.steps for work in works if work.kind == "training" and work.steps and work.steps.left]
        if not told:
            return None
        each = max(steps.seconds / steps.counted * (steps.total or 0) for steps in told)
        return spread(_BESIDE_TRAINING * each * self._num_trainings / len(told), 1)
