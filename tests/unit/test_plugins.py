"""What other packages register: one that is broken is told when it is named, and is of no matter to the others."""

import sys
from pathlib import Path

import pytest

from raylearn.errors import InputError
from raylearn.plugins import registered, told_of, versions_of

GROUP = "raylearn.tests"
MODULE = "good = 'fine'\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes an installed package of these entry points."""

    def make(entries: str) -> None:
        folder = tmp_path / "a_package-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: a-package\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(entries)
        (tmp_path / "a_good_module.py").write_text(MODULE)
        (tmp_path / "an_ending_module.py").write_text("raise SystemExit(7)\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "a_good_module", raising=False)

    return make


def test_what_can_be_loaded_is_found_and_what_is_broken_is_told_by_its_name(package) -> None:
    lines = [
        "b_good = a_good_module:good",
        "absent = no_such_module:x",
        "ends = an_ending_module:x",
        "lacks = a_good_module:bad",
        "taken = a_good_module:good",
        "shape = 1 2 3",
    ]
    package(f"[{GROUP}]\n" + "\n".join(lines))
    found, wrong = registered(GROUP, ["taken"])
    assert found == {"b_good": "fine"}
    assert sorted(wrong) == ["absent", "ends", "lacks", "shape", "taken"]
    assert wrong["absent"] == (
        "no_such_module:x of the package a-package cannot be loaded (ModuleNotFoundError: No module named "
        "'no_such_module'): mend or uninstall it"
    )
    assert "SystemExit: 7" in wrong["ends"]
    assert "has a name that is taken" in wrong["taken"]


def test_a_file_of_entry_points_that_cannot_be_read_is_told(package) -> None:
    package(f"[{GROUP}]\nbroken line\n")
    found, wrong = registered(GROUP, [])
    assert found == {}
    assert "an installed package has a broken entry_points.txt" in wrong[GROUP]


@pytest.mark.parametrize("error", [ZeroDivisionError("by\nnothing"), SystemExit(3)])
def test_what_foreign_code_raises_is_an_error_in_one_line(error: BaseException) -> None:
    with pytest.raises(InputError, match="strategy x: ") as told, told_of("strategy x"):
        raise error
    assert "\n" not in str(told.value)


def test_a_package_that_is_not_installed_is_told() -> None:
    assert list(versions_of(["numpy"])) == ["numpy"]
    with pytest.raises(InputError, match="the package of-nobody is not installed"):
        versions_of(["of-nobody"])
