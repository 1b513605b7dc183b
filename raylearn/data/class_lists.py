"""Every list of classes that lies in a data set or an export, held against the others.

A label file holds numbers. What they stand for is in a data.yaml, and again in the classes.txt that LabelImg or Label
Studio leaves beside it, or in CVAT's obj.names. Where two of them disagree nobody but their owner knows which one the
numbers were written by.
"""

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from raylearn.data.records import Folder, Frame, ProblemError, quoted, read_text
from raylearn.data.yolo_yaml import class_names, read_description, refuse_repeats, same_name, whole_number

YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_LINES = ("classes.txt", "labels.txt", "_darknet.labels")
_LINES_ENDING = ".names"
_JSON = "notes.json"  # of Label Studio's YOLO export
_COUNT = "obj.data"  # of darknet, and of CVAT's YOLO 1.1
LABELMAP = "labelmap.txt"  # of CVAT's Pascal VOC 1.1
_LABELMAP_LINE = re.compile(r"(?P<name>.+):(\d+,\d+,\d+)?:[^:]*:[^:]*")
_BACKGROUND = "background"


@dataclass(frozen=True)
class ClassList:
    """The names of the classes in the order of their ids, and the file that says so."""

    file: Path
    names: tuple[str, ...]


def refuse_contradiction(lists: Sequence[ClassList]) -> None:
    """Raises ProblemError, with both files and the first difference, where two lists are not the same."""
    for other in lists[1:]:
        difference = _difference(lists[0], other)
        if difference:
            what = f"{difference}: keep the list that the labels were made with, and remove or correct the other"
            raise ProblemError(other.file, what)


def _difference(first: ClassList, other: ClassList) -> str:
    for names, others in product(_readings(first), _readings(other)):
        if list(map(same_name, names)) == list(map(same_name, others)):
            return ""
    for class_id, (name, own) in enumerate(zip(names, others, strict=False)):
        if same_name(name) != same_name(own):
            return f"class {class_id} is {quoted(own)}, but in {first.file} it is {quoted(name)}"
    (longer, more), (_, fewer) = sorted(((first, names), (other, others)), key=lambda found: -len(found[1]))
    added = f"class {len(fewer)}, {quoted(more[len(fewer)])}, is in {longer.file} only"
    return f"lists {len(others)} classes, but {first.file} lists {len(names)}: {added}"


def _readings(listed: ClassList) -> list[tuple[str, ...]]:
    """CVAT puts a background before the classes of a labelmap.txt, which is seldom a class of anybody's."""
    if listed.file.name.lower() == LABELMAP and listed.names[0] == _BACKGROUND:
        return [listed.names, listed.names[1:]]
    return [listed.names]


def names_in_labelmap(file: Path) -> tuple[str, ...]:
    """The names of a labelmap.txt, in lines of name:r,g,b:parts:actions; of a file without such a line none.

    Raises:
        ProblemError: it cannot be read, has a line of another form too, or names a class twice.
    """
    lines = [(number, line.strip()) for number, line in enumerate(re.split("\r\n|\r|\n", read_text(file)), 1)]
    found = [(number, _LABELMAP_LINE.fullmatch(line)) for number, line in lines if line and not line.startswith("#")]
    if not any(match for _, match in found):
        return ()
    for number, match in found:
        if match is None:
            raise ProblemError(file, "not of the form name:r,g,b:parts:actions", number)
    names = tuple(match["name"] for _, match in found if match)
    refuse_repeats(file, names)
    return names


def lines_of(file: Path, *, numbered: bool = True) -> tuple[str, ...]:
    """The names of a file with one on each line; of an empty file none.

    Args:
        numbered: a name's line is its class id, so that a line left empty in the middle makes the ids uncertain.

    Raises:
        ProblemError: it cannot be read, has such a line, or names a class twice.
    """
    lines = [line.strip() for line in re.split("\r\n|\r|\n", read_text(file))]
    while lines and not lines[-1]:
        lines.pop()
    if numbered and "" in lines:
        raise ProblemError(file, "an empty line between class names: remove it", lines.index("") + 1)
    names = tuple(line for line in lines if line)
    refuse_repeats(file, names)
    return names


