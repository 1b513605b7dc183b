"""Checks of options that several strategies share."""

import math

from raylearn.errors import QueryError


def check_range(option: str, value: float, least: float, most: float = math.inf) -> None:
    """Raises QueryError unless an option is a finite number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most or value == math.inf:
        limits = f"of {least} or more" if most == math.inf else f"from {least} to {most}"
        raise QueryError(f"{option} is {value!r}: it must be a number {limits}")


def check_costs(alpha: float, image_cost: float, box_cost: float) -> None:
    """Raises QueryError for costs that are negative, and for images without boxes that would cost nothing."""
    check_range("alpha", alpha, 0, 2)
    check_range("image_cost", image_cost, 0.001)
    check_range("box_cost", box_cost, 0)
