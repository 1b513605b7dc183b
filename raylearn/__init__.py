"""Active learning for object detection on Ray: score a pool, query what is worth labelling, compare how to.

The functions and classes named here are imported when they are first used, so that `import raylearn` costs nothing.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False  # as type checkers read it; typing itself is not imported for it

if TYPE_CHECKING:
    from raylearn.api import cascade as cascade
    from raylearn.api import check as check
    from raylearn.api import compare as compare
    from raylearn.api import dedup as dedup
    from raylearn.api import export as export
    from raylearn.api import init as init
    from raylearn.api import join as join
    from raylearn.api import load_dataset as load_dataset
    from raylearn.api import open_experiment as open_experiment
    from raylearn.api import open_ledger as open_ledger
    from raylearn.api import open_run as open_run
    from raylearn.api import plan as plan
    from raylearn.api import query as query
    from raylearn.api import report as report
    from raylearn.api import run as run
    from raylearn.api import score as score
    from raylearn.api import seeds_needed as seeds_needed
    from raylearn.config import Experiment as Experiment
    from raylearn.errors import RaylearnError as RaylearnError
    from raylearn.measures.aggregation import aggregate as aggregate
    from raylearn.measures.uncertainty import entropy as entropy
    from raylearn.measures.uncertainty import least_confidence as least_confidence
    from raylearn.measures.uncertainty import margin as margin
    from raylearn.measures.uncertainty import margin_squared as margin_squared
    from raylearn.measures.uncertainty import probability_vectors as probability_vectors
    from raylearn.measures.uncertainty import uncertainty as uncertainty
    from raylearn.measures.weighting import class_weights as class_weights
    from raylearn.strategies import BoxCount as BoxCount
    from raylearn.strategies import Candidates as Candidates
    from raylearn.strategies import Context as Context
    from raylearn.strategies import CoreSet as CoreSet
    from raylearn.strategies import Coverage as Coverage
    from raylearn.strategies import Diverse as Diverse
    from raylearn.strategies import FullData as FullData
    from raylearn.strategies import ImageScoring as ImageScoring
    from raylearn.strategies import Labelled as Labelled
    from raylearn.strategies import Oracle as Oracle
    from raylearn.strategies import Ppal as Ppal
    from raylearn.strategies import Query as Query
    from raylearn.strategies import Random as Random
    from raylearn.strategies import ScoredImages as ScoredImages
    from raylearn.strategies import Shortlisting as Shortlisting
    from raylearn.strategies import Strategy as Strategy
    from raylearn.strategies import Summarising as Summarising
    from raylearn.strategies import Uncertainty as Uncertainty

_PUBLIC = {
    "raylearn.api": (
        *(
            "cascade",
            "check",
            "compare",
            "dedup",
            "export",
            "init",
            "join",
            "load_dataset",
            "open_experiment",
            "open_ledger",
            "open_run",
        ),
        *("plan", "query", "report", "run", "score", "seeds_needed"),
    ),
    "raylearn.config": ("Experiment",),
    "raylearn.errors": ("RaylearnError",),
    "raylearn.measures.aggregation": ("aggregate",),
    "raylearn.measures.uncertainty": (
        *("entropy", "least_confidence", "margin", "margin_squared"),
        *("probability_vectors", "uncertainty"),
    ),
    "raylearn.measures.weighting": ("class_weights",),
    "raylearn.strategies": (
        *("BoxCount", "Candidates", "Context", "CoreSet", "Coverage", "Diverse"),
        *("FullData", "ImageScoring", "Labelled", "Oracle", "Ppal", "Query"),
        *("Random", "ScoredImages", "Shortlisting", "Strategy", "Summarising", "Uncertainty"),
    ),
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module 'raylearn' has no attribute {name!r}")
    found: object = getattr(import_module(_HOME[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
