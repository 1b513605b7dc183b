"""The lists of classes of an export, held against each other; see `raylearn.data.class_lists`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

from raylearn.data.class_lists import (
    LABELMAP,
    YAML_NAMES,
    ClassList,
    refuse_contradicting_files,
    refuse_contradiction,
    refuse_other_counts,
)
from raylearn.data.records import ProblemError
from raylearn.data.yolo_yaml import class_names, read_description, refuse_repeats
from raylearn.errors import LabelsError

LABEL_CONFIG = "label_config.xml"


def class_lists_below(folder: Path, own: ClassList | None = None) -> list[ClassList]:
    """Every list below a folder, after the one that is read anyway.

    Raises:
        LabelsError: one of them cannot be used, or two contradict each other.
    """
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    with as_labels_error():
        lists = refuse_contradicting_files(own, (file for file in files if not _is_yaml(file)))
        # data.yaml is named first, as it is what was handed out
        yamls = [found for file in files if _is_yaml(file) and (found := _names_in_yaml(file))]
        configs = [found for file in files if file.name == LABEL_CONFIG and (found := _names_in_config(file))]
        lists = [*lists[:1], *yamls, *configs, *lists[1:]] if own else [*yamls, *lists, *configs]
        lists.sort(key=lambda listed: listed.file.name.lower() == LABELMAP)
        refuse_contradiction(lists)
        refuse_other_counts(filter(_is_yaml, files), lists)
    return lists


def refuse_repeated_names(file: Path, names: Sequence[str]) -> None:
    """Raises LabelsError where two classes have one name."""
    with as_labels_error():
        refuse_repeats(file, names)


@contextmanager
def as_labels_error() -> Iterator[None]:
    """What is wrong with a file of an export, as an error about labels."""
    try:
        yield
    except ProblemError as error:
        raise LabelsError(str(error)) from error


def _is_yaml(file: Path) -> bool:
    return file.suffix.lower() in (".yaml", ".yml")


def _names_in_yaml(file: Path) -> ClassList | None:
    """Of a YAML file of any name; one that is not called data.yaml may be about something else."""
    try:
        description = read_description(file)
    except ProblemError:
        if file.name.lower() in YAML_NAMES:
            raise
        return None
    return None if description.names is None else ClassList(file, class_names(description))


def _names_in_config(file: Path) -> ClassList | None:
    from defusedxml import DefusedXmlException  # type: ignore[import-untyped]
    from defusedxml.ElementTree import parse  # type: ignore[import-untyped]

    try:
        names = tuple(element.get("value", "") for element in parse(file).getroot().iter("Label"))
    except (OSError, ElementTree.ParseError, DefusedXmlException, ValueError) as error:
        raise LabelsError(f"{file} is no labelling configuration of Label Studio's: {error}") from error
    refuse_repeats(file, names)
    return ClassList(file, names) if names else None
