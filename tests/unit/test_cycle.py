"""The cycle, with plain functions for a detector: these tests say what a round is."""

import pytest

from raylearn.data.pool import Pool, SimulatedOracle
from raylearn.errors import DivergedError, QueryError
from raylearn.learning.cycle import Query, run_cycle
from tests.unit.hand_made import make_dataset

DATASET = make_dataset({f"{name}.jpg": [0] for name in "abcdef"})


class Lab:
    """A detector that knows what it was trained on, and an oracle and a query that write down what they are asked."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def train(self, pool: Pool) -> str:
        model = "".join(sorted(image_id[0] for image_id in pool.labelled))
        self.log.append(f"train on {model}")
        return model

    def evaluate(self, model: str) -> float:
        self.log.append(f"evaluate {model}")
        return len(model) / 10

    def score(self, model: str, pool: Pool, index: int) -> list[str]:
        unlabelled = [image.image_id for image in pool.unlabelled_images]
        self.log.append(f"score {''.join(name[0] for name in unlabelled)} with {model} for round {index}")
        return unlabelled

    def query(self, scores: list[str], pool: Pool) -> Query:  # noqa: ARG002
        """The last two of the alphabet."""
        chosen = tuple(scores[:-3:-1])
        self.log.append(f"query {''.join(name[0] for name in chosen)}")
        return Query(chosen, (0.9, 0.8))

    def label(self, image_ids):
        self.log.append(f"label {''.join(image_id[0] for image_id in image_ids)}")
        return SimulatedOracle(DATASET.truth).label(image_ids)

    def rounds(self, num_rounds: int, initial=("a.jpg", "b.jpg")):
        start = Pool(DATASET.pool, SimulatedOracle(DATASET.truth).label(initial))
        return run_cycle(
            start, self, num_rounds, train=self.train, evaluate=self.evaluate, score=self.score, query=self.query
        )


def test_a_cycle_trains_measures_scores_queries_and_labels_in_this_order():
    lab = Lab()
    list(lab.rounds(3))
    assert lab.log == [
        "train on ab",
        "evaluate ab",
        "score cdef with ab for round 1",
        "query fe",
        "label fe",
        "train on abef",
        "evaluate abef",
        "score cd with abef for round 2",
        "query dc",
        "label dc",
        "train on abcdef",
        "evaluate abcdef",
    ]


def test_round_0_trains_on_the_initial_set_and_asks_for_nothing():
    first = next(Lab().rounds(3))
    assert (first.index, first.model, first.evaluation) == (0, "ab", 0.2)
    assert first.query is None
    assert first.scores is None


def test_a_round_carries_the_query_its_model_has_seen_for_the_first_time():
    _, second, _ = Lab().rounds(3)
    assert (second.index, second.model, second.evaluation) == (1, "abef", 0.4)
    assert second.query == Query(("f.jpg", "e.jpg"), (0.9, 0.8))
    assert second.scores == ["c.jpg", "d.jpg", "e.jpg", "f.jpg"]
    assert set(second.pool.labelled) == {"a.jpg", "b.jpg", "e.jpg", "f.jpg"}


@pytest.mark.parametrize("num_rounds", [1, 2, 3])
def test_there_are_as_many_rounds_as_asked_for(num_rounds):
    assert [done.index for done in Lab().rounds(num_rounds)] == list(range(num_rounds))


def test_the_oracle_is_asked_for_the_queried_images_only():
    lab = Lab()
    list(lab.rounds(2))
    assert [line for line in lab.log if line.startswith("label")] == ["label fe"]


def test_training_on_all_data_is_one_round_without_a_query():
    lab = Lab()
    (only,) = lab.rounds(1, initial=sorted(image.image_id for image in DATASET.pool))
    assert only.model == "abcdef"
    assert lab.log == ["train on abcdef", "evaluate abcdef"]


def test_nothing_is_done_before_a_round_is_asked_for():
    lab = Lab()
    rounds = lab.rounds(3)
    assert lab.log == []
    next(rounds)
    assert lab.log == ["train on ab", "evaluate ab"]


def test_a_query_of_an_image_that_is_labelled_already_ends_the_cycle():
    lab = Lab()
    lab.query = lambda *_: Query(("a.jpg",), (1.0,))
    with pytest.raises(QueryError, match="labelled already"):
        list(lab.rounds(2))


def test_an_error_of_a_step_passes_through():
    lab = Lab()

    def diverge(_model: str) -> float:
        raise DivergedError("NaN")

    lab.evaluate = diverge
    with pytest.raises(DivergedError, match="NaN"):
        list(lab.rounds(2))
