"""What a run would do, told without doing any of it: from the experiment, the data set and the store alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from raylearn.cluster.resources import num_local_cpus
from raylearn.config import Experiment
from raylearn.data.storage import Folder
from raylearn.sweep.grid import Trial, num_rounds
from raylearn.sweep.trial import Bench, run_trial
from raylearn.wording import counted
from raylearn.work.jobs import Job
from raylearn.work.store import Artifact, Store


@dataclass(frozen=True)
class Work:
    """Pieces of work of one kind.

    Args:
        wanted: by all trials together, shared or not.
        shared: of those, certainly the same as another that is wanted too.
        made: distinct ones that are in the store.
        seconds_each: how long one takes, by those in the store; None where there is none.
    """

    wanted: int
    shared: int
    made: int
    seconds_each: float | None

    @property
    def left(self) -> int:
        """How many are to be made, at most: queries that are not known yet may turn out to choose the same images."""
        return self.wanted - self.shared - self.made


@dataclass(frozen=True)
class SweepPlan:
    """All work of an experiment.

    Args:
        num_trials: arms times seeds.
        num_rounds: of all of them.
        work: by kind: trainings, evaluations, scoring passes.
    """

    num_trials: int
    num_rounds: int
    work: Mapping[str, Work]

    @property
    def seconds(self) -> float | None:
        """Of all work that is left, one piece after the other; None where a kind of it was never measured here."""
        total = 0.0
        for work in self.work.values():
            if work.left and work.seconds_each is None:
                return None
            total += work.left * (work.seconds_each or 0.0)
        return total


def plan_sweep(wanted: Sequence[Trial], bench: Bench, store: Store) -> SweepPlan:
    """Looks as far ahead as can be seen: to the first query of an arm that depends on a model not yet trained."""
    seen = _Seen(store)
    for trial in wanted:
        seen.look(trial, bench)
    num_images = [images for trial in wanted for images in _num_images(trial, bench)]
    num_scored = sum(_num_passes(trial, bench) for trial in wanted)
    training = seen.work("training", len(num_images))
    if training.made:
        # The time of a training goes with its images; which are left is not known, so the mean of all stands for them.
        made = [artifact.facts["num_images"] for (kind, _), artifact in seen.made.items() if kind == "training"]
        training = replace(
            training, seconds_each=(training.seconds_each or 0.0) * float(np.mean(num_images) / np.mean(made))
        )
    return SweepPlan(
        len(wanted),
        len(num_images),
        {
            "trainings": training,
            "evaluations": seen.work("evaluation", len(num_images)),
            "scoring passes": seen.work("ledger", num_scored),
        },
    )


def plan_lines(experiment: Experiment, plan: SweepPlan) -> Iterator[str]:
    """A plan in words: how much of each kind of work, and how long it takes on this machine."""
    yield f"{experiment.name}: {counted(plan.num_trials, 'trial')} of {counted(plan.num_rounds, 'round')} in all"
    for kind, work in plan.work.items():
        yield (
            f"{kind}: {work.wanted} wanted, {work.shared} certainly shared, {work.made} in the store, "
            f"at most {work.left} left"
        )
    at_once = max(1, num_local_cpus() // experiment.resources.training_cpus)
    if plan.seconds is None:
        yield "time: not known before one of each was made; start the run, stop it with Ctrl+C, and ask again"
    else:
        yield (
            f"time: at most {_hours(plan.seconds)} one after the other, by what the finished ones took; without a GPU "
            f"{at_once} run at once here, or {_hours(plan.seconds / at_once)}; with GPUs, one on each"
        )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{max(1, round(seconds / 60))} min"


def _num_images(trial: Trial, bench: Bench) -> list[int]:
    """Labelled images in every round of a trial; where boxes are paid, of images as crowded as the pool's are."""
    if trial.arm.query_size is None:
        return [len(bench.dataset.pool)]
    rounds, size = range(num_rounds(bench.experiment, trial.arm)), float(trial.arm.query_size)
    if bench.experiment.pays_boxes:
        truth = bench.dataset.truth
        size /= max(1e-9, float(np.mean([len(truth[image.image_id]) for image in bench.dataset.pool])))
    return [round(bench.experiment.initial_size + index * size) for index in rounds]


def _num_passes(trial: Trial, bench: Bench) -> int:
    """Scoring passes of a trial."""
    strategy = trial.arm.strategy
    return (strategy.needs_pass + strategy.needs_labelled) * (num_rounds(bench.experiment, trial.arm) - 1)


class _NotKnownError(Exception):
    """What comes next is decided by a ledger that is not there."""


@dataclass
class _Seen:
    """Every piece of work that is certain to be wanted, by kind and key."""

    store: Store
    times: dict[tuple[str, str], int] = field(default_factory=dict)
    made: dict[tuple[str, str], Artifact] = field(default_factory=dict)

    def look(self, trial: Trial, bench: Bench) -> None:
        try:
            for _ in run_trial(trial, bench, self._artifact):
                pass
        except _NotKnownError:
            return

    def _artifact(self, job: Job) -> Artifact:
        name = (job.kind, job.key)
        self.times[name] = self.times.get(name, 0) + 1
        found = self.made.get(name) or self.store.find(*name, put_aside=False)
        if found:
            self.made[name] = found
        elif job.kind == "ledger":
            raise _NotKnownError
        return found or Artifact(job.key, Folder(""), {})

    def work(self, kind: str, wanted: int) -> Work:
        times = [count for (of, _), count in self.times.items() if of == kind]
        seconds = [float(artifact.facts["seconds"]) for (of, _), artifact in self.made.items() if of == kind]
        return Work(wanted, sum(times) - len(times), len(seconds), float(np.mean(seconds)) if seconds else None)
