"""The folder of a run, which may be at an address: its few small files, on a disk while they are worked on.

And what may be run there: the experiment that it holds, on the data set whose results it holds.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from raylearn.config import Experiment
from raylearn.config_files import load_experiment
from raylearn.data.dataset import Dataset
from raylearn.data.storage import Folder
from raylearn.errors import ConfigError, RunFolderError

EXPERIMENT_FILE = "experiment.yaml"
RUN_FILE = "run.json"
GALLERY_FILE = "gallery.json"
MAP_FILE = "map.json"
# What decides no result, so that a run may be gone on with under another.
_FREE = ("question", "cost", "resources", "tracking", "scoring.batch_size")
_FILES = (
    EXPERIMENT_FILE,
    RUN_FILE,
    GALLERY_FILE,
    MAP_FILE,
    "results.parquet",
    "queries.parquet",
    "summary.csv",
    "report.html",
    "comparison.html",
)


@contextmanager
def on_disk(folder: Folder) -> Iterator[Path]:
    """The folder itself, or of one at an address a copy, whose files are put back at the end, however it ends.

    Raises:
        StorageError: the address cannot be read or written.
    """
    if folder.path is not None:
        yield folder.path
        return
    with TemporaryDirectory(prefix="raylearn-run-") as name:
        copy = Path(name)
        before = {file: content for file in _FILES if (content := folder.read(file)) is not None}
        for file, content in before.items():
            (copy / file).write_bytes(content)
        try:
            yield copy
        finally:
            for file in _FILES:
                if (copy / file).exists() and (now := (copy / file).read_bytes()) != before.get(file):
                    folder.replace(file, now)


def refuse_another(run_folder: Folder, files: Path, experiment: Experiment) -> None:
    """Refuses a folder that holds another experiment; what an earlier run of this one left is gone on with.

    Args:
        run_folder: as errors name it.
        files: of the run folder, on a disk.
        experiment: to be run there.
    """
    if files.exists() and not files.is_dir():
        raise RunFolderError(f"{run_folder} is no folder: give another with --out")
    if (earlier_record(files) or {}).get("joined"):
        raise RunFolderError(f"{run_folder} holds joined runs: give another folder with --out")
    path = files / EXPERIMENT_FILE
    if not path.exists():
        return
    try:
        there = load_experiment(path)
    except ConfigError as error:
        cause = str(error).removeprefix(f"{path}").removeprefix(": ")
        raise RunFolderError(
            f"{run_folder}/{EXPERIMENT_FILE} is of no run that can be gone on with ({cause}): give another folder with "
            "--out, and with --store the store of this one"
        ) from error
    difference = first_difference(there.model_dump(mode="json"), experiment.model_dump(mode="json"))
    if difference:
        raise RunFolderError(
            f"{run_folder} holds a run with {difference}: give another folder with --out, or the same settings"
        )


def refuse_another_dataset(run_folder: Folder, files: Path, dataset: Dataset) -> None:
    """Refuses to write over results of other images or labels under the same names."""
    earlier = earlier_record(files)
    if earlier and earlier["dataset"]["fingerprint"] != dataset.fingerprint:
        raise RunFolderError(
            f"{run_folder} holds results of other images or labels than {dataset.name} has now: give another folder "
            "with --out; what is still the same is found again with --store"
        )


def earlier_record(files: Path) -> dict[str, Any] | None:
    """What is in run.json, or None where there is none that can be read: it is written anew."""
    try:
        record = json.loads((files / RUN_FILE).read_bytes())
        record["dataset"]["fingerprint"]  # one without is no record of a run
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return dict(record)


def first_difference(there: Mapping[str, Any], asked: Mapping[str, Any], free: Sequence[str] = ()) -> str | None:
    """The first key whose values differ, with both; `free` are dotted keys and sections that may, beside those that
    decide no result."""
    before, now, may = _flat(there), _flat(asked), {*_FREE, *free}
    for key in sorted(before.keys() | now.keys()):
        if key not in may and key.split(".")[0] not in may and before.get(key) != now.get(key):
            return f"{key}={before.get(key)}, not {now.get(key)}"
    return None


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in section.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
