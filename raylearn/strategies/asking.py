"""Asking a strategy: for so many images, or for as many as a budget pays for; and a look at what it answers."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np

from raylearn.errors import QueryError, TooFewError
from raylearn.measures.sampling import positions_within
from raylearn.plugins import told_of
from raylearn.strategies.base import Candidates, Context, ImageScoring, Query, Strategy, Tie

Select = Callable[[int], Query]
"""Size -> a query of so many images."""


def ask(strategy: Strategy, candidates: Candidates, size: int, context: Context) -> Query:
    """What a strategy selects, within its limit per group.

    Raises:
        InputError: the strategy raised something.
        QueryError: it gave no query of such images, or the limit per group leaves too few.
    """

    def select(wanted: int) -> Query:
        with told_of(f"strategy {strategy.name}"):
            return checked_query(strategy.select(candidates, wanted, context), candidates.image_ids, wanted)

    return select_within(select, size, candidates.image_ids, candidates.groups, strategy)


def ask_within(strategy: Strategy, candidates: Candidates, costs: np.ndarray, budget: float, context: Context) -> Query:
    """The first images that a strategy wants which together cost the budget, or all of them if they cost less.

    The last of them may cost more than was left.

    Args:
        strategy: asked for more and more images until they cost enough.
        candidates: N images, at least one.
        costs: (N,) >= 0, what each costs.
        budget: in the unit of the costs; above 0.
        context: what else decides.

    Raises:
        InputError, QueryError: see `ask`.
    """
    cost_of = dict(zip(candidates.image_ids, costs.tolist(), strict=True))
    most = _most(candidates.groups, strategy.max_per_group, len(cost_of))

    def paid(query: Query) -> Query | None:
        spent = np.cumsum([cost_of[image_id] for image_id in query.image_ids])
        if spent[-1] < budget and len(spent) < most:
            return None
        size = min(len(spent), int(np.searchsorted(spent, budget)) + 1)
        scored = isinstance(strategy, ImageScoring) and strategy.needs_pass and strategy.max_per_group is None
        tie = Tie.at_cut(query.scores, size, query.tie) if scored else None
        return replace(_first(query, range(size)), tie=tie)

    mean = float(np.mean(costs))
    first = min(most, max(1, round(budget / mean))) if mean else most
    return _asked_for_more(lambda size: ask(strategy, candidates, size, context), first, most, paid)


def select_within(
    select: Select, size: int, image_ids: Collection[str] | np.ndarray, groups: np.ndarray | None, strategy: Strategy
) -> Query:
    """What `select` gives, but at most so many images of each group as the strategy is to ask for.

    Raises:
        QueryError: there are no groups, or too few.
    """
    limit = strategy.max_per_group
    if limit is None:
        return select(size)
    position_of = {image_id: position for position, image_id in enumerate(image_ids)}
    allowed = len(positions_within(np.arange(len(position_of)), groups, limit))
    if size > allowed:
        raise TooFewError(
            f"query of {size} images, but groups of at most {limit} images each give {allowed}: raise max_per_group, "
            "or ask for fewer",
            allowed,
        )

    def of_open_groups(query: Query) -> Query | None:
        order = np.array([position_of[image_id] for image_id in query.image_ids])
        kept = set(positions_within(order, groups, limit).tolist())
        places = [place for place, position in enumerate(order.tolist()) if position in kept]
        return _first(query, places[:size]) if len(places) >= size else None

    return _asked_for_more(select, size, len(position_of), of_open_groups)


def checked_query(query: Query, image_ids: Collection[str] | np.ndarray, size: int) -> Query:
    """A query, after a look at whether it is one: strategies of other packages are not ours to trust."""
    if not isinstance(query, Query):
        raise QueryError(f"a strategy was asked for {size} images and gave a {type(query).__name__}, not a Query")
    ids = query.image_ids
    strange = set(ids) - set(image_ids)
    if len(ids) != size or len(set(ids)) != size or strange:
        wrong = f"{min(strange, key=str)!r} is not a candidate" if strange else f"{len(set(ids))} different images"
        raise QueryError(f"a strategy was asked for {size} images and gave {len(ids)}: {wrong}")
    if len(query.scores) != size or not np.isfinite(query.scores).all():
        raise QueryError(f"a strategy gave {len(query.scores)} scores for {size} images, or one that is not finite")
    return query


def _most(groups: np.ndarray | None, limit: int | None, num_images: int) -> int:
    """How many images can be asked for at all."""
    return len(positions_within(np.arange(num_images), groups, limit))


def _asked_for_more(select: Select, size: int, most: int, enough: Callable[[Query], Query | None]) -> Query:
    """What `enough` makes of the first query that it is content with; each is of twice as many images."""
    while True:
        found = enough(select(size))
        if found is not None:
            return found
        size = min(most, 2 * size)


def _first(query: Query, places: Sequence[int]) -> Query:
    return Query(tuple(query.image_ids[i] for i in places), tuple(query.scores[i] for i in places))
