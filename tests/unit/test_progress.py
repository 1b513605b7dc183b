"""What is being done, and how long the rest of it takes."""

import time

import pytest

from raylearn import progress
from raylearn.progress import Activity, Steps, doing, heard, in_words, spread, steps
from raylearn.work.watching import in_one_line
from raylearn.work.workshop import UnderWay


def test_an_estimate_is_wide_at_first_and_narrow_later() -> None:
    assert spread(60, 1) == (30, 120)
    low, high = spread(60, 100)
    assert 54 < low < 60 < high < 67
    assert in_words((60, 240)) == "1 to 4 min left"
    assert in_words((10, 40)) == "10 to 40 s left"
    assert in_words((57, 63)) == "about 60 s left"
    assert in_words((3 * 3600, 9 * 3600)) == "3 to 9 h left"


def test_time_is_measured_from_the_first_telling_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 130.0, 150.0])
    activity = Activity("training", began=0.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert activity.tell("epoch", 0, 18).left is None  # nothing is measured yet
    assert activity.tell("epoch", 1, 18).left == spread(30 * 17, 1)
    assert activity.tell("epoch", 2, 18).left == spread(25 * 16, 2)
    assert str(activity).startswith("training, epoch 2/18, ")


def test_a_count_that_goes_back_is_a_new_one() -> None:
    activity = Activity("scoring")
    activity.tell("image", 90, 100)
    told = activity.tell("image", 10, 100)
    assert (told.measured, told.counted) == (0, 0)


def test_what_is_done_within_something_is_what_is_being_done() -> None:
    with doing("outer"):
        with doing("inner"):
            steps("image", 3, 1000)
            assert str(progress.now()) == "inner, 3 of 1,000 images"
        assert str(progress.now()) == "outer"
    assert progress.now() is None
    steps("image", 1, 2)  # nobody is told, and nothing happens


def test_a_listener_hears_the_first_and_the_last_of_many_steps() -> None:
    told: list[Steps] = []
    with heard(told.append):
        for epoch in range(51):
            steps("epoch", epoch, 50)
    assert [step.done for step in told] == [0, 50]


def test_work_under_way_is_one_line_with_what_moves_first() -> None:
    moving = UnderWay("training", 3, Steps("epoch", 3, 18, counted=3, seconds=3.0, measured=3))
    waiting = [UnderWay("training", 2), UnderWay("evaluation", 1)]
    assert in_one_line([moving], 12) == "training 3 of 12, epoch 3/18, 10 to 24 s left"
    assert in_one_line([*waiting, moving], 12).endswith("s left; 2 more wait or run")
    assert in_one_line(waiting[:1], 12) == "training 2 of 12, starting a worker"
    assert in_one_line([moving]).startswith("training, epoch 3/18")
    assert in_one_line([]) == "choosing images"
