"""Whether arms differ: paired by seed, with intervals, and one outcome that decides. See docs/statistics.md."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from raylearn.measures.outcomes import DECIDES, OUTCOMES, Outcome, step_area, step_end
from raylearn.reporting.summary import ArmKey, Round, arm_labels
from raylearn.strategies import BASELINE, UPPER_BOUND, is_control, knows_labels

ALPHA = 0.05
TARGET = 0.9
"""The share of full_data's mAP50-95 whose cost is asked for."""

FEWEST_SEEDS = 3
"""That a verdict needs: two differences have one degree of freedom, by which next to nothing can be told apart."""

Verdict = Literal["better", "worse", "no evidence", "too few seeds"]


@dataclass(frozen=True)
class Primary:
    """What verdicts are about, declared before the run; every other difference is an estimate.

    Args:
        outcome: that decides.
        control: strategy that every arm is tested against.
    """

    outcome: Outcome = DECIDES
    control: str = BASELINE


@dataclass(frozen=True)
class Difference:
    """An arm minus a control, seed by seed.

    Args:
        outcome: what was measured.
        control: strategy that it is compared with.
        seeds: those that both have.
        values: a difference per seed.
        interval: around the mean. Of a tested difference at the level of its test, so that it leaves 0 out exactly if
            the verdict is "better" or "worse"; of any other a plain 95 % interval. None with one seed, or where the
            differences do not vary but are not 0, of which a t test can say nothing.
        p: two-sided, of the paired t test, after Holm's correction over the arms of all sizes. None where nothing was
            tested.
        verdict: what may be said; "too few seeds" below `FEWEST_SEEDS`, where nothing was tested; None of an estimate,
            which was not to be tested.
    """

    outcome: Outcome
    control: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    interval: tuple[float, float] | None
    p: float | None
    verdict: Verdict | None

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))


@dataclass(frozen=True)
class Reach:
    """What it cost to come to `TARGET` of full_data's mAP50-95.

    Args:
        images, boxes: medians over the seeds; None where the median seed had not come there with all its budget.
        num_reached: seeds that came there.
        num_seeds: seeds that have a full_data to be compared with.
    """

    images: float | None
    boxes: float | None
    num_reached: int
    num_seeds: int


@dataclass(frozen=True)
class ArmStatistics:
    """One arm.

    Args:
        outcomes: by outcome and seed; a seed whose trial ended early or lacks a mAP is left out.
        reach: None where no seed has a full_data.
        differences: to each control of its query size but itself, by outcome.
    """

    key: ArmKey
    label: str
    outcomes: Mapping[Outcome, Mapping[int, float]]
    reach: Reach | None
    differences: tuple[Difference, ...]

    @property
    def tested(self) -> Difference | None:
        """The one difference that has a verdict; None of the control itself, of an arm that knows the labels, and where
        no seed has both."""
        return next((difference for difference in self.differences if difference.verdict), None)

    def difference(self, primary: Primary) -> Difference | None:
        """The one that decides, tested or not."""
        wanted = primary.outcome, primary.control
        return next((one for one in self.differences if (one.outcome, one.control) == wanted), None)

    @property
    def estimates(self) -> tuple[Difference, ...]:
        """The differences that have none."""
        return tuple(difference for difference in self.differences if difference.verdict is None)


def compare(rounds: Iterable[Round], primary: Primary) -> tuple[ArmStatistics, ...]:
    """Every arm that has a curve; the order of the rows has no influence.

    Arms are compared within one query size, where all have paid for as many images (or boxes) in every round. The
    chance that a verdict of the whole report is false is at most ALPHA: only `primary` is tested, and Holm's correction
    is over all arms of all query sizes but those that know the labels: nobody can use them, so nothing is decided.
    """
    trials: dict[ArmKey, dict[int, list[Round]]] = {}
    for row in sorted(rounds, key=lambda row: (repr(row.arm), row.seed, row.round)):
        trials.setdefault(row.arm, {}).setdefault(row.seed, []).append(row)
    labels = arm_labels(trials)
    bounds = {
        seed: rows[-1].map50_95
        for key, seeds in trials.items()
        if key.strategy == UPPER_BOUND
        for seed, rows in seeds.items()
    }
    learning = {key: seeds for key, seeds in trials.items() if key.strategy != UPPER_BOUND}
    outcomes: dict[ArmKey, dict[Outcome, dict[int, float]]] = {}
    for size in dict.fromkeys(key.query_size for key in learning):
        outcomes |= _outcomes({key: seeds for key, seeds in learning.items() if key.query_size == size})
    differences = _differences(outcomes, primary)
    return tuple(
        ArmStatistics(key, labels[key], outcomes[key], _reach(learning[key], bounds), differences[key])
        for key in outcomes
    )


