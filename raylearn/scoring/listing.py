"""What a pool is: a folder, a glob, a list or a prefix in an object store becomes a manifest."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypedDict, Unpack

import pyarrow as pa

from raylearn.data.endings import by_ending
from raylearn.data.storage import reason_of, redacted
from raylearn.errors import PoolError
from raylearn.measures.sampling import seeded_hashes
from raylearn.scoring.freezing import Frozen, freeze, put_aside, refuse_ids_twice
from raylearn.scoring.manifest import FIRST_SPAN, SCHEMA, Manifest, Span
from raylearn.scoring.spill import Buckets
from raylearn.scoring.walks import IMAGE_ENDINGS, Listing, own_root, walk

_BATCH = 4096


class Choices(TypedDict, total=False):
    """What can be said of a listing beside its pool; see `freeze_pool`."""

    root: Path | None
    limit: int | None
    shuffle_seed: int | None
    part_size: int | None
    progress: Callable[[int], None]
    tell: Callable[[str], None]


def list_pool(pool: str, **choices: Unpack[Choices]) -> tuple[Manifest, Counter[str]]:
    """Lists a pool that fits into memory; for arguments and errors see `freeze_pool`.

    Returns:
        The manifest, and how many files of each ending were left out.
    """
    with tempfile.TemporaryDirectory(prefix="raylearn-listing-") as name, put_aside(Path(name)):
        frozen, left_out = freeze_pool(pool, Path(name), **choices)
        return Manifest(pa.concat_tables(frozen.tables()), frozen.span.part_size), left_out


def freeze_pool(
    pool: str,
    directory: Path,
    *,
    root: Path | None = None,
    limit: int | None = None,
    shuffle_seed: int | None = None,
    part_size: int | None = None,
    span: Span = FIRST_SPAN,
    progress: Callable[[int], None] = lambda _: None,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Frozen, Counter[str]]:
    """Lists a pool of any size into the files of a manifest; memory does not grow with the pool.

    A folder is walked with everything below it; hidden files and folders, and files whose ending is no image's, are
    left out. HEIC counts as an image where pillow-heif is installed. Links are followed within `root`, and what can be
    reached in several ways is listed once. A list is a text file with a path or address per line, or a CSV or Parquet
    file with a column uri (or path, image, file_name) and, if wanted, image_id and content_hash; its relative paths
    start at its own folder, and those that lead nowhere, with backslashes or of another machine, are read where they
    can mean one image only. Image ids are paths below the folder or prefix, or a list's own ids, or its paths.

    Args:
        pool: a folder, a glob such as 'camera-*/**/*.jpg', a list, or a prefix such as s3://bucket/images.
        directory: an empty one on a disk, for the files and what has to be put aside.
        root: the folder that local files may be read from; by default the pool's own.
        limit: images at most: the first ones, or those that the seed puts first.
        shuffle_seed: puts the images in a random order that depends on seed and ids alone.
        part_size, span: of the manifest; see `freeze`.
        progress: told how many images have been found so far.
        tell: told of paths that were read otherwise than they are written.

    Returns:
        The manifest's files, and how many files of each ending were left out.

    Raises:
        PoolError: nothing there, no images in it, a file outside of the root, a folder that cannot be listed, a list
            that cannot be read, or an image id that is listed twice.
        StorageError: an object store that does not answer.
        OSError: the directory cannot be written to; see `put_aside`.
    """
    try:
        if root is not None and not root.is_dir():
            raise PoolError(f"root {root} is not a folder: give one that holds the images")
        listing = Listing(root or own_root(pool))
    except (OSError, ValueError) as error:  # a name too long, or with a NUL in it
        raise PoolError(f"pool {redacted(pool)} cannot be read: {reason_of(error)}") from error
    rows = _rows(pool, listing, None if shuffle_seed is not None else limit, progress)
    if shuffle_seed is not None:
        (directory / "listed").mkdir()
        frozen = freeze(rows, directory / "listed", part_size)
        frozen = freeze(_shuffled(frozen, shuffle_seed, limit), directory, part_size, span)
    else:
        frozen = freeze(rows, directory, part_size, span)
    if not frozen.num_images:
        others = f", only {listing.left_out.total()} other files" if listing.left_out else ""
        pictures = by_ending(listing.left_out, pictures_only=True)
        raise PoolError(
            f"no images in {redacted(pool)}{others}: endings of images are {' '.join(sorted(IMAGE_ENDINGS))}"
            f"{'; ' if pictures else ''}{pictures}"
        )
    for note in listing.rewritten.notes() if listing.rewritten else ():
        tell(note)
    if listing.may_repeat:
        refuse_ids_twice(frozen)
    return frozen, listing.left_out


def _rows(pool: str, listing: Listing, limit: int | None, progress: Callable[[int], None]) -> Iterator[pa.Table]:
    found, count = islice(walk(pool, listing), limit), 0
    while batch := list(islice(found, _BATCH)):
        yield pa.table([pa.array(column, pa.string()) for column in zip(*batch, strict=True)], schema=SCHEMA)
        count += len(batch)
        progress(count)


def _shuffled(frozen: Frozen, seed: int, limit: int | None) -> Iterator[pa.Table]:
    buckets = Buckets(frozen.directory, "shuffled", SCHEMA, frozen.num_images)
    for table in frozen.tables():
        buckets.add(table, seeded_hashes(table["image_id"].to_pylist(), seed, "pool order"))
    left = frozen.num_images if limit is None else limit
    for bucket in buckets:
        hashes = seeded_hashes(bucket["image_id"].to_pylist(), seed, "pool order")
        table = bucket.take(hashes.argsort(kind="stable")[:left])
        yield table
        left -= len(table)
        if not left:
            return
