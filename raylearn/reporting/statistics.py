"""Whether arms differ: paired by seed, with intervals, corrected for how many are looked at. See docs/statistics.md."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from raylearn.reporting.summary import ArmKey, Round, arm_labels
from raylearn.strategies import BASELINE, UPPER_BOUND, is_control

ALPHA = 0.05
TARGET = 0.9
"""The share of full_data's mAP50-95 whose cost is asked for."""

Outcome = Literal["area over images", "area over boxes", "last mAP50-95"]
OUTCOMES: tuple[Outcome, ...] = ("area over images", "area over boxes", "last mAP50-95")
Verdict = Literal["better", "worse", "no evidence"]


@dataclass(frozen=True)
class Difference:
    """An arm minus a control, seed by seed.

    Args:
        outcome: what was measured.
        control: strategy that it is compared with.
        seeds: those that both have.
        values: a difference per seed.
        interval: around the mean; it leaves 0 out exactly if the verdict is "better" or "worse". None with one seed, or
            where the differences do not vary but are not 0, of which a t test can say nothing.
        p: two-sided, of the paired t test, after Holm's correction over the arms of all sizes. None with one seed.
        verdict: what may be said.
    """

    outcome: Outcome
    control: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    interval: tuple[float, float] | None
    p: float | None
    verdict: Verdict

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


def compare(rounds: Iterable[Round]) -> tuple[ArmStatistics, ...]:
    """Every arm that has a curve; the order of the rows has no influence.

    Arms are compared within one query size, where all have paid for as many images in every round.
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
    differences = _differences(outcomes)
    return tuple(
        ArmStatistics(key, labels[key], outcomes[key], _reach(learning[key], bounds), differences[key])
        for key in outcomes
    )


def conclusions(arms: Sequence[ArmStatistics]) -> list[str]:
    """What may be said against random, a sentence for each query size and area."""
    sentences = []
    for size in dict.fromkeys(arm.key.query_size for arm in arms):
        for outcome in ("area over images", "area over boxes"):
            found = [
                (arm.label, difference)
                for arm in arms
                if arm.key.query_size == size
                for difference in arm.differences
                if (difference.outcome, difference.control) == (outcome, BASELINE)
            ]
            if not found:
                continue
            seeds = [len(difference.seeds) for _, difference in found]
            counted = f"{max(seeds)} {'seed' if max(seeds) == 1 else 'seeds'}"
            counted = f"{min(seeds)} to {counted}" if min(seeds) < max(seeds) else counted
            parts = []
            for verdict in ("better", "worse"):
                named = [f"{label} ({d.mean:+.3f})" for label, d in found if d.verdict == verdict]
                parts += [f"{verdict}: {', '.join(named)}"] if named else []
            open_arms = [label for label, d in found if d.verdict == "no evidence"]
            if open_arms:
                parts.append(
                    "no evidence: " + (", ".join(open_arms) if len(open_arms) < 5 else f"{len(open_arms)} arms")
                )
            sentences.append(
                f"{outcome.capitalize()} against {BASELINE}, query of {size}, {counted}: " + "; ".join(parts) + "."
            )
    return sentences


def step_area(budgets: Sequence[float], values: Sequence[float], end: float) -> float | None:
    """Mean of a learning curve over a range of budget.

    With a budget b one has the model of the last round that b pays for: a step function. Its integral from the first
    budget to `end` is divided by the length of that range; the last model holds to the end.

    Args:
        budgets: (n,) images or boxes of each round, never falling.
        values: (n,) mAP of each round.
        end: of the range.

    Returns:
        A mean mAP in [0, 1]; None if the range is empty.
    """
    if end <= budgets[0]:
        return None
    edges = np.minimum(np.append(np.asarray(budgets, dtype=float), end), end)
    return float(np.diff(edges) @ np.asarray(values) / (end - budgets[0]))


def step_end(budgets: Sequence[float]) -> float:
    """Where a curve is taken to end: the last model holds for as long as the one before it did."""
    return 2 * budgets[-1] - budgets[-2] if len(budgets) > 1 else budgets[-1]


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
    """Of trials that reached the last round of their query size with a mAP in each; boxes over one range per seed."""
    last = max(rows[-1].round for seeds in family.values() for rows in seeds.values())
    whole = {
        key: {
            seed: rows
            for seed, rows in seeds.items()
            if len(rows) == last + 1 and all(row.map50_95 is not None for row in rows)
        }
        for key, seeds in family.items()
    }
    box_ends: dict[int, float] = {}
    for seeds in whole.values():
        for seed, rows in seeds.items():
            end = step_end([row.num_boxes for row in rows])
            box_ends[seed] = min(end, box_ends.get(seed, end))
    found: dict[ArmKey, dict[Outcome, dict[int, float]]] = {}
    for key, seeds in whole.items():
        found[key] = {outcome: {} for outcome in OUTCOMES}
        for seed, rows in seeds.items():
            images, boxes = [row.num_images for row in rows], [row.num_boxes for row in rows]
            values = [row.map50_95 or 0.0 for row in rows]
            areas = step_area(images, values, step_end(images)), step_area(boxes, values, box_ends[seed])
            for outcome, value in zip(OUTCOMES, (*areas, values[-1]), strict=True):
                if value is not None:
                    found[key][outcome][seed] = value
    return found


def _differences(
    outcomes: Mapping[ArmKey, Mapping[Outcome, Mapping[int, float]]],
) -> dict[ArmKey, tuple[Difference, ...]]:
    found: dict[ArmKey, list[Difference]] = {key: [] for key in outcomes}
    names = sorted({key.strategy for key in outcomes}, key=lambda name: (name != BASELINE, name))
    for control in filter(is_control, names):
        against = {key.query_size: key for key in outcomes if key.strategy == control}
        others = [key for key in outcomes if key.strategy != control and key.query_size in against]
        for outcome in OUTCOMES:
            pairs = [_pairs(outcomes[key][outcome], outcomes[against[key.query_size]][outcome]) for key in others]
            for key, difference in zip(others, _judged(outcome, control, pairs), strict=True):
                found[key] += [difference] if difference else []
    return {key: tuple(differences) for key, differences in found.items()}


def _pairs(ours: Mapping[int, float], theirs: Mapping[int, float]) -> dict[int, float]:
    return {seed: ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())}


def _judged(outcome: Outcome, control: str, pairs: Sequence[Mapping[int, float]]) -> list[Difference | None]:
    """The differences of one family of tests; None for an arm that has no seed in common with the control."""
    tested = [index for index, pair in enumerate(pairs) if len(pair) > 1]
    values = [np.array(list(pairs[index].values())) for index in tested]
    corrected, levels = holm([_p_value(value) for value in values])
    found: list[Difference | None] = [
        Difference(outcome, control, tuple(pair), tuple(pair.values()), None, None, "no evidence") if pair else None
        for pair in pairs
    ]
    for index, value, p, level in zip(tested, values, corrected.tolist(), levels.tolist(), strict=True):
        half = float(-stdtrit(len(value) - 1, level / 2) * _standard_error(value))
        mean = float(value.mean())
        verdict: Verdict = "no evidence" if p > ALPHA else "better" if mean > 0 else "worse"
        interval = (mean - half, mean + half) if half or not mean else None
        found[index] = Difference(outcome, control, tuple(pairs[index]), tuple(value.tolist()), interval, p, verdict)
    return found


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
