"""A pool that lives: what became of it since it was listed, and which rows of a ledger stand for no image any more."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raylearn.data.storage import Folder
from raylearn.errors import LedgerError
from raylearn.scoring.freezing import Frozen, quick_hashes
from raylearn.scoring.ledger import VOID, void_rows, void_table
from raylearn.scoring.manifest import SCHEMA, ManifestFiles, file_names
from raylearn.scoring.pass_record import Record
from raylearn.scoring.spill import Buckets

KINDS = ("removed", "replaced")
_OLD = pa.schema([*SCHEMA, ("part", pa.int32()), ("row", pa.int32())])
_NEW = pa.schema([*SCHEMA, ("place", pa.int64())])
_KINDS_OF_UPDATE = {"listing": str, "start": int, "num_images": int, "part_size": int, "abandoned": list, "void": str}


@dataclass(frozen=True)
class Listings:
    """All listings of the pool of one pass: the one that it began with, and its updates.

    Args:
        spans: of each, the number of its first part, its images and the images of a part.
        hash: of all that was in the pool at the last of them.
        abandoned: parts that were not there when the pool was listed again: what is left of them is in later parts.
        void: the name of the file of rows that stand for no image any more; "" where all do.
    """

    spans: tuple[tuple[int, int, int], ...]
    hash: str
    abandoned: frozenset[int] = frozenset()
    void: str = ""

    @property
    def number(self) -> int:
        """Of the last update; 0 where there was none."""
        return len(self.spans) - 1

    @property
    def starts(self) -> tuple[int, ...]:
        return tuple(start for start, *_ in self.spans)

    @property
    def file_names(self) -> list[str]:
        """Of the manifest."""
        return [name for start, num, size in self.spans for name in file_names(start, -(-num // size))]

    @property
    def end(self) -> int:
        """The number after that of the last part."""
        start, num_images, part_size = self.spans[-1]
        return start + -(-num_images // part_size)

    @property
    def parts(self) -> list[int]:
        """All that the pass is to have."""
        return [part for part in range(self.end) if part not in self.abandoned]

    @property
    def num_rows(self) -> int:
        """Of all parts, with rows that stand for no image any more."""
        lost = sum(self._rows_of(part) for part in self.abandoned)
        return sum(num_images for _, num_images, _ in self.spans) - lost

    def _rows_of(self, part: int) -> int:
        start, num_images, part_size = next(span for span in reversed(self.spans) if span[0] <= part)
        return min(part_size, num_images - (part - start) * part_size)

    @property
    def facts(self) -> dict[str, Any]:
        """What ledger.json says of them."""
        if not self.number:
            return {"num_parts": self.end}
        abandoned = sorted(self.abandoned)
        return {"num_parts": self.end, "update": self.number, "abandoned": abandoned, "void": self.void}


def read_listings(folder: Folder, record: Record) -> Listings:
    """Of the pass in a folder, which was begun with this record.

    Raises:
        LedgerError: the record of an update is damaged.
    """
    spans = [(0, record["num_images"], record["part_size"])]
    listings = Listings(tuple(spans), record["manifest"])
    while (text := folder.read(_update_name(listings.number + 1))) is not None:
        update = _parsed(folder, _update_name(listings.number + 1), text)
        spans.append((update["start"], update["num_images"], update["part_size"]))
        listings = Listings(tuple(spans), update["listing"], frozenset(update["abandoned"]), update["void"])
    return listings


def _parsed(folder: Folder, name: str, text: bytes) -> dict[str, Any]:
    try:
        update = json.loads(text)
    except ValueError:
        update = None
    kinds = _KINDS_OF_UPDATE.items()
    if not (isinstance(update, dict) and all(isinstance(update.get(key), kind) for key, kind in kinds)):
        raise LedgerError(f"{folder}/{name} is damaged, or of another program: give another folder with --out")
    return update


def _update_name(number: int) -> str:
    return f"update-{number:04d}.json"


@dataclass(frozen=True)
class Changes:
    """What tells two listings of a pool apart.

    Args:
        num_added, num_changed, num_removed: images.
        first: kind ("added", "changed" or "removed") -> the first image of it, by its place in a listing.
        is_new: (N,) bool, of the new listing: images that were added or changed.
        void: rows (see `VOID`) of images that were removed or changed.
        listing: the hash of the new listing.
    """

    num_added: int
    num_changed: int
    num_removed: int
    first: Mapping[str, str]
    is_new: np.ndarray
    void: pa.Table
    listing: str

    @property
    def in_words(self) -> str:
        numbers = {"added": self.num_added, "removed": self.num_removed, "changed": self.num_changed}
        told = [f"{number:,} {kind} (the first {self.first[kind]!r})" for kind, number in numbers.items() if number]
        return ", ".join(told) or "the order of its images"


def changes_between(before: Iterable[tuple[int, np.ndarray, pa.Table]], now: Frozen, num_before: int) -> Changes:
    """Compares a pool as it was with what it is now; memory does not grow with either, but with what changed.

    Args:
        before: number, positions and rows of parts of the pass, each image once.
        now: the pool of today; its directory takes what is put aside.
        num_before: rows of all those parts, or more.
    """
    num_rows = max(num_before, now.num_images)
    old, new = Buckets(now.directory, "old", _OLD, num_rows), Buckets(now.directory, "new", _NEW, num_rows)
    for part, rows, table in before:
        numbers = pa.array(np.full(len(table), part, np.int32))
        old.add(
            pa.table([*table.columns, numbers, pa.array(rows.astype(np.int32))], schema=_OLD),
            quick_hashes(table["image_id"]),
        )
    place = 0
    for table in now.tables():
        places = pa.array(np.arange(place, place + len(table)))
        new.add(pa.table([*table.columns, places], schema=_NEW), quick_hashes(table["image_id"]))
        place += len(table)
    is_new, voids = np.zeros(now.num_images, bool), [VOID.empty_table()]
    numbers = {"added": 0, "changed": 0}
    firsts: dict[str, tuple[tuple[int, int], str]] = {}
    for one, other in zip(old, new, strict=True):
        found = pc.index_in(other["image_id"], value_set=one["image_id"].combine_chunks())
        known = pc.is_valid(found)
        there, here = one.take(found.drop_null()), other.filter(known)
        same = pc.and_(*(pc.equal(there[name], here[name]) for name in ("content_hash", "version")))
        changed, added = here.filter(pc.invert(same)), other.filter(pc.invert(known))
        gone = np.ones(len(one), bool)
        gone[found.drop_null().to_numpy()] = False
        removed, replaced = one.filter(pa.array(gone)), there.filter(pc.invert(same))
        for kind, rows in (("added", added), ("changed", changed)):
            numbers[kind] += len(rows)
            is_new[rows["place"].to_numpy()] = True
            _keep_first(firsts, kind, rows, ("place",))
        _keep_first(firsts, "removed", removed, ("part", "row"))
        voids += [
            pa.table([rows["part"], rows["row"], pa.array([kind] * len(rows), pa.string())], schema=VOID)
            for kind, rows in zip(KINDS, (removed, replaced), strict=True)
        ]
    void = _in_order(pa.concat_tables(voids))
    num_removed = pc.sum(pc.equal(void["kind"], "removed")).as_py() or 0
    first = {kind: image_id for kind, (_, image_id) in firsts.items()}
    return Changes(numbers["added"], numbers["changed"], num_removed, first, is_new, void, now.hash())


def _in_order(void: pa.Table) -> pa.Table:
    return void.sort_by([("part", "ascending"), ("row", "ascending")])


def _keep_first(firsts: dict[str, tuple[Any, str]], kind: str, rows: pa.Table, order: tuple[str, ...]) -> None:
    if not len(rows):
        return
    row = rows.take(pc.sort_indices(rows, [(name, "ascending") for name in order])[:1]).to_pylist()[0]
    found = tuple(row[name] for name in order), row["image_id"]
    firsts[kind] = min(firsts.get(kind, found), found)


def rows_before(folder: Folder, listings: Listings, parts: Iterable[int]) -> Iterable[tuple[int, np.ndarray, pa.Table]]:
    """Number, positions and rows of parts of a pass, without those that stand for no image any more."""
    files, void = ManifestFiles(folder, listings.starts), void_rows(folder, listings.void)
    for part in parts:
        table = files.read(part)
        rows = np.delete(np.arange(len(table)), void.get(part, []))
        yield part, rows, table.take(rows)


def begin_update(folder: Folder, listings: Listings, new: Frozen, changes: Changes, done: set[int]) -> Listings:
    """Adds what is new in a pool to a pass.

    Args:
        folder: of the pass, held.
        listings: of the pass so far.
        new: what is new in its pool, beginning with part `listings.end`.
        changes: see `changes_between`.
        done: the parts that are there.
    """
    number = listings.number + 1
    before = [void_table(folder, listings.void)] if listings.void else []
    name, sink = f"void-{number:04d}.parquet", pa.BufferOutputStream()
    pq.write_table(_in_order(pa.concat_tables([*before, changes.void])), sink, compression="zstd")
    new.put_into(folder)
    folder.replace(name, sink.getvalue())
    abandoned = sorted(set(range(listings.end)) - done)
    update = {
        "listing": changes.listing,
        "start": new.start,
        "num_images": new.num_images,
        "part_size": new.part_size,
        "abandoned": abandoned,
        "void": name,
    }
    # last: from here on the pass has this update, whatever happens
    folder.add(_update_name(number), json.dumps(update, indent=1, sort_keys=True).encode())
    span = (new.start, new.num_images, new.part_size)
    return Listings((*listings.spans, span), changes.listing, frozenset(abandoned), name)


def only_new(now: Frozen, changes: Changes) -> Iterable[pa.Table]:
    """The rows of a listing that are new, in its order."""
    place = 0
    for table in now.tables():
        yield table.filter(pa.array(changes.is_new[place : place + len(table)]))
        place += len(table)
