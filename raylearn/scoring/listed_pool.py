"""Which listing of its pool a pass goes by: the one it was begun with, a new one, or an update of it."""

import json
import uuid
from collections.abc import Iterable, Mapping
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
from raylearn.scoring.freezing import Frozen, freeze, put_aside
from raylearn.scoring.ledger import finished_parts, unopened_rows, void_rows
from raylearn.scoring.listing import freeze_pool
from raylearn.scoring.manifest import FIRST_SPAN, Span
from raylearn.scoring.pass_record import Record
from raylearn.scoring.progress import say
from raylearn.scoring.request import ScoreRequest, source_of
from raylearn.scoring.updating import (
    Listings,
    Update,
    changes_between,
    only_new,
    read_listings,
    rows_before,
    update_of,
)
from raylearn.wording import counted

SOURCE_FILE = "pool.json"


@dataclass(frozen=True)
class Listed:
    """The pool of a pass.

    Args:
        listings: of the pass.
        fresh: what is still to be written into its folder: the files of its first listing, or an update.
    """

    listings: Listings
    fresh: Frozen | Update | None = None

    def put_into(self, folder: Folder, request: ScoreRequest) -> None:
        """Writes what the folder of the pass lacks."""
        if isinstance(self.fresh, Update):
            self.fresh.begin(folder)
        elif self.fresh is not None:
            self.fresh.put_into(folder)
            folder.replace(SOURCE_FILE, json.dumps(source_of(request), indent=1, sort_keys=True).encode())


def first_listing(request: ScoreRequest, place: Path, console: Console) -> Listed:
    """Of a pass that begins; its files are put aside in `place`."""
    with put_aside(place):
        fresh = _list(request, place, console, None)
        return Listed(Listings((fresh.span,), fresh.hash()), fresh)


def listing_of(request: ScoreRequest, folder: Folder, there: Record, place: Path, console: Console) -> Listed:
    """Of a pass that was begun.

    It goes by the list it was begun with, and nobody lists the pool again, unless an update is asked for, the pool is
    another one, or the list is not there. Another pool of the same images, such as one that was moved, goes on, but for
    a pass that was updated.

    Raises:
        LedgerError: the pool is another one, with other images; or an update of another pool.
        StorageError: `place` cannot be used.
    """
    listings, asked = read_listings(folder, there), source_of(request)
    begun_with = listings.source or _source(folder)
    same_pool = begun_with == asked and set(listings.file_names) <= folder.sizes().keys()
    if same_pool and not request.update:
        images = counted(listings.num_rows - listings.num_void, "image")
        say(
            console,
            f"{redacted(request.pool)}: {images}, as it was listed before; --update lists it again, for images that "
            "are new, changed or gone",
        )
        return Listed(listings)
    if begun_with and begun_with["pool"] != asked["pool"] and (request.update or listings.number):
        raise LedgerError(
            f"{folder} is of the pool {redacted(str(begun_with['pool']))}: an update lists the same pool again, so "
            "give that one, or another folder with --out"
        )
    with put_aside(place):
        return _compared(request, folder, listings, place, console)


def _compared(request: ScoreRequest, folder: Folder, listings: Listings, place: Path, console: Console) -> Listed:
    """By what the pool is now."""
    # where it turns out to be the same, its files take the place of those of the only listing
    now = _list(request, place, console, None if listings.number else listings.spans[0])
    done = set(finished_parts(folder)).intersection(listings.parts)
    # rows that stand for no image are in no listing: a part of such rows that was lost can only be abandoned
    void = void_rows(folder, listings.void)
    lost = void.keys() - done
    unopened = unopened_rows(folder, sorted(done), void) if request.update else {}
    if now.hash() == listings.hash and not lost and not unopened:
        if request.update:
            say(console, "nothing changed since it was listed")
        return Listed(listings, None if listings.number else now)
    parts = sorted(done) if request.update else listings.parts
    with doing("comparing the pool with its last list"):
        before = _rows_there(folder, listings, parts, unopened)
        changes = changes_between(before, now, listings.num_rows)
    if not request.update:
        raise LedgerError(
            f"the pool is not what {folder} was begun with: {changes.in_words}; give another folder with --out, the "
            "pool as it was, or --update to score what is new or changed"
        )
    unfinished = "" if len(done) == len(listings.parts) else ", counting as added what was listed and not scored yet"
    say(console, f"since it was listed: {changes.in_words}{unfinished}")
    (place / "new").mkdir()
    span = Span(listings.end, suffix=uuid.uuid4().hex[:8])
    new = freeze(only_new(now, changes), place / "new", request.part_size, span)
    update = update_of(folder, listings, changes, new, done, source_of(request))
    return Listed(update.updated, update)


def _rows_there(
    folder: Folder, listings: Listings, parts: list[int], again: Mapping[int, np.ndarray]
) -> Iterable[tuple[int, np.ndarray, pa.Table]]:
    try:
        yield from rows_before(folder, listings, parts, again)
    except FileNotFoundError as error:
        raise LedgerError(
            f"{folder} has lost {error}, which lists its images: give another folder with --out"
        ) from error


def _list(request: ScoreRequest, place: Path, console: Console, like: Span | None) -> Frozen:
    """The pool as it is now; cut into parts and files as an earlier listing, or as is asked for."""
    with doing(f"listing {redacted(request.pool)}"):
        frozen, left_out = freeze_pool(
            request.pool,
            place,
            root=Path(request.root) if request.root is not None else None,
            limit=request.limit,
            shuffle_seed=request.shuffle_seed,
            part_size=like.part_size if like else request.part_size,
            span=like or FIRST_SPAN,
            progress=partial(steps, "image"),
            tell=lambda note: say(console, f"note: {note}"),
        )
    others = f", {left_out.total()} other or hidden files left out ({by_ending(left_out)})" if left_out else ""
    say(console, f"{redacted(request.pool)}: {counted(frozen.num_images, 'image')}{others}")
    return frozen


def _source(folder: Folder) -> dict[str, Any] | None:
    """What the last listing of a pass was of; None where it does not say."""
    try:
        source = json.loads(folder.read(SOURCE_FILE) or b"null")
    except ValueError:
        return None
    return source if isinstance(source, dict) else None
