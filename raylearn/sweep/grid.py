"""The grid: every arm of an experiment, and every trial."""

from dataclasses import dataclass

from raylearn.config import Experiment
from raylearn.strategies import Strategy


@dataclass(frozen=True)
class Arm:
    """One cell of the grid: a strategy, and the images (or boxes) it asks for each round; None where it never asks."""

    strategy: Strategy
    query_size: int | None


@dataclass(frozen=True)
class Trial:
    """An arm with a seed."""

    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        """Unique in an experiment, fit for a file name, the same in every run of it."""
        words = list(self.arm.strategy.words)
        if self.arm.query_size is not None:
            words.append(f"q{self.arm.query_size}")
        return "-".join([*words, f"s{self.seed}"])


def arms(experiment: Experiment) -> list[Arm]:
    """Each strategy with each query size, controls first; one that never asks has none."""
    section = experiment.arms
    return [
        Arm(strategy, size)
        for strategy in section.chosen
        for size in (section.query_size if strategy.asks else (None,))
    ]


def trials(experiment: Experiment) -> list[Trial]:
    """Every arm with every seed, seed by seed, so that the first seed's comparison is complete first."""
    return [Trial(arm, seed) for seed in experiment.seeds for arm in arms(experiment)]


def num_rounds(experiment: Experiment, arm: Arm) -> int:
    """Rounds of one trial, round 0 included."""
    return 1 if arm.query_size is None else 1 + experiment.budget_size // arm.query_size
