"""The Dockerfile, as far as that goes without Docker: what it copies makes raylearn, its shell lines can be read."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

from raylearn import __version__
from raylearn.config_files import packaged_experiments

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "cluster/Dockerfile").read_text()
CODE = "\n".join(row for row in TEXT.splitlines() if row.strip() and not row.startswith("#"))
LINES = [line.split(maxsplit=1) for line in CODE.replace("\\\n", " ").splitlines()]
BUILD = "from setuptools import build_meta as b; b.build_sdist({0!r}); b.build_wheel({0!r})"


def copied(folder: Path) -> None:
    """Does what the COPY lines do."""
    for word, rest in LINES:
        if word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                place = folder / target / source if target.endswith("/") else folder / target
                place.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / source).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__", "results")
                    shutil.copytree(ROOT / source, place, symlinks=True, ignore=ignored)
                else:
                    shutil.copy(ROOT / source, place)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the wheel and the sdist that come of what is copied."""
    folder = tmp_path_factory.mktemp("image")
    copied(folder / "src")
    command = [sys.executable, "-c", BUILD.format(str(folder))]
    done = subprocess.run(command, cwd=folder / "src", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Package would be ignored" not in done.stderr
    return folder


def test_what_is_copied_makes_a_wheel_with_all_that_is_no_code(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        metadata = wheel.read(f"raylearn-{__version__}.dist-info/METADATA").decode()
    assert {f"raylearn/experiments/{name}.yaml" for name in packaged_experiments()} <= names
    assert {"raylearn/py.typed", "raylearn/reporting/page.html.jinja"} <= names
    assert not [name for name in names if "results" in name and name.endswith((".html", ".parquet"))]
    found = Parser().parsestr(metadata)
    assert "Typing :: Typed" in (found.get_all("Classifier") or [])
    assert found["License-Expression"] == "Apache-2.0"
    assert found["Description-Content-Type"] == "text/markdown"


def test_the_readme_of_the_package_needs_no_repository(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        text = Parser().parsestr(wheel.read(f"raylearn-{__version__}.dist-info/METADATA").decode()).get_payload()
    links = re.findall(r"\]\(([^)]*)\)", str(text))
    assert links
    assert all(link.startswith("https://") for link in links)
    assert "make " not in str(text)


def test_the_sdist_builds_again(built: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(next(built.glob("*.tar.gz")), tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    assert (source / "raylearn/experiments/quickstart.yaml").is_file()
    assert (source / "docs/package.md").is_file()


def test_every_instruction_is_one_of_dockers_and_every_shell_line_can_be_read() -> None:
    assert {word for word, _ in LINES} <= {"ARG", "FROM", "RUN", "ENV", "WORKDIR", "COPY", "USER", "CMD"}
    for word, rest in LINES:
        if word == "RUN":
            assert subprocess.run(["bash", "-n", "-c", rest], check=False).returncode == 0
            assert "curl" not in rest


def test_the_images_python_is_one_that_raylearn_takes() -> None:
    (base,) = re.findall(r"^ARG BASE=python:(\d+\.\d+)-", TEXT, re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"Programming Language :: Python :: {base}" in project["classifiers"]
    assert "-c constraints.txt" in TEXT


def test_nothing_that_is_copied_is_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources = {source for word, rest in LINES if word == "COPY" for source in rest.split()[:-1]}
    assert sources == {name.removesuffix("/*.yaml") for name in kept}


def test_the_rayjob_uses_the_image_that_the_file_says_how_to_build() -> None:
    rayjob = yaml.safe_load((ROOT / "cluster/rayjob.yaml").read_text())
    head = rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert head["image"] == re.findall(r"-t (\S+) \.", TEXT)[0]
    assert head["image"].endswith(f":{__version__}")
