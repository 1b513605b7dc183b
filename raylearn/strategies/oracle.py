"""By the labels themselves: a control that no real choice can have."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raylearn.errors import QueryError
from raylearn.measures.coverage import greedy_coverage
from raylearn.measures.sampling import by_tie_order, check_size
from raylearn.strategies.base import Candidates, Context, Query, Strategy
from raylearn.strategies.options import check_costs


@dataclass(frozen=True)
class Oracle(Strategy):
    """Looks at the labels before they are paid for: `coverage` with the true boxes of each class, at their true cost.

    Of images in groups, such as frames of one clip, it also knows which are of one group: each further one counts less.
    A control for simulations only. It shows how much knowing the labels could win over chance by covering classes
    cheaply, and not what an image looks like or how hard it is: a strategy that sees that can win more.

    Args:
        alpha, image_cost, box_cost: see `Coverage`.

    Raises:
        QueryError: a number out of its range.
    """

    alpha: float = 1.0
    image_cost: float = 1.0
    box_cost: float = 1.0

    name: ClassVar[str] = "oracle"
    is_control: ClassVar[bool] = True
    simulation_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_costs(self.alpha, self.image_cost, self.box_cost)

    @property
    def label(self) -> str:
        return super().label.replace(self.name, f"{self.name} (knows the labels)", 1)

    @property
    def needs_class_counts(self) -> bool:
        return True

    def select(self, candidates: Candidates, size: int, context: Context) -> Query:
        ids = candidates.image_ids
        check_size(size, len(ids))
        if context.true_counts is None:
            raise QueryError(f"{self.name} knows the labels, and nobody knows those of these images: use a simulation")
        order = by_tie_order(ids, context.seed)
        counts = context.true_counts[order]
        costs = (self.image_cost + self.box_cost * counts.sum(axis=1)) ** self.alpha
        picks, gains = greedy_coverage(counts, context.class_counts, costs, size, _known(candidates, context, order))
        return Query(tuple(str(ids[order[i]]) for i in picks), tuple(gains))


def _known(candidates: Candidates, context: Context, order: np.ndarray) -> np.ndarray | None:
    """(N, 2) the group of each image as a number, and its labelled images; None where there are no groups."""
    if candidates.groups is None:
        return None
    names, numbers = np.unique(candidates.groups[order].astype(str), return_inverse=True)
    labelled = np.array([context.labelled_in_group.get(name, 0) for name in names], np.int64)
    return np.column_stack([numbers, labelled[numbers]])
