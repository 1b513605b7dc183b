"""What a run could have found: the smallest difference, and the seeds that a wanted one needs. See docs/statistics.md.

Everything here is about one arm that differs from the control, tested in the first step of Holm's correction.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import nctdtr, nctdtrinc, stdtrit

from raylearn.reporting.statistics import ALPHA, FEWEST_SEEDS, ArmStatistics, Difference, Primary
from raylearn.wording import counted

POWER = 0.8
MOST_SEEDS = 10_000
DIFFERENCES = (0.005, 0.01, 0.02, 0.03, 0.05)
"""Of mAP: what is told of where nobody says which difference is wanted."""


@dataclass(frozen=True)
class Sensitivity:
    """What the tests of a run could find.

    Args:
        spread: standard deviation of the differences between seeds, pooled over the arms.
        num_seeds: of the tested arm that has the fewest.
        num_arms: that are tested, of all query sizes.
    """

    spread: float
    num_seeds: int
    num_arms: int

    @property
    def smallest(self) -> float:
        return smallest_difference(self.spread, self.num_seeds, self.num_arms)


@dataclass(frozen=True)
class SeedPlan:
    """How many seeds the differences that are wanted need.

    Args:
        primary: outcome and control that decide.
        num_arms: that the experiment will test.
        num_seeds: that it has.
        pilot: what the run whose spread is used could find.
        seeds: by difference; None where even `MOST_SEEDS` are too few.
    """

    primary: Primary
    num_arms: int
    num_seeds: int
    pilot: Sensitivity
    seeds: Mapping[float, int | None]

    def lines(self) -> Iterator[str]:
        arms, pilot = counted(self.num_arms, "tested arm"), self.pilot
        yield (
            f"seeds: {self.primary.outcome} against {self.primary.control}, {arms}; the pilot's differences have a "
            f"standard deviation of {pilot.spread:.4f} ({counted(pilot.num_arms, 'arm')}, {pilot.num_seeds} seeds)"
        )
        if self.num_seeds < FEWEST_SEEDS:
            yield f"its {counted(self.num_seeds, 'seed')} will give estimates only: a verdict needs {FEWEST_SEEDS}"
        else:
            smallest = smallest_difference(self.pilot.spread, self.num_seeds, self.num_arms)
            yield f"with its {self.num_seeds} seeds the experiment can find a difference of {smallest:.3f}"
        for difference, count in self.seeds.items():
            needed = f"more than {MOST_SEEDS}" if count is None else str(count)
            yield f"to find a difference of {difference:g} with {100 * POWER:.0f} % probability it needs {needed} seeds"


def sensitivity(arms: Sequence[ArmStatistics], query_sizes: Iterable[int | None]) -> Sensitivity | None:
    """Of the tests of arms with one of these query sizes, by the spread of their own differences.

    Returns:
        None where no arm has a tested difference with two seeds, or where none varies.
    """
    sizes = set(query_sizes)
    tested = [(arm.key.query_size, arm.tested) for arm in arms if arm.tested and len(arm.tested.seeds) > 1]
    own = [difference for size, difference in tested if size in sizes]
    spread = _pooled_spread(own)
    if not spread:
        return None
    return Sensitivity(spread, min(len(difference.seeds) for difference in own), len(tested))


def _pooled_spread(differences: Sequence[Difference]) -> float:
    """The root of the mean variance, each arm's weighted by its degrees of freedom; 0 for what varies by rounding."""
    freedom = sum(len(difference.values) - 1 for difference in differences)
    squares = sum((len(one.values) - 1) * float(np.var(one.values, ddof=1)) for one in differences)
    spread = math.sqrt(squares / freedom) if freedom else 0.0
    return spread if spread > 1e-12 else 0.0


def smallest_difference(spread: float, num_seeds: int, num_arms: int, power: float = POWER) -> float:
    """The true mean difference that is found with a given probability.

    With n differences of standard deviation s and true mean d, the statistic t of the paired test is distributed as
    noncentral t, with n - 1 degrees of freedom and noncentrality d sqrt(n) / s. The difference is found if t exceeds
    c, the 1 - alpha / 2m quantile of Student's t, where m is the number of arms: the first step of Holm (1979). So d is
    s / sqrt(n) times the noncentrality at which P(t <= c) = 1 - power. Sources: Cohen, Statistical Power Analysis for
    the Behavioral Sciences (1988), ch. 2, for the question; Johnson, Kotz and Balakrishnan, Continuous Univariate
    Distributions 2 (1995), ch. 31, for the distribution.

    Args:
        spread: s > 0.
        num_seeds: n >= 2.
        num_arms: m >= 1.
        power: in (.5, 1).

    Returns:
        d > 0, in the unit of `spread`. Where other arms differ too, Holm's later steps find somewhat smaller ones.
    """
    freedom = num_seeds - 1
    return float(spread / math.sqrt(num_seeds) * nctdtrinc(freedom, 1 - power, _critical(freedom, num_arms)))


def seeds_needed(spread: float, difference: float, num_arms: int, power: float = POWER) -> int | None:
    """The fewest seeds, of those that give a verdict, that find a difference; see `smallest_difference`.

    Returns:
        None where `MOST_SEEDS` are too few.
    """
    few, enough = FEWEST_SEEDS - 1, FEWEST_SEEDS
    while _power(spread, difference, enough, num_arms) < power:
        if enough == MOST_SEEDS:
            return None
        few, enough = enough, min(2 * enough, MOST_SEEDS)
    while enough - few > 1:
        middle = (few + enough) // 2
        if _power(spread, difference, middle, num_arms) < power:
            few = middle
        else:
            enough = middle
    return enough


def _power(spread: float, difference: float, num_seeds: int, num_arms: int) -> float:
    freedom, noncentrality = num_seeds - 1, difference * math.sqrt(num_seeds) / spread
    return float(1 - nctdtr(freedom, noncentrality, _critical(freedom, num_arms)))


def _critical(freedom: int, num_arms: int) -> float:
    return float(-stdtrit(freedom, ALPHA / num_arms / 2))
