"""The numbers of a report: from the rows of results.parquet to arms, their curves and one plain answer."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raylearn.errors import RunFolderError
from raylearn.strategies import BASELINE, DEFAULT, UPPER_BOUND, is_control, knows_labels, label_of

REQUIRED_COLUMNS = ("trial", "strategy", "seed", "round", "num_images", "num_boxes", "map50_95", "map50")


@dataclass(frozen=True)
class ArmKey:
    """What makes an arm, as results.parquet names it."""

    strategy: str
    uncertainty: str | None = None
    aggregation: str | None = None
    weighting: str | None = None
    probabilities: str | None = None
    query_size: int | None = None
    options: str | None = None
    """What else its strategy was given, as JSON text."""
    pays_boxes: bool = False
    """Whether its query size is of boxes, and not of images."""

    @property
    def query(self) -> str:
        """Its query size in words."""
        return f"query of {self.query_size}{' boxes' if self.pays_boxes else ''}"


@dataclass(frozen=True)
class Round:
    """One row of results.parquet; a mAP or class AP that is null or NaN there is None here."""

    trial: str
    arm: ArmKey
    seed: int
    round: int
    num_images: int
    num_boxes: int
    map50_95: float | None
    map50: float | None
    class_ap: tuple[float | None, ...] = ()
    class_counts: tuple[int, ...] = ()
    reused: bool = False
    train_seconds: float | None = None
    score_seconds: float | None = None
    share_without_detections: float | None = None


@dataclass(frozen=True)
class Spread:
    """Values that differ only by their seed; at least one, all finite."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def sd(self) -> float | None:
        """The sample standard deviation (n - 1); None for one value, which has none."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Point:
    """One round of an arm, over the seeds that reached it.

    Args:
        class_ap, class_counts, class_shares, balance: means over the seeds; shares are of all labelled boxes.
    """

    round: int
    num_seeds: int
    num_reused: int
    num_images: float
    num_boxes: float
    map50_95: Spread | None
    map50: Spread | None
    class_ap: tuple[float | None, ...]
    class_counts: tuple[float, ...]
    class_shares: tuple[float, ...]
    balance: float | None
    train_seconds: Spread | None
    score_seconds: Spread | None
    share_without_detections: Spread | None


@dataclass(frozen=True)
class Arm:
    """An arm over its seeds.

    Args:
        trials: their names, by seed.
        curve: one point per round, in order; at least one.
        lead: the last round's mAP50-95 minus random's in that round, seed by seed.
    """

    key: ArmKey
    label: str
    seeds: tuple[int, ...]
    trials: tuple[str, ...]
    curve: tuple[Point, ...]
    lead: Spread | None

    @property
    def last(self) -> Point:
        return self.curve[-1]

    @property
    def is_random(self) -> bool:
        return self.key.strategy == BASELINE

    @property
    def is_full_data(self) -> bool:
        return self.key.strategy == UPPER_BOUND

    @property
    def is_control(self) -> bool:
        return is_control(self.key.strategy)

    @property
    def knows_labels(self) -> bool:
        """Whether it is an oracle: a measure of what could be won, which nobody can use."""
        return knows_labels(self.key.strategy)


@dataclass(frozen=True)
class Summary:
    """All arms of a run: by query size, then the highest last mAP50-95 first; training on all data stands last.

    Args:
        arms: in that order.
        training_seconds: of every training, each counted once; None where no row says how long.
    """

    arms: tuple[Arm, ...]
    training_seconds: float | None

    @cached_property
    def learning(self) -> tuple[Arm, ...]:
        """The arms that have a curve: all but training on all data."""
        return tuple(arm for arm in self.arms if not arm.is_full_data)

    @cached_property
    def query_sizes(self) -> tuple[int | None, ...]:
        return tuple(dict.fromkeys(arm.key.query_size for arm in self.learning))

    def learning_with(self, query_size: int | None) -> tuple[Arm, ...]:
        """The arms that can be ranked against each other: those that pay for as many images, or boxes, each round."""
        return tuple(arm for arm in self.learning if arm.key.query_size == query_size)

    def contestants(self, query_size: int | None) -> tuple[Arm, ...]:
        """Those of them that somebody could use."""
        return tuple(arm for arm in self.learning_with(query_size) if not arm.knows_labels)

    @property
    def pays_boxes(self) -> bool:
        """Whether rounds of all arms cost the same number of boxes, and not of images."""
        return any(arm.key.pays_boxes for arm in self.arms)

    @property
    def num_seeds(self) -> int:
        return len({seed for arm in self.arms for seed in arm.seeds})

    @property
    def num_rounds(self) -> int:
        return max((len(arm.curve) for arm in self.arms), default=0)

    @property
    def num_classes(self) -> int:
        return max((len(point.class_counts) for arm in self.arms for point in arm.curve), default=0)


def read_rounds(path: Path, pays_boxes: bool = False) -> list[Round]:
    """Reads results.parquet.

    Args:
        path: of the file.
        pays_boxes: whether the experiment's query sizes are of boxes.

    Raises:
        RunFolderError: a file that is no parquet, a column that is missing or of another type, a row that is twice.
    """
    try:
        table = pq.read_table(path)
        missing = sorted(set(REQUIRED_COLUMNS) - set(table.column_names))
        if missing:
            raise RunFolderError(f"{path} has no column {missing[0]!r}: it was not written by 'raylearn run'")
        rounds = [round_of(row, pays_boxes) for row in table.to_pylist()]
    except (OSError, ValueError, TypeError, ArithmeticError, pa.ArrowException) as error:
        raise RunFolderError(f"{path} cannot be read ({one_line(error)}): run 'raylearn run' again") from error
    seen: set[tuple[str, int]] = set()
    for row in rounds:
        if (row.trial, row.round) in seen:
            raise RunFolderError(f"{path} has round {row.round} of trial {row.trial!r} twice: run 'raylearn run' again")
        seen.add((row.trial, row.round))
    trials = {(row.trial, (row.arm, row.seed)) for row in rounds}
    of_name, of_arm = Counter(name for name, _ in trials), Counter(arm for _, arm in trials)
    mixed = sorted(name for name, arm in trials if of_name[name] > 1 or of_arm[arm] > 1)
    if mixed:
        raise RunFolderError(
            f"{path}: trial {mixed[0]!r} has several arms or seeds, or another has its own: run 'raylearn run' again"
        )
    return rounds


def summarise(rounds: Iterable[Round]) -> Summary:
    """Groups rows into arms; the order of the rows has no influence."""
    rows = sorted(rounds, key=lambda row: (row.seed, row.trial, row.round))
    by_arm: dict[ArmKey, list[Round]] = {}
    for row in rows:
        by_arm.setdefault(row.arm, []).append(row)
    seconds = [row.train_seconds for row in rows if not row.reused and row.train_seconds is not None]
    labels = arm_labels(by_arm)
    arms = [_arm(key, labels[key], by_arm) for key in by_arm]
    return Summary(tuple(sorted(arms, key=_rank)), sum(seconds) if seconds else None)


def arm_labels(keys: Iterable[ArmKey]) -> dict[ArmKey, str]:
    """A short name for every arm; query size and probabilities are named only where the arms differ in them."""
    keys = list(keys)
    several_sizes = len({key.query_size for key in keys} - {None}) > 1
    alike = Counter(replace(key, options=None) for key in keys)  # options are named where nothing else tells them apart
    several_probabilities = len({key.probabilities for key in keys} - {None}) > 1
    labels = {}
    for key in keys:
        parts: list[str | None] = [label_of(key.strategy, key.options)]
        if key.uncertainty:
            parts = [None if key.strategy == DEFAULT else key.strategy, key.uncertainty, key.aggregation]
            parts += [key.weighting] if key.weighting != "none" else []
            parts += [key.options] if alike[replace(key, options=None)] > 1 else []
        parts += [key.probabilities] if several_probabilities else []
        parts += [key.query] if several_sizes and key.query_size is not None else []
        labels[key] = " · ".join(part for part in parts if part)
    return labels


def answers(summary: Summary) -> list[str]:
    """What the run found, one sentence for each query size, since arms of unequal budgets cannot be ranked."""
    if not summary.arms:
        return ["No round has finished yet."]
    bounds = [
        f"Training on all {arm.last.num_images:g} images gives mAP50-95 {spread_text(arm.last.map50_95)}."
        for arm in summary.arms
        if arm.is_full_data and arm.last.map50_95
    ]
    return [_answer(summary, size) for size in summary.query_sizes] + bounds or ["No mAP50-95 was measured."]


def caution(summary: Summary) -> str:
    """How far the answer can be trusted, before any test: `statistics.conclusions` says what is evidence."""
    if not summary.learning:
        return "There are no arms to compare."
    compared = max(len(summary.contestants(size)) for size in summary.query_sizes)
    luck = f" The highest of {compared} arms is also in part the luckiest." if compared > 4 else ""
    if summary.num_seeds == 1:
        return f"1 seed: the spread is unknown, so no difference is evidence.{luck}"
    return f"{summary.num_seeds} seeds: ± is the spread between them, which a comparison seed by seed leaves out.{luck}"


def class_balance(counts: Sequence[float]) -> float | None:
    """How evenly boxes are spread over classes: Shannon's entropy of the shares, divided by its maximum (Pielou).

    Args:
        counts: (K,) boxes per class.

    Returns:
        1 for equal counts, 0 for one class only; None without boxes or with fewer than two classes.
    """
    if len(counts) < 2 or not sum(counts):
        return None
    shares = np.array([count for count in counts if count], dtype=float) / sum(counts)
    return float(-(shares * np.log(shares)).sum() / math.log(len(counts))) + 0.0  # never -0


def spread_text(spread: Spread | None, of_seeds: int = 1, sign: str = "") -> str:
    """`0.412 ± 0.010`, with no line break in it, or a dash; where some seeds have no value, says how many have."""
    if spread is None:
        return "\u2013"
    text = f"{spread.mean:{sign}.3f}".replace("-", "\u2212")
    text += "" if spread.sd is None else f"\u00a0±\u00a0{spread.sd:.3f}"
    return text if len(spread.values) >= of_seeds else f"{text} ({len(spread.values)} of {of_seeds})"


def one_line(error: object) -> str:
    """The first line of a message, cut to what fits on a screen."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def finite(value: Any) -> float | None:
    """A number, or None for null, NaN and infinity."""
    return float(value) if value is not None and math.isfinite(value) else None


