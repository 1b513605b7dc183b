"""How numbers stand in sentences."""


def counted(number: int, noun: str, plural: str = "") -> str:
    """As in `1 image` and `2,000 images`; `plural` where it is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
