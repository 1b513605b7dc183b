"""Ways of choosing what to label, and the one list of their names.

A strategy is a class in a file of this folder, named in `_BUILT_IN`, or an entry point of the group
`raylearn.strategies` of any other package.
"""

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any

from raylearn.errors import QueryError, nearest
from raylearn.plugins import registered
from raylearn.strategies.asking import ask, ask_within, checked_query, select_within
from raylearn.strategies.base import (
    Candidates,
    Context,
    ImageScoring,
    Labelled,
    Query,
    Reason,
    ScoredImages,
    Shortlisting,
    Strategy,
    Summarising,
    Tie,
)
from raylearn.strategies.box_count import BoxCount
from raylearn.strategies.core_set import CoreSet
from raylearn.strategies.coverage import Coverage
from raylearn.strategies.diverse import Diverse
from raylearn.strategies.full_data import FullData
from raylearn.strategies.oracle import Oracle
from raylearn.strategies.ppal import Ppal
from raylearn.strategies.random import Random
from raylearn.strategies.uncertainty import AXES, Uncertainty

__all__ = [
    "AXES",
    "BoxCount",
    "Candidates",
    "Context",
    "CoreSet",
    "Coverage",
    "Diverse",
    "FullData",
    "ImageScoring",
    "Labelled",
    "Oracle",
    "Ppal",
    "Query",
    "Random",
    "Reason",
    "ScoredImages",
    "Shortlisting",
    "Strategy",
    "Summarising",
    "Tie",
    "Uncertainty",
    "ask",
    "ask_within",
    "checked_query",
    "select_within",
]

ENTRY_POINTS = "raylearn.strategies"
BASELINE, UPPER_BOUND, DEFAULT = Random.name, FullData.name, Uncertainty.name
"""What every method has to beat; what none can be expected to beat; what is meant where none is named."""

_BUILT_IN: dict[str, type[Strategy]] = {
    found.name: found for found in (Uncertainty, Random, BoxCount, FullData, Diverse, Coverage, CoreSet, Ppal, Oracle)
}


@cache
def _registered() -> tuple[dict[str, type[Strategy]], dict[str, str]]:
    """Strategies of other packages by name, and what is wrong with those that cannot be used."""
    found, wrong = registered(ENTRY_POINTS, _BUILT_IN)
    for name, strategy in list(found.items()):
        if not (isinstance(strategy, type) and issubclass(strategy, Strategy)):
            wrong[name] = f"{found.pop(name)!r} is not a raylearn Strategy"
        elif getattr(strategy, "name", None) != name:
            own = getattr(found.pop(name), "name", None)
            wrong[name] = f"the class calls itself {own!r}: its `name` and its entry point must be the same"
    return found, wrong


def all_strategies() -> dict[str, type[Strategy]]:
    """Name -> class, those of other packages last; without those that cannot be used."""
    return {**_BUILT_IN, **_registered()[0]}


def strategy_named(name: str) -> type[Strategy]:
    """Raises QueryError for a strategy that nobody registered, or that cannot be used."""
    found = _BUILT_IN.get(name) or all_strategies().get(name)
    if found is None:
        wrong = _registered()[1]
        if name in wrong:
            raise QueryError(f"strategy {name!r}: {wrong[name]}")
        raise QueryError(f"unknown strategy {name!r}: {nearest(name, asking())}{''.join(map(_note, wrong.items()))}")
    return found


def _note(wrong: tuple[str, str]) -> str:
    return f" ({wrong[0]}: {wrong[1]})"


NO_WEIGHTING = ("weighting", "none")
"""An option that any strategy has."""


def make_strategy(name: str, options: Mapping[str, Any] | None = None) -> Strategy:
    """A strategy by its name and options.

    Raises:
        QueryError: an unknown strategy, an option that it does not have, or a value that it refuses.
    """
    found = strategy_named(name)
    known = [field.name for field in sorted(fields(found), key=lambda field: bool(field.kw_only))]  # its own first
    for option, value in (options or {}).items():
        if option not in known and (option, value) != NO_WEIGHTING:
            others = f"; it has {', '.join(known)}" if known else ""
            raise QueryError(f"{option} has no meaning with strategy {name}: leave it out{others}")
    given: dict[str, Any] = {
        option: tuple(value) if isinstance(value, list) else value
        for option, value in (options or {}).items()
        if option in known
    }
    try:
        made = found(**given)
        hash(made)  # trials are told apart by it
    except QueryError:
        raise
    except Exception as error:  # an option that is missing, or a value that the class cannot be made with
        raise QueryError(f"strategy {name}: {type(error).__name__}: {error}") from error
    return made


def controls() -> list[str]:
    """The names of the strategies that are there to be compared with."""
    return [name for name, found in all_strategies().items() if found.is_control]


def asking() -> list[str]:
    """The names of the strategies that choose images."""
    return [name for name, found in all_strategies().items() if found.asks]


def built_in_controls() -> list[str]:
    """The names of the controls that come with raylearn."""
    return [name for name, found in _BUILT_IN.items() if found.is_control]


def is_control(name: str) -> bool:
    """Whether a name in a table is that of a control; one that nobody registered here is none."""
    found = _BUILT_IN.get(name) or all_strategies().get(name)
    return found is not None and found.is_control


def knows_labels(name: str) -> bool:
    """Whether a name in a table is that of a strategy for simulations only, which looks at unpaid labels."""
    found = _BUILT_IN.get(name) or all_strategies().get(name)
    return found is not None and found.simulation_only


def options_text(strategy: Strategy) -> str | None:
    """The options that no column of results.parquet has, as JSON text; None where all of them are the defaults."""
    others = {name: value for name, value in strategy.own_options.items() if name not in strategy.axes}
    return json.dumps(others, sort_keys=True) if others else None


def label_of(name: str, options: str | None) -> str:
    """The label of a strategy in a table, with its options as JSON text; its name where it is not registered here."""
    try:
        return make_strategy(name, json.loads(options) if options else None).label
    except QueryError:
        return f"{name} {options}" if options else name
