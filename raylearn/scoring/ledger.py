"""The ledger: everything that one scoring pass found, one row per image, from which any query is arithmetic.

A folder: `plan.json` says what is being made, `manifest.parquet` of which images, `part-00000.parquet` and so on are
finished parts of it, files of marks say what many parts hold, and `ledger.json`, written last, that all are there and
what made them. A pool that was listed again has more: see `raylearn.scoring.updating`.
"""

import json
import re
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raylearn.data.storage import Folder, is_damage, reason_of, storage_error
from raylearn.detectors.base import Detections
from raylearn.errors import LedgerError, RaylearnError
from raylearn.scoring.embedding_columns import FIELDS, embedding_columns, embeddings_of
from raylearn.strategies import Candidates

FACTS_FILE = "ledger.json"
FORMAT = 2
"""Of the files of a ledger: 1 had one manifest file and no updates. A later one is refused."""

VOID = pa.schema([("part", pa.int32()), ("row", pa.int32()), ("kind", pa.string())])
"""Rows of a ledger that stand for no image any more, and why: "removed" from the pool, or "replaced" by a later row."""

_PARTS_AT_ONCE = 4
_MARKS_AT_ONCE = 16  # small, and at an address mostly waiting
Result = TypeVar("Result")
_COUNTS = b"raylearn"
_PART = re.compile(r"part-(\d+)\.parquet")
_MARKS = re.compile(r"marks-\d+-[0-9a-f]+\.json")


