"""Names that one place alone may know: strategies in their registry, libraries of detectors in their families."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from raylearn.detectors import built_in_families
from raylearn.strategies import all_strategies

PACKAGE = Path(__file__).parents[2] / "raylearn"
FAMILIES = PACKAGE / "detectors" / "families"
# "uncertainty" is also the name of an axis, which tables and experiment files have as a column and a key.
STRATEGIES = sorted(all_strategies().keys() - {"uncertainty"})
LIBRARIES = {"ultralytics", "transformers"}  # torchvision's NMS and torch serve every family


def literals(source: str) -> Iterator[tuple[int, str]]:
    """Line and value of each text in a module that is no docstring."""
    tree = ast.parse(source)
    docstrings = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def modules(outside: Path) -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if outside not in path.parents]


def named_strategies(source: str) -> list[tuple[int, str]]:
    return [(line, text) for line, text in literals(source) if text in STRATEGIES]


def named_libraries(source: str, libraries: set[str]) -> list[tuple[int, str]]:
    """In texts and imports; comments and docstrings may say where a format or a rule comes from."""
    found = [(line, text) for line, text in literals(source) if any(name in text.lower() for name in libraries)]
    for node in ast.walk(ast.parse(source)):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [(node.lineno, name) for name in modules if name.partition(".")[0] in libraries]
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        found += [(node.lineno, name)] if any(library in name.lower() for library in libraries) else []
    return found


@pytest.mark.parametrize(
    "path", modules(outside=PACKAGE / "strategies"), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_no_module_outside_their_room_names_a_strategy(path: Path) -> None:
    assert named_strategies(path.read_text()) == []


@pytest.mark.parametrize("path", modules(outside=PACKAGE / "nowhere"), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_outside_its_family_names_a_library_of_detectors(path: Path) -> None:
    own = path.relative_to(FAMILIES).parts[0] if FAMILIES in path.parents else ""
    assert named_libraries(path.read_text(), LIBRARIES - {own}) == []


def test_templates_name_no_strategy() -> None:
    for path in PACKAGE.rglob("*.jinja"):
        quoted = [f"{quote}{name}{quote}" for name in STRATEGIES for quote in "\"'"]
        assert not [name for name in quoted if name in path.read_text()], path


def test_these_checks_find_what_they_look_for() -> None:
    assert named_strategies('x = ("random", 1)') == [(1, "random")]
    assert named_strategies('"""random"""\ny = "random order"') == []
    assert named_libraries("import ultralytics.nn\n# ultralytics\nx = 'of Ultralytics'", LIBRARIES) == [
        *((3, "of Ultralytics"), (1, "ultralytics.nn")),
    ]
    assert named_libraries("def f():\n    return isolate_ultralytics()", LIBRARIES) == [(2, "isolate_ultralytics")]


def test_a_family_is_named_once() -> None:
    assert len(built_in_families()) == len([path for path in FAMILIES.iterdir() if (path / "__init__.py").is_file()])
