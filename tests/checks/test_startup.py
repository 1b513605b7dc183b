"""What a command imports before it first says something: a user is not to wait for a library that is not used."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARIES = (
    "PIL cv2 jinja2 matplotlib numpy pandas pyarrow pydantic ray rich scipy torch torchvision ultralytics yaml".split()  # noqa: SIM905
)
SECONDS = {"jinja2", "matplotlib", "pandas", "pyarrow", "ray", "rich", "scipy", "torch", "torchvision", "ultralytics"}
"""Those that no command is to wait for before its first line. Typer itself checks a command's words with pydantic."""

COMMANDS = {
    "run": "none.yaml",
    "init": "none.yaml --format yolo --path none",
    "score": "none --checkpoint none.pt --out out",
    "query": "none --size 1 --out out",
    "cascade": "none --checkpoint none.pt --size 1 --out out",
    "compare": "none",
    "report": "none",
    "export": "none --trial a --round 0 --format yolo --out out",
    "check": "none.yaml",
    "doctor": "/proc",
    "labels import": "none --format coco --handout none --out none.json",
    "project init": "none none.yaml",
    "project status": "none",
    "project query": "none",
    "project import": "none none.json",
    "project train": "none",
    "project undo": "none",
}

PROGRAM = """
import io, json, sys

class Watched(io.StringIO):
    first = None

    def write(self, text):
        if text and Watched.first is None:
            Watched.first = [text, sorted(set(sys.modules).intersection(sys.argv[1].split()))]
        return super().write(text)

arguments = json.loads(sys.argv[2])
out, sys.stdout, sys.stderr = sys.stdout, Watched(), Watched()
from raylearn.cli import main
try:
    main(arguments)
except SystemExit:
    json.dump(Watched.first, out)
"""


def first_said(folder: Path, *arguments: str) -> tuple[str, set[str]]:
    """What a command says first, on either stream, and which of LIBRARIES were imported by then."""
    command = [sys.executable, "-c", PROGRAM, " ".join(LIBRARIES), json.dumps(arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    text, imported = json.loads(done.stdout)
    return text, set(imported)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"]])
def test_the_programs_help_and_version_import_no_library(tmp_path: Path, arguments: list[str]) -> None:
    text, imported = first_said(tmp_path, *arguments)
    assert "raylearn" in text
    assert not imported


@pytest.mark.parametrize("arguments", ["rnu", "run --otu", "run --help", "score --help", "project init"])
def test_help_of_a_command_and_words_that_are_none_wait_for_no_library(tmp_path: Path, arguments: str) -> None:
    text, imported = first_said(tmp_path, *arguments.split())
    assert "raylearn" in text
    assert not imported & SECONDS


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_what_it_begins_with_before_it_imports_what_takes_long(tmp_path: Path, command: str) -> None:
    text, imported = first_said(tmp_path, *command.split(), *COMMANDS[command].split())
    assert text.endswith(" ...\n")
    assert not imported & SECONDS


def test_what_is_watched_is_what_commands_bring_along(tmp_path: Path) -> None:
    """Otherwise the tests above could not fail: `schema` says something only when its libraries are there."""
    _, imported = first_said(tmp_path, "schema")
    assert {"numpy", "pydantic"} <= imported


def test_check_imports_neither_torch_nor_ray_where_it_can_say_so_without(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom raylearn.cli import main\ntry:\n    main(sys.argv[1:])\nfinally:\n"
        "    print({'torch', 'ray', 'ultralytics', 'matplotlib'} & set(sys.modules))"
    )
    file = str(Path(__file__).parents[2] / "experiments/quickstart.yaml")
    done = subprocess.run(
        [sys.executable, "-c", program, "check", file], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("turtle\nset()\n")
