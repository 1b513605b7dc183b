"""Asking a strategy: for so many images, or for as many as a budget pays for; and a look at what it answers."""

from collections.abc import Callable

import numpy as np

from raylearn.errors import QueryError
from raylearn.plugins import told_of
from raylearn.strategies.base import Candidates, Context, Query, Strategy


def ask(strategy: Strategy, candidates: Candidates, size: int, context: Context) -> Query:
    """What a strategy selects, within its limit per group.

    Raises:
        InputError: the strategy raised something.
        QueryError: it gave no query of such images, or the limit per group leaves too few.
    """
    limit = strategy.max_per_group
    if limit is None:
        return _selected(strategy, candidates, size, context)
    group_of = _groups(candidates, strategy)
    _, counts = np.unique(list(group_of.values()), return_counts=True)
    allowed = int(np.minimum(counts, limit).sum())
    if size > allowed:
        raise QueryError(
            f"query of {size} images, but {len(counts)} groups of at most {limit} images each give {allowed}: raise "
            "max_per_group, or lower query_size"
        )

    def of_open_groups(query: Query) -> Query | None:
        taken: dict[str, int] = {}
        kept = []
        for position, image_id in enumerate(query.image_ids):
            group = group_of[image_id]
            taken[group] = taken.get(group, 0) + 1
            if taken[group] <= limit:
                kept.append(position)
        return _first(query, kept[:size]) if len(kept) >= size else None

    return _asked_for_more(strategy, candidates, size, context, of_open_groups)


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

    def paid(query: Query) -> Query | None:
        spent = np.cumsum([cost_of[image_id] for image_id in query.image_ids])
        if spent[-1] < budget and len(query.image_ids) < len(cost_of):
            return None
        return _first(query, list(range(min(len(spent), int(np.searchsorted(spent, budget)) + 1))))

    mean = float(np.mean(costs))
    first = min(len(cost_of), max(1, round(budget / mean))) if mean else len(cost_of)
    return _asked_for_more(strategy, candidates, first, context, paid, ask)


def _asked_for_more(
    strategy: Strategy,
    candidates: Candidates,
    size: int,
    context: Context,
    enough: Callable[[Query], Query | None],
    ask_for: Callable[[Strategy, Candidates, int, Context], Query] | None = None,
) -> Query:
    """What `enough` makes of the first query that it is content with; each is of twice as many images."""
    while True:
        found = enough((ask_for or _selected)(strategy, candidates, size, context))
        if found is not None:
            return found
        size = min(len(candidates.image_ids), 2 * size)


def _first(query: Query, positions: list[int]) -> Query:
    return Query(tuple(query.image_ids[i] for i in positions), tuple(query.scores[i] for i in positions))


def _groups(candidates: Candidates, strategy: Strategy) -> dict[str, str]:
    if candidates.groups is None:
        raise QueryError(
            f"{strategy.label}: max_per_group needs groups, and these images have none: a data set names them in "
            "groups.csv, `raylearn query` with --group-by"
        )
    return dict(zip(candidates.image_ids, map(str, candidates.groups), strict=True))


def _selected(strategy: Strategy, candidates: Candidates, size: int, context: Context) -> Query:
    """What a strategy selects, after a look at whether it is a query: other packages' are not ours to trust."""
    with told_of(f"strategy {strategy.name}"):
        return _checked(strategy.select(candidates, size, context), candidates, size)


def _checked(query: Query, candidates: Candidates, size: int) -> Query:
    if not isinstance(query, Query):
        raise QueryError(f"a strategy was asked for {size} images and gave a {type(query).__name__}, not a Query")
    ids = query.image_ids
    strange = set(ids) - set(candidates.image_ids)
    if len(ids) != size or len(set(ids)) != size or strange:
        wrong = f"{min(strange, key=str)!r} is not a candidate" if strange else f"{len(set(ids))} different images"
        raise QueryError(f"a strategy was asked for {size} images and gave {len(ids)}: {wrong}")
    if len(query.scores) != size or not np.isfinite(query.scores).all():
        raise QueryError(f"a strategy gave {len(query.scores)} scores for {size} images, or one that is not finite")
    return query
