"""Verdicts on arms: areas, intervals, corrections. How often they are right is in test_statistics_rates.py."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from raylearn.measures.outcomes import OUTCOMES, Outcome, step_area, step_end
from raylearn.reporting import statistics
from raylearn.reporting.conclusions import conclusions
from raylearn.reporting.statistics import ALPHA, ArmStatistics, Primary, holm
from raylearn.reporting.summary import ArmKey, Round, class_balance
from raylearn.reporting.summary_file import summary_rows

RANDOM = ArmKey("random", query_size=10)
BOX_COUNT = ArmKey("box_count", query_size=10)
ORACLE = ArmKey("oracle", query_size=10)
FULL = ArmKey("full_data")
AREA, BOX_AREA, LAST = OUTCOMES


def arm(name: str, query_size: int = 10) -> ArmKey:
    return ArmKey("uncertainty", name, "sum", "none", "background", query_size)


def curve(key: ArmKey, seed: int, values: Sequence[float | None], boxes: Sequence[int] | None = None) -> list[Round]:
    """Rounds of 10 images each, with 5 boxes an image unless boxes are given."""
    return [
        Round(
            f"{key}-{seed}",
            key,
            seed,
            index,
            10 * (index + 1),
            boxes[index] if boxes else 50 * (index + 1),
            value,
            value,
        )
        for index, value in enumerate(values)
    ]


def compare(rows: Sequence[Round], outcome: Outcome = LAST, control: str = "random") -> tuple[ArmStatistics, ...]:
    return statistics.compare(rows, Primary(outcome, control))


def only(found: Sequence[ArmStatistics], key: ArmKey) -> ArmStatistics:
    (one,) = (entry for entry in found if entry.key == key)
    return one


def difference(found: Sequence[ArmStatistics], key: ArmKey, outcome: str, control: str = "random") -> Any:
    (one,) = (d for d in only(found, key).differences if (d.outcome, d.control) == (outcome, control))
    return one


# Areas


def test_a_step_area_weighs_each_model_by_the_budget_it_served_for() -> None:
    assert step_area([10, 20, 40], [0.1, 0.3, 0.7], end=60) == pytest.approx((1 * 0.1 + 2 * 0.3 + 2 * 0.7) / 5)
    assert step_area([10, 20, 40], [0.1, 0.3, 0.7], end=30) == pytest.approx((0.1 + 0.3) / 2)
    assert step_area([10, 10, 20], [0.1, 0.9, 0.5], end=20) == pytest.approx(0.9)  # a query without boxes costs none
    assert step_area([10, 20], [0.1, 0.3], end=10) is None


def test_the_last_model_holds_for_as_long_as_the_one_before() -> None:
    assert step_end([10, 20, 40]) == 60
    assert step_end([10]) == 10


def test_over_images_every_round_counts_the_same() -> None:
    found = compare(curve(RANDOM, 0, [0.1, 0.2, 0.6]))
    assert only(found, RANDOM).outcomes == {
        AREA: {0: pytest.approx(0.3)},
        BOX_AREA: {0: pytest.approx(0.3)},
        LAST: {0: 0.6},
    }


def test_over_boxes_the_arms_of_a_seed_are_measured_over_one_range() -> None:
    greedy = arm("entropy")
    found = compare(
        [*curve(RANDOM, 0, [0.1, 0.2, 0.3], [50, 60, 70]), *curve(greedy, 0, [0.1, 0.5, 0.9], [50, 150, 250])]
    )
    # random ends at 80 boxes; until then the greedy arm has nothing better than the initial model
    assert only(found, RANDOM).outcomes[BOX_AREA][0] == pytest.approx((0.1 + 0.2 + 0.3) / 3)
    assert only(found, greedy).outcomes[BOX_AREA][0] == pytest.approx(0.1)
    assert only(found, greedy).outcomes[AREA][0] == pytest.approx(0.5)


def test_a_trial_that_ended_early_or_lacks_a_map_is_left_out() -> None:
    rows = [
        *curve(RANDOM, 0, [0.1, 0.2, 0.3]),
        *curve(arm("margin"), 0, [0.1, 0.2]),
        *curve(arm("entropy"), 0, [0.1, None, 0.3]),
    ]
    found = compare(rows)
    assert (
        only(found, arm("margin")).outcomes == only(found, arm("entropy")).outcomes == {name: {} for name in OUTCOMES}
    )
    assert not only(found, arm("margin")).differences


# Holm


def test_holm_by_hand() -> None:
    corrected, levels = holm([0.01, 0.04, 0.03, 0.005])
    assert corrected.tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert levels.tolist() == pytest.approx([0.05 / 3, 0.05 / 2, 0.05 / 2, 0.05 / 4])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_corrects_upwards_keeps_the_order_and_levels_agree_with_it(p_values: list[float]) -> None:
    corrected, levels = holm(p_values)
    assert (corrected >= p_values).all()
    assert (np.diff(corrected[np.argsort(p_values, kind="stable")]) >= 0).all()
    clear = np.abs(np.array(p_values) - levels) > 1e-12
    assert ((corrected <= ALPHA) == (np.array(p_values) <= levels))[clear].all()


# Verdicts


def told(found: Sequence[ArmStatistics], outcome: Outcome = LAST, control: str = "random") -> list[str]:
    return conclusions(found, Primary(outcome, control))


def paired(values: Sequence[Sequence[float]], keys: Sequence[ArmKey]) -> list[Round]:
    """(seeds, arms): the mAP of the second of two rounds."""
    return [
        row
        for seed, of in enumerate(values)
        for key, value in zip(keys, of, strict=True)
        for row in curve(key, seed, [0.1, value])
    ]


def test_one_arm_against_random_is_scipys_paired_t_test() -> None:
    values = np.array([[0.3, 0.33], [0.4, 0.45], [0.35, 0.36], [0.2, 0.24]])
    found = difference(compare(paired(values, [RANDOM, arm("entropy")])), arm("entropy"), LAST)
    expected = stats.ttest_rel(values[:, 1], values[:, 0])
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.verdict == "better"


def test_an_interval_leaves_zero_out_exactly_when_there_is_a_verdict() -> None:
    rng = np.random.default_rng(0)
    keys = [RANDOM, *(arm(name) for name in "abcd")]
    verdicts = set()
    for _ in range(60):
        values = 0.4 + rng.normal(0, 0.02, (5, 5)) + np.array([0, -0.06, -0.03, 0.03, 0.06])
        for entry in compare(paired(values, keys)):
            found = entry.tested
            assert (found is None) == (entry.key == RANDOM)
            if found:
                low, high = found.interval
                verdicts.add(found.verdict)
                assert {"better": low > 0, "worse": high < 0, "no evidence": low <= 0 <= high}[found.verdict]
                assert (found.p <= ALPHA) == (found.verdict != "no evidence")
    assert verdicts == {"better", "worse", "no evidence"}


def test_only_the_primary_outcome_against_the_primary_control_has_verdicts() -> None:
    values = 0.4 + np.random.default_rng(3).normal(0, 0.02, (4, 4)) + np.array([0, 0.2, 0.2, -0.2])
    rows = paired(values.tolist(), [RANDOM, BOX_COUNT, arm("entropy"), arm("margin")])
    for outcome in OUTCOMES:
        for control in ("random", "box_count"):
            differences = [one for entry in compare(rows, outcome, control) for one in entry.differences]
            assert len(differences) == 3 * len(OUTCOMES) * 2
            tested = [one for one in differences if one.verdict is not None]
            assert {(one.outcome, one.control) for one in tested} == {(outcome, control)}
            assert len(tested) == 3
            assert all((one.p is None) == (one.verdict is None) for one in differences)


def test_an_estimate_has_the_plain_interval_however_many_arms_there_are() -> None:
    values = 0.4 + np.random.default_rng(4).normal(0, 0.02, (5, 6))
    keys = [RANDOM, *(arm(name) for name in "abcde")]
    found = difference(compare(paired(values.tolist(), keys), AREA), arm("a"), LAST)
    expected = stats.ttest_rel(values[:, 1], values[:, 0]).confidence_interval(0.95)
    assert found.interval == pytest.approx(tuple(expected))


def test_a_box_count_arm_counts_in_the_family_of_tests() -> None:
    values = [[0.30, 0.33, 0.31], [0.40, 0.45, 0.38], [0.35, 0.36, 0.36], [0.20, 0.24, 0.21]]
    with_it = difference(compare(paired(values, [RANDOM, arm("entropy"), BOX_COUNT])), arm("entropy"), LAST)
    alone = difference(compare(paired([v[:2] for v in values], [RANDOM, arm("entropy")])), arm("entropy"), LAST)
    assert with_it.p == pytest.approx(2 * alone.p)


def test_conclusions_name_what_is_better_and_worse_and_count_the_rest() -> None:
    rng = np.random.default_rng(2)
    keys = [RANDOM, arm("entropy"), arm("margin"), arm("least_confidence")]
    values = 0.4 + rng.normal(0, 0.01, (6, 4)) + np.array([0, 0.2, -0.2, 0])
    verdicts, could, scope = told(compare(paired(values.tolist(), keys), AREA), AREA)
    assert verdicts.startswith("Area over images against random, query of 10, 6 seeds: better: entropy · sum (+0.096)")
    assert "; worse: margin · sum (-0.102)" in verdicts
    assert verdicts.endswith("; no evidence: least_confidence · sum.")
    assert could.startswith("With 80 % probability this run could have found a difference of 0.0")
    assert "(6 seeds, 3 tested arms, standard deviation of the differences 0.00" in could
    assert scope.startswith("All of this is about this data set")


def test_where_the_control_that_decides_is_missing_the_report_says_so_and_has_no_verdict() -> None:
    rows = paired([[0.3, 0.33], [0.4, 0.45], [0.3, 0.3]], [RANDOM, arm("entropy")])
    found = compare(rows, control="box_count")
    assert all(entry.tested is None for entry in found)
    assert len(only(found, arm("entropy")).estimates) == 3
    (sentence,) = told(found, control="box_count")
    assert sentence == "No verdicts: box_count, the control that decides in this experiment, is not among the arms."


def test_where_no_seed_is_shared_with_the_control_the_report_says_so() -> None:
    rows = [*curve(RANDOM, 0, [0.1, 0.3]), *curve(arm("entropy"), 1, [0.1, 0.4])]
    (sentence,) = told(compare(rows))
    assert sentence.startswith("No verdicts: no arm came to its end with a seed in common with random")


def test_one_arm_alone_needs_no_verdict() -> None:
    assert told(compare(curve(arm("entropy"), 0, [0.1, 0.3]))) == []


def test_with_one_seed_there_is_never_evidence() -> None:
    found = difference(compare(paired([[0.1, 0.9]], [RANDOM, arm("entropy")])), arm("entropy"), LAST)
    assert (found.verdict, found.interval, found.p) == ("too few seeds", None, None)


def test_two_seeds_give_an_estimate_with_its_plain_interval_and_three_a_verdict() -> None:
    values = [[0.30, 0.40], [0.20, 0.301], [0.25, 0.351]]
    two = difference(compare(paired(values[:2], [RANDOM, arm("entropy")])), arm("entropy"), LAST)
    assert (two.verdict, two.p) == ("too few seeds", None)
    spread = 12.706 * abs(0.1 - 0.101) / 2
    assert two.interval == pytest.approx((0.1005 - spread, 0.1005 + spread), abs=1e-5)
    three = difference(compare(paired(values, [RANDOM, arm("entropy")])), arm("entropy"), LAST)
    assert three.verdict == "better"


def test_arms_that_chose_the_same_images_do_not_differ() -> None:
    found = difference(
        compare(paired([[0.3, 0.3], [0.5, 0.5], [0.2, 0.2]], [RANDOM, arm("entropy")])), arm("entropy"), LAST
    )
    assert (found.verdict, found.interval, found.p) == ("no evidence", (0, 0), 1)


def test_arms_are_compared_with_both_controls_of_their_own_query_size_only() -> None:
    other = arm("entropy", query_size=20)
    rows = paired([[0.2, 0.3, 0.4, 0.5]] * 2, [RANDOM, BOX_COUNT, arm("entropy"), other])
    found = compare(rows)
    assert {d.control for d in only(found, arm("entropy")).differences} == {"random", "box_count"}
    assert {d.control for d in only(found, BOX_COUNT).differences} == {"random"}
    assert not only(found, other).differences


def test_the_correction_is_over_the_arms_of_all_query_sizes() -> None:
    values = [[0.30, 0.33], [0.40, 0.45], [0.35, 0.36], [0.20, 0.24]]
    alone = difference(compare(paired(values, [RANDOM, arm("entropy")])), arm("entropy"), LAST)
    larger = [ArmKey("random", query_size=20), arm("entropy", 20), arm("margin", 20)]
    rows = paired([[0.3, 0.31, 0.29], [0.4, 0.38, 0.42], [0.3, 0.29, 0.3], [0.2, 0.22, 0.2]], larger)
    among = difference(compare(paired(values, [RANDOM, arm("entropy")]) + rows), arm("entropy"), LAST)
    assert among.values == alone.values
    assert among.p == pytest.approx(3 * alone.p)


def test_differences_that_vary_by_rounding_only_are_no_evidence() -> None:
    values = [[0.1, 0.2], [0.4, 0.5], [0.2, 0.3]]
    assert len({right - left for left, right in values}) > 1
    found = difference(compare(paired(values, [RANDOM, arm("entropy")])), arm("entropy"), LAST)
    assert (found.verdict, found.interval, found.p) == ("no evidence", None, 1)


def test_conclusions_say_of_how_many_seeds_each_arm_has_a_difference() -> None:
    rows = paired([[0.3, 0.35, 0.31], [0.4, 0.42, 0.41], [0.35, 0.35, 0.3]], [RANDOM, arm("entropy"), arm("margin")])
    verdicts, _ = told(compare([row for row in rows if (row.arm, row.seed) != (arm("margin"), 2)]))
    assert verdicts.startswith("Last mAP50-95 against random, query of 10, 2 to 3 seeds: ")
    assert "estimates without a verdict: margin · sum (+0.010)" in verdicts


@given(st.permutations(paired([[0.3, 0.35, 0.2], [0.4, 0.42, 0.5]], [RANDOM, BOX_COUNT, arm("entropy")])))
def test_the_order_of_the_rows_has_no_influence(rows: list[Round]) -> None:
    one, other = (compare(given) for given in (rows, sorted(rows, key=repr)))
    assert {repr(entry) for entry in one} == {repr(entry) for entry in other}


@given(st.floats(-0.1, 0.1))
def test_what_all_arms_gain_changes_no_difference(gain: float) -> None:
    values = np.array([[0.3, 0.35], [0.4, 0.42], [0.3, 0.5]])
    before, after = (
        difference(compare(paired(v, [RANDOM, arm("entropy")])), arm("entropy"), LAST) for v in (values, values + gain)
    )
    assert before.values == pytest.approx(after.values)
    assert before.verdict == after.verdict


# What it costs to come near all data


def test_the_cost_of_ninety_percent_of_all_data_is_the_first_round_that_has_it() -> None:
    rows = [*curve(RANDOM, 0, [0.1, 0.46, 0.5]), *curve(FULL, 0, [0.5])]
    reach = only(compare(rows), RANDOM).reach
    assert reach is not None
    assert (reach.images, reach.boxes, reach.num_reached, reach.num_seeds) == (20, 100, 1, 1)


def test_a_seed_that_never_comes_there_is_counted_and_not_left_out() -> None:
    bounds = [row for seed in range(3) for row in curve(FULL, seed, [0.5])]
    slow = [*curve(RANDOM, 0, [0.1, 0.46]), *curve(RANDOM, 1, [0.1, 0.2]), *curve(RANDOM, 2, [0.1, 0.2])]
    reach = only(compare([*bounds, *slow]), RANDOM).reach
    assert reach is not None
    assert (reach.images, reach.num_reached, reach.num_seeds) == (None, 1, 3)
    assert only(compare(slow), RANDOM).reach is None


# Class balance


def test_class_balance_is_one_for_equal_counts_and_zero_for_one_class() -> None:
    assert class_balance([5, 5, 5]) == pytest.approx(1)
    assert class_balance([5, 0, 0]) == 0
    assert class_balance([3, 1]) == pytest.approx(-(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)))
    assert class_balance([0, 0]) is None
    assert class_balance([4]) is None


# Budgets in boxes


def test_where_rounds_differ_in_images_the_arms_of_a_seed_are_measured_over_one_range_of_images() -> None:
    def rounds(key: ArmKey, images: Sequence[int], values: Sequence[float]) -> list[Round]:
        return [
            Round("t", key, 0, i, n, 20 * (i + 1), v, v) for i, (n, v) in enumerate(zip(images, values, strict=True))
        ]

    crowded = arm("entropy")
    found = compare([*rounds(RANDOM, [10, 20, 30], [0.1, 0.3, 0.5]), *rounds(crowded, [10, 12, 14], [0.1, 0.4, 0.7])])
    # the crowded arm ends at 16 images; until then random has nothing better than the initial model
    assert only(found, crowded).outcomes[AREA][0] == pytest.approx((0.1 + 0.4 + 0.7) / 3)
    assert only(found, RANDOM).outcomes[AREA][0] == pytest.approx(0.1)
    assert only(found, RANDOM).outcomes[BOX_AREA][0] == pytest.approx((0.1 + 0.3 + 0.5) / 3)


def test_a_query_of_boxes_is_called_so() -> None:
    keys = [replace(key, pays_boxes=True) for key in (RANDOM, arm("entropy"))]
    arms = compare(paired([[0.3, 0.31], [0.4, 0.43]], keys))
    assert {row["query_unit"] for row in summary_rows(arms)} == {"boxes"}
    verdicts, *_ = told(arms)
    assert verdicts.startswith("Last mAP50-95 against random, query of 10 boxes, 2 seeds: ")


# Knowing the labels


def with_oracle(gain: float, noise: float = 0.01) -> list[Round]:
    values = 0.4 + np.random.default_rng(5).normal(0, noise, (6, 3)) + np.array([0, 0.02, gain])
    return paired(values.tolist(), [RANDOM, arm("entropy"), ORACLE])


def test_an_oracle_is_not_tested_and_takes_no_part_in_the_correction() -> None:
    rows = with_oracle(0.3)
    found, alone = compare(rows), compare([row for row in rows if row.arm != ORACLE])
    assert only(found, ORACLE).tested is None
    assert difference(found, ORACLE, LAST).interval is not None
    assert only(found, arm("entropy")).tested == only(alone, arm("entropy")).tested
    assert only(found, arm("entropy")).tested is not None


MORE = "an arm that wins here has to see more than classes and boxes, such as which images are alike."


@pytest.mark.parametrize(
    ("gain", "noise", "end"),
    [
        (0.3, 0.01, "without a look at the images."),
        (0.0, 0.01, f"It is not shown to win: {MORE}"),
        (-0.3, 0.01, f"It is not shown to win: {MORE}"),
    ],
)
def test_the_page_says_what_knowing_the_labels_is_worth(gain: float, noise: float, end: str) -> None:
    _, could, oracle, _ = told(compare(with_oracle(gain, noise)))
    assert could.startswith("With 80 %")
    assert oracle.startswith(f"Knowing the labels is worth {'-' if gain < 0 else '+'}0.")
    assert " in last mAP50-95 against random (oracle (knows the labels), query of 10): what covering" in oracle
    assert oracle.endswith(end)


def test_a_gain_of_the_oracle_below_what_the_run_can_find_is_told_as_that() -> None:
    rng = np.random.default_rng(5)
    values = 0.4 + rng.normal(0, 0.1, (6, 3))
    values[:, 2] = values[:, 0] + 0.02 + rng.normal(0, 0.001, 6)
    *_, oracle, _ = told(compare(paired(values.tolist(), [RANDOM, arm("entropy"), ORACLE])))
    assert oracle.endswith(f"It is less than this run can find: {MORE}")


def test_with_one_seed_an_oracle_has_no_interval_and_shows_nothing() -> None:
    *_, oracle, _ = told(compare(paired([[0.3, 0.3, 0.5]], [RANDOM, arm("entropy"), ORACLE])))
    assert "+0.200 (no interval)" in oracle
    assert "It is not shown to win" in oracle


def test_beside_the_control_and_an_oracle_alone_nothing_is_tested_but_its_worth_is_told() -> None:
    oracle, scope = told(compare(paired([[0.3, 0.5], [0.2, 0.45]], [RANDOM, ORACLE])))
    assert oracle.startswith("Knowing the labels is worth +0.225")
    assert scope.startswith("All of this is about this data set")