def holm(p_values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Holm's step-down correction (Scandinavian Journal of Statistics 6, 1979).

    Args:
        p_values: (m,) of the tests of one family.

    Returns:
        (m,) corrected p-values; and (m,) the level at which each test was decided: ALPHA / (m - i) for the i-th
        smallest p-value, up to the first that is not rejected, whose level decides for all larger ones.
    """
    p = np.asarray(p_values, dtype=float)
    order, count = np.argsort(p, kind="stable"), len(p)
    steps = count - np.arange(count)
    corrected = np.empty(count)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * steps))
    failed = np.flatnonzero(p[order] > ALPHA / steps)
    levels = np.empty(count)
    levels[order] = ALPHA / np.maximum(steps, steps[failed[0]] if len(failed) else 1)
    return corrected, levels


def _outcomes(family: Mapping[ArmKey, Mapping[int, list[Round]]]) -> dict[ArmKey, dict[Outcome, dict[int, float]]]:
    """Of trials that reached the last round of their query size with a mAP in each; areas over one range per seed."""
    last = max(rows[-1].round for seeds in family.values() for rows in seeds.values())
    whole = {
        key: {
            seed: rows
            for seed, rows in seeds.items()
            if len(rows) == last + 1 and all(row.map50_95 is not None for row in rows)
        }
        for key, seeds in family.items()
    }
    image_ends = _common_ends(whole.values(), lambda row: row.num_images)
    box_ends = _common_ends(whole.values(), lambda row: row.num_boxes)
    found: dict[ArmKey, dict[Outcome, dict[int, float]]] = {}
    for key, seeds in whole.items():
        found[key] = {outcome: {} for outcome in OUTCOMES}
        for seed, rows in seeds.items():
            images, boxes = [row.num_images for row in rows], [row.num_boxes for row in rows]
            values = [row.map50_95 or 0.0 for row in rows]
            areas = step_area(images, values, image_ends[seed]), step_area(boxes, values, box_ends[seed])
            for outcome, value in zip(OUTCOMES, (*areas, values[-1]), strict=True):
                if value is not None:
                    found[key][outcome][seed] = value
    return found


def _common_ends(arms: Iterable[Mapping[int, Sequence[Round]]], budget: Callable[[Round], int]) -> dict[int, float]:
    """By seed, the smallest of the arms' ends: up to there each has a model that it has paid for."""
    ends: dict[int, float] = {}
    for seeds in arms:
        for seed, rows in seeds.items():
            end = step_end([budget(row) for row in rows])
            ends[seed] = min(end, ends.get(seed, end))
    return ends


def _differences(
    outcomes: Mapping[ArmKey, Mapping[Outcome, Mapping[int, float]]], primary: Primary
) -> dict[ArmKey, tuple[Difference, ...]]:
    found: dict[ArmKey, list[Difference]] = {key: [] for key in outcomes}
    names = sorted({key.strategy for key in outcomes}, key=lambda name: (name != primary.control, name))
    for control in names:
        if control != primary.control and not is_control(control):
            continue
        against = {key.query_size: key for key in outcomes if key.strategy == control}
        others = [key for key in outcomes if key.strategy != control and key.query_size in against]
        for outcome in OUTCOMES:
            pairs = [_pairs(outcomes[key][outcome], outcomes[against[key.query_size]][outcome]) for key in others]
            estimates = [_estimate(outcome, control, pair) if pair else None for pair in pairs]
            if (outcome, control) == (primary.outcome, primary.control):
                usable = [not knows_labels(key.strategy) for key in others]
                tested = iter(_tested(list(compress(estimates, usable))))
                estimates = [next(tested) if use else one for one, use in zip(estimates, usable, strict=True)]
            for key, difference in zip(others, estimates, strict=True):
                found[key] += [difference] if difference else []
    return {key: tuple(differences) for key, differences in found.items()}


def _pairs(ours: Mapping[int, float], theirs: Mapping[int, float]) -> dict[int, float]:
    return {seed: ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())}


def _estimate(outcome: Outcome, control: str, pair: Mapping[int, float]) -> Difference:
    values = tuple(pair.values())
    return Difference(outcome, control, tuple(pair), values, _interval(np.array(values), ALPHA), None, None)


def _tested(estimates: Sequence[Difference | None]) -> list[Difference | None]:
    """The differences of the one family of tests with their verdicts; None stays: an arm without a seed in common."""
    found = [estimate and replace(estimate, verdict="too few seeds") for estimate in estimates]
    values = {index: np.array(one.values) for index, one in enumerate(found) if one and len(one.values) >= FEWEST_SEEDS}
    corrected, levels = holm([_p_value(value) for value in values.values()])
    for (index, value), p, level in zip(values.items(), corrected.tolist(), levels.tolist(), strict=True):
        verdict: Verdict = "no evidence" if p > ALPHA else "better" if value.mean() > 0 else "worse"
        one = found[index]
        found[index] = one and replace(one, interval=_interval(value, level), p=p, verdict=verdict)
    return found


def _interval(differences: np.ndarray, level: float) -> tuple[float, float] | None:
    """Student's, around the mean, that leaves out `level` of its distribution."""
    if len(differences) < 2:
        return None
    half = float(-stdtrit(len(differences) - 1, level / 2) * _standard_error(differences))
    mean = float(differences.mean())
    return (mean - half, mean + half) if half or not mean else None


def _p_value(differences: np.ndarray) -> float:
    """Two-sided, of the paired t test; 1 where the differences do not vary, of which the test can say nothing."""
    error = _standard_error(differences)
    if error == 0:
        return 1.0
    return float(2 * stdtr(len(differences) - 1, -abs(differences.mean()) / error))


def _standard_error(differences: np.ndarray) -> float:
    """Of the mean; 0 also where they differ by the rounding of a subtraction only."""
    if np.ptp(differences) < 1e-12:
        return 0.0
    return float(np.std(differences, ddof=1) / math.sqrt(len(differences)))


def _reach(seeds: Mapping[int, list[Round]], bounds: Mapping[int, float | None]) -> Reach | None:
    costs = []
    for seed, rows in seeds.items():
        bound = bounds.get(seed)
        if bound is not None:
            there = (row for row in rows if row.map50_95 is not None and row.map50_95 >= TARGET * bound)
            first = next(there, None)
            costs.append((first.num_images, first.num_boxes) if first else (math.inf, math.inf))
    if not costs:
        return None
    images, boxes = (float(np.median(column)) for column in zip(*costs, strict=True))
    reached = sum(math.isfinite(cost[0]) for cost in costs)
    return Reach(
        images if math.isfinite(images) else None, boxes if math.isfinite(boxes) else None, reached, len(costs)
    )
