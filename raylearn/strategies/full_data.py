"""All of it: the upper bound."""

from dataclasses import dataclass
from typing import ClassVar

from raylearn.strategies.base import Candidates, Context, Query, Strategy


@dataclass(frozen=True)
class FullData(Strategy):
    """Labels the whole pool at once, for one training: what no way of choosing can be expected to beat."""

    name: ClassVar[str] = "full_data"
    is_control: ClassVar[bool] = True
    asks: ClassVar[bool] = False

    @property
    def label(self) -> str:
        return "all data (upper bound)"

    def select(self, candidates: Candidates, size: int, context: Context) -> Query:  # noqa: ARG002
        raise TypeError("full_data has every image labelled from the start, and never asks")
