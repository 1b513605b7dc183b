"""What a workshop is doing, said where its driver waits for it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

from raylearn.progress import Activity, Steps, doing, in_words
from raylearn.work.workshop import UnderWay

_ASK_SECONDS = 1.0
_ANSWER_SECONDS = 3.0
_MOST_TOLD = 2  # pieces of work in a line
_WORDS = {"training": "training", "ledger": "scoring", "evaluation": "measuring"}

Describe = Callable[[Sequence[UnderWay]], str]


def in_one_line(works: Sequence[UnderWay], num_trainings: int | None = None) -> str:
    """Such as "training 2 of 12, epoch 3/18, about 14 s left; measuring, 16 of 100 images".

    Args:
        works: what is under way.
        num_trainings: that this run does, at most; None does not number them.
    """
    begun = [work for work in works if work.steps] or list(works)
    told = [_words(work, num_trainings) for work in begun[:_MOST_TOLD]]
    others = len(works) - len(told)
    return "; ".join(told) + (f"; {others} more wait or run" if others else "") or "choosing images"


def _words(work: UnderWay, num_trainings: int | None) -> str:
    words = _WORDS.get(work.kind, work.kind)
    if work.kind == "training" and num_trainings is not None:
        words += f" {work.number} of {max(work.number, num_trainings)}"
    return words + (_progress(work.steps) if work.steps else ", starting a worker")


def _progress(steps: Steps) -> str:
    left = steps.left
    return f", {steps}" + (f", {in_words(left)}" if left else "")


@contextmanager
def watched(workshop: Any, describe: Describe = in_one_line) -> Iterator[None]:
    """While it lasts, what is being done is what the workshop says; inside of a Ray session."""
    ended = Event()
    with doing("starting the first work", timed=False) as activity:
        thread = Thread(target=_watch, args=(workshop, describe, activity, ended), name="raylearn-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()  # a thread that calls Ray after its shutdown ends the process without a word


def _watch(workshop: Any, describe: Describe, activity: Activity, ended: Event) -> None:
    import ray

    while not ended.wait(_ASK_SECONDS):
        asked = workshop.works.remote()
        # not ray.get with a timeout, which would wait on where the sweep ends meanwhile
        for _ in range(int(_ANSWER_SECONDS / 0.1)):
            if ended.is_set() or ray.wait([asked], timeout=0.1)[0]:
                break
        if ended.is_set():
            return
        try:
            activity.what = describe(ray.get(asked, timeout=0.1))
        except ray.exceptions.RayError:  # a machine that went: the work itself says so, or is done again
            continue
