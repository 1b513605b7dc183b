"""The grid: every arm of an experiment, and every trial."""

import itertools
from dataclasses import dataclass

from raylearn.config import Arm, Experiment


@dataclass(frozen=True)
class Trial:
    """An arm with a seed."""

    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        """Unique in an experiment, fit for a file name, the same in every run of it."""
        arm = self.arm
        axes = (arm.uncertainty, arm.aggregation, arm.weighting, arm.probabilities)
        words: list[str] = [axis for axis in axes if axis] or [arm.strategy]
        if arm.query_size is not None:
            words.append(f"q{arm.query_size}")
        return "-".join([*words, f"s{self.seed}"])


def arms(experiment: Experiment) -> list[Arm]:
    """Controls first, then every combination of the four axes and the probability conventions."""
    section = experiment.arms
    controls: list[Arm] = []
    for control in section.controls:
        if control == "full_data":
            controls.append(Arm("full_data"))
        else:
            controls += [Arm(control, query_size=size) for size in section.query_size]
    cells = itertools.product(
        section.uncertainty, section.aggregation, section.weighting, section.probabilities, section.query_size
    )
    return controls + [Arm("uncertainty", *cell) for cell in cells]


def trials(experiment: Experiment) -> list[Trial]:
    """Every arm with every seed, seed by seed, so that the first seed's comparison is complete first."""
    return [Trial(arm, seed) for seed in experiment.seeds for arm in arms(experiment)]


def num_rounds(experiment: Experiment, arm: Arm) -> int:
    """Rounds of one trial, round 0 included."""
    return 1 if arm.query_size is None else 1 + experiment.budget // arm.query_size
