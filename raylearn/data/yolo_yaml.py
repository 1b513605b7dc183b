"""The data.yaml of a YOLO data set: what it says, and its class names as they are spelled in it.

YAML takes an unquoted NO for false, 010 for eight and 12:30 for 750. A name that is read so is refused: nobody would
find out why the class is called False.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from raylearn.data.records import ProblemError, quoted, read_text, shown

_MAX_CLASSES = 100_000
_STRING, _INTEGER = "tag:yaml.org,2002:str", "tag:yaml.org,2002:int"


@dataclass(frozen=True)
class Description:
    """A data.yaml.

    Args:
        data: as YAML reads it.
        names: key and value of each class name as a node of the file, which keeps the spelling; None without `names:`.
    """

    file: Path
    data: dict[str, Any]
    names: Sequence[tuple[str, yaml.Node]] | None


def read_description(file: Path) -> Description:
    """Raises ProblemError where the file is no mapping in YAML, or says a thing twice."""
    try:
        loader = yaml.SafeLoader(read_text(file))
        root = loader.get_single_node()
        _refuse_repeated_keys(file, root)
        data = loader.construct_document(root) if root else None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        advice = ": write \\ in single quotes, or /" if "escape" in str(error.problem) else ""
        raise ProblemError(file, f"not valid YAML: {quoted(error.problem)}{advice}", line) from error
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        # what PyYAML's constructors raise on "!!int ''", "!!timestamp x" and the like
        raise ProblemError(file, f"not valid YAML: {quoted(str(error))}") from error
    if not isinstance(data, dict) or not isinstance(root, yaml.MappingNode):
        raise ProblemError(file, "must be a mapping with train:, val: and names:")
    if "val" not in data and "validation" in data:  # as Ultralytics
        data["val"] = data["validation"]
    return Description(file, data, _names(file, root) if data.get("names") is not None else None)


def class_names(description: Description) -> tuple[str, ...]:
    """The names in the order of their ids, each as it is spelled.

    Raises:
        ProblemError: a name that is none, that YAML reads as something else, or that two classes have; or ids that are
            not 0, 1, 2, ...; or another number of classes in `nc:`.
    """
    file, stated = description.file, description.data.get("nc")
    num_classes = None if stated is None else whole_number(stated)
    if stated is not None and (num_classes is None or not 0 < num_classes <= _MAX_CLASSES):
        raise ProblemError(file, f"nc: {quoted(stated)} must be a number of classes")
    nodes = description.names
    if nodes is None:
        if num_classes is None:
            raise ProblemError(file, "names no classes: add names:")
        return tuple(f"class_{i}" for i in range(num_classes))
    by_id = {whole_number(key): node for key, node in nodes}
    if len(by_id) != len(nodes) or by_id.keys() != set(range(len(nodes))):
        raise ProblemError(file, f"names: must number its {len(nodes)} classes from 0 to {len(nodes) - 1}")
    if num_classes is not None and num_classes != len(nodes):
        raise ProblemError(file, f"nc: {num_classes}, but names: has {len(nodes)}")
    names = tuple(_name(file, class_id, by_id[class_id]) for class_id in range(len(nodes)))
    refuse_repeats(file, names)
    return names


def refuse_repeats(file: Path, names: Sequence[str]) -> None:
    """Raises ProblemError where two classes have one name, apart from spaces around it and the form of its accents."""
    known: dict[str, int] = {}
    for class_id, name in enumerate(names):
        first = known.setdefault(same_name(name), class_id)
        if first != class_id:
            raise ProblemError(
                file, f"names a class twice: classes {first} and {class_id} are {quoted(name)}; rename one"
            )


def same_name(name: str) -> str:
    """What two names that nobody can tell apart have in common."""
    return unicodedata.normalize("NFC", name.strip())


def whole_number(value: object) -> int | None:
    """A number, or its text, that is whole; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
        return int(number) if number.is_integer() else None
    except (ValueError, OverflowError):
        return None


def _refuse_repeated_keys(file: Path, root: yaml.Node | None) -> None:
    """PyYAML takes the last of two equal keys without a word."""
    seen = set()
    for key, _ in root.value if isinstance(root, yaml.MappingNode) else ():
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen and key.value != "<<":
                raise ProblemError(file, f"{shown(key.value)}: is there twice: remove one", key.start_mark.line + 1)
            seen.add(key.value)


def _names(file: Path, root: yaml.MappingNode) -> Sequence[tuple[str, yaml.Node]]:
    found = next(value for key, value in reversed(root.value) if getattr(key, "value", None) == "names")
    if isinstance(found, yaml.SequenceNode) and found.value:
        return [(str(class_id), node) for class_id, node in enumerate(found.value)]
    if isinstance(found, yaml.MappingNode) and found.value:
        return [(key.value if isinstance(key, yaml.ScalarNode) else "", node) for key, node in found.value]
    raise ProblemError(file, "names: must be a list, or a mapping from class id to name", found.start_mark.line + 1)


def _name(file: Path, class_id: int, node: yaml.Node) -> str:
    what, line = f"names: class {class_id} is", node.start_mark.line + 1
    if not isinstance(node, yaml.ScalarNode):
        raise ProblemError(file, f"{what} {'a list' if isinstance(node, yaml.SequenceNode) else 'a mapping'}", line)
    spelled = node.value
    if not spelled.strip():
        raise ProblemError(file, f"{what} {quoted(spelled)}, not a name", line)
    if node.tag == _STRING or (node.tag == _INTEGER and re.fullmatch("0|[1-9][0-9]*", spelled)):
        return str(spelled)
    value = yaml.SafeLoader("").construct_object(node, deep=True)
    raise ProblemError(file, f'{what} {quoted(value)}: put it in quotes, "{shown(spelled[:80])}"', line)
