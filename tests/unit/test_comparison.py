"""How a comparison is shown: half a table for the eye, the whole one in a file."""

import csv

import numpy as np
import pytest

from raylearn.errors import InputError
from raylearn.handoff.comparison import show_comparison
from raylearn.learning.ledger_query import all_choices
from raylearn.strategies import BoxCount, Random, Uncertainty

ARMS = [
    Uncertainty("entropy", "sum", "none", "background"),
    Uncertainty("margin", "max", "inverse_sqrt", "background"),
    Random(),
]
NAMES = ["entropy sum", "margin max inverse_sqrt", "random"]
OVERLAPS = np.array([[1, 0.125, 0.004], [0.125, 1, 0.996], [0.004, 0.996, 1]])


@pytest.mark.parametrize(
    ("arm", "name"),
    [
        (ARMS[0], "entropy sum"),
        (ARMS[1], "margin max inverse_sqrt"),
        (Uncertainty("least_confidence", "mean", "none", "independent"), "least_confidence mean independent"),
        (Random(), "random"),
        (BoxCount(), "box_count"),
    ],
)
def test_an_arm_is_named_by_its_axes_that_are_not_the_defaults(arm, name):
    assert arm.label == name


@pytest.mark.parametrize("probabilities", ["background", "conditional", "independent"])
def test_all_arms_of_a_comparison_have_names_of_their_own(probabilities):
    chosen = all_choices(probabilities, weighted=True)
    assert len({strategy.label for strategy in chosen}) == len(chosen)


def test_the_table_is_half_a_square_of_whole_per_cents_under_numbered_arms():
    assert show_comparison(NAMES, OVERLAPS, 1000, None).splitlines() == [
        "images that two queries of 1,000 have in common, per cent",
        "                               1    2    3",
        "  1 entropy sum              100",
        "  2 margin max inverse_sqrt   12  100",
        "  3 random                     0  100  100",
    ]


def test_the_columns_stand_under_their_numbers_however_many_arms_there_are():
    names = [strategy.label for strategy in all_choices("background", weighted=True)]
    _, header, *lines = show_comparison(names, np.ones((38, 38)), 1, None).splitlines()
    assert len(lines) == 38
    assert len(lines[-1]) == len(header)
    assert lines[-1].split()[-38:] == ["100"] * 38
    assert header.split() == [str(number) for number in range(1, 39)]


def test_the_file_has_the_whole_table_by_name_and_no_rounding(tmp_path):
    path = tmp_path / "overlaps.csv"
    show_comparison(NAMES, OVERLAPS, 1000, path)
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["arm", *NAMES]
    assert [row[0] for row in rows] == NAMES
    assert [[float(share) for share in row[1:]] for row in rows] == OVERLAPS.tolist()


def test_the_table_is_the_same_with_a_file_and_without(tmp_path):
    assert show_comparison(NAMES, OVERLAPS, 5, tmp_path / "a.csv") == show_comparison(NAMES, OVERLAPS, 5, None)


@pytest.mark.parametrize(("name", "reason"), [(".", "Is a directory"), ("none/a.csv", "No such file or directory")])
def test_a_file_that_cannot_be_written_is_refused(tmp_path, name, reason):
    with pytest.raises(InputError, match=f"cannot be written: {reason}; give another with --out"):
        show_comparison(NAMES, OVERLAPS, 1, tmp_path / name)
