"""Groups of images that are nearly the same, from the embeddings of a finished ledger."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raylearn.data.storage import Folder, write_whole
from raylearn.errors import LedgerError
from raylearn.measures.near_duplicates import near_duplicates
from raylearn.measures.novelty import unit_vectors
from raylearn.scoring.embedding_columns import IMAGE_COLUMN, image_embeddings_of
from raylearn.scoring.ledger import map_parts, read_facts
from raylearn.strategies.options import check_range


@dataclass(frozen=True, repr=False)
class NearDuplicates:
    """Groups of images that are nearly the same.

    Args:
        groups: of two image ids or more, in order; the largest group first, equal ones by their first id.
        num_images: that were compared: those of the ledger that could be read.
        distance: at most so far apart are the images of a pair, in [0, 1].
    """

    groups: tuple[tuple[str, ...], ...]
    num_images: int
    distance: float

    @property
    def num_grouped(self) -> int:
        """Images that have a near-duplicate."""
        return sum(map(len, self.groups))

    def write(self, path: str | Path) -> None:
        """Writes a CSV file of image and group, numbered from 1: a table for the `group_by` of a query.

        Raises:
            InputError, StorageError: it cannot be written.
        """
        sheet = io.StringIO()
        writer = csv.writer(sheet)
        writer.writerow(("image", "group"))
        writer.writerows((image, number) for number, group in enumerate(self.groups, start=1) for image in group)
        write_whole(Path(path), sheet.getvalue().encode())

    def __str__(self) -> str:
        largest = max(map(len, self.groups), default=0)
        spare = self.num_grouped - len(self.groups)
        noun = "group" if len(self.groups) == 1 else "groups"
        told = f"{len(self.groups):,} {noun} of near-duplicates at distance {self.distance:g} or less"
        if not self.groups:
            return f"{told}, in {self.num_images:,} images"
        return (
            f"{told}: {self.num_grouped:,} of {self.num_images:,} images, {largest:,} in the largest group; "
            f"one image of each leaves {self.num_images - spare:,}"
        )

    __repr__ = __str__


def near_duplicates_of(
    folder: Folder, distance: float, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> NearDuplicates:
    """The groups of near-duplicates among the images of a finished ledger that could be read.

    Args:
        folder: of the ledger.
        distance: see `raylearn.measures.near_duplicates.near_duplicates`.
        progress: told how much of the comparing is done, of how much.

    Raises:
        LedgerError: no finished ledger, a damaged one, or one without embeddings.
        QueryError: a distance that is none.
    """
    check_range("distance", distance, 0, 1)
    facts = read_facts(folder)
    if not facts.get("settings", {}).get("embeddings"):
        raise LedgerError(
            f"{folder} holds no embeddings, by which near-duplicates are found: score with --embeddings into another"
        )
    ids: list[str] = []
    embeddings: list[np.ndarray] = []
    for names, found in map_parts(folder, facts, ("image_id", "status", IMAGE_COLUMN), _readable):
        ids.extend(names)
        embeddings.append(found)
    # by id, so that neither the order of the parts nor that of the clusters decides anything
    order = sorted(range(len(ids)), key=ids.__getitem__)
    vectors = unit_vectors(np.concatenate(embeddings)[order])
    embeddings.clear()
    roots = near_duplicates(vectors, distance, progress)
    groups: dict[int, list[str]] = {}
    has_another = np.bincount(roots, minlength=len(roots))[roots] > 1
    for position in np.flatnonzero(has_another).tolist():
        groups.setdefault(int(roots[position]), []).append(ids[order[position]])
    ranked = sorted(map(tuple, groups.values()), key=lambda group: (-len(group), group[0]))
    return NearDuplicates(tuple(ranked), len(ids), distance)


def _readable(table: pa.Table) -> tuple[list[str], np.ndarray]:
    kept = table.filter(pc.equal(table["status"], "ok"))
    return kept["image_id"].to_pylist(), image_embeddings_of(kept[IMAGE_COLUMN])
