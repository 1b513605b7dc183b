"""What imports what: light rooms stay light, imports run one way, and the rules that say so can fail."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIGHT = [
    "raylearn",
    "raylearn.errors",
    *[f"raylearn.measures.{path.stem}" for path in sorted((ROOT / "raylearn/measures").glob("[a-z]*.py"))],
    "raylearn.config",
    "raylearn.learning.cycle",
    "raylearn.reporting.page",
    "raylearn.reporting.project_page",
    "raylearn.reporting.query_page",
    "raylearn.cli",
]
HEAVY = ("ray", "torch", "torchvision", "ultralytics")


def run(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout.strip()


def test_light_rooms_bring_neither_ray_nor_torch_along():
    assert len(LIGHT) == 22
    code = f"""
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    for heavy in {HEAVY}:
        if heavy in sys.modules:
            print(name, "brings", heavy)
"""
    assert run(code, *LIGHT) == ""


def test_importing_raylearn_brings_nothing_but_itself():
    code = "import sys; before = set(sys.modules); import raylearn; print(sorted(set(sys.modules) - before))"
    assert run(code) == "['raylearn']"


# The rules of import-linter


@pytest.fixture
def copy(tmp_path) -> Path:
    shutil.copytree(ROOT / "raylearn", tmp_path / "raylearn", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> tuple[int, str]:
    program = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([program, "--no-cache", "--no-logo"], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def add_import(file: Path, line: str) -> None:
    file.write_text(f"{file.read_text()}\n{line}\n")


def test_the_package_keeps_the_rules(copy):
    code, report = lint(copy)
    assert code == 0, report
    assert "Contracts: 3 kept, 0 broken." in report


@pytest.mark.parametrize(
    ("file", "line", "contract", "chain"),
    [
        (
            "measures/uncertainty.py",
            "import ray",
            "Query, cycle and report need neither ray nor torch",
            "raylearn.measures.uncertainty -> ray",
        ),
        (
            "data/pool.py",
            "from raylearn.sweep import grid",
            "Imports run one way through the house",
            "raylearn.data.pool -> raylearn.sweep.grid",
        ),
        (
            "scoring/manifest.py",
            "from raylearn import config",
            "The experiment file is read from work upward",
            "raylearn.scoring.manifest -> raylearn.config",
        ),
    ],
    ids=["a heavy import", "an import upward", "a look at the experiment file"],
)
def test_a_rule_that_is_broken_is_found(copy, file, line, contract, chain):
    add_import(copy / "raylearn" / file, line)
    code, report = lint(copy)
    assert code == 1
    assert f"{contract} BROKEN" in report
    assert chain in report
