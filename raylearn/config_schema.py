"""What a settings file may hold, as one: every key with its default, and above it what it means and what it may be."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from raylearn.config import Section

_WIDTH = 110
_KINDS = {"string": "text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}

Schema = Mapping[str, Any]


def annotated_yaml(kind: type[Section]) -> str:
    """A YAML text with every key; what has to be given is empty, and what a section may hold instead is a comment."""
    schema = kind.model_json_schema()
    title = textwrap.wrap(str(schema["description"]).split("\n\n")[0], _WIDTH - 2)
    lines = [f"# {line}" for line in title]
    return "\n".join([*lines, *_lines(schema, schema["$defs"], 0)]) + "\n"


def keys_of(kind: type[Section], prefix: str = "") -> Iterator[str]:
    """Every key of a settings file with its sections, as in training.epochs."""
    for name, field in kind.model_fields.items():
        inner = [part for part in (field.annotation, *get_args(field.annotation)) if _is_a_section(part)]
        if inner:
            yield from keys_of(inner[0], f"{prefix}{name}.")
        else:
            yield prefix + name


def _is_a_section(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, Section)


def _lines(section: Schema, sections: Mapping[str, Schema], depth: int) -> Iterator[str]:
    indent = "  " * depth
    for name, schema in section["properties"].items():
        required = name in section.get("required", ())
        inner = _section_of(schema, sections)
        words = " ".join(str(schema.get("description", "")).split())
        about = [words, _allowed(schema, sections), "required" if required else ""]
        yield ""
        for line in textwrap.wrap("; ".join(part for part in about if part), _WIDTH - len(indent) - 2):
            yield f"{indent}# {line}"
        default = schema.get("default", {} if schema.get("type") == "object" else None)
        if inner is not None and _is_only_a_section(schema):
            yield f"{indent}{name}:"
            yield from _lines(inner, sections, depth + 1)
            continue
        value = "" if required else f" {json.dumps(default, ensure_ascii=False)}"
        yield f"{indent}{name}:{value}"
        if inner is not None:  # that may stand in the place of a plain value
            yield f"{indent}# {name}:"
            for line in _lines(inner, sections, depth + 1):
                if line:
                    yield f"{indent}# {line.removeprefix(indent)}"


def _choices(schema: Schema) -> list[Schema]:
    return [*schema.get("anyOf", ()), *schema.get("oneOf", ())] or [schema]


def _is_only_a_section(schema: Schema) -> bool:
    return all("$ref" in choice for choice in _choices(schema))


def _section_of(schema: Schema, sections: Mapping[str, Schema]) -> Schema | None:
    """The section that a key may hold, or None."""
    for choice in _choices(schema):
        if "$ref" in choice:
            return sections[choice["$ref"].rpartition("/")[2]]
    return None


def _allowed(schema: Schema, sections: Mapping[str, Schema]) -> str:
    """What a value may be, in words; "" of a section."""
    if _is_only_a_section(schema):
        return ""
    return ", or ".join(_kind(choice, sections) for choice in _choices(schema))


def _kind(schema: Schema, sections: Mapping[str, Schema]) -> str:
    if "$ref" in schema:
        return "a section"
    if "enum" in schema or "const" in schema:
        return "one of " + ", ".join(map(str, schema.get("enum") or [schema["const"]]))
    if schema.get("type") == "null":
        return "null"
    if schema.get("type") == "array":
        return f"a list, each {_allowed(schema['items'], sections)}" if schema.get("items") else "a list"
    if schema.get("type") == "object":
        return "a section of names and values"
    return _KINDS.get(str(schema.get("type")), "a value") + _bounds(schema)


def _bounds(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    words = [f" of {low:,} to {high:,}" if high is not None else f" from {low:,}"] if low is not None else []
    if "exclusiveMinimum" in schema:
        words.append(f" above {schema['exclusiveMinimum']:g}")
    if "multipleOf" in schema:
        words.append(f", a multiple of {schema['multipleOf']}")
    return "".join(words)
