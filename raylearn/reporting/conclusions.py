"""What may be said after a run, in sentences: verdicts, what could have been found, and about what."""

from collections.abc import Iterator, Sequence

from raylearn.reporting.power import POWER, sensitivity
from raylearn.reporting.statistics import ArmStatistics, Primary


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
    found = [(arm.label, arm.tested) for arm in arms if arm.key.query_size == size and arm.tested]
    if not found:
        return
    seeds = [len(difference.seeds) for _, difference in found]
    counted = _count(max(seeds), "seed")
    counted = f"{min(seeds)} to {counted}" if min(seeds) < max(seeds) else counted
    parts = []
    for verdict in ("better", "worse"):
        named = [f"{label} ({d.mean:+.3f})" for label, d in found if d.verdict == verdict]
        parts += [f"{verdict}: {', '.join(named)}"] if named else []
    open_arms = [label for label, d in found if d.verdict == "no evidence"]
    if open_arms:
        parts.append("no evidence: " + (", ".join(open_arms) if len(open_arms) < 5 else f"{len(open_arms)} arms"))
    outcome = primary.outcome[0].upper() + primary.outcome[1:]
    yield f"{outcome} against {primary.control}, query of {size}, {counted}: {'; '.join(parts)}."
    could = sensitivity(arms, [size])
    if could:
        yield (
            f"With {100 * POWER:.0f} % probability this run could have found a difference of {could.smallest:.3f} or "
            f"more ({_count(could.num_seeds, 'seed')}, {_count(could.num_arms, 'tested arm')}, standard deviation of "
            f"the differences {could.spread:.3f}); no evidence does not mean no difference."
        )


def _why_none(arms: Sequence[ArmStatistics], primary: Primary) -> str:
    if all(arm.key.strategy != primary.control for arm in arms):
        return f"No verdicts: {primary.control}, the control that decides in this experiment, is not among the arms."
    return (
        f"No verdicts: no arm came to its end with a seed in common with {primary.control}, the control that decides."
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what if number == 1 else what + 's'}"