def round_of(row: Mapping[str, Any], pays_boxes: bool = False) -> Round:
    """From a row of results.parquet; see `read_rounds`."""
    size = row.get("query_size")
    return Round(
        trial=str(row["trial"]),
        arm=ArmKey(
            strategy=str(row["strategy"]),
            uncertainty=_text(row.get("uncertainty")),
            aggregation=_text(row.get("aggregation")),
            weighting=_text(row.get("weighting")),
            probabilities=_text(row.get("probabilities")),
            query_size=None if size is None else int(size),
            options=_text(row.get("options")),
            pays_boxes=pays_boxes,
        ),
        seed=int(row["seed"]),
        round=int(row["round"]),
        num_images=int(row["num_images"]),
        num_boxes=int(row["num_boxes"]),
        map50_95=finite(row["map50_95"]),
        map50=finite(row["map50"]),
        class_ap=tuple(finite(value) for value in row.get("class_ap") or ()),
        class_counts=tuple(int(count) for count in row.get("class_counts") or ()),
        reused=bool(row.get("reused")),
        train_seconds=finite(row.get("train_seconds")),
        score_seconds=finite(row.get("score_seconds")),
        share_without_detections=finite(row.get("share_without_detections")),
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _spread(values: Iterable[float | None]) -> Spread | None:
    known = tuple(value for value in values if value is not None)
    return Spread(known) if known else None


def _arm(key: ArmKey, label: str, by_arm: Mapping[ArmKey, list[Round]]) -> Arm:
    rows = by_arm[key]
    by_round: dict[int, list[Round]] = {}
    for row in rows:
        by_round.setdefault(row.round, []).append(row)
    return Arm(
        key=key,
        label=label,
        seeds=tuple(sorted({row.seed for row in rows})),
        trials=tuple(dict.fromkeys(row.trial for row in rows)),
        curve=tuple(_point(by_round[index]) for index in sorted(by_round)),
        lead=_lead(key, by_round[max(by_round)], by_arm),
    )


def _same_budget(one: ArmKey, other: ArmKey) -> bool:
    return one.query_size == other.query_size and (one.strategy == UPPER_BOUND) == (other.strategy == UPPER_BOUND)


def _lead(key: ArmKey, last: list[Round], by_arm: Mapping[ArmKey, list[Round]]) -> Spread | None:
    """Pairs seeds: both started from the same images and the same model."""
    random = {
        (row.seed, row.round): row.map50_95
        for other in by_arm
        if other.strategy == BASELINE and _same_budget(key, other)
        for row in by_arm[other]
    }
    pairs = [(row.map50_95, random.get((row.seed, row.round))) for row in last]
    return None if key.strategy == BASELINE else _spread(a - b for a, b in pairs if a is not None and b is not None)


def _point(rows: list[Round]) -> Point:
    num_classes = max(len(row.class_counts) for row in rows)
    counted = [row.class_counts for row in rows if len(row.class_counts) == num_classes]
    num_ap = max(len(row.class_ap) for row in rows)
    balances = _spread(class_balance(counts) for counts in counted)
    shares = [np.divide(counts, sum(counts) or 1) for counts in counted]
    ap = [_spread(row.class_ap[i] for row in rows if i < len(row.class_ap)) for i in range(num_ap)]
    return Point(
        round=rows[0].round,
        num_seeds=len(rows),
        num_reused=sum(row.reused for row in rows),
        num_images=float(np.mean([row.num_images for row in rows])),
        num_boxes=float(np.mean([row.num_boxes for row in rows])),
        map50_95=_spread(row.map50_95 for row in rows),
        map50=_spread(row.map50 for row in rows),
        class_ap=tuple(spread.mean if spread else None for spread in ap),
        class_counts=tuple(float(count) for count in np.mean(counted, axis=0)) if num_classes else (),
        class_shares=tuple(float(share) for share in np.mean(shares, axis=0)) if num_classes else (),
        balance=balances.mean if balances else None,
        train_seconds=_spread(row.train_seconds for row in rows),
        score_seconds=_spread(row.score_seconds for row in rows),
        share_without_detections=_spread(row.share_without_detections for row in rows),
    )


def _rank(arm: Arm) -> tuple[bool, int, bool, float, bool, str]:
    last = -arm.last.map50_95.mean if arm.last.map50_95 else math.inf
    return arm.is_full_data, arm.key.query_size or 0, arm.knows_labels, last, not arm.is_random, arm.label


def _answer(summary: Summary, query_size: int | None) -> str:
    arms = summary.contestants(query_size)
    query = summary.learning_with(query_size)[0].key.query
    if not arms:
        return f"With a {query} there is only an arm that knows the labels, which nobody can use."
    end = max(arm.last.round for arm in arms)
    ended = [arm for arm in arms if arm.last.round == end and arm.last.map50_95]
    random = next((arm for arm in ended if arm.is_random), None)
    # an arm that lost a seed may only have lost a bad one
    ended = [arm for arm in ended if _num_measured(arm) == summary.num_seeds] or ended
    if not ended:
        return f"No arm with a {query} has a mAP50-95 in the last round."
    best = ended[0]
    highest = spread_text(best.last.map50_95, summary.num_seeds)
    paid = f"{best.last.num_images:g} images"
    if best.key.pays_boxes:
        paid = f"{best.last.num_boxes:.0f} boxes in {paid}"
    ends = [f"{best.label} ended highest: mAP50-95 {highest} with {paid}"]
    other, name = random, BASELINE
    if best.is_random:
        other = next((arm for arm in ended if not arm.is_random), None)
        name = f"next {other.label}" if other else ""
    if other:
        ends.append(f"{name} {spread_text(other.last.map50_95, summary.num_seeds)}")
    elif not best.is_random:
        ends.append("there is no random arm to compare it with")
    return ", ".join(ends) + "."


def _num_measured(arm: Arm) -> int:
    return len(arm.last.map50_95.values) if arm.last.map50_95 else 0