def schema(num_classes: int, embeddings: bool = False) -> pa.Schema:
    """One row per image; boxes are xyxy pixels of the upright original, and error_kind is "" where status is "ok".

    Args:
        num_classes: K.
        embeddings: with the columns of `embedding_columns`.
    """
    plain = pa.schema(
        [
            ("image_id", pa.string()),
            ("uri", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("status", pa.string()),
            ("error_kind", pa.string()),
            ("error", pa.string()),
            ("boxes", pa.list_(pa.list_(pa.float32(), 4))),
            ("class_scores", pa.list_(pa.list_(pa.float32(), num_classes))),
        ]
    )
    return pa.schema([*plain, *FIELDS]) if embeddings else plain


def rows(
    images: Mapping[str, Sequence[Any] | np.ndarray],
    detections: Sequence[Detections],
    num_classes: int,
    embeddings: bool = False,
) -> pa.Table:
    """Ledger rows from the columns before `boxes` and one Detections per image.

    Args:
        embeddings: keep those of the detections too; those of an image with an error may be missing.

    Raises:
        DetectorError: the detector gave none.
    """
    offsets = np.cumsum([0, *(len(found) for found in detections)]).astype(np.int32)
    empty = [np.empty((0, 4), np.float32)], [np.empty((0, num_classes), np.float32)]
    boxes = np.concatenate(empty[0] + [found.boxes for found in detections]).astype(np.float32)
    scores = np.concatenate(empty[1] + [found.class_scores for found in detections]).astype(np.float32)
    plain = schema(num_classes)
    columns = [pa.array(images[name], plain.field(name).type) for name in plain.names[:-2]]
    columns += [_ragged(boxes, offsets), _ragged(scores, offsets)]
    if not embeddings:
        return pa.table(columns, schema=plain)
    return pa.table(
        [*columns, *embedding_columns(detections, images["status"], offsets)], schema=schema(num_classes, True)
    )


def _ragged(values: np.ndarray, offsets: np.ndarray) -> pa.Array:
    inner = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    return pa.ListArray.from_arrays(pa.array(offsets), inner)


@dataclass(frozen=True)
class PartCounts:
    """What a part holds.

    Args:
        num_images: rows.
        num_detections: boxes of all of them.
        errors: kind of error -> images.
        num_without_detections: images that could be read and have no box; None where a part is of a time before this
            was counted.
    """

    num_images: int
    num_detections: int
    errors: Mapping[str, int]
    num_without_detections: int | None = None

    @property
    def num_errors(self) -> int:
        return sum(self.errors.values())

    @classmethod
    def of(cls, table: pa.Table) -> "PartCounts":
        failed = table.filter(pc.equal(table["status"], "error"))
        lengths = pc.list_value_length(table["boxes"])
        detections, empty = pc.sum(lengths).as_py() or 0, pc.sum(pc.equal(lengths, 0)).as_py() or 0
        errors = dict(sorted(Counter(failed["error_kind"].to_pylist()).items()))
        return cls(table.num_rows, int(detections), errors, int(empty) - failed.num_rows)

    def __add__(self, other: "PartCounts") -> "PartCounts":
        return self._with(other, 1)

    def __sub__(self, other: "PartCounts") -> "PartCounts":
        return self._with(other, -1)

    def _with(self, other: "PartCounts", times: int) -> "PartCounts":
        errors = Counter(self.errors)
        errors.update({kind: times * number for kind, number in other.errors.items()})
        without = self.num_without_detections, other.num_without_detections
        return PartCounts(
            self.num_images + times * other.num_images,
            self.num_detections + times * other.num_detections,
            {kind: number for kind, number in sorted(errors.items()) if number},
            None if without[0] is None or without[1] is None else without[0] + times * without[1],
        )


NOTHING = PartCounts(0, 0, {}, 0)


def part_name(part: int) -> str:
    return f"part-{part:05d}.parquet"


def add_part(folder: Folder, part: int, key: str, table: pa.Table) -> PartCounts:
    """Makes a finished part appear in the ledger, whole, marked with the key of the pass that made it.

    Raises:
        LedgerError: the part is there already, and of another pass.
        StorageError: it cannot be written.
    """
    counts = PartCounts.of(table)
    mark = {"key": key, **asdict(counts)}
    del mark["num_images"]  # the file says it
    table = table.replace_schema_metadata({_COUNTS: json.dumps(mark, sort_keys=True)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, use_dictionary=["status", "error_kind"], row_group_size=len(table) or 1)
    if not folder.add(part_name(part), sink.getvalue()):
        return read_counts(folder, part, key)  # another attempt was first, or another pass
    return counts


def finished_parts(folder: Folder) -> list[int]:
    """The numbers of the parts that are there, in order."""
    return sorted(int(found[1]) for name in folder.sizes() if (found := _PART.fullmatch(name)))


def read_counts(folder: Folder, part: int, key: str) -> PartCounts:
    """What a finished part holds, from its own mark.

    Raises:
        LedgerError: it is torn, or of another pass.
    """
    with open_part(folder, part) as file:
        mark = json.loads((file.schema_arrow.metadata or {}).get(_COUNTS, b"{}"))
        if mark.get("key") != key:
            raise LedgerError(f"{folder}/{part_name(part)} is of another scoring pass: score into a new folder")
        without = mark.get("num_without_detections")
        return PartCounts(file.metadata.num_rows, mark["num_detections"], mark["errors"], without)


def add_marks(folder: Folder, key: str, marks: Mapping[int, PartCounts]) -> None:
    """Writes what finished parts hold into one file, so that nobody has to open each of them to know it."""
    sizes = folder.sizes()  # by which a part that was made anew later is told apart
    counts = {part: [sizes.get(part_name(part)), asdict(counts)] for part, counts in sorted(marks.items())}
    name = f"marks-{min(marks):06d}-{uuid.uuid4().hex[:8]}.json"
    folder.add(name, json.dumps({"key": key, "counts": counts}, sort_keys=True).encode())


def read_all_counts(folder: Folder, parts: Sequence[int], key: str) -> PartCounts:
    """What finished parts hold together: by the files of `add_marks`, and by their own marks where those do not say."""
    known = _marks(folder, key)
    with ThreadPoolExecutor(_MARKS_AT_ONCE) as threads:
        rest = threads.map(lambda part: read_counts(folder, part, key), [part for part in parts if part not in known])
        return sum(rest, sum((known[part] for part in parts if part in known), NOTHING))


def remove_marks(folder: Folder) -> None:
    """Removes all files of `add_marks`."""
    for name in filter(_MARKS.fullmatch, folder.sizes()):
        folder.remove(name)


def _marks(folder: Folder, key: str) -> dict[int, PartCounts]:
    """By the files of `add_marks`, of parts that are as they were; of a damaged file nothing."""
    found: dict[int, PartCounts] = {}
    sizes = folder.sizes()
    for name in filter(_MARKS.fullmatch, sizes):
        try:
            marks = json.loads(folder.read(name) or b"{}")
            if marks["key"] == key:
                counts = {int(part): (size, PartCounts(**own)) for part, (size, own) in marks["counts"].items()}
                found |= {part: own for part, (size, own) in counts.items() if sizes.get(part_name(part)) == size}
        except (ValueError, TypeError, KeyError, AttributeError):
            continue  # each part says it itself
    return found


def void_table(folder: Folder, name: str) -> pa.Table:
    """Rows of `VOID`, by part and row.

    Raises:
        LedgerError: the file is not there, or damaged.
    """
    try:
        with folder.open(name) as file:
            return pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError) or is_damage(error):
            raise LedgerError(f"{folder}/{name} is damaged or not there: score into a new folder") from error
        raise storage_error(f"{folder}/{name} cannot be read: {reason_of(error)}", error) from error


def void_rows(folder: Folder, name: str) -> dict[int, np.ndarray]:
    """Part -> positions of its rows that stand for no image any more; a name of "" is no file, and no rows."""
    table = void_table(folder, name) if name else VOID.empty_table()
    parts, rows = table["part"].to_numpy(), table["row"].to_numpy()
    starts = np.flatnonzero(np.r_[True, np.diff(parts) != 0]) if len(parts) else np.empty(0, np.int64)
    return dict(zip(parts[starts].tolist(), np.split(rows, starts[1:]), strict=False))


def unopened_rows(folder: Folder, parts: Sequence[int], void: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Part -> positions of its images that could not be opened, without void ones: another time they may be there."""

    def look(part: int) -> np.ndarray:
        with open_part(folder, part) as file:
            try:
                kinds = file.read(columns=["error_kind"])["error_kind"]
            except (pa.ArrowException, OSError) as error:
                raise _unreadable(folder, part, error) from error
        rows = np.flatnonzero(pc.is_in(kinds, pa.array(["missing", "unreadable"])).to_numpy())
        return np.setdiff1d(rows, void.get(part, []))

    with ThreadPoolExecutor(_MARKS_AT_ONCE) as threads:
        return {part: rows for part, rows in zip(parts, threads.map(look, parts), strict=True) if len(rows)}


def count_void(folder: Folder, name: str) -> PartCounts:
    """What the rows that stand for no image any more hold together."""
    counts = NOTHING
    for part, rows in void_rows(folder, name).items():
        with open_part(folder, part) as file:
            try:
                table = file.read(columns=["status", "error_kind", "boxes"])
            except (pa.ArrowException, OSError) as error:
                raise _unreadable(folder, part, error) from error
        counts += PartCounts.of(table.take(rows))
    return counts


def open_part(folder: Folder, part: int) -> pq.ParquetFile:
    """A finished part, to read columns of it.

    Raises:
        LedgerError: it is torn, or not there.
        StorageError: it cannot be read.
    """
    try:
        return pq.ParquetFile(folder.open(part_name(part)))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(folder, part, error) from error


def _unreadable(folder: Folder, part: int, error: Exception) -> RaylearnError:
    name, again = f"{folder}/{part_name(part)}", f"{FACTS_FILE}, and score again to make it anew"
    if isinstance(error, FileNotFoundError):
        return LedgerError(f"{name} is not there: remove {again}")
    if is_damage(error):
        return LedgerError(f"{name} is damaged ({reason_of(error)}): remove it and {again}")
    return storage_error(f"{name} cannot be read: {reason_of(error)}", error)


def write_facts(folder: Folder, facts: Mapping[str, Any]) -> None:
    """Writes ledger.json, which makes the ledger a finished one; that of an earlier listing is replaced."""
    folder.replace(FACTS_FILE, json.dumps({"format": FORMAT, **facts}, indent=1, sort_keys=True).encode())


def read_facts(folder: Folder) -> dict[str, Any]:
    """What made a finished ledger.

    Raises:
        LedgerError: there is none, it is not finished, or its ledger.json is no one's of raylearn.
    """
    text = folder.read(FACTS_FILE)
    if text is None:
        done = len(finished_parts(folder)) if folder.path is None or folder.path.is_dir() else 0
        unfinished = f": it has {done} finished parts, but is not complete; run the score command again"
        raise LedgerError(f"{folder} is not a ledger{unfinished if done else ': it has no ' + FACTS_FILE}")
    try:
        facts = json.loads(text)
    except ValueError:
        facts = None
    if not (isinstance(facts, dict) and all(isinstance(facts.get(name), int) for name in ("num_parts", "num_images"))):
        raise LedgerError(f"{folder}/{FACTS_FILE} is damaged: score into a new folder")
    refuse_later_format(folder, facts)
    return facts


def counts_of(facts: Mapping[str, Any]) -> PartCounts:
    """What a finished ledger holds."""
    return PartCounts(
        facts["num_images"], facts["num_detections"], facts["errors"], facts.get("num_without_detections")
    )


def refuse_later_format(folder: Folder, facts: Mapping[str, Any]) -> None:
    """Raises LedgerError for what a later raylearn wrote."""
    if facts.get("format", 1) > FORMAT:
        raise LedgerError(
            f"{folder} was written by a later raylearn, in format {facts['format']}: this one reads up to {FORMAT}, "
            "so install that one"
        )


def parts_of(facts: Mapping[str, Any]) -> list[int]:
    """The numbers of the parts of a finished ledger."""
    abandoned = set(facts.get("abandoned", ()))
    return [part for part in range(facts["num_parts"]) if part not in abandoned]


@dataclass(frozen=True, eq=False)
class Ledger:
    """A ledger, or a part of one, in memory; images whose bytes could not be read are in `errors` only.

    Args:
        image_ids: (N,) str, the images that were scored.
        offsets: (N + 1,) int64; image i owns detections offsets[i] to offsets[i + 1].
        boxes: (D, 4) float32 xyxy pixels.
        class_scores: (D, K) float32.
        errors: image id -> what was wrong with it.
        facts: what made it: checkpoint, settings, manifest, versions, counts.
        box_embeddings: (D, E) float16; None where the pass kept none.
        image_embeddings: (N, F) float16; None where the pass kept none.
    """

    image_ids: np.ndarray
    offsets: np.ndarray
    boxes: np.ndarray
    class_scores: np.ndarray
    errors: Mapping[str, str]
    facts: Mapping[str, Any]
    box_embeddings: np.ndarray | None = None
    image_embeddings: np.ndarray | None = None

    @property
    def candidates(self) -> Candidates:
        """Its images, as a strategy is asked about them."""
        return Candidates(self.image_ids, self.offsets, self.class_scores, self.box_embeddings, self.image_embeddings)

    @classmethod
    def read(cls, folder: Folder) -> "Ledger":
        """The whole of a finished ledger, ordered by image id."""
        facts = read_facts(folder)
        void = void_rows(folder, facts.get("void", ""))
        tables = [_without(open_part(folder, part).read(), void.get(part)) for part in parts_of(facts)]
        table = pa.concat_tables(tables).sort_by("image_id").combine_chunks()
        failed = table.filter(pc.equal(table["status"], "error"))
        scored = table.filter(pc.equal(table["status"], "ok")).combine_chunks()
        return cls(
            image_ids=np.array(scored["image_id"].to_pylist(), dtype=object),
            offsets=offsets_of(scored["boxes"]),
            boxes=flat(scored["boxes"]),
            class_scores=flat(scored["class_scores"]),
            errors=dict(zip(failed["image_id"].to_pylist(), failed["error"].to_pylist(), strict=True)),
            facts=facts,
            **embeddings_of(scored),
        )


def map_parts(
    folder: Folder, facts: Mapping[str, Any], columns: Sequence[str], work: Callable[[pa.Table], Result]
) -> Iterator[Result]:
    """Reads the parts of a finished ledger and does `work` on each, a few at a time in threads.

    Rows that stand for no image of the pool any more are left out.

    Yields:
        What `work` gave, in the order of the parts; a few parts are in memory at once, whatever the ledger's size.
    """

    void = void_rows(folder, facts.get("void", ""))

    def read_and_work(part: int) -> Result:
        with open_part(folder, part) as file:
            try:
                table = file.read(columns=list(columns), use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise _unreadable(folder, part, error) from error
        return work(_without(table, void.get(part)))

    with ThreadPoolExecutor(_PARTS_AT_ONCE) as threads:
        parts = iter(parts_of(facts))
        waiting = deque(threads.submit(read_and_work, part) for part in islice(parts, 2 * _PARTS_AT_ONCE))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(threads.submit(read_and_work, part) for part in islice(parts, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()


def _without(table: pa.Table, rows: np.ndarray | None) -> pa.Table:
    return table if rows is None else table.take(np.delete(np.arange(len(table)), rows))


def offsets_of(column: pa.ChunkedArray) -> np.ndarray:
    """(N + 1,) int64: where the detections of each image begin and end in the flat arrays."""
    counts = pc.list_value_length(column).to_numpy()
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def flat(column: pa.ChunkedArray) -> np.ndarray:
    """(D, k) float32: the rows of all images one after the other."""
    width = column.type.value_type.list_size
    parts = [chunk.flatten().flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate([np.empty(0, np.float32), *parts]).reshape(-1, width)
