import math
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylearn.errors import RunFolderError
from raylearn.reporting.summary import (
    ArmKey,
    Round,
    Spread,
    answers,
    arm_labels,
    caution,
    read_rounds,
    spread_text,
    summarise,
)

ENTROPY = ArmKey("uncertainty", "entropy", "sum", "none", "background", 10)
RANDOM = ArmKey("random", query_size=10)
FULL = ArmKey("full_data")


def rounds(arm: ArmKey, seed: int, values: list[float | None], boxes_per_image: int = 2) -> list[Round]:
    size = arm.query_size or 0
    return [
        Round(
            trial=f"{arm.strategy}-{arm.uncertainty}-{size}-s{seed}",
            arm=arm,
            seed=seed,
            round=i,
            num_images=10 + size * i,
            num_boxes=(10 + size * i) * boxes_per_image + seed,
            map50_95=value,
            map50=None if value is None else 2 * value,
            class_ap=(value, None),
            class_counts=(10 * i + seed, 5),
        )
        for i, value in enumerate(values)
    ]


TWO_SEEDS = [
    *rounds(ENTROPY, 0, [0.10, 0.20, 0.40]),
    *rounds(ENTROPY, 1, [0.12, 0.25, 0.44]),
    *rounds(RANDOM, 0, [0.10, 0.20, 0.30]),
    *rounds(RANDOM, 1, [0.12, 0.18, 0.36]),
    *rounds(FULL, 0, [0.50]),
]


def test_last_round_and_lead_are_those_computed_by_hand() -> None:
    arm = summarise(TWO_SEEDS).arms[0]
    assert arm.label == "entropy · sum"
    assert arm.last.map50_95 is not None
    assert arm.last.map50_95.mean == pytest.approx(0.42)
    # the sample standard deviation of 0.40 and 0.44
    assert arm.last.map50_95.sd == pytest.approx(math.sqrt(2 * 0.02**2))
    assert arm.last.map50 is not None
    assert arm.last.map50.mean == pytest.approx(0.84)
    # paired by seed: 0.40 - 0.30 and 0.44 - 0.36
    assert arm.lead is not None
    assert arm.lead.values == pytest.approx((0.10, 0.08))


def test_budgets_and_class_counts_are_means_over_seeds() -> None:
    last = summarise(TWO_SEEDS).arms[0].last
    assert (last.num_images, last.num_boxes) == (30, 60.5)
    assert list(last.class_counts) == [20.5, 5]
    assert last.class_ap[0] == pytest.approx(0.42)
    assert last.class_ap[1] is None


def test_arms_are_ranked_by_their_last_round_and_all_data_stands_last() -> None:
    assert [arm.label for arm in summarise(TWO_SEEDS).arms] == ["entropy · sum", "random", "all data (upper bound)"]


def test_order_of_rows_has_no_influence() -> None:
    assert summarise(reversed(TWO_SEEDS)) == summarise(TWO_SEEDS)


def test_random_has_no_lead_over_itself() -> None:
    assert summarise(TWO_SEEDS).arms[1].lead is None


def test_all_data_has_no_lead() -> None:
    bound = summarise(TWO_SEEDS).arms[2]
    assert bound.lead is None


def test_missing_map_is_left_out_of_the_mean_and_counted() -> None:
    summary = summarise([*rounds(RANDOM, 0, [0.1, None]), *rounds(RANDOM, 1, [0.1, 0.3])])
    arm = summary.arms[0]
    assert arm.last.map50_95 == Spread((0.3,))
    assert "0.300 (1 of 2)" in answers(summary)[0]


def test_lead_is_taken_from_random_of_the_same_query_size() -> None:
    large = ArmKey("uncertainty", "entropy", "sum", "none", "background", 20)
    summary = summarise([*TWO_SEEDS, *rounds(large, 0, [0.1, 0.5, 0.6])])
    assert next(arm for arm in summary.arms if arm.key == large).lead is None


