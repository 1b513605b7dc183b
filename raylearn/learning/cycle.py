"""The active-learning cycle, apart from everything that does the work."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from raylearn.data.pool import Oracle, Pool
from raylearn.strategies.base import Query

Model = TypeVar("Model")
Scores = TypeVar("Scores")
Evaluation = TypeVar("Evaluation")


@dataclass(frozen=True)
class Round(Generic[Model, Scores, Evaluation]):
    """What one round did. `query` and `scores` chose the images that this round's model has seen for the first time."""

    index: int
    query: Query | None
    scores: Scores | None
    pool: Pool
    model: Model
    evaluation: Evaluation


def run_cycle(
    pool: Pool,
    oracle: Oracle,
    num_rounds: int,
    *,
    train: Callable[[Pool], Model],
    evaluate: Callable[[Model], Evaluation],
    score: Callable[[Model, Pool, int], Scores],
    query: Callable[[Scores, Pool], Query],
) -> Iterator[Round[Model, Scores, Evaluation]]:
    """Trains on the labelled images, measures, asks for more labels, and again.

    Args:
        pool: round 0 trains on what is labelled in it.
        oracle: labels what is queried.
        num_rounds: at least 1; one more than the number of queries.
        train: the model of a pool's labelled images.
        evaluate: a model's quality on the held-out split.
        score: a model's view of the unlabelled images, for the round that is to begin.
        query: which unlabelled images to label for it.
    """
    model = train(pool)
    yield Round(0, None, None, pool, model, evaluate(model))
    for index in range(1, num_rounds):
        scores = score(model, pool, index)
        chosen = query(scores, pool)
        pool = pool.label(oracle.label(chosen.image_ids))
        model = train(pool)
        yield Round(index, chosen, scores, pool, model, evaluate(model))
