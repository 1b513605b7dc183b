"""The store: what was computed once is found by the hash of everything that decided it."""

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """A finished piece of work: its files, and the facts of its making."""

    key: str
    folder: Path
    facts: Mapping[str, Any]


class Store:
    """A folder of artifacts, `<kind>/<key>/`, each whole or absent.

    An artifact is written aside and renamed, so a crash leaves nothing that looks finished, and of two writers of one
    key the later changes nothing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def clear_unfinished(self) -> None:
        """Removes what killed makings left aside; only for whoever knows that nothing is in the making."""
        shutil.rmtree(self.root / "unfinished", ignore_errors=True)

    def find(self, kind: str, key: str) -> Artifact | None:
        """The artifact, or None. One whose files are not as they were written is put aside, with a warning."""
        folder = self.root / kind / key
        try:
            record = json.loads((folder / _FACTS_FILE).read_text())
            facts = dict(record["facts"])
            damaged = [name for name, digest in record["files"].items() if _sha256(folder / name) != digest]
        except FileNotFoundError as error:
            if not folder.exists():
                return None
            damaged = [Path(error.filename).name]
        except (ValueError, KeyError, TypeError, AttributeError):
            damaged = [_FACTS_FILE]
        if damaged:
            aside = self.root / "damaged" / f"{kind}-{key}-{uuid.uuid4().hex[:8]}"
            aside.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(aside)
            _log.warning("%s of %s %s is damaged: put aside in %s, and made again", damaged[0], kind, key[:12], aside)
            return None
        return Artifact(key, folder, facts)

    def add(self, kind: str, key: str, make: Callable[[Path], Mapping[str, Any]]) -> Artifact:
        """Lets `make` write into an empty folder and return the facts, then makes the artifact visible at once."""
        temporary = self.root / "unfinished" / uuid.uuid4().hex
        temporary.mkdir(parents=True)
        try:
            facts = dict(make(temporary))
            files = {path.name: _sha256(path) for path in sorted(temporary.iterdir())}
            (temporary / _FACTS_FILE).write_text(json.dumps({"files": files, "facts": facts}, indent=1, sort_keys=True))
            for path in temporary.iterdir():
                _flush_to_disk(path)
            final = self.root / kind / key
            final.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.rename(final)
            except OSError:
                if not final.exists():
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        found = self.find(kind, key)
        if found is None:
            raise OSError(f"{final} cannot be read back")
        return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
