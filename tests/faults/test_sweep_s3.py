"""A store and a run folder in an object store: whole or absent, and the same numbers as on a disk."""

import logging
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import raylearn
from raylearn.data.storage import Folder
from raylearn.errors import ExportError, StorageError
from raylearn.sweep.run_folder import on_disk
from raylearn.work.store import AddressStore, Store, artifact_key
from tests.faults.object_store import BUCKET, SECRET, ObjectStore, object_store, used_here
from tests.small_sweep import ONE_ARM, assert_same_trials, command_of, run_sweep
from tests.unit.test_labelled_set import TRIAL, experiment_of, write_run

KEY = artifact_key(what="a training")


@pytest.fixture(scope="module")
def objects() -> Iterator[ObjectStore]:
    with object_store() as running:
        yield running


@pytest.fixture(autouse=True)
def environment(objects: ObjectStore) -> Iterator[None]:
    with used_here(objects):
        yield


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Store:
    return Store.at(Folder.at(f"s3://{BUCKET}/{request.node.name}"))


def make(folder: Folder) -> Mapping[str, Any]:
    folder.add("checkpoint.pt", b"weights")
    return {"seconds": 1.5}


def test_what_was_added_is_found_and_can_be_had_on_a_disk(store: Store) -> None:
    assert store.find("training", KEY) is None
    added = store.add("training", KEY, make)
    assert store.find("training", KEY) == added
    assert added.facts == {"seconds": 1.5}
    with added.on_disk() as folder:
        assert (folder / "checkpoint.pt").read_bytes() == b"weights"
    assert not folder.exists()


def test_a_making_that_was_cut_short_is_not_found(store: Store) -> None:
    def crash(folder: Folder) -> Mapping[str, Any]:
        make(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.add("training", KEY, crash)
    assert store.find("training", KEY) is None
    assert store.add("training", KEY, make) == store.find("training", KEY)


def test_an_artifact_that_lost_a_file_is_made_again(store: Store) -> None:
    store.add("training", KEY, make).folder.remove("checkpoint.pt")
    assert store.find("training", KEY) is None
    with store.add("training", KEY, make).on_disk() as folder:
        assert (folder / "checkpoint.pt").read_bytes() == b"weights"


def test_a_late_writer_changes_nothing(store: Store) -> None:
    def slow(folder: Folder) -> Mapping[str, Any]:
        store.add("training", KEY, make)
        folder.add("checkpoint.pt", b"too late")
        return {}

    found = store.add("training", KEY, slow)
    assert found.folder.read("checkpoint.pt") == b"weights"
    assert found.facts == {"seconds": 1.5}


def test_facts_that_are_torn_are_put_aside_with_a_warning(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(store, AddressStore)
    store.add("training", KEY, make)
    store.root.below(f"training/{KEY}").replace("artifact.json", b'{"files": {')
    with caplog.at_level(logging.WARNING):
        assert store.find("training", KEY) is None
    assert "artifact.json of training" in caplog.text
    assert len(store.root.below("damaged").sizes()) == 1
    assert store.add("training", KEY, make) == store.find("training", KEY)


def test_a_file_that_is_not_what_was_written_is_told(store: Store) -> None:
    added = store.add("training", KEY, make)
    added.folder.replace("checkpoint.pt", b"other")
    with pytest.raises(StorageError, match=r"checkpoint\.pt is not what was written there: remove"), added.on_disk():
        pass


def test_the_files_of_a_run_are_put_back_also_when_the_work_failed(objects: ObjectStore) -> None:
    folder = Folder.at(f"s3://{BUCKET}/runs/failed")

    def fail() -> None:
        with on_disk(folder) as files:
            (files / "run.json").write_text("{}")
            (files / "scratch").write_text("not of the run")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert folder.sizes() == {"run.json": 2}
    before = objects.objects("runs/failed")
    with on_disk(folder) as files:
        assert (files / "run.json").read_text() == "{}"
    assert objects.objects("runs/failed") == before


def test_a_set_is_exported_from_a_run_at_an_address(objects: ObjectStore, tmp_path: Path) -> None:
    rounds = write_run(experiment_of(None), tmp_path / "run", tmp_path / "store")
    for name in ("results.parquet", "queries.parquet", "experiment.yaml", "run.json"):
        objects.put(f"runs/exported/{name}", (tmp_path / "run" / name).read_bytes())
    before = objects.objects("runs/exported")
    address = f"s3://{BUCKET}/runs/exported"
    with pytest.raises(ExportError, match="drawn for the export and kept nowhere: leave --link out"):
        raylearn.export(address, TRIAL, 1, "coco", tmp_path / "out", link=True)
    again = raylearn.load_dataset(raylearn.export(address, TRIAL, 1, "coco", tmp_path / "out").folder, "coco")
    (done,) = (finished[1] for trial, finished in rounds.items() if trial.name == TRIAL)
    assert {image.image_id for image in again.pool} == done.pool.labelled.keys()
    assert objects.objects("runs/exported") == before


@pytest.mark.long
def test_a_sweep_that_is_killed_in_an_object_store_goes_on_to_the_tables_of_one_on_a_disk(
    objects: ObjectStore, finished: tuple[Path, str], tmp_path: Path
) -> None:
    out = Folder(f"s3://{BUCKET}/runs/small")
    command = command_of(ONE_ARM, tmp_path / "small", "--out", out.address)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as driver:
        assert driver.stdout is not None
        assert any("trained on" in line for line in driver.stdout)
        driver.kill()
    # its hold ends by itself; who knows that it is dead need not wait
    out.remove(".lock")
    out.below("store").remove(".lock")
    made_before = len({key.split("/")[4] for key in objects.objects("runs/small/store/training/")})
    printed = run_sweep(ONE_ARM, tmp_path / "small", "--out", out.address)
    wanted, made = (int(number) for number in re.findall(r"(\d+) (?:wanted|made now)", printed))
    assert (wanted, made) == (6, 5 - made_before)
    assert f"report:  {out}/report.html" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]  # nothing of the run is on the driver's disk
    assert any("events.out.tfevents" in key for key in objects.objects("runs/small/tune"))
    with on_disk(out) as files:
        assert_same_trials(files, finished[0])
        assert SECRET not in "".join((files / name).read_text() for name in ("report.html", "run.json"))
