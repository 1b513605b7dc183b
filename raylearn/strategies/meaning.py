"""What a ranking does not mean: nothing ranks images without detections, and chance decides ties."""

from collections.abc import Sequence

from raylearn.strategies.base import Tie
from raylearn.wording import counted

MANY = 0.5
"""The share of a pool above which it is told that images have no detections."""
NO_DETECTIONS = "no detections"
DRAWN = "no detections, drawn at random"
TIED = "tied at the border, drawn at random"


def doubt_of_pool(num_without: int, num_images: int, remedy: str, size: int = 0) -> str | None:
    """What is to be said of a pool in which many images have no detections.

    Args:
        num_without: images without detections.
        num_images: that a detector has looked at.
        remedy: which setting of the threshold to lower, such as "--confidence".
        size: of the queries that are drawn from it.

    Returns:
        None where at most `MANY` of them have none, and a query of that size need not be filled with those.
    """
    if not num_without or (num_without <= MANY * num_images and num_images - num_without >= size):
        return None
    if num_without == num_images:
        what = "this ranking is arbitrary"
    else:
        what = "nothing ranks them, and a query of more than the others is filled with them at random"
    have = "has" if num_images == 1 else "have"
    return f"{num_without:,} of {counted(num_images, 'image')} {have} no detections: {what}; {_do(remedy)}"


def doubts_of_query(num_detections: Sequence[int], tie: Tie | None, scores: Sequence[float], remedy: str) -> list[str]:
    """What is to be said of a query whose images have no detections, or are tied at its border.

    Args:
        num_detections: (n,) of each image of the query.
        tie: at its border.
        scores: (n,) of each image.
        remedy: see `doubt_of_pool`.
    """
    marks, size, told = notes(num_detections, tie, scores), len(num_detections), []
    drawn, without = marks.count(DRAWN), marks.count(DRAWN) + marks.count(NO_DETECTIONS)
    if without:
        how = f", {'all' if drawn == without else f'{drawn:,}'} drawn at random" if drawn else ""
        told.append(f"{without:,} of the query's {counted(size, 'image')} have no detections{how}; {_do(remedy)}")
    if tie is not None and TIED in marks:
        told.append(
            f"{counted(tie.num_images, 'image')} are tied at the border of the query, with a score of {tie.score:.3g}: "
            f"{tie.num_chosen:,} of them were drawn at random"
        )
    return told


def notes(num_detections: Sequence[int], tie: Tie | None, scores: Sequence[float]) -> list[str]:
    """(n,) what stands beside each image of a query: NO_DETECTIONS, DRAWN, TIED or ""."""
    marks = []
    for found, score in zip(num_detections, scores, strict=True):
        tied = tie is not None and score == tie.score
        marks.append((TIED if tied else "") if found else (DRAWN if tied else NO_DETECTIONS))
    return marks


def _do(remedy: str) -> str:
    return f"lower {remedy} or train longer"
