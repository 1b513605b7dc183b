"""What the fault tests of scoring share: a pool, its undisturbed ledger, and the command as a user types it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raylearn.data.dataset import Dataset
from raylearn.data.storage import Folder
from raylearn.scoring.ledger import map_parts, read_facts, schema
from tests.conftest import made_once, own_copy
from tests.unit.test_cli import refused

PART_SIZE = 4
SETTINGS = ("--image-size", "256", "--confidence", "0.02", "--part-size", str(PART_SIZE), "--backend", "torch")


def score_command(pool: str | Path, checkpoint: Path, out: str | Path, *more: str) -> list[str]:
    program = str(Path(sys.executable).with_name("raylearn"))
    return [program, "score", str(pool), "--checkpoint", str(checkpoint), "--out", str(out), *SETTINGS, *more]


def run_score(
    pool: str | Path, checkpoint: Path, out: str | Path, *more: str, **environment: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        score_command(pool, checkpoint, out, *more),
        capture_output=True,
        text=True,
        timeout=150,
        env={**os.environ, **environment},
        check=False,
    )


def succeeded(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def failed(done: "subprocess.CompletedProcess[str]", code: int) -> str:
    """The one line of an error."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("error: ")
    return lines[-1]


def refused_score(
    capsys: pytest.CaptureFixture[str], pool: str | Path, checkpoint: Path, out: str | Path, *more: str
) -> str:
    """The one line of a command that is refused before Ray starts: asked in this process, whose imports are made."""
    return refused(capsys, *score_command(pool, checkpoint, out, *more)[1:])


def content_of(out: str | Path) -> list[dict[str, Any]]:
    """Every row of a finished ledger but for where the image lay, by id."""
    folder = Folder(str(out))
    facts = read_facts(folder)
    names = [name for name in schema(len(facts["class_names"])).names if name != "uri"]
    table = pa.concat_tables(map_parts(folder, facts, names, lambda part: part))
    assert table.num_rows == facts["num_images"]
    rows: list[dict[str, Any]] = table.sort_by("image_id").to_pylist()
    assert len({row["image_id"] for row in rows}) == len(rows)
    return rows


@pytest.fixture(scope="session")
def pool(reef: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """104 frames in folders of their own, the same for all processes, and never changed."""

    def make(folder: Path) -> None:
        for image in reef.images():
            target = folder / image.image_id
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image.uri, target)

    return made_once(tmp_path_factory, "pool", make)


@pytest.fixture(scope="session")
def undisturbed(pool: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger of a run that nothing happened to."""

    def make(folder: Path) -> None:
        printed = succeeded(run_score(pool, trained, folder))
        assert "104 images, no errors" in printed
        assert "img/s" in printed
        assert str(folder) in printed
        assert sum(len(row["boxes"]) for row in content_of(folder)) > 50

    return own_copy(tmp_path_factory, "undisturbed", make)
