"""The types of the grid's axes: the names in the tables of raylearn.measures, for messages, --help and the schema."""

from typing import TYPE_CHECKING, Literal, TypeAlias

from raylearn.measures.aggregation import AGGREGATIONS
from raylearn.measures.uncertainty import PROBABILITIES, UNCERTAINTIES
from raylearn.measures.weighting import WEIGHTINGS

if TYPE_CHECKING:
    Uncertainty: TypeAlias = str
    Aggregation: TypeAlias = str
    Weighting: TypeAlias = str
    Probabilities: TypeAlias = str
else:
    Uncertainty = Literal[tuple(UNCERTAINTIES)]
    Aggregation = Literal[AGGREGATIONS]
    Weighting = Literal[WEIGHTINGS]
    Probabilities = Literal[PROBABILITIES]
