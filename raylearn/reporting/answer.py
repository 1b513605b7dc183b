"""The answer of a run: one sentence that opens the report, what to doubt, and the table of arms in plain text."""

from collections.abc import Iterator, Mapping, Sequence

from raylearn.measures.outcomes import Outcome
from raylearn.reporting.conclusions import conclusions, seeds_of
from raylearn.reporting.statistics import FEWEST_SEEDS, ArmStatistics, Difference, Primary
from raylearn.reporting.summary import Arm, Summary, answers, spread_text
from raylearn.strategies import BASELINE, knows_labels
from raylearn.strategies.meaning import MANY
from raylearn.wording import counted

ZERO = 0.0005
"""A mAP below it is shown as 0.000."""
_WITH: Mapping[Outcome, str] = {
    "area over images": "with the same images",
    "area over boxes": "with the same boxes",
    "last mAP50-95": "in the last round",
}
_MOST_NAMED = 3

Found = Sequence[tuple[str, Difference]]
"""Labels of arms and how they differ from the control."""


def answer(summary: Summary, arms: Sequence[ArmStatistics], primary: Primary) -> list[str]:
    """What a run found, in sentences: the first says it all.

    Args:
        summary: of its rounds.
        arms: the same, compared.
        primary: what decides.
    """
    doubts = [doubt for doubt in [_without_detections(summary)] if doubt]
    if is_all_zero(summary):
        return [
            "Nothing can be compared: mAP50-95 is 0 in every round of every arm, so no detector has learned to find "
            "anything; train longer, or begin from initial_weights.",
            *doubts,
        ]
    opening = _opening(arms, primary)
    return [*([opening] if opening else []), *doubts, *answers(summary), *conclusions(arms, primary)]


def arm_lines(summary: Summary) -> Iterator[str]:
    """The table of arms after the last round, for a terminal."""
    header = ("arm", "mAP50-95", f"minus {BASELINE}", "mAP50", "images", "boxes", "seeds")
    rows = [header, *(_row(arm, summary.num_seeds) for arm in summary.arms)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        numbers = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        yield "  ".join([name.ljust(widths[0]), *numbers])


def _row(arm: Arm, of_seeds: int) -> tuple[str, ...]:
    last = arm.last
    measured = (spread_text(last.map50_95, of_seeds), spread_text(arm.lead, of_seeds, "+"), spread_text(last.map50))
    numbers = (f"{last.num_images:.0f}", f"{last.num_boxes:.0f}", str(last.num_seeds))
    return (arm.label, *(text.replace("\u00a0", " ") for text in measured), *numbers)


def is_all_zero(summary: Summary) -> bool:
    """Whether mAP was measured, and no detector has learned anything."""
    spreads = [point.map50_95 for arm in summary.arms for point in arm.curve if point.map50_95]
    return bool(spreads) and all(value < ZERO for spread in spreads for value in spread.values)


def _without_detections(summary: Summary) -> str | None:
    """Of the queries that scores decided: in how many the model saw nothing in most of what it looked at."""
    shares = [
        share
        for arm in summary.arms
        for point in arm.curve
        if point.share_without_detections
        for share in point.share_without_detections.values
    ]
    many = [share for share in shares if share > MANY]
    if not many:
        return None
    queries = counted(len(shares), "scored query", "scored queries")
    nothing = sum(share == 1 for share in many)
    every = f", in {nothing} of them all of the images" if nothing else ""
    return (
        f"In {len(many)} of {queries} more than half of the images had no detections{every}: there the ranking is "
        "arbitrary; lower scoring.confidence or train longer."
    )


def _opening(arms: Sequence[ArmStatistics], primary: Primary) -> str | None:
    """The answer in one sentence; None where nothing was to be tested."""
    found = [(arm.label, arm.tested) for arm in arms if arm.tested]
    if not found:
        return None
    tested = [(label, one) for label, one in found if one.verdict != "too few seeds"]
    where, control = _WITH[primary.outcome], primary.control
    if not tested:
        few = seeds_of([one for _, one in found])
        return (
            f"No verdict yet: a verdict needs {FEWEST_SEEDS} seeds, and this run has {few}. As an estimate, "
            f"{_estimated(found, f'than {control} {where}')} in mAP50-95."
        )
    better, worse = ([one for one in tested if one[1].verdict == verdict] for verdict in ("better", "worse"))
    seeds, other = seeds_of([one for _, one in tested]), _other_budget(arms, primary)
    if better:
        verb = "is" if len(better) == 1 else "are"
        said = f"{_named(better)} {verb} measurably better than {control} {where} ({seeds})"
    elif worse and len(worse) == len(tested):
        said = f"No arm is better than {control} {where}: {_all(tested)} measurably worse ({seeds})"
        worse = []
    else:
        said = f"No arm is measurably better than {control} {where} ({seeds})"
    said += f"; {_named(worse)} {'is' if len(worse) == 1 else 'are'} worse" if worse else ""
    return f"{said[0].upper()}{said[1:]}{other}."


def _estimated(found: Found, than_control: str) -> str:
    """On which side of the control arms are, and the one that differs most."""
    label, most = max(found, key=lambda one: abs(one[1].mean))
    better = sum(one.mean > 0 for _, one in found)
    side = "better" if better else "worse" if all(one.mean < 0 for _, one in found) else "no better"
    if len(found) == 1:
        return f"{label} is {side} {than_control}: {most.mean:+.3f}"
    if 0 < better < len(found):
        arms = f"{better} of {len(found)} arms {'is' if better == 1 else 'are'}"
    else:
        arms = "both arms are" if len(found) == 2 else f"all {len(found)} arms are"
    return f"{arms} {side} {than_control}; {label} differs most, by {most.mean:+.3f}"


def _all(found: Found) -> str:
    return f"{found[0][0]} is" if len(found) == 1 else f"all {len(found)} are"


def _named(found: Found) -> str:
    """The arms and by how much they differ, or how many there are."""
    if len(found) > _MOST_NAMED:
        label, most = max(found, key=lambda one: abs(one[1].mean))
        return f"{len(found)} arms (most of all {label}, {most.mean:+.3f})"
    names = [f"{label} ({one.mean:+.3f})" for label, one in found]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _other_budget(arms: Sequence[ArmStatistics], primary: Primary) -> str:
    """What the other budget says, as an estimate: the arms whose own interval leaves 0 out."""
    outcome: Outcome = "area over images" if primary.outcome == "area over boxes" else "area over boxes"
    usable = [(arm.label, arm.difference(Primary(outcome, primary.control))) for arm in arms if _can_be_used(arm)]
    clear = [
        (label, one)
        for label, one in usable
        if one and one.interval and len(one.seeds) >= FEWEST_SEEDS and not one.interval[0] <= 0 <= one.interval[1]
    ]
    parts = []
    for word, own in (
        ("better", [one for one in clear if one[1].mean > 0]),
        ("worse", [one for one in clear if one[1].mean < 0]),
    ):
        parts += [f"{_named(own)} {'is' if len(own) == 1 else 'are'} {word}"] if own else []
    return f"; {_WITH[outcome]}, by estimate, {' and '.join(parts)}" if parts else ""


def _can_be_used(arm: ArmStatistics) -> bool:
    return not knows_labels(arm.key.strategy)