def test_labels_name_query_size_and_probabilities_only_where_they_differ() -> None:
    weighted = ArmKey("uncertainty", "entropy", "sum", "inverse_frequency", "background", 10)
    box_count = ArmKey("box_count", query_size=10)
    assert list(arm_labels([ENTROPY, weighted, RANDOM, box_count, FULL]).values()) == [
        "entropy · sum",
        "entropy · sum · inverse_frequency",
        "random",
        "box_count",
        "all data (upper bound)",
    ]
    other = ArmKey("uncertainty", "entropy", "sum", "none", "conditional", 20)
    assert list(arm_labels([ENTROPY, other, RANDOM, FULL]).values()) == [
        "entropy · sum · background · query of 10",
        "entropy · sum · conditional · query of 20",
        "random · query of 10",
        "all data (upper bound)",
    ]


def test_answer_names_the_highest_arm_random_and_the_bound() -> None:
    summary = summarise(TWO_SEEDS)
    assert [sentence.replace("\u00a0", " ") for sentence in answers(summary)] == [
        "entropy · sum ended highest: mAP50-95 0.420 ± 0.028 with 30 images, random 0.330 ± 0.042.",
        "Training on all 10 images gives mAP50-95 0.500.",
    ]
    assert caution(summary) == "2 seeds: ± is the spread between them, which a comparison seed by seed leaves out."


def test_answer_says_when_random_is_not_beaten_even_by_a_tie() -> None:
    summary = summarise([*rounds(ENTROPY, 0, [0.1, 0.3]), *rounds(RANDOM, 0, [0.1, 0.3])])
    assert answers(summary)[0].startswith(
        "random ended highest: mAP50-95 0.300 with 20 images, next entropy · sum 0.300"
    )


def test_one_seed_is_called_no_evidence() -> None:
    assert (
        caution(summarise(rounds(RANDOM, 0, [0.1]))) == "1 seed: the spread is unknown, so no difference is evidence."
    )


def test_highest_of_many_is_called_lucky() -> None:
    arms = [ArmKey("uncertainty", "entropy", name, "none", "background", 10) for name in ("a", "b", "c", "d")]
    assert "luck" in caution(summarise(row for arm in [*arms, RANDOM] for row in rounds(arm, 0, [0.1])))


def test_every_query_size_has_its_own_answer() -> None:
    large = ArmKey("random", query_size=20)
    found = answers(summarise([*rounds(RANDOM, 0, [0.1, 0.2]), *rounds(large, 0, [0.1, 0.3])]))
    assert [sentence.split(" ended")[0] for sentence in found] == ["random · query of 10", "random · query of 20"]


@pytest.mark.parametrize(
    "rows",
    [[], rounds(FULL, 0, [0.5]), rounds(FULL, 0, [None]), rounds(ENTROPY, 0, [None, None]), rounds(ENTROPY, 0, [0.2])],
    ids=["nothing", "only all data", "no mAP at all", "no mAP", "one round"],
)
def test_runs_with_little_in_them_are_summarised(rows: list[Round]) -> None:
    summary = summarise(rows)
    assert answers(summary)
    assert caution(summary)


def test_spread_is_written_with_its_sign_and_the_seeds_it_lacks() -> None:
    assert spread_text(None) == "\u2013"
    assert spread_text(Spread((0.5,))) == "0.500"
    assert spread_text(Spread((-0.01,)), 3, "+") == "\u22120.010 (1 of 3)"
    assert spread_text(Spread((0.1, 0.3)), 2, "+") == "+0.200\u00a0±\u00a00.141"


def row(**changes: object) -> dict[str, object]:
    return {
        "trial": "t",
        "strategy": "random",
        "seed": 0,
        "round": 0,
        "num_images": 1,
        "num_boxes": 1,
        "map50_95": 0.1,
        "map50": 0.2,
    } | changes


def write(folder: Path, *rows: dict[str, object]) -> Path:
    path = folder / "results.parquet"
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def test_null_nan_and_missing_columns_are_read_as_none(tmp_path: Path) -> None:
    path = write(tmp_path, row(map50_95=math.nan, map50=None, class_ap=[0.5, None, math.nan]))
    read = read_rounds(path)[0]
    assert (read.map50_95, read.map50, read.class_ap) == (None, None, (0.5, None, None))
    assert (read.arm, read.class_counts, read.train_seconds) == (ArmKey("random"), (), None)


def test_missing_column_is_named(tmp_path: Path) -> None:
    incomplete = row()
    del incomplete["num_boxes"]
    with pytest.raises(RunFolderError, match="no column 'num_boxes'"):
        read_rounds(write(tmp_path, incomplete))


