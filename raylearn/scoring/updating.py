"""A pool that lives: what became of it since it was listed, and which rows of a ledger stand for no image any more."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raylearn.data.storage import Folder
from raylearn.errors import LedgerError
from raylearn.scoring.freezing import Frozen, quick_hashes
from raylearn.scoring.ledger import VOID, void_rows, void_table
from raylearn.scoring.manifest import SCHEMA, ManifestFiles, Span
from raylearn.scoring.pass_record import Record, parsed
from raylearn.scoring.spill import Buckets

_OLD = pa.schema([*SCHEMA, ("part", pa.int32()), ("row", pa.int32())])
_NEW = pa.schema([*SCHEMA, ("place", pa.int64())])
_KINDS_OF_UPDATE: dict[str, type] = {
    "listing": str,
    "source": dict,
    "start": int,
    "num_images": int,
    "part_size": int,
    "suffix": str,
    "abandoned": list,
    "void": str,
    "num_void": int,
}


@dataclass(frozen=True)
class Listings:
    """All listings of the pool of one pass: the one that it began with, and its updates.

    Args:
        spans: the parts of each.
        hash: of all that was in the pool at the last of them.
        abandoned: parts that were not there when the pool was listed again: what is left of them is in later parts.
        void: the name of the file of rows that stand for no image any more; "" where all do.
        num_void: of those rows.
        source: what the last update listed (see `raylearn.scoring.request.source_of`); None where there was none.
    """

    spans: tuple[Span, ...]
    hash: str
    abandoned: frozenset[int] = frozenset()
    void: str = ""
    num_void: int = 0
    source: Mapping[str, Any] | None = None

    @property
    def number(self) -> int:
        """Of the last update; 0 where there was none."""
        return len(self.spans) - 1

    @property
    def file_names(self) -> list[str]:
        """Of the manifest."""
        return [name for span in self.spans for name in span.file_names]

    @property
    def end(self) -> int:
        """The number after that of the last part."""
        return self.spans[-1].end

    @property
    def parts(self) -> list[int]:
        """All that the pass is to have."""
        return [part for part in range(self.end) if part not in self.abandoned]

    @property
    def num_rows(self) -> int:
        """Of all parts, with rows that stand for no image any more."""
        return sum(span.num_images for span in self.spans) - sum(self._rows_of(part) for part in self.abandoned)

    def _rows_of(self, part: int) -> int:
        return next(span for span in reversed(self.spans) if span.start <= part).rows_of(part)

    @property
    def facts(self) -> dict[str, Any]:
        """What ledger.json says of them."""
        if not self.number:
            return {"num_parts": self.end}
        return {
            "num_parts": self.end,
            "manifest": self.hash,
            "update": self.number,
            "abandoned": sorted(self.abandoned),
            "void": self.void,
        }

    def updated(self, update: Mapping[str, Any]) -> "Listings":
        """With one more update, by its record."""
        span = Span(update["start"], update["num_images"], update["part_size"], update["suffix"])
        abandoned = frozenset(update["abandoned"])
        spans = (*self.spans, span)
        return Listings(spans, update["listing"], abandoned, update["void"], update["num_void"], update["source"])


def read_listings(folder: Folder, record: Record) -> Listings:
    """Of the pass in a folder, which was begun with this record.

    Raises:
        LedgerError: the record of an update is damaged.
    """
    span = Span(0, record["num_images"], record["part_size"])
    if "format" not in record:  # before formats had numbers, a manifest was one file
        span = replace(span, parts_per_file=max(1, span.end))
    listings = Listings((span,), record["manifest"])
    while (text := folder.read(_update_name(listings.number + 1))) is not None:
        update = parsed(folder, _update_name(listings.number + 1), text, _KINDS_OF_UPDATE)
        listings = listings.updated(update)
    return listings


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
        return ", ".join(told) or "the same images in another order"


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
        same = _same(there, here)
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
            for kind, rows in (("removed", removed), ("replaced", replaced))
        ]
    void = _in_order(pa.concat_tables(voids))
    num_removed = pc.sum(pc.equal(void["kind"], "removed")).as_py() or 0
    first = {kind: image_id for kind, (_, image_id) in firsts.items()}
    return Changes(numbers["added"], numbers["changed"], num_removed, first, is_new, void, now.hash())


def _same(there: pa.Table, here: pa.Table) -> pa.ChunkedArray:
    """(N,) whether images are what they were: by content where it is known, else by version, else by address."""
    equal = {name: pc.equal(there[name], here[name]) for name in ("content_hash", "version", "uri")}
    hashes, versions = (
        pc.and_(pc.not_equal(there[name], ""), pc.not_equal(here[name], "")) for name in ("content_hash", "version")
    )
    by_address = pc.and_(pc.and_(equal["content_hash"], equal["version"]), equal["uri"])
    return pc.if_else(hashes, equal["content_hash"], pc.if_else(versions, equal["version"], by_address))


def _in_order(void: pa.Table) -> pa.Table:
    return void.sort_by([("part", "ascending"), ("row", "ascending")])


def _keep_first(firsts: dict[str, tuple[Any, str]], kind: str, rows: pa.Table, order: tuple[str, ...]) -> None:
    if not len(rows):
        return
    row = rows.take(pc.sort_indices(rows, [(name, "ascending") for name in order])[:1]).to_pylist()[0]
    found = tuple(row[name] for name in order), row["image_id"]
    firsts[kind] = min(firsts.get(kind, found), found)


def rows_before(
    folder: Folder, listings: Listings, parts: Iterable[int], again: Mapping[int, np.ndarray] | None = None
) -> Iterable[tuple[int, np.ndarray, pa.Table]]:
    """Number, positions and rows of parts of a pass, without those that stand for no image any more.

    Args:
        folder: of the pass.
        listings: of its pool.
        parts: which.
        again: part -> positions of images that are to count as changed.
    """
    files, void = ManifestFiles(folder, listings.spans), void_rows(folder, listings.void)
    for part in parts:
        table = files.read(part)
        if again and part in again:
            kept = pa.array(np.isin(np.arange(len(table)), again[part], invert=True))
            unknown = [pc.if_else(kept, table[name], "") for name in SCHEMA.names[1:]]
            table = pa.table([table["image_id"], *unknown], schema=SCHEMA)
        rows = np.delete(np.arange(len(table)), void.get(part, []))
        yield part, rows, table.take(rows)


@dataclass(frozen=True)
class Update:
    """A listing of a pool that is to be added to a pass.

    Args:
        listings: of the pass so far.
        new: the files of what is new, beginning with part `listings.end`.
        record: of the update.
        void: all rows that stand for no image then.
    """

    listings: Listings
    new: Frozen
    record: Mapping[str, Any]
    void: pa.Table

    @property
    def updated(self) -> Listings:
        """The listings of the pass once it is begun."""
        return self.listings.updated(self.record)

    def begin(self, folder: Folder) -> None:
        """Makes it a part of the pass, at once and for good.

        Raises:
            LedgerError: another run did so in the same moment.
        """
        sink = pa.BufferOutputStream()
        pq.write_table(self.void, sink, compression="zstd")
        self.new.put_into(folder)
        folder.replace(self.record["void"], sink.getvalue())
        # last: its files have names of their own, so what another run writes at the same time is left alone
        name = _update_name(self.updated.number)
        if not folder.add(name, json.dumps(self.record, indent=1, sort_keys=True).encode()):
            raise LedgerError(
                f"{folder}/{name} was written by another run at the same time: run the same command again"
            )


def update_of(
    folder: Folder, listings: Listings, changes: Changes, new: Frozen, done: set[int], source: Mapping[str, Any]
) -> Update:
    """What is to be added to a pass whose pool has changed.

    Args:
        folder: of the pass.
        listings: of the pass so far.
        changes: see `changes_between`, from the parts that are done.
        new: what is new, with a suffix of its own.
        done: the parts that are there.
        source: what was listed.
    """
    voids = [changes.void]
    if listings.void:
        before = void_table(folder, listings.void)
        # of a part that is not there any more nothing is left, nor will be
        voids.append(before.filter(pc.is_in(before["part"], pa.array(sorted(done), pa.int32()))))
    void = _in_order(pa.concat_tables(voids))
    number = listings.number + 1
    record = {
        "listing": changes.listing,
        "source": dict(source),
        "start": new.span.start,
        "num_images": new.span.num_images,
        "part_size": new.span.part_size,
        "suffix": new.span.suffix,
        "abandoned": sorted(set(range(listings.end)) - done),
        "void": f"void-{number:04d}-{new.span.suffix}.parquet",
        "num_void": len(void),
    }
    return Update(listings, new, record, void)


def only_new(now: Frozen, changes: Changes) -> Iterable[pa.Table]:
    """The rows of a listing that are new, in its order."""
    place = 0
    for table in now.tables():
        yield table.filter(pa.array(changes.is_new[place : place + len(table)]))
        place += len(table)
