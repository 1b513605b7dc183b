"""What may be said after a run, in sentences: verdicts, what could have been found, and about what."""

import math
from collections.abc import Iterator, Sequence

from raylearn.reporting.power import POWER, sensitivity
from raylearn.reporting.statistics import FEWEST_SEEDS, ArmStatistics, Difference, Primary
from raylearn.strategies import knows_labels
from raylearn.wording import counted


def conclusions(arms: Sequence[ArmStatistics], primary: Primary) -> list[str]:
    """The verdicts of each query size and the smallest difference that could have been found; or why there are none."""
    if len(arms) < 2:
        return []  # nothing to compare
    sentences = [
        sentence
        for size in dict.fromkeys(arm.key.query_size for arm in arms)
        for sentence in _of_query_size(arms, primary, size)
    ]
    if not sentences:
        return [_why_none(arms, primary)]
    return [*sentences, "All of this is about this data set, detector and budget; on others it may be otherwise."]


def _of_query_size(arms: Sequence[ArmStatistics], primary: Primary, size: int | None) -> Iterator[str]:
    own = [arm for arm in arms if arm.key.query_size == size]
    found = [(arm.label, arm.tested) for arm in own if arm.tested]
    could = sensitivity(arms, [size])
    if found:
        yield _verdicts(found, primary, own[0].key.query)
    if could and could.num_seeds >= FEWEST_SEEDS:
        yield (
            f"With {100 * POWER:.0f} % probability this run could have found a difference of {could.smallest:.3f} or "
            f"more ({counted(could.num_seeds, 'seed')}, {counted(could.num_arms, 'tested arm')}, standard deviation of "
            f"the differences {could.spread:.3f}); no evidence does not mean no difference."
        )
    for arm in own:
        won = arm.difference(primary)
        if won and knows_labels(arm.key.strategy):
            yield _of_oracle(arm, won, could.smallest if could else None)


def _of_oracle(arm: ArmStatistics, won: Difference, smallest: float | None) -> str:
    """What knowing the labels wins; and where that is little, what follows for those who only cover classes."""
    low, high = won.interval or (-math.inf, math.inf)
    interval = f"95 % interval {low:+.3f} to {high:+.3f}" if won.interval else "no interval"
    sentence = (
        f"Knowing the labels is worth {won.mean:+.3f} ({interval}) in {won.outcome} against {won.control} "
        f"({arm.label}, {arm.key.query}): what covering classes cheaply wins on this data set, without a look at the "
        "images."
    )
    follows = "an arm that wins here has to see more than classes and boxes, such as which images are alike."
    if low <= 0:
        return f"{sentence} It is not shown to win: {follows}"
    if smallest is not None and won.mean < smallest:
        return f"{sentence} It is less than this run can find: {follows}"
    return sentence


def _verdicts(found: Sequence[tuple[str, Difference]], primary: Primary, query: str) -> str:
    parts = []
    for verdict, named in (("better", "better"), ("worse", "worse"), ("too few seeds", "estimates without a verdict")):
        own = [f"{label} ({d.mean:+.3f})" for label, d in found if d.verdict == verdict]
        parts += [f"{named}: {', '.join(own)}"] if own else []
    open_arms = [label for label, d in found if d.verdict == "no evidence"]
    if open_arms:
        parts.append("no evidence: " + (", ".join(open_arms) if len(open_arms) < 5 else f"{len(open_arms)} arms"))
    outcome = primary.outcome[0].upper() + primary.outcome[1:]
    seeds = seeds_of([difference for _, difference in found])
    return f"{outcome} against {primary.control}, {query}, {seeds}: {'; '.join(parts)}."


def seeds_of(differences: Sequence[Difference]) -> str:
    """As in "3 seeds" or "2 to 3 seeds"."""
    numbers = [len(difference.seeds) for difference in differences]
    most = counted(max(numbers), "seed")
    return f"{min(numbers)} to {most}" if min(numbers) < max(numbers) else most


def _why_none(arms: Sequence[ArmStatistics], primary: Primary) -> str:
    if all(arm.key.strategy != primary.control for arm in arms):
        return f"No verdicts: {primary.control}, the control that decides in this experiment, is not among the arms."
    return (
        f"No verdicts: no arm came to its end with a seed in common with {primary.control}, the control that decides."
    )
