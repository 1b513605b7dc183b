"""Exports as tools give them for download: a zip file, read without unpacking it by hand."""

import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from raylearn.data.places import slashed
from raylearn.data.records import quoted
from raylearn.data.storage import not_writable
from raylearn.errors import LabelsError

MAX_BYTES = 1 << 30  # of labels, unpacked: some ten million boxes
# The images beside them are those that were handed out, and stay where they are.
_WANTED = frozenset({".csv", ".data", ".json", ".labels", ".names", ".txt", ".xml", ".yaml", ".yml"})


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The labels of a zip file as a folder that is there for the time being; anything else as it is.

    Raises:
        LabelsError: it is damaged, encrypted or too large, or has a name that leads out of it.
    """
    if path.suffix.lower() != ".zip" or not path.is_file():
        yield path
        return
    with TemporaryDirectory(prefix="raylearn-export-") as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                _unpack(archive, path, Path(folder))
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise LabelsError(f"{path} is no zip file that can be read ({error}): export it again") from error
        except OSError as error:
            raise not_writable(Path(folder), error) from error
        yield Path(folder)


def _unpack(archive: zipfile.ZipFile, path: Path, folder: Path) -> None:
    members: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = _safe_name(info, path)
        if info.is_dir() or "__MACOSX" in name.parts or name.name.startswith("._"):
            continue
        if name.suffix.lower() in _WANTED:
            if name in members:
                raise LabelsError(f"{path} holds {quoted(str(name))} twice: export it again")
            members[name] = info
    if not members:
        inner = [info.filename for info in archive.infolist() if info.filename.lower().endswith(".zip")]
        what = (
            f"only another zip file, {quoted(inner[0])}: unpack it, and give that"
            if inner
            else "no labels: export again"
        )
        raise LabelsError(f"{path} holds {what}")
    size = sum(info.file_size for info in members.values())
    if size > MAX_BYTES:
        raise LabelsError(
            f"{path} holds {size:,} bytes of labels, more than {MAX_BYTES:,}: unpack it, and give its folder"
        )
    for name, info in members.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(info) as source, target.open("xb") as file:  # gives no more bytes than the header states
            shutil.copyfileobj(source, file)


def _safe_name(info: zipfile.ZipInfo, path: Path) -> PurePosixPath:
    name = PurePosixPath(slashed(info.filename))
    if name.is_absolute() or ".." in name.parts or re.match("[A-Za-z]:", str(name)):
        raise LabelsError(f"{path} holds {quoted(info.filename)}, which leads out of it: nothing was unpacked")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise LabelsError(f"{path} holds a link, {quoted(info.filename)}: export it again without")
    if info.flag_bits & 1:
        raise LabelsError(f"{path} is encrypted: unpack it, and give its folder")
    return name
