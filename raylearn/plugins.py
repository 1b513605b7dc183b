"""Other installed packages: what they add to raylearn, and which versions they are."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Any

from raylearn.errors import InputError, RaylearnError


def registered(group: str, known: Collection[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """What other packages register under a group.

    Args:
        group: of entry points.
        known: names that are raylearn's own.

    Returns:
        Name -> what was loaded, in order of the names; and name -> what is wrong with an entry that cannot be used. A
        package that is broken is of no matter to whoever does not name it.
    """
    found: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    try:
        points = sorted(set(entry_points(group=group)), key=lambda point: (point.name, point.value))
    except Exception as error:  # a file of entry points that cannot be read
        return {}, {group: f"an installed package has a broken entry_points.txt ({error}): reinstall it"}
    for point in points:
        package = f" of the package {point.dist.name}" if point.dist else ""
        if point.name in known or point.name in found:
            wrong[point.name] = f"{point.value}{package} has a name that is taken: another is needed"
            continue
        try:
            found[point.name] = point.load()
        except (Exception, SystemExit) as error:
            cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
            wrong[point.name] = f"{point.value}{package} cannot be loaded ({cause}): mend or uninstall it"
    return found, wrong


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
    except (Exception, SystemExit) as error:
        raise InputError(f"{what}: {type(error).__name__}: {' '.join(str(error).split())}") from error
