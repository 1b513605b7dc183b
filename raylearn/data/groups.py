"""Which images belong together: frames of a clip, files of a folder, rows of a table."""

import csv
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

from raylearn.data.places import readings
from raylearn.data.records import ProblemError
from raylearn.data.storage import reason_of
from raylearn.errors import DatasetError
from raylearn.wording import columns_in_words

GROUPS_FILE = "groups.csv"
BY_FOLDER = "folder"
"""What stands for "the folder that an image lies in" in place of a table."""
_BY_ID = "name images by their ids, in a column image"


def read_groups(path: Path) -> dict[str, str]:
    """A table of groups: CSV with a column `group`, and one of `image` (id) or `stem` (name without folder and ending).

    Returns:
        Image or stem -> group.

    Raises:
        DatasetError: it cannot be read, lacks a column, or gives an image two groups.
    """
    groups: dict[str, str] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            key = next((name for name in ("image", "image_id", "stem") if name in columns), None)
            if key is None or "group" not in columns:
                raise DatasetError(
                    f"{path}: expected the columns image (or stem) and group, got {columns_in_words(columns)}"
                )
            for row in reader:
                name, group = row[key], row["group"]
                if not name or not group:
                    raise ProblemError(path, f"{'group' if name else key} is empty", reader.line_num)
                if groups.setdefault(name, group) != group:
                    what = f"{name!r} has two groups, {groups[name]!r} and {group!r}"
                    raise ProblemError(path, what, reader.line_num)
    except (OSError, ValueError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read: {reason_of(error)}") from error
    return groups


class GroupRows:
    """The rows of a table of groups, and which of them each image is.

    A row names an image by its id or its stem; or by a path with backslashes or of another machine, where that can mean
    this image alone.

    Args:
        table: of `read_groups`.
    """

    def __init__(self, table: Mapping[str, str]) -> None:
        self._table = table
        self._by_reading: dict[str, list[str]] = defaultdict(list)
        for name in table:
            for reading in set(readings(name)):
                self._by_reading[reading].append(name)
        self._meant: dict[str, str] = {}  # row -> image
        self._as_written: set[str] = set()  # rows that are not read as the paths of other images
        self._as_paths: set[str] = set()

    def take_as_written(self, image_ids: Iterable[str]) -> None:
        """Rows that are ids or stems of these images mean no other image, whatever they can mean as paths."""
        for image_id in image_ids:
            self._as_written.update(self._own(image_id))

    def _own(self, image_id: str) -> list[str]:
        """The row of an image's id or stem, if there is one."""
        return [name for name in (image_id, PurePosixPath(image_id).stem) if name in self._table][:1]

    def group_of(self, image_id: str) -> str | None:
        """The group of an image, or None where no row names it.

        Raises:
            DatasetError: a path can mean this image and another, or two paths with different groups can mean it.
        """
        own = self._own(image_id)
        names = own or [name for name in self._by_reading.get(image_id, ()) if name not in self._as_written]
        if len({self._table[name] for name in names}) > 1:
            raise DatasetError(f"groups: {image_id!r} can be {names[0]!r} and {names[1]!r}: {_BY_ID}")
        for name in names:
            if not own:
                self._as_paths.add(name)
            other = self._meant.setdefault(name, image_id)
            if other != image_id and name in self._as_paths:
                raise DatasetError(f"groups: {name!r} can mean {other!r} and {image_id!r}: {_BY_ID}")
        return self._table[names[0]] if names else None

    def names_by_stem(self, image_id: str) -> bool:
        """Whether an image is named by its stem, and not by its id."""
        return image_id not in self._table and PurePosixPath(image_id).stem in self._table

    def unused(self) -> list[str]:
        """The rows that named no image so far."""
        return [name for name in self._table if name not in self._meant]

    def __len__(self) -> int:
        return len(self._table)


def groups_of(image_ids: Iterable[str], rows: GroupRows) -> dict[str, str]:
    """Image id -> group, of the images that a table names.

    Raises:
        DatasetError: a stem of the table fits several images, or see `GroupRows.group_of`.
    """
    ids = list(image_ids)
    stems = Counter(PurePosixPath(image_id).stem for image_id in ids)
    found: dict[str, str] = {}
    rows.take_as_written(ids)
    for image_id in ids:
        group, stem = rows.group_of(image_id), PurePosixPath(image_id).stem
        if group is not None:
            found[image_id] = group
            if stems[stem] > 1 and rows.names_by_stem(image_id):
                raise DatasetError(
                    f"groups: the stem {stem!r} fits {stems[stem]} images, {image_id!r} among them: {_BY_ID}"
                )
    return found


def folder_of(image_id: str) -> str:
    """The folder that an image lies in."""
    return str(PurePosixPath(image_id).parent)


def group_of(group_by: str | Path) -> Callable[[str], str]:
    """What gives the group of an image by its id: its folder, or what a table says; one it lacks is a group of its own.

    Args:
        group_by: "folder", or the path of a table; see `read_groups`.

    Raises:
        DatasetError: no such table, or one that is wrong.
    """
    if str(group_by) == BY_FOLDER:
        return folder_of
    rows = GroupRows(read_groups(Path(group_by)))
    return lambda image_id: rows.group_of(image_id) or f"image {image_id}"
