"""What a program that uses raylearn sees of its types."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

USER = """
from pathlib import Path

import numpy as np

import raylearn


class Mine(raylearn.ImageScoring):
    name = "mine"

    def image_scores(self, images: raylearn.ScoredImages, context: raylearn.Context) -> np.ndarray:
        return np.diff(images.offsets) * float(context.seed)


def main() -> list[str]:
    ledger = raylearn.score("photos", Path("best.pt"), "ledger", confidence=0.1, backend="torch")
    query = raylearn.query(ledger, 5, strategy=Mine(), class_counts={"crab": 1})
    experiment = raylearn.open_experiment("e.yaml", seeds=[0])
    run = raylearn.run(experiment, out=Path("runs"))
    print(run.report, raylearn.plan(experiment).seconds, query.scores.mean(), raylearn.entropy(np.ones((1, 2)) / 2))
    return list(query.image_ids)
"""
WRONG = """
import raylearn

raylearn.score("photos", "best.pt", "ledger", confidense=0.1)
raylearn.query("ledger", "five")
raylearn.runn("e.yaml")
"""


def mypy(tmp_path: Path, text: str) -> tuple[int, str]:
    (tmp_path / "user.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(ROOT / ".mypy_cache"), "user.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )
    return done.returncode, "\n".join(line for line in done.stdout.splitlines() if line.startswith("user.py"))


def test_a_program_that_uses_the_api_is_typed(tmp_path: Path) -> None:
    assert (ROOT / "raylearn" / "py.typed").is_file()
    assert mypy(tmp_path, USER)[1] == ""


def test_a_program_that_misuses_it_is_told(tmp_path: Path) -> None:
    code, said = mypy(tmp_path, WRONG)
    assert code == 1
    assert [line.split(":")[1] for line in said.splitlines() if ": error:" in line] == ["4", "5", "6"]
