"""What a scoring pass is made with: plan.json in its folder, and what to do when something else is asked for."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from raylearn.data.storage import Folder
from raylearn.detectors.base import CHECKPOINT_FILE
from raylearn.errors import LedgerError
from raylearn.scoring import ledger
from raylearn.scoring.manifest import MANIFEST_FILE

PLAN_FILE = "plan.json"
_KINDS = {
    "checkpoint": str,
    "class_names": list,
    "engine": dict,
    "manifest": str,
    "num_images": int,
    "part_size": int,
    "settings": dict,
    "versions": dict,
}

Record = dict[str, Any]
"""The entries of plan.json: those of `_KINDS`, and what else is worth knowing of the pass."""


def read_record(folder: Folder) -> Record | None:
    """What the pass in a folder was begun with; None where none was.

    Raises:
        LedgerError: the folder holds something else, or the record is damaged.
    """
    text = folder.read(PLAN_FILE)
    if text is None:
        # The plan is what a pass writes first, so without it these are of something else.
        foreign = [name for name in (MANIFEST_FILE, CHECKPOINT_FILE) if name in folder.sizes()]
        if foreign or ledger.finished_parts(folder):
            what = foreign[0] if foreign else "parts of a ledger"
            raise LedgerError(f"{folder} holds {what}, but no {PLAN_FILE}: give another folder with --out")
        return None
    record = parsed(folder, PLAN_FILE, text, _KINDS)
    ledger.refuse_later_format(folder, record)
    return record


def parsed(folder: Folder, name: str, text: bytes, kinds: Mapping[str, type]) -> Record:
    """What a file of a pass says; LedgerError where an entry is missing or of another kind."""
    try:
        record = json.loads(text)
    except ValueError:
        record = None
    if not (isinstance(record, dict) and all(isinstance(record.get(key), kind) for key, kind in kinds.items())):
        raise LedgerError(f"{folder}/{name} is damaged, or of another program: give another folder with --out")
    return record


def add_record(folder: Folder, record: Record) -> None:
    """Begins a pass.

    Raises:
        LedgerError: another run began another pass in the same moment.
    """
    folder.add(PLAN_FILE, json.dumps(record, indent=1, sort_keys=True).encode())
    there = read_record(folder) or {}
    if there != record:
        raise another_pass(folder, first_difference(there, record))


def refuse_another(folder: Folder, there: Record, asked: Record) -> None:
    """Raises LedgerError, with the difference, if a pass that was begun is not the one that is asked for.

    Args:
        folder: of the pass.
        there: its record.
        asked: the entries that a request decides; an engine's "auto" fits anything.
    """
    left_open = {name: there["engine"].get(name) for name, value in asked["engine"].items() if value == "auto"}
    asked = {**asked, "engine": {**asked["engine"], **left_open}}
    # Of embeddings a record says nothing where there are none.
    there = {**there, "settings": {"embeddings": False, **there["settings"]}}
    asked = {**asked, "settings": {"embeddings": False, **asked["settings"]}}
    difference = first_difference({name: there.get(name) for name in asked}, asked)
    if difference:
        raise another_pass(folder, difference)


def another_pass(folder: Folder, difference: str | None) -> LedgerError:
    """The error to raise for a folder of another pass."""
    return LedgerError(
        f"{folder} holds a scoring pass with {difference}: give another folder with --out, or the same settings"
    )


def first_difference(there: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> str | None:
    """Where two records differ first, in words; None where they do not."""
    for name in sorted(there.keys() | asked.keys()):
        before, now = there.get(name), asked.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            inner = first_difference(before, now, f"{prefix}{name}.")
            if inner:
                return inner
        elif before != now:
            return f"{prefix}{name}={before}, not {now}"
    return None


def key_of(record: Record) -> str:
    """The mark that every part of the pass has."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
