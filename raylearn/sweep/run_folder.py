"""The folder of a run, which may be at an address: its few small files, on a disk while they are worked on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from raylearn.data.storage import Folder

EXPERIMENT_FILE = "experiment.yaml"
RUN_FILE = "run.json"
GALLERY_FILE = "gallery.json"
_FILES = (
    EXPERIMENT_FILE,
    RUN_FILE,
    GALLERY_FILE,
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
