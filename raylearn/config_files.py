"""Settings files: read strictly, with values replaced, and written out again."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError

from raylearn.config import Experiment, Section
from raylearn.errors import ConfigError, nearest

# Beside YAMLError, what PyYAML's constructors raise on "!!int ''", "!!timestamp x", ten thousand brackets and the like.
_NO_YAML = (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError)


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML's safe loader, which of two equal keys would take the later without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in names:
                    raise yaml.YAMLError(f"{key.value!r} stands twice, also in line {key.start_mark.line + 1}")
                names.add((key.tag, key.value))
        return node


File = TypeVar("File", bound=Section)


def load_experiment(path: Path, overrides: Sequence[str] = (), settings: Mapping[str, Any] | None = None) -> Experiment:
    """Reads an experiment file, or where none is there the packaged experiment of this name; see `load_file`."""
    if len(path.parts) == 1 and not path.suffix and not path.exists():
        there = packaged_experiments()
        if path.name not in there:
            raise ConfigError(
                f"{path} is neither a file nor an experiment of raylearn's own: {nearest(path.name, there)}"
            )
        path = there[path.name]
    return load_file(path, Experiment, overrides, settings)


def packaged_experiments() -> dict[str, Path]:
    """Name -> file of the experiments that come with raylearn."""
    return {file.stem: file for file in sorted((Path(__file__).parent / "experiments").glob("*.yaml"))}


def load_file(
    path: Path, kind: type[File], overrides: Sequence[str] = (), settings: Mapping[str, Any] | None = None
) -> File:
    """Reads a settings file and replaces values in it.

    Args:
        path: of the file.
        kind: what it holds.
        overrides: texts `key.path=value`, whose values are YAML.
        settings: key or key.path -> value; of a mapping each key by itself.

    Raises:
        ConfigError: no such file, no YAML, an unknown key or a value that does not fit.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except _NO_YAML as error:
        raise ConfigError(f"{path} is no YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        keys = ", ".join(name for name, field in kind.model_fields.items() if field.is_required())
        raise ConfigError(f"{path} must be a mapping of keys such as {keys}; see `raylearn schema`")
    return from_content(content, kind, str(path), overrides, settings)


def from_content(
    content: Mapping[str, Any],
    kind: type[File],
    source: str,
    overrides: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> File:
    """Settings from what a file would hold; see `load_file`. `source` is what errors name."""
    changed = dict(content)
    for override in overrides:
        _apply_override(changed, override)
    for key, value in _flat_settings(settings or {}):
        _put(changed, key, value, f"{key}={value!r}")
    try:
        made = kind.model_validate(changed)
        dump_file(made)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_describe(error, kind)}") from error
    except ValueError as error:  # such as half of a surrogate pair
        raise ConfigError(f"{source} holds a text that cannot be written out again: {error}") from error
    return made


def _flat_settings(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat_settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def dump_file(settings: Section) -> str:
    """The settings with every default written out, as YAML that `load_file` reads back."""
    return yaml.safe_dump(json.loads(settings.model_dump_json()), sort_keys=False, allow_unicode=True)


def key_values(texts: Sequence[str], what: str, example: str) -> dict[str, Any]:
    """Options given as `key=value`, whose values are YAML.

    Raises:
        ConfigError: one that is of another form.
    """
    content: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals or name in content:
            raise ConfigError(f"{what} {text!r} is not of the form key=value, such as {example}, or is given twice")
        try:
            content[name] = yaml.load(value, _UniqueKeys)
        except _NO_YAML as error:
            raise ConfigError(f"{what} {text!r}: the value cannot be read: {' '.join(str(error).split())}") from error
    return content


def _apply_override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r} is not of the form key=value, such as training.epochs=20")
    try:
        _put(content, key, yaml.load(value, _UniqueKeys), override)
    except _NO_YAML as error:
        cause = " ".join(str(error).split())
        raise ConfigError(f"override {override!r}: the value is no YAML: {cause}") from error


def _put(content: dict[str, Any], key: str, value: Any, override: str) -> None:
    *parents, last = key.split(".")
    section = content
    for name in parents:
        inner = section.get(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"override {override!r}: {name} is no section")
        section[name] = dict(inner)  # its own, where two sections share a YAML anchor
        section = section[name]
    section[last] = value


def _describe(error: ValidationError, kind: type[Section]) -> str:
    """The first of pydantic's errors in one line: where, what, and the nearest right spelling."""
    first, *others = error.errors()
    location = tuple(part for part in first["loc"] if not str(part).startswith("<"))  # tags of a choice, as in budget
    where = ".".join(map(str, location))
    if first["type"] == "extra_forbidden":
        what = f"unknown key {where!r}: {nearest(str(location[-1]), _keys_beside(location, kind))}"
    elif first["type"] == "missing":
        what = f"{where} is missing"
    elif first["type"] == "literal_error" and isinstance(first["input"], str):
        known = first["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        what = f"{where}: unknown value {first['input']!r}: {nearest(first['input'], known)}"
    elif first["type"] == "tuple_type":
        what = f"{where} must be a list, as in [{str(first['input'])[:80]}]"
    elif first["type"] in ("model_type", "dict_type"):
        what = f"{where} must be a section of keys and values"
    else:
        message = first["msg"].removeprefix("Value error, ")
        what = f"{where}: {message}" if where else message
    return what + (f" (and {len(others)} more)" if others else "")


def _keys_beside(location: tuple[int | str, ...], kind: type[Section]) -> list[str]:
    model: Any = kind
    for part in location[:-1]:
        model = model.model_fields[str(part)].annotation
        model = next((choice for choice in get_args(model) if hasattr(choice, "model_fields")), model)  # of "X | None"
    return list(model.model_fields)
