"""The sentence that opens a report, and the table that a run ends with."""

from collections.abc import Sequence
from dataclasses import replace

from raylearn.reporting.answer import answer, arm_lines
from raylearn.reporting.statistics import Primary
from raylearn.reporting.statistics import compare as compare_arms
from raylearn.reporting.summary import ArmKey, Round, summarise
from tests.unit.test_statistics import AREA, BOX_AREA, LAST, ORACLE, RANDOM, arm, curve

ENTROPY, MARGIN = arm("entropy"), arm("margin")


def rows(ends: dict[ArmKey, Sequence[float]], boxes: dict[ArmKey, list[int]] | None = None) -> list[Round]:
    """Curves of two rounds that begin at 0.1 and end, seed by seed, at these values."""
    return [
        row
        for key, values in ends.items()
        for seed, value in enumerate(values)
        for row in curve(key, seed, [0.1, value], (boxes or {}).get(key))
    ]


def said(found: list[Round], outcome: str = LAST) -> list[str]:
    primary = Primary(outcome, "random")  # type: ignore[arg-type]
    return answer(summarise(found), compare_arms(found, primary), primary)


CONTROL = [0.30, 0.20, 0.25]


def test_an_arm_that_is_better_is_named_with_its_lead_and_the_seeds() -> None:
    found = rows({RANDOM: CONTROL, ENTROPY: [0.40, 0.30, 0.351], MARGIN: [0.31, 0.18, 0.26]})
    opening = said(found)[0]
    assert opening.startswith("Entropy · sum (+0.100) is measurably better than random in the last round (3 seeds)")
    assert "margin" not in opening


def test_where_nothing_is_found_the_answer_says_so_in_its_first_word() -> None:
    found = rows({RANDOM: CONTROL, ENTROPY: [0.31, 0.18, 0.26]})
    assert said(found)[0] == "No arm is measurably better than random in the last round (3 seeds)."
    assert said(found, AREA)[0].startswith("No arm is measurably better than random with the same images (3 seeds)")
    assert said(found, BOX_AREA)[0].startswith("No arm is measurably better than random with the same boxes (3 seeds)")


def test_a_worse_arm_is_named_beside_no_better_one() -> None:
    found = rows({RANDOM: CONTROL, ENTROPY: [0.20, 0.10, 0.151], MARGIN: [0.31, 0.18, 0.26]})
    assert (
        "No arm is measurably better than random in the last round (3 seeds); entropy · sum (-0.100) is worse"
        in (said(found)[0])
    )
    alone = rows({RANDOM: CONTROL, ENTROPY: [0.20, 0.10, 0.151]})
    assert said(alone)[0].startswith(
        "No arm is better than random in the last round: entropy · sum is measurably worse (3 seeds)"
    )


def test_what_the_other_budget_says_is_an_estimate_in_the_same_sentence() -> None:
    crowded = {ENTROPY: [50, 300], RANDOM: [50, 100]}
    found = rows({RANDOM: [0.30, 0.301, 0.302], ENTROPY: [0.31, 0.29, 0.303]}, crowded)
    opening = said(found, AREA)[0]
    assert opening.startswith("No arm is measurably better than random with the same images (3 seeds)")
    assert "; with the same boxes, by estimate, entropy · sum (-" in opening
    assert opening.endswith("is worse.")


def test_fewer_than_three_seeds_give_an_estimate_and_no_verdict() -> None:
    found = rows({RANDOM: CONTROL[:2], ENTROPY: [0.40, 0.301], MARGIN: [0.2, 0.3]})
    opening, *others = said(found)
    assert opening == (
        "No verdict yet: a verdict needs 3 seeds, and this run has 2 seeds. As an estimate, 1 of 2 arms is better than "
        "random in the last round; entropy · sum differs most, by +0.101 in mAP50-95."
    )
    assert any("estimates without a verdict: entropy · sum (+0.101), margin · sum (+0.000)" in one for one in others)
    assert not any("better:" in one or "no evidence" in one.removesuffix(".") for one in others)


def test_the_arm_that_differs_most_may_be_the_one_that_loses_most() -> None:
    opening = said(rows({RANDOM: CONTROL[:2], ENTROPY: [0.301, 0.3], MARGIN: [0.1, 0.1]}))[0]
    assert "1 of 2 arms is better than random in the last round; margin · sum differs most, by -0.15" in opening


def test_an_estimate_says_on_which_side_of_random_the_arms_are() -> None:
    both = said(rows({RANDOM: CONTROL[:2], ENTROPY: [0.2, 0.1], MARGIN: [0.1, 0.1]}))[0]
    assert "As an estimate, both arms are worse than random in the last round; margin · sum differs most" in both
    alone = said(rows({RANDOM: CONTROL[:2], ENTROPY: [0.4, 0.3]}))[0]
    assert alone.endswith("As an estimate, entropy · sum is better than random in the last round: +0.100 in mAP50-95.")


def test_a_run_that_learned_nothing_is_called_that_and_nothing_is_compared() -> None:
    found = [replace(row, map50_95=0.0002) for row in rows({RANDOM: CONTROL, ENTROPY: CONTROL})]
    (sentence,) = said(found)
    assert sentence.startswith("Nothing can be compared: mAP50-95 is 0 in every round of every arm")
    one_learned = [*found[:-1], replace(found[-1], map50_95=0.001)]
    assert not said(one_learned)[0].startswith("Nothing can be compared")


def test_queries_of_a_model_that_saw_nothing_are_told() -> None:
    found = rows({RANDOM: CONTROL, ENTROPY: CONTROL})
    shares = iter([1.0, 0.6, 0.5])
    doubted = [
        replace(row, share_without_detections=next(shares) if row.arm == ENTROPY and row.round else None)
        for row in found
    ]
    assert (
        "In 2 of 3 scored queries more than half of the images had no detections, in 1 of them all of the images: "
        "there the ranking is arbitrary; lower scoring.confidence or train longer."
    ) in said(doubted)
    assert not any("no detections" in sentence for sentence in said(found))


def test_an_arm_that_knows_the_labels_is_never_the_answer() -> None:
    found = rows({RANDOM: CONTROL, ENTROPY: [0.31, 0.18, 0.26], ORACLE: [0.5, 0.4, 0.451]})
    assert "oracle" not in said(found)[0]


def test_the_table_of_arms_has_a_line_for_each_with_its_numbers_in_columns() -> None:
    header, *lines = arm_lines(summarise(rows({RANDOM: CONTROL, ENTROPY: [0.40, 0.30, 0.351]})))
    assert header.split() == ["arm", "mAP50-95", "minus", "random", "mAP50", "images", "boxes", "seeds"]
    assert lines[0].split("  ")[0] == "entropy · sum"
    assert lines[0].split()[-3:] == ["20", "100", "3"]
    assert "+0.100 ± 0.001" in lines[0]
    assert len({len(line) for line in [header, *lines]}) == 1
