"""Other installed packages: what they add to raylearn, and which versions they are."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version

from raylearn.errors import InputError, RaylearnError


def entry_points_of(group: str) -> list[EntryPoint]:
    """The entry points of a group, in order of their names, each once."""
    return sorted(set(entry_points(group=group)), key=lambda point: (point.name, point.value))


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """The versions of packages, by their names.

    Raises:
        InputError: one is not installed.
    """
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError as error:
            raise InputError(f"the package {name} is not installed, and is needed here: pip install {name}") from error
    return found


@contextmanager
def told_of(what: str) -> Iterator[None]:
    """Turns what code of another package raises into an error of one line.

    Args:
        what: whose code it is, such as "strategy spread".
    """
    try:
        yield
    except RaylearnError:
        raise
    except Exception as error:
        raise InputError(f"{what}: {type(error).__name__}: {' '.join(str(error).split())}") from error