def class_list_in(file: Path, *, numbered: bool = True) -> ClassList | None:
    """The classes that a file lists, if its name says that it does and it lists any.

    Raises:
        ProblemError: it is such a list, and cannot be used.
    """
    name = file.name.lower()
    if name in _LINES or name.endswith(_LINES_ENDING):
        names = () if name == "labels.txt" and looks_like_boxes(file) else lines_of(file, numbered=numbered)
    elif name in YAML_NAMES:
        description = read_description(file)
        names = () if description.names is None else class_names(description)
    elif name == _JSON:
        names = _names_in_notes(file)
    elif name == LABELMAP:
        names = names_in_labelmap(file)
    else:
        return None
    return ClassList(file, names) if names else None


def looks_like_boxes(file: Path) -> bool:
    """Whether a text file has a line with four numbers in it, as that of a box has, be it a bad one."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return False
    return any(sum(map(_is_number, line.split())) >= 4 for line in text.splitlines())


def _is_number(token: str) -> bool:
    return re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", token) is not None


def _names_in_notes(file: Path) -> tuple[str, ...]:
    """A file of this name that is not Label Studio's lists no classes."""
    try:
        categories = json.loads(read_text(file))["categories"]
        by_id = {category["id"]: category["name"] for category in categories}
        names = tuple(str(by_id[class_id]) for class_id in range(len(categories)))
    except (ValueError, RecursionError, TypeError, LookupError):
        return ()
    refuse_repeats(file, names)
    return names


def refuse_other_counts(files: Iterable[Path], lists: Sequence[ClassList]) -> None:
    """Raises ProblemError where an obj.data, or a data.yaml without names, states another number than the first list.

    Where there is no list, they are held against each other.
    """
    known = (lists[0].file, f"lists {len(lists[0].names)}", len(lists[0].names)) if lists else None
    for file in files:
        if (stated := _stated_count(file)) is None:
            continue
        said, count = stated
        known = known or (file, f"has {said}", count)
        if count != known[2]:
            raise ProblemError(file, f"{said}, but {known[0]} {known[1]}: correct one of them")


def _stated_count(file: Path) -> tuple[str, int] | None:
    if file.name.lower() == _COUNT:
        found = re.search(r"^\s*classes\s*=\s*(\d+)\s*$", read_text(file), re.MULTILINE)
        return (f"classes = {found[1]}", int(found[1])) if found else None
    if file.suffix.lower() not in (".yaml", ".yml"):
        return None
    try:
        description = read_description(file)
    except ProblemError:  # one that is called data.yaml has been read before
        return None
    count = None if description.names is not None else whole_number(description.data.get("nc"))
    return None if count is None else (f"nc: {count}", count)


def refuse_contradicting_files(
    own: ClassList | None, files: Iterable[Path], *, numbered: bool = True
) -> list[ClassList]:
    """All lists among some files, after the one that is read anyway; raises ProblemError where they contradict.

    Args:
        numbered: as in `lines_of`.
    """
    files = sorted(files, key=lambda file: (file.name.lower() == LABELMAP, file))
    lists = [own] if own else []
    lists += [
        found
        for file in files
        if (own is None or file != own.file) and (found := class_list_in(file, numbered=numbered))
    ]
    refuse_contradiction(lists)
    refuse_other_counts(files, lists)
    return lists


def files_beside(folder: Folder, frames: Collection[Frame]) -> Iterator[Path]:
    """Files of a data set that may list its classes: below the folder that its images and labels share, and above.

    What lies beside that folder may be another data set's. A file that holds the boxes of an image lists no classes.
    """
    taken = {frame.label_file for frame in frames}
    homes = {path.parent for frame in frames for path in (frame.path, frame.label_file)}
    above = {parent for home in homes for parent in (home, *home.parents) if parent.is_relative_to(folder.path)}
    places = [next(_walk(place), ("", [])) for place in above | {folder.path}]
    top = Path(os.path.commonpath(homes)) if homes else folder.path
    if top.is_relative_to(folder.path):
        # a data.yaml further down is another data set's own
        places += [
            (place, [name for name in names if not name.lower().endswith((".yaml", ".yml"))])
            for place, names in _walk(top)
        ]
    found = {Path(place, name) for place, names in places for name in names if _may_list(name)}
    yield from (path for path in found if path not in taken and path.is_file() and folder.holds(path))


def _walk(top: Path) -> Iterator[tuple[str, list[str]]]:
    for place, folders, names in os.walk(top):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield place, names


def _may_list(name: str) -> bool:
    name = name.lower()
    return name in (*_LINES, *YAML_NAMES, _JSON, _COUNT, LABELMAP) or name.endswith(_LINES_ENDING)
