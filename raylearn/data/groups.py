"""Which images belong together: frames of a clip, files of a folder, rows of a table."""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

from raylearn.errors import DatasetError

GROUPS_FILE = "groups.csv"
BY_FOLDER = "folder"
"""What stands for "the folder that an image lies in" in place of a table."""


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
                    f"{path}: expected the columns image (or stem) and group, got {', '.join(columns) or 'none'}"
                )
            for row in reader:
                name, group = row[key], row["group"]
                if not name or not group:
                    raise DatasetError(f"{path}:{reader.line_num}: {'group' if name else key} is empty")
                if groups.setdefault(name, group) != group:
                    raise DatasetError(
                        f"{path}:{reader.line_num}: {name!r} has two groups, {groups[name]!r} and {group!r}"
                    )
    except (OSError, ValueError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    return groups


def groups_of(image_ids: Iterable[str], table: Mapping[str, str]) -> dict[str, str]:
    """Image id -> group, of the images that a table names, by their id or else by their stem.

    Raises:
        DatasetError: a stem of the table fits several images.
    """
    ids = list(image_ids)
    stems = Counter(PurePosixPath(image_id).stem for image_id in ids)
    found: dict[str, str] = {}
    for image_id in ids:
        stem = PurePosixPath(image_id).stem
        if image_id in table:
            found[image_id] = table[image_id]
        elif stem in table:
            if stems[stem] > 1:
                raise DatasetError(
                    f"groups: the stem {stem!r} fits {stems[stem]} images, {image_id!r} among them: name images by "
                    "their ids, in a column image"
                )
            found[image_id] = table[stem]
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
    table = read_groups(Path(group_by))
    return lambda image_id: table.get(image_id) or table.get(PurePosixPath(image_id).stem) or f"image {image_id}"
