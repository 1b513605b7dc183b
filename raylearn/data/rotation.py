"""Rotated boxes, which are not boxes here, in the forms that tools write them in."""

from collections.abc import Sequence

import numpy as np

from raylearn.data.records import quoted

_ROUNDING = 1.5  # pixels that the corners of a rectangle may be off, and a box beside its polygon
_RELATIVE = 0.02  # the same, of the longer diagonal


def rotation_fault(angle: object) -> str:
    """What is wrong with a box that a tool says is rotated, or "".

    Args:
        angle: in degrees, as a number or its text; None and "" state no rotation.
    """
    if angle is None or angle == "":
        return ""
    degrees = _number(angle)
    if degrees is None:
        return f"has a rotation of {quoted(angle)}, which is no number"
    if np.isfinite(degrees) and degrees % 360 == 0:
        return ""
    return f"is rotated by {degrees:g} degrees: draw it upright, with a rotation of 0"


def attribute_fault(attributes: object) -> str:
    """The same of a box's attributes, where CVAT and Datumaro write the angle as `rotation`.

    People name attributes as they like, so one that is not a number, such as "left", states no rotation.
    """
    angle = attributes.get("rotation") if isinstance(attributes, dict) else None
    return "" if _number(angle) is None else rotation_fault(angle)


def _number(angle: object) -> float | None:
    if isinstance(angle, bool) or not isinstance(angle, str | int | float):
        return None
    try:
        return float(angle)
    except (ValueError, OverflowError):
        return None


def is_oriented(points: np.ndarray) -> bool:
    """Whether a polygon is a rectangle that does not stand upright, as formats of oriented boxes write it.

    Args:
        points: (n, 2) corners in pixels, in order; the first may stand at the end again.
    """
    corners = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    if len(corners) == 5 and np.array_equal(corners[0], corners[4]):
        corners = corners[:4]
    if len(corners) != 4 or not np.isfinite(corners).all():
        return False
    diagonals = corners[:2] - corners[2:]
    lengths = np.hypot(*diagonals.T)
    allowed = max(_ROUNDING, _RELATIVE * lengths.max())
    middles = (corners[:2] + corners[2:]) / 2
    edges = np.abs(np.roll(corners, -1, axis=0) - corners)
    is_rectangle = abs(lengths[0] - lengths[1]) <= allowed and np.abs(middles[0] - middles[1]).max() <= allowed
    return bool(is_rectangle and np.hypot(*edges.T).min() > allowed and edges.min(axis=1).max() > allowed)


def polygon_fault(polygons: object, xywh: Sequence[float]) -> str:
    """What is wrong with a box whose polygon is a rotated rectangle that reaches elsewhere, or "".

    A box that is the hull of its polygon is taken at its word: it says itself what it encloses.

    Args:
        polygons: COCO's `segmentation`; anything but one list of numbers is not looked at.
        xywh: the box.
    """
    if not isinstance(polygons, list) or len(polygons) != 1 or not isinstance(polygons[0], list):
        return ""
    if len(polygons[0]) % 2 or not all(isinstance(value, int | float) for value in polygons[0]):
        return ""
    points = np.array(polygons[0], dtype=np.float64).reshape(-1, 2)
    if not is_oriented(points):
        return ""
    x, y, width, height = xywh
    hull = np.array([points.min(axis=0), points.max(axis=0)])
    allowed = max(_ROUNDING, _RELATIVE * float(np.hypot(*(hull[1] - hull[0]))))
    if np.abs(hull - [[x, y], [x + width, y + height]]).max() <= allowed:
        return ""
    return "its polygon is a rotated rectangle, and its bbox is not around it: draw it upright"
