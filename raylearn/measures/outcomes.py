"""What a learning curve is judged by: one number per trial."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

Outcome = Literal["area over images", "area over boxes", "last mAP50-95"]
OUTCOMES: tuple[Outcome, ...] = ("area over images", "area over boxes", "last mAP50-95")
DECIDES: Outcome = "area over boxes"
"""The outcome that verdicts are about where an experiment names none: boxes are what people are paid for."""


def step_area(budgets: Sequence[float], values: Sequence[float], end: float) -> float | None:
    """Mean of a learning curve over a range of budget.

    With a budget b one has the model of the last round that b pays for: a step function. Its integral from the first
    budget to `end` is divided by the length of that range; the last model holds to the end.

    Args:
        budgets: (n,) images or boxes of each round, never falling.
        values: (n,) mAP of each round.
        end: of the range.

    Returns:
        A mean mAP in [0, 1]; None if the range is empty.
    """
    if end <= budgets[0]:
        return None
    edges = np.minimum(np.append(np.asarray(budgets, dtype=float), end), end)
    return float(np.diff(edges) @ np.asarray(values) / (end - budgets[0]))


def step_end(budgets: Sequence[float]) -> float:
    """Where a curve is taken to end: the last model holds for as long as the one before it did."""
    return 2 * budgets[-1] - budgets[-2] if len(budgets) > 1 else budgets[-1]
