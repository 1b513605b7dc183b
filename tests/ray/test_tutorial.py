"""docs/project.md, typed in as it stands: two rounds of labelling on photographs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raylearn.data.formats import read_dataset
from tests.conftest import SHARED
from tests.scripted_annotator import annotate

BCCD = SHARED / "data" / "bccd_voc"
TEXT = (Path(__file__).parents[2] / "docs" / "project.md").read_text()
SHORTER = {"image_size: 320": "image_size: 64", "epochs: 40": "epochs: 2"}
pytestmark = [
    pytest.mark.usefixtures("standing_ray"),
    pytest.mark.skipif(not BCCD.is_dir(), reason=f"the BCCD photographs are not in {BCCD}"),
    pytest.mark.timeout(600),
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_tutorial_works_as_it_is_written(tmp_path: Path) -> None:
    shutil.copytree(BCCD, tmp_path / "BCCD_Dataset" / "BCCD")
    truth = read_dataset(BCCD, "voc", pool=["val"], test=["test"], bad_boxes="drop")
    (settings,) = blocks("yaml")
    for long, short in SHORTER.items():
        assert long in settings
        settings = settings.replace(long, short)
    (tmp_path / "blood.yaml").write_text(settings)

    commands = [line for block in blocks("bash") for line in block.splitlines()]
    printed = {}
    for command in commands:
        export = re.search(r"import blood ((round-\d+)\.json)", command)
        if export:
            handout = tmp_path / "blood" / "queries" / export[2] / "label-studio"
            by_uri = {image.uri.rpartition("/")[2]: truth.truth[image.image_id] for image in truth.pool}
            known = {name: by_uri[Path(name).name] for name in asked(tmp_path, export[2])}
            annotate(handout, known, truth.class_names, tmp_path / export[1])
        printed[command] = typed(command, tmp_path)

    assert [len(asked(tmp_path, f"round-{index:03d}")) for index in (0, 1)] == [20, 20]
    assert not set(asked(tmp_path, "round-000")) & set(asked(tmp_path, "round-001"))
    results = pq.read_table(tmp_path / "blood" / "results.parquet").to_pylist()
    assert [row["num_images"] for row in results] == [20, 40]
    (status,) = (text for command, text in printed.items() if "status" in command)
    assert "40 of 87 images labelled" in status
    assert (tmp_path / "blood" / "report.html").stat().st_size > 10_000


def asked(desk: Path, name: str) -> list[str]:
    ids: list[str] = pq.read_table(desk / "blood" / "queries" / name / "query.parquet")["image_id"].to_pylist()
    return ids


def typed(command: str, desk: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=desk,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
