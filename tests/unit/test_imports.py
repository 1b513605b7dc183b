"""What may import what, and a proof that the rules can fail."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("ray", "torch", "ultralytics")


@pytest.mark.parametrize(
    "module",
    ["raylearn", "raylearn.config", "raylearn.query.sampling", "raylearn.learning.cycle", "raylearn.report.page"],
)
def test_light_modules_bring_neither_ray_nor_torch(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def _rules_hold(folder: Path) -> bool:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("file", "line"), [("query/uncertainty.py", "import ray"), ("data/pool.py", "from raylearn.sweep import grid")]
)
def test_a_forbidden_import_breaks_the_rules(file: str, line: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "raylearn", tmp_path / "raylearn", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert _rules_hold(tmp_path)
    path = tmp_path / "raylearn" / file
    path.write_text(path.read_text() + f"\n{line}\n")
    assert not _rules_hold(tmp_path)
