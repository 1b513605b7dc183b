"""Checks of options that several strategies share."""

import math

from raylearn.errors import QueryError


def check_at_least(option: str, value: float, least: float) -> None:
    """Raises QueryError unless an option is a finite number that is not below `least`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
        raise QueryError(f"{option} is {value!r}: it must be a number of {least} or more")


def check_costs(alpha: float, image_cost: float, box_cost: float) -> None:
    """Raises QueryError unless an image costs something, and neither boxes nor the power take that away."""
    check_at_least("alpha", alpha, 0)
    check_at_least("box_cost", box_cost, 0)
    check_at_least("image_cost", image_cost, 0)
    if not image_cost:
        raise QueryError("image_cost is 0: it must be above 0, or an image without boxes would cost nothing")
