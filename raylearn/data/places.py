"""Paths as other machines and tools write them, read where only one reading is possible here.

Windows writes `images\\train`; CVAT puts `data/` before what lies beside its list; a path such as `C:\\me\\set\\images`
or `/content/set/images` is of the machine it was written on, and its end may lead to what lies here.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from raylearn.data.records import Folder, quoted

_CVAT_PREFIX = "data/"


def found_elsewhere(written: str, places: Sequence[Path], folder: Folder) -> tuple[Path | None, str]:
    """What a path that leads nowhere as it is written means here.

    Args:
        written: as it stands in a file.
        places: folders that it may start at.

    Returns:
        The one file or folder that it can mean, inside of the root, and ""; or None, and the two that it can mean.
    """
    found: dict[str, Path] = {}
    for reading in readings(written):
        for place in places:
            path = place / reading
            if os.path.exists(path) and folder.holds(path):
                found.setdefault(os.path.realpath(path), path)
    if len(found) > 1:
        first, second, *_ = found.values()
        return None, f"can mean {first} and {second}: write which one"
    return next(iter(found.values()), None), ""


def is_of_another_machine(written: str) -> bool:
    """Whether a path begins with a root or a drive."""
    return re.match(r"/|[A-Za-z]:/", slashed(written)) is not None


def slashed(written: str) -> str:
    """A path with the separators of this machine."""
    return written.replace("\\", "/")


def readings(written: str) -> Iterator[str]:
    """What a path may mean here that leads nowhere as it is written, below whatever folder it starts at."""
    if "\0" in written:
        return
    path = slashed(written)
    if is_of_another_machine(path):
        parts = [part for part in path.split("/") if part not in ("", ".")]
        for start in range(1 if ":" in parts[0] else 0, len(parts)) if parts else ():
            yield "/".join(parts[start:])
        return
    if path != written:
        yield path
    for prefix in (_CVAT_PREFIX, f"./{_CVAT_PREFIX}", "./", "../"):
        if path.startswith(prefix) and len(path) > len(prefix):
            yield path.removeprefix(prefix)


class Rewritten:
    """Paths of one file that were read otherwise than they are written, for one note about all of them."""

    def __init__(self, file: Path) -> None:
        self._file, self._first, self._count = file, "", 0

    def add(self, written: str, path: Path) -> None:
        """Counts one."""
        self._count += 1
        self._first = self._first or f"{quoted(written)} as {path}"

    def notes(self) -> list[str]:
        """None, or one."""
        if not self._count:
            return []
        paths = "path leads" if self._count == 1 else "paths lead"
        return [f"{self._file}: {self._count} {paths} nowhere as written, read otherwise: {self._first}"]
