"""The store: what was computed once is found by the hash of everything that decided it."""

import hashlib
import json
import logging
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from raylearn.data.storage import Folder
from raylearn.errors import RunFolderError, StorageError

_FACTS_FILE = "artifact.json"
_log = logging.getLogger(__name__)


def artifact_key(**decisive: Any) -> str:
    """SHA-256 over everything that can change a result, and nothing else: no paths, no names, no resources.

    Args:
        decisive: values that JSON can hold.
    """
    canonical = json.dumps(decisive, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A finished piece of work.

    Args:
        key: of what decided it.
        folder: where its files are.
        facts: of its making.
        files: name -> SHA-256.
    """

    key: str
    folder: Folder
    facts: Mapping[str, Any]
    files: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        """Its files on this machine's disk: where they are, or fetched for as long as they are needed.

        Raises:
            StorageError: they cannot be fetched, or are not those that were written.
        """
        if self.folder.path is not None:
            yield self.folder.path
            return
        with TemporaryDirectory(prefix="raylearn-artifact-") as name:
            for file, digest in self.files.items():
                content = self.folder.read(file)
                if content is None or hashlib.sha256(content).hexdigest() != digest:
                    raise StorageError(
                        f"{self.folder}/{file} is not what was written there: remove the {_FACTS_FILE} above it, and "
                        "run again to make it anew"
                    )
                (Path(name) / file).write_bytes(content)
            yield Path(name)


Make = Callable[[Folder], Mapping[str, Any]]
"""Writes files into an empty folder, and returns facts that JSON can hold."""


class Store(ABC):
    """Artifacts by kind and key, each whole or absent; of two writers of one key the later changes nothing."""

    @staticmethod
    def at(folder: Folder) -> "Store":
        return AddressStore(folder) if folder.path is None else DiskStore(folder.path)

    @abstractmethod
    def find(self, kind: str, key: str, *, put_aside: bool = True) -> Artifact | None:
        """The artifact, or None. One that is not as it was written is put aside, with a warning, or only not found."""

    @abstractmethod
    def add(self, kind: str, key: str, make: Make) -> Artifact:
        """Lets `make` do the work, then makes the artifact visible at once."""

    @abstractmethod
    def clear_unfinished(self) -> None:
        """Removes what killed makings left aside; only for whoever knows that nothing is in the making."""


class DiskStore(Store):
    """A folder of artifacts, `<kind>/<key>/`, each written aside and renamed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def clear_unfinished(self) -> None:
        shutil.rmtree(self.root / "unfinished", ignore_errors=True)

    def find(self, kind: str, key: str, *, put_aside: bool = True) -> Artifact | None:
        folder = self.root / kind / key
        try:
            record = _read_record((folder / _FACTS_FILE).read_bytes())
            facts, files = dict(record["facts"]), dict(record["files"])
            damaged = [name for name, digest in files.items() if _sha256(folder / name) != digest]
        except (FileNotFoundError, NotADirectoryError) as error:
            if not folder.exists():
                self._refuse_no_folder(folder.parent)
                return None
            damaged = [Path(error.filename).name]
        except (ValueError, KeyError, TypeError, AttributeError):
            damaged = [_FACTS_FILE]
        if damaged and put_aside:
            aside = self.root / "damaged" / f"{kind}-{key}-{uuid.uuid4().hex[:8]}"
            aside.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(aside)
            _warn_of_damage(damaged[0], kind, key, aside)
        return None if damaged else Artifact(key, Folder(str(folder)), facts, files)

    def _refuse_no_folder(self, kind: Path) -> None:
        for place in (self.root, kind):
            if place.exists() and not place.is_dir():
                raise RunFolderError(f"{place} is no folder: move it away, or use another store")

    def add(self, kind: str, key: str, make: Make) -> Artifact:
        temporary = self.root / "unfinished" / uuid.uuid4().hex
        temporary.mkdir(parents=True)
        try:
            facts = dict(make(Folder(str(temporary))))
            files = {path.name: _sha256(path) for path in sorted(temporary.iterdir())}
            Folder(str(temporary)).add(_FACTS_FILE, _record(files, facts))
            final = self.root / kind / key
            final.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.rename(final)
            except OSError:
                if not final.exists():
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return _read_back(self, kind, key, final)


class AddressStore(Store):
    """The same below an address such as s3://bucket/prefix, where nothing can be renamed.

    Whoever makes an artifact puts its files under a name that nobody else has, `<kind>/<key>/<attempt>/`, and last,
    with one request, `<kind>/<key>/artifact.json`, which says whose files count. What a killed making left is never
    looked at. An object store keeps no torn files, but may lose some; hashes are looked at where `on_disk` fetches
    files.
    """

    def __init__(self, root: Folder) -> None:
        self.root = root

    def clear_unfinished(self) -> None:
        """Nothing: it has names of its own, and to find it everything would have to be listed."""

    def find(self, kind: str, key: str, *, put_aside: bool = True) -> Artifact | None:
        folder = self.root.below(f"{kind}/{key}")
        text = folder.read(_FACTS_FILE)
        if text is None:
            return None
        try:
            record = _read_record(text)
            own, facts, files = folder.below(str(record["attempt"])), dict(record["facts"]), dict(record["files"])
            damaged = sorted(files.keys() - own.sizes().keys())
        except (ValueError, KeyError, TypeError, AttributeError):
            damaged = [_FACTS_FILE]
        if damaged and put_aside:
            aside = f"{kind}-{key}-{uuid.uuid4().hex[:8]}.json"
            self.root.below("damaged").add(aside, text)
            folder.remove(_FACTS_FILE)
            _warn_of_damage(damaged[0], kind, key, f"{self.root}/damaged/{aside}")
        return None if damaged else Artifact(key, own, facts, files)

    def add(self, kind: str, key: str, make: Make) -> Artifact:
        folder, attempt = self.root.below(f"{kind}/{key}"), uuid.uuid4().hex
        own = folder.below(attempt)
        facts = dict(make(own))
        files = {name: hashlib.sha256(own.read(name) or b"").hexdigest() for name in sorted(own.sizes())}
        folder.add(_FACTS_FILE, _record(files, facts, attempt=attempt))
        return _read_back(self, kind, key, folder)


def _record(files: Mapping[str, str], facts: Mapping[str, Any], **more: str) -> bytes:
    record = {**more, "files": files, "facts": facts}
    return json.dumps({**record, "sha256": _record_hash(record)}, indent=1, sort_keys=True).encode()


def _read_record(text: bytes) -> dict[str, Any]:
    """Raises ValueError, TypeError or KeyError for one that is not as `_record` wrote it."""
    record = json.loads(text)
    if record.pop("sha256") != _record_hash(record):
        raise ValueError("not what was written")
    return dict(record)


def _record_hash(record: Mapping[str, Any]) -> str:
    as_read = json.loads(json.dumps(record))
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


def _read_back(store: Store, kind: str, key: str, where: object) -> Artifact:
    found = store.find(kind, key)
    if found is None:
        raise StorageError(f"{where} cannot be read back")
    return found


def _warn_of_damage(name: str, kind: str, key: str, aside: object) -> None:
    _log.warning("%s of %s %s is damaged: put aside in %s, and made again", name, kind, key[:12], aside)


def _sha256(path: Path) -> str:
    state = path.stat()
    return _sha256_of(path, state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=1 << 16)  # a sweep finds the same checkpoint again and again
def _sha256_of(path: Path, _inode: int, _size: int, _modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