def test_row_that_is_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="round 0 of trial 't' twice"):
        read_rounds(write(tmp_path, row(), row()))


@pytest.mark.parametrize("change", [{"seed": 1}, {"strategy": "box_count"}, {"trial": "u", "round": 0}])
def test_a_trial_of_two_seeds_or_arms_and_two_trials_of_one_are_refused(
    tmp_path: Path, change: dict[str, object]
) -> None:
    with pytest.raises(RunFolderError, match="trial 't' has several arms or seeds"):
        read_rounds(write(tmp_path, row(), row(**{"round": 1, **change})))


@pytest.mark.parametrize("content", [b"", b"no parquet", b"PAR1PAR1"])
def test_file_that_is_no_parquet_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "results.parquet"
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match="cannot be read") as caught:
        read_rounds(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"round": "first"}, {"seed": None}, {"map50": "high"}, {"class_ap": "abc"}])
def test_column_of_another_type_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(RunFolderError, match="cannot be read"):
        read_rounds(write(tmp_path, row(**change)))


def test_an_arm_that_lost_a_seed_is_not_called_the_highest_and_says_how_many_it_has() -> None:
    random = [row for seed, value in enumerate((0.3, 0.5, 0.6)) for row in rounds(RANDOM, seed, [value])]
    summary = summarise([*random, *rounds(ENTROPY, 2, [0.59])])
    assert answers(summary)[0].startswith("random ended highest: mAP50-95 0.467")
    (entropy,) = (arm for arm in summary.arms if not arm.is_random)
    assert spread_text(entropy.last.map50_95, summary.num_seeds).endswith("(1 of 3)")


def test_random_that_lost_a_seed_is_still_compared_with() -> None:
    random = [row for seed in (0, 1) for row in rounds(RANDOM, seed, [0.3])]
    entropy = [row for seed in (0, 1, 2) for row in rounds(ENTROPY, seed, [0.4])]
    said = answers(summarise([*random, *entropy]))[0].replace("\N{NO-BREAK SPACE}", " ")
    assert said.startswith("entropy · sum ended highest: mAP50-95 0.400")
    assert said.endswith("random 0.300 ± 0.000 (2 of 3).")


def test_balance_and_class_shares_are_means_over_the_seeds() -> None:
    counts = [(100, 0), (0, 50)]
    rows = [replace(row, class_counts=counts[s]) for s in (0, 1) for row in rounds(RANDOM, s, [0.3])]
    (arm,) = summarise(rows).arms
    assert arm.last.class_shares == (0.5, 0.5)
    assert arm.last.balance == 0
    assert arm.last.class_counts == (50, 25)


def test_an_arm_that_knows_the_labels_is_never_the_best() -> None:
    oracle = ArmKey("oracle", query_size=10)
    rows = [*TWO_SEEDS, *rounds(oracle, 0, [0.1, 0.5, 0.9]), *rounds(oracle, 1, [0.1, 0.5, 0.9])]
    summary = summarise(rows)
    assert answers(summary) == answers(summarise(TWO_SEEDS))
    assert caution(summary) == caution(summarise(TWO_SEEDS))
    assert [arm.label for arm in summary.arms][1:] == ["random", "oracle (knows the labels)", "all data (upper bound)"]
    assert answers(summarise(rounds(oracle, 0, [0.1, 0.5])))[0].startswith(
        "With a query of 10 there is only an arm that"
    )


def test_with_a_budget_of_boxes_arms_of_unequal_images_are_ranked_by_their_last_round() -> None:
    def paid(arm: ArmKey, images: list[int], last: float) -> list[Round]:
        key = replace(arm, pays_boxes=True)
        values = zip(images, rounds(key, 0, [0.1, 0.2, last]), strict=True)
        return [replace(row, num_images=n, num_boxes=30 + 10 * row.round) for n, row in values]

    rows = [*paid(ENTROPY, [10, 12, 13], 0.6), *paid(RANDOM, [10, 14, 18], 0.5)]
    (sentence,) = answers(summarise(rows))
    assert sentence == "entropy · sum ended highest: mAP50-95 0.600 with 50 boxes in 13 images, random 0.500."
    labels = arm_labels({row.arm for row in rows} | {replace(ENTROPY, pays_boxes=True, query_size=20)})
    assert "entropy · sum · query of 20 boxes" in labels.values()
