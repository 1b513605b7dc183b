"""The store: an artifact is whole or absent, is found by what decided it, and is not trusted when its files changed."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylearn.data.storage import Folder
from raylearn.errors import RunFolderError
from raylearn.work.store import DiskStore, artifact_key

KEY = artifact_key(what="a training")


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path)


def make(folder: Folder) -> Mapping[str, Any]:
    folder.add("checkpoint.pt", b"weights")
    folder.add("notes.txt", b"made by hand")
    return {"seconds": 1.5, "class_ap": [0.5, None]}


def visible(store: DiskStore) -> list[str]:
    """Every file and folder of the store but the two for what is not finished and what is damaged."""
    below = (path.relative_to(store.root) for path in store.root.rglob("*"))
    return sorted(str(path) for path in below if path.parts[0] not in ("unfinished", "damaged"))


# Keys


def test_a_key_changes_with_every_decisive_field():
    decisive: dict[str, Any] = {"kind": "training", "seed": 0, "options": {"lr0": 0.1, "nbs": 8}, "weights": None}
    changed = [
        {**decisive, "kind": "evaluation"},
        {**decisive, "seed": 1},
        {**decisive, "seed": "0"},
        {**decisive, "options": {"lr0": 0.1, "nbs": 9}},
        {**decisive, "options": {"lr0": 0.1}},
        {**decisive, "weights": "ab"},
        {**decisive, "more": 1},
    ]
    keys = [artifact_key(**fields) for fields in [decisive, *changed]]
    assert len(set(keys)) == len(keys)


def test_a_key_does_not_change_with_the_order_of_its_fields():
    assert artifact_key(a=1, b={"c": 2, "d": 3}) == artifact_key(b={"d": 3, "c": 2}, a=1)


def test_a_key_is_the_same_in_every_version():
    # recorded: a change of it makes every store worthless
    assert artifact_key(a=1, b=[0.5, None]) == "f1a92042e7c3ddd42296d6b32369b7866ec31f2ca194f1c000be811f5b4bf1ac"


def test_a_key_of_what_is_no_number_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifact_key(lr0=float("nan"))


# Adding and finding


def test_what_was_added_is_found_with_its_files_and_facts(store):
    added = store.add("training", KEY, make)
    found = store.find("training", KEY)
    assert found == added
    assert found.facts == {"seconds": 1.5, "class_ap": [0.5, None]}
    assert found.folder.read("checkpoint.pt") == b"weights"


def test_an_artifact_is_found_by_another_process_s_store_too(store):
    added = store.add("training", KEY, make)
    assert DiskStore(store.root).find("training", KEY) == added


def test_what_was_not_added_is_not_found(store):
    store.add("training", KEY, make)
    assert store.find("evaluation", KEY) is None
    assert store.find("training", artifact_key(what="another")) is None


def test_an_artifact_of_facts_alone_is_found(store):
    store.add("evaluation", KEY, lambda _: {"map50": 0.5})
    assert store.find("evaluation", KEY).facts == {"map50": 0.5}


def test_make_is_given_an_empty_folder_outside_of_what_is_visible(store):
    seen = []

    def look(folder: Folder) -> dict[str, Any]:
        seen.append((folder.sizes(), visible(store)))
        return {}

    store.add("training", KEY, look)
    assert seen == [({}, [])]


# Crashes


class PowerCutError(BaseException):
    """Passes every `except Exception`."""


def test_a_crash_while_making_leaves_nothing_visible(store):
    def crash(folder: Folder) -> dict[str, Any]:
        make(folder)
        raise PowerCutError

    with pytest.raises(PowerCutError):
        store.add("training", KEY, crash)
    assert visible(store) == []
    assert store.find("training", KEY) is None
    assert store.add("training", KEY, make) == store.find("training", KEY)


@pytest.mark.parametrize("step", ["_sha256", "_record"])
def test_a_crash_between_making_and_renaming_leaves_nothing_visible(store, step, monkeypatch):
    def crash(*_: object) -> str:
        raise PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr(f"raylearn.work.store.{step}", crash)
        with pytest.raises(PowerCutError):
            store.add("training", KEY, make)
    assert store.find("training", KEY) is None


def test_what_a_killed_process_left_unfinished_is_not_found(store):
    half = store.root / "unfinished" / "0123"
    half.mkdir(parents=True)
    make(Folder(str(half)))
    assert store.find("training", KEY) is None


def test_clearing_removes_what_killed_processes_left_and_nothing_else(store):
    added = store.add("training", KEY, make)
    (store.root / "unfinished" / "0123").mkdir(parents=True)
    store.clear_unfinished()
    assert not (store.root / "unfinished").exists()
    assert store.find("training", KEY) == added
    assert store.add("evaluation", KEY, make) == store.find("evaluation", KEY)


def test_facts_that_are_no_json_leave_nothing_visible(store):
    with pytest.raises(TypeError):
        store.add("training", KEY, lambda _: {"device": object()})
    assert store.find("training", KEY) is None


# Two writers


def test_a_second_writer_of_a_key_changes_nothing(store):
    first = store.add("training", KEY, make)
    before = {path.name: path.read_bytes() for path in first.folder.path.iterdir()}

    def late(folder: Folder) -> dict[str, Any]:
        folder.add("checkpoint.pt", b"other weights")
        return {"seconds": 99}

    assert store.add("training", KEY, late) == first
    assert {path.name: path.read_bytes() for path in first.folder.path.iterdir()} == before
    assert list((store.root / "unfinished").iterdir()) == []


def test_a_writer_that_finishes_while_another_makes_the_same_wins(store):
    def slow(folder: Folder) -> dict[str, Any]:
        store.add("training", KEY, make)
        folder.add("checkpoint.pt", b"too late")
        return {}

    found = store.add("training", KEY, slow)
    assert found.folder.read("checkpoint.pt") == b"weights"
    assert found.facts["seconds"] == 1.5


# Damage


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["checkpoint.pt", "notes.txt", "artifact.json"])
@pytest.mark.parametrize("damage", [shorten, flip_a_bit, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_artifact_is_put_aside_with_a_warning_and_can_be_made_again(store, name, damage, caplog):
    added = store.add("training", KEY, make)
    damage(added.folder.path / name)
    with caplog.at_level(logging.WARNING):
        assert store.find("training", KEY) is None
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{name} of training {KEY[:12]} is damaged: put aside in {store.root}")
    (aside,) = (store.root / "damaged").iterdir()
    assert aside.name.startswith(f"training-{KEY}")
    assert store.add("training", KEY, make) == added
    assert store.find("training", KEY) == added


def test_facts_that_were_changed_are_damage_and_who_only_looks_moves_nothing(store):
    added = store.add("evaluation", KEY, make)
    path = added.folder.path / "artifact.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "facts": {**record["facts"], "map50": 0.9}}))
    assert store.find("evaluation", KEY, put_aside=False) is None
    assert path.exists()
    assert not (store.root / "damaged").exists()
    assert store.find("evaluation", KEY) is None
    assert not path.exists()


def test_a_file_in_an_artifacts_place_is_damage(store):
    (store.root / "training").mkdir(parents=True)
    (store.root / "training" / KEY).touch()
    assert store.find("training", KEY) is None
    assert store.add("training", KEY, make) == store.find("training", KEY)


@pytest.mark.parametrize("place", ["", "training"])
def test_a_file_in_the_place_of_a_folder_is_refused_before_anything_is_made(tmp_path, place):
    (tmp_path / "store").joinpath(place).parent.mkdir(exist_ok=True)
    (tmp_path / "store").joinpath(place).write_text("mine")
    with pytest.raises(RunFolderError, match=r"store.* is no folder: move it away, or use another store"):
        DiskStore(tmp_path / "store").find("training", artifact_key(a=1))


def test_an_artifact_damaged_twice_is_put_aside_twice(store):
    for _ in range(2):
        shorten(store.add("training", KEY, make).folder.path / "checkpoint.pt")
        assert store.find("training", KEY) is None
    assert len(list((store.root / "damaged").iterdir())) == 2


any_json = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda values: st.lists(values) | st.dictionaries(st.sampled_from(["files", "facts", "x"]), values),
    max_leaves=5,
)


@settings(deadline=None, max_examples=20)
@given(st.binary(max_size=40) | any_json.map(lambda value: json.dumps(value).encode()))
def test_whatever_stands_in_artifact_json_is_facts_or_damage(tmp_path_factory, content):
    store = DiskStore(tmp_path_factory.mktemp("store"))
    added = store.add("training", KEY, make)
    (added.folder.path / "artifact.json").write_bytes(content)
    found = store.find("training", KEY)
    assert found is None or isinstance(found.facts, dict)
