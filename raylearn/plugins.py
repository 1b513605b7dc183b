"""What other installed packages add to raylearn."""

from importlib.metadata import EntryPoint, entry_points


def entry_points_of(group: str) -> list[EntryPoint]:
    """The entry points of a group, in order of their names, each once."""
    return sorted(set(entry_points(group=group)), key=lambda point: (point.name, point.value))
