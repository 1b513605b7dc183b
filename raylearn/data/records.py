"""What the reader of a format hands over: images, their annotations, and what is wrong with them."""

import os
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from raylearn.data.endings import ending_of
from raylearn.errors import DatasetError

# What Ultralytics opens, so that no image which is read here is passed over there.
IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".dng", ".heic", ".heif", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"}
)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set.

    Args:
        file: the file that has to be looked at.
        line: its line, from 1; 0 where it has none to name.
        what: the facts, and what to do where that is not plain.
        kind: "labels" and "box" can be settled by the policies `missing_labels` and `bad_boxes`, "file" by none.
    """

    file: str
    line: int
    what: str
    kind: Literal["file", "labels", "box"] = "file"

    def __str__(self) -> str:
        return shown(f"{self.file}{f':{self.line}' if self.line else ''}: {self.what}")


class ProblemError(DatasetError):
    """A data set, or one file of it, that cannot be read any further."""

    def __init__(self, file: Path, what: str, line: int = 0) -> None:
        self.problem = Problem(str(file), line, what)
        super().__init__(str(self.problem))


@dataclass(frozen=True)
class Row:
    """One annotation: a box in xyxy pixels, not yet held against its image, or the fault that makes it none.

    Args:
        line: of the label file; 0 if unknown.
        name: what the annotation is called in a message, or "" when its line says it all.
        turned: its corners were exchanged, and are in order here.
        polygon: what the box is the hull of: "oriented" for a rotated rectangle, "polygon" for other than four corners.
    """

    line: int
    name: str = ""
    class_id: int = 0
    box: np.ndarray | None = None
    fault: str = ""
    turned: bool = False
    polygon: Literal["", "polygon", "oriented"] = ""


@dataclass(frozen=True)
class Frame:
    """One image of a split, before it is opened.

    Args:
        label_file: where its annotations are, or should be.
        rows: gives them for a width and a height; None when the label file is missing.
        stated_size: (width, height) that the annotations were made at, if they say.
    """

    split: Literal["pool", "test"]
    image_id: str
    path: Path
    label_file: Path
    rows: Callable[[int, int], Iterable[Row]] | None
    stated_size: tuple[int, int] | None = None


@dataclass
class Source:
    """A data set as its format describes it.

    Args:
        left_out: ending -> files in its folders of images that are taken for none.
    """

    name: str
    class_names: tuple[str, ...] = ()
    frames: list[Frame] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


class Folder:
    """The folder of a data set, and the root that nothing is read outside of.

    Args:
        path: image ids are paths below it.
        root: the folder itself unless the user names another; links are followed as long as they stay below it.
    """

    def __init__(self, path: Path, root: Path | None) -> None:
        self.path = Path(os.path.normpath(path.absolute()))
        self.root = Path(os.path.normpath((root or path).absolute()))
        self._real_root = os.path.realpath(self.root)

    def holds(self, path: Path) -> bool:
        """Whether a path, with its links followed, lies below the root."""
        try:
            return Path(os.path.realpath(path)).is_relative_to(self._real_root)
        except ValueError:  # a null byte, or a lone surrogate
            return False

    def below_root(self, path: Path) -> Path:
        """A path relative to the root."""
        plain = Path(os.path.normpath(path))
        return plain.relative_to(self.root) if plain.is_relative_to(self.root) else self._real(path)

    def image_id(self, path: Path) -> str:
        """The path below the folder, or, for an image outside of it, below the root; with forward slashes."""
        plain = Path(os.path.normpath(path))
        below = plain.relative_to(self.path) if plain.is_relative_to(self.path) else self.below_root(path)
        return below.as_posix()

    def outside(self) -> str:
        """The end of a message about something that lies outside of the root."""
        return (
            f"lies outside of {self.root}, and nothing there is read: "
            "move it inside, or set the data set's `root` to a folder that holds both"
        )

    def image_fault(self, path: Path) -> str:
        """Why an image file is not read, or ""."""
        if not self.holds(path):
            return f"image {self.outside()}"
        if not os.path.isfile(path):
            return f"no such image, or no regular file: looked for {path}"
        try:
            os.fspath(path).encode()
        except UnicodeEncodeError:
            return "its name is not valid UTF-8: rename it"
        return ""

    def _real(self, path: Path) -> Path:
        return Path(os.path.realpath(path)).relative_to(self._real_root)


def image_files(start: Path, folder: Folder, problems: list[Problem], left_out: Counter[str]) -> list[Path]:
    """Every image below a folder, each file once, sorted; hidden names are left alone, as Ultralytics does.

    Files of other endings are counted in `left_out`.

    Links are followed, those to folders last, and not those that lead back up to where they stand. A file that is
    reached by its own name and by a link keeps its own name.
    """
    found: dict[str, Path] = {}
    waiting: list[Path] = [start]
    links: list[Path] = []
    visited: set[str] = set()
    while waiting or links:
        current = waiting.pop() if waiting else links.pop(0)
        real = os.path.realpath(current)
        if real in visited:
            continue
        visited.add(real)
        for path in _visible(current, problems):
            if os.path.isdir(path):
                if not folder.holds(path):
                    problems.append(Problem(str(path), 0, folder.outside()))
                elif not path.is_symlink():
                    waiting.append(path)
                elif not Path(os.path.realpath(start)).is_relative_to(os.path.realpath(path)):
                    links.append(path)
            elif path.suffix.lower() not in IMAGE_SUFFIXES:
                left_out[ending_of(path.name)] += 1
            else:
                fault = folder.image_fault(path)
                if fault:
                    problems.append(Problem(str(path), 0, fault))
                else:
                    _keep(found, path)
    return sorted(found.values())


def _keep(found: dict[str, Path], path: Path) -> None:
    real = os.path.realpath(path)
    known = found.setdefault(real, path)
    if known.is_symlink() and not path.is_symlink():
        found[real] = path


def _visible(folder: Path, problems: list[Problem]) -> list[Path]:
    try:
        return sorted(folder / name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        problems.append(Problem(str(folder), 0, f"folder cannot be read: {error.strerror}"))
        return []


def read_text(path: Path) -> str:
    """The text of a file, with or without a byte-order mark.

    Raises:
        ProblemError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProblemError(path, f"not valid UTF-8 at byte {error.start}: save it as UTF-8") from error
    except (OSError, ValueError) as error:
        raise ProblemError(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def label_file_fault(path: Path, folder: Folder) -> str:
    """Why a label file that is there is not read, or ""; a missing one is no fault here."""
    if not folder.holds(path):
        return f"label file {folder.outside()}"
    if os.path.lexists(path) and not os.path.isfile(path):
        return "label file is a broken link or no regular file: remove it"
    return ""


TURNED = "its corners were exchanged, and it is turned over"


def turned_over(box: Sequence[float]) -> tuple[tuple[float, float, float, float], bool]:
    """A box with its corners in order, and whether they were exchanged, as tools write one drawn to the left or up."""
    x1, y1, x2, y2 = (float(corner) for corner in box)
    return (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), x1 > x2 or y1 > y2


def number_fault(name: str, value: float) -> str:
    """Why a coordinate is none, or "". The bound keeps it in the range of float32."""
    if not np.isfinite(value):
        return f"{name} is {value}, not a finite number"
    return f"{name} is {value:g}, far outside of any image" if abs(value) > 1e9 else ""


def shown(text: str) -> str:
    """Text from outside as it can stand in a one-line message."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def quoted(value: object) -> str:
    """A value from a file, in quotes and cut to what a message can carry."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # an integer of too many digits to print
        return "a number too long to show"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlevel = 2  # a yaml of nested aliases is small in memory and endless in print
