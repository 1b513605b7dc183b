"""The cases of ../shared/cases about geometry, shapes of exports, images and checkpoints: as each README says."""

import shutil
from pathlib import Path

import pytest

from raylearn.data.formats import examine_dataset, read_dataset
from raylearn.data.images import heif_is_installed
from raylearn.scoring.listing import list_pool
from tests.conftest import SHARED
from tests.unit.test_cli import call

CASES = SHARED / "cases"


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a case's folder, which is the current one."""
    found = sorted(CASES.glob(f"{request.param}-*"))
    if not found:
        pytest.skip(f"case {request.param} is not in {CASES}")
    folder = Path(shutil.copytree(found[0], tmp_path / "case", copy_function=shutil.copyfile))
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("case", "arguments", "lines"),
    [
        ("01", "export.json --format coco --handout handout", ["is rotated by 37.5 degrees"]),
        ("05", "export.xml --format cvat --handout handout", ['export the same task as "CVAT for images 1.1"']),
        ("05", "export.xml --format cvat --handout handout --missing background", ["has tracks (1)"]),
        ("06", "export.json --format coco --handout handout", ["at another size, 144x192 and not 192x144"]),
        ("13", "export.json --format label-studio --handout handout", ["is rotated by 30 degrees"] * 4),
        ("13", "cvat.xml --format cvat --handout handout-cvat", ["is rotated by 18.5 degrees"] * 4),
        ("21", "export.json --format label-studio --handout handout --missing background", ["a draft that was not"]),
    ],
    indirect=["case"],
)
def test_labels_are_refused_with_all_that_is_wrong(case, arguments, lines, capsys) -> None:
    assert call("labels", "import", *arguments.split(), "--out", "out.json") == 2
    printed = capsys.readouterr()
    listed = printed.out.splitlines() or printed.err.splitlines()[-1:]
    assert len(listed) == len(lines)
    assert all(line in found for line, found in zip(lines, listed, strict=True))
    assert not (case / "out.json").exists()


@pytest.mark.usefixtures("case")
@pytest.mark.parametrize(
    ("case", "name", "message"),
    [
        ("12", "classic_v5.pt", "is of the yolov5 repository"),
        ("12", "lfs.pt", "it is a git-lfs pointer; run `git lfs pull`"),
        ("12", "html.pt", "it is a web page"),
    ],
    indirect=["case"],
)
def test_a_checkpoint_is_refused_with_its_cause(name, message, capsys) -> None:
    assert call("score", "pool", "--checkpoint", name, "--out", "ledger") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.isascii()


@pytest.mark.usefixtures("case")
@pytest.mark.parametrize("case", ["23"], indirect=True)
def test_photographs_that_are_left_out_are_counted_by_ending() -> None:
    manifest, left_out = list_pool("pool")
    if heif_is_installed():
        assert len(manifest) == 6
    else:
        assert len(manifest) == 1
        assert left_out == {".heic": 5}


@pytest.mark.parametrize("case", ["24"], indirect=True)
def test_sizes_exchanged_by_exif_are_refused_and_resolved_when_that_is_said(case) -> None:
    dataset, problems = examine_dataset(case / "ds", "voc")
    assert dataset is None
    assert len(problems) == 8
    assert "made for 96x64, but 'JPEGImages/train0.jpg' is 64x96 upright, by its EXIF orientation 6" in str(problems[0])
    turned = read_dataset(case / "ds", "voc", exif="raw")
    assert len(turned.pool) == 4
    assert turned.truth != read_dataset(case / "ds", "voc", exif="upright", bad_boxes="drop").truth
