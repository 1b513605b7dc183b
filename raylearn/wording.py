"""How numbers and names stand in sentences."""

from collections.abc import Sequence


def counted(number: int, noun: str, plural: str = "") -> str:
    """As in `1 image` and `2,000 images`; `plural` where it is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def columns_in_words(names: Sequence[str]) -> str:
    """The columns that a CSV file has, and what is wrong where they are not separated by commas."""
    other = next((mark for mark in (";", "\t") if len(names) == 1 and mark in names[0]), "")
    advice = f", which are separated by {other!r}: save it with commas" if other else ""
    return f"{', '.join(names) or 'none'}{advice}"
