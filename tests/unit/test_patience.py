"""A store that does not answer for a while is asked again; one that refuses, or stays away, ends the work."""

from threading import Event

import pytest

from raylearn.errors import StorageError
from raylearn.scoring import patience
from raylearn.scoring.patience import patiently, until_all_are_there


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(patience, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.05)


def failing(times: int, may_pass: bool):
    left = [times]

    def work() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise StorageError(f"failure with {left[0]} left", may_pass)
        return "done"

    return work


def test_what_passes_is_waited_for():
    assert patiently(failing(4, may_pass=True), Event()) == "done"


def test_what_refuses_is_asked_once():
    with pytest.raises(StorageError, match="with 4 left"):
        patiently(failing(5, may_pass=False), Event())


def test_a_store_that_stays_away_ends_the_wait():
    with pytest.raises(StorageError):
        patiently(failing(10_000, may_pass=True), Event())


def test_who_gives_up_does_not_wait():
    given_up = Event()
    given_up.set()
    with pytest.raises(StorageError, match="with 4 left"):
        patiently(failing(5, may_pass=True), given_up)


class Actors:
    """Score parts; `failures` says how often each fails before it is done."""

    def __init__(self, **failures: int) -> None:
        self.failures, self.rounds = {int(name[1:]): count for name, count in failures.items()}, []

    def __call__(self, parts):
        self.rounds.append(list(parts))
        for part in parts:
            if self.failures.get(part, 0):
                self.failures[part] -= 1
                yield StorageError(f"part {part}", may_pass=True)
            else:
                yield part


def scored(actors: Actors, num_parts: int, num_actors: int = 1) -> list[int]:
    return list(until_all_are_there(range(num_parts), actors, lambda part: part, num_actors))


def test_a_part_whose_storage_did_not_answer_is_scored_after_the_others():
    actors = Actors(p1=2, p4=1)
    assert scored(actors, 6) == [0, 2, 3, 5, 4, 1]
    assert actors.rounds == [[0, 1, 2, 3, 4, 5], [1, 4], [1]]


def test_a_part_that_fails_when_it_is_alone_ends_the_pass():
    with pytest.raises(StorageError, match="part 1"):
        scored(Actors(p1=9), 4)


@pytest.mark.parametrize(("num_actors", "asked"), [(1, 3), (2, 6)])
def test_a_store_that_is_away_for_all_ends_the_pass_before_all_parts_were_tried(num_actors, asked):
    actors = Actors(**{f"p{number}": 9 for number in range(100)})
    given: list[int] = []
    actors_seen = lambda parts: (given.append(1) or part for part in actors(parts))  # noqa: E731
    with pytest.raises(StorageError):
        scored(actors_seen, 100, num_actors)
    assert len(given) == asked


def test_failures_that_others_succeed_between_do_not_end_the_pass():
    actors = Actors(p0=1, p2=1, p4=1, p6=1, p8=1)
    assert scored(actors, 10) == [1, 3, 5, 7, 9, 0, 2, 4, 6, 8]


def test_nothing_to_score_is_nothing_done():
    actors = Actors()
    assert scored(actors, 0) == actors.rounds == []
