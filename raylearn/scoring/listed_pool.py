"""Which listing of its pool a pass goes by: the one it was begun with, a new one, or an update of it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from raylearn.data.endings import by_ending
from raylearn.data.storage import Folder, redacted
from raylearn.errors import LedgerError
from raylearn.progress import doing, steps
from raylearn.scoring.freezing import Frozen, freeze
from raylearn.scoring.ledger import finished_parts
from raylearn.scoring.listing import freeze_pool
from raylearn.scoring.manifest import MANIFEST_FILE
from raylearn.scoring.pass_record import Record
from raylearn.scoring.progress import say
from raylearn.scoring.request import ScoreRequest, source_of
from raylearn.scoring.updating import (
    Listings,
    begin_update,
    changes_between,
    only_new,
    read_listings,
    rows_before,
)
from raylearn.wording import counted

SOURCE_FILE = "pool.json"


@dataclass(frozen=True)
class Listed:
    """The pool of a pass.

    Args:
        listings: of the pass.
        fresh: the files of its only listing, where they are to be written into the pass's folder.
    """

    listings: Listings
    fresh: Frozen | None

    def put_into(self, folder: Folder, request: ScoreRequest) -> None:
        """Writes what the folder of the pass lacks."""
        if self.fresh is not None:
            self.fresh.put_into(folder)
            _write_source(folder, request)


def first_listing(request: ScoreRequest, place: Path, console: Console) -> Listed:
    """Of a pass that begins; its files are put aside in `place`."""
    fresh = _list(request, place, console, request.part_size)
    return Listed(Listings(((0, fresh.num_images, fresh.part_size),), fresh.hash()), fresh)


def listing_of(request: ScoreRequest, folder: Folder, there: Record, place: Path, console: Console) -> Listed:
    """Of a pass that was begun.

    It goes by the list it was begun with, and nobody lists the pool again, unless an update is asked for, the pool is
    another one, or the list is not there. Another pool of the same images, such as one that was moved, goes on.

    Raises:
        LedgerError: the pool is another one, with other images.
    """
    listings = read_listings(folder, there)
    begun_with, asked = _source(folder), source_of(request)
    same_pool = begun_with == asked and set(listings.file_names) <= folder.sizes().keys()
    if same_pool and not request.update:
        known = f"{redacted(request.pool)}: {counted(listings.num_rows, 'image')}, as it was listed before"
        say(console, f"{known}; --update lists it again, for images that are new, changed or gone")
        return Listed(listings, None)
    now = _list(request, place, console, there["part_size"] if not listings.number else None)
    if now.hash() == listings.hash:
        if begun_with != asked and listings.number:
            before = redacted(str((begun_with or {}).get("pool")))
            raise LedgerError(f"{folder} was updated from {before}: give that pool, or another folder with --out")
        if request.update:
            say(console, "nothing changed since it was listed")
        return Listed(listings, None if listings.number else now)
    done = set(finished_parts(folder)).intersection(listings.parts)
    if not request.update:
        parts = listings.parts
        changes = changes_between(_rows_there(folder, listings, parts), now, listings.num_rows)
        raise LedgerError(
            f"the pool is not what {folder} was begun with: {changes.in_words}; give another folder with --out, the "
            "pool as it was, or --update to score what is new or changed"
        )
    with doing("comparing the pool with its last list"):
        changes = changes_between(_rows_there(folder, listings, sorted(done)), now, listings.num_rows)
    say(console, f"since it was listed: {changes.in_words}")
    (place / "new").mkdir()
    new = freeze(only_new(now, changes), place / "new", request.part_size, start=listings.end)
    _write_source(folder, request)
    return Listed(begin_update(folder, listings, new, changes, done), None)


def _rows_there(folder: Folder, listings: Listings, parts: list[int]) -> Iterable[tuple[int, np.ndarray, pa.Table]]:
    try:
        yield from rows_before(folder, listings, parts)
    except FileNotFoundError as error:
        raise LedgerError(f"{folder} has lost a file of its {MANIFEST_FILE}: give another folder with --out") from error


def _list(request: ScoreRequest, place: Path, console: Console, part_size: int | None) -> Frozen:
    with doing(f"listing {redacted(request.pool)}"):
        frozen, left_out = freeze_pool(
            request.pool,
            place,
            root=Path(request.root) if request.root is not None else None,
            limit=request.limit,
            shuffle_seed=request.shuffle_seed,
            part_size=part_size,
            progress=partial(steps, "image"),
            tell=lambda note: say(console, f"note: {note}"),
        )
    others = f", {left_out.total()} other or hidden files left out ({by_ending(left_out)})" if left_out else ""
    say(console, f"{redacted(request.pool)}: {counted(frozen.num_images, 'image')}{others}")
    return frozen


def _write_source(folder: Folder, request: ScoreRequest) -> None:
    folder.replace(SOURCE_FILE, json.dumps(source_of(request), indent=1, sort_keys=True).encode())


def _source(folder: Folder) -> dict[str, Any] | None:
    """What the last listing of a pass was of; None where it does not say."""
    try:
        source = json.loads(folder.read(SOURCE_FILE) or b"null")
    except ValueError:
        return None
    return source if isinstance(source, dict) else None
