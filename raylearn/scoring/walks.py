"""Walks over pools: the images below a folder or prefix, of a glob or in a list, one by one."""

import fnmatch
import glob
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from raylearn.data.endings import HEIF_ENDINGS, ending_of
from raylearn.data.images import heif_is_installed
from raylearn.data.places import Rewritten, found_elsewhere
from raylearn.data.records import Folder, quoted
from raylearn.data.storage import (
    concerns_one_name,
    local_path,
    open_file_system,
    percent_encoded,
    reason_of,
    redacted,
    refuse_credentials,
)
from raylearn.errors import PoolError, StorageError
from raylearn.scoring.pool_lists import LIST_ENDINGS, read_list

_FOLDERS_AT_ONCE = 16
IMAGE_ENDINGS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .bmp .tif .tiff .webp .gif .jp2 .j2k .avif".split()  # noqa: SIM905
)


class Found(NamedTuple):
    """One image of a pool; see Manifest for the fields, in the order of its columns."""

    image_id: str
    uri: str
    content_hash: str = ""
    version: str = ""


@dataclass
class Listing:
    """A walk over a pool.

    Args:
        root: no local file outside of this folder is listed, by whatever link, `../` or absolute path.
        left_out: files of each ending that were left out: no image by their ending, or hidden.
        rewritten: paths of a list that were read otherwise than they are written.
        may_repeat: whether two images may have one id, which paths below one folder never have.
    """

    root: Path
    left_out: Counter[str] = field(default_factory=Counter)
    rewritten: Rewritten | None = None
    may_repeat: bool = False
    _real_root: str = field(init=False)

    def __post_init__(self) -> None:
        self._real_root = os.path.realpath(self.root)

    def leave_out(self, name: str) -> None:
        """Counts a file that is not listed."""
        self.left_out[ending_of(name)] += 1

    def allow(self, path: str, where: str) -> str:
        """The real path of a file or folder; PoolError where it lies outside of the root."""
        real = os.path.join(_real_folder(os.path.dirname(path)), os.path.basename(path))
        if os.path.islink(real):
            real = os.path.realpath(real)
        if real != self._real_root and not real.startswith(self._real_root.rstrip("/") + "/"):
            raise PoolError(f"{where} leads out of {self.root}, to {real}: remove it, or allow that with --root DIR")
        return real


@lru_cache(maxsize=4096)
def _real_folder(path: str) -> str:
    return os.path.realpath(path)


def walk(pool: str, listing: Listing) -> Iterator[Found]:
    """The images of a pool, one by one; see `raylearn.scoring.listing.list_pool`.

    Raises:
        PoolError: nothing there, a file outside of the root, or a folder or list that cannot be read.
        StorageError: an object store that does not answer.
    """
    refuse_credentials(pool)
    path = local_path(pool)
    if path is None:
        return _walk_prefix(pool, listing)
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError) and glob.has_magic(path):
            return _walk_glob(path, listing)
        raise PoolError(
            f"pool {pool} cannot be read: {reason_of(error)}; give a folder, glob, list or address"
        ) from error
    if stat.S_ISDIR(mode):
        return _walk_folder(path, listing)
    ending = Path(path).suffix.lower()
    if ending not in LIST_ENDINGS:
        raise PoolError(f"pool {pool} is neither a folder nor a list: a list ends in {', '.join(LIST_ENDINGS)}")
    return _walk_list(Path(path), ending, listing)


def own_root(pool: str) -> Path:
    """The folder that the local files of a pool are read from where no other is given."""
    path = Path(local_path(pool) or ".")
    if path.is_dir():
        return path
    return path.parent if path.exists() else Path(_glob_root(str(path)))


def _glob_root(pattern: str) -> str:
    steady = []
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        steady.append(part)
    return os.path.join(*steady) if steady else "."


def _walk_folder(top: str, listing: Listing) -> Iterator[Found]:
    base = os.path.abspath(top)
    real_base = os.path.realpath(base)
    seen_through_links: set[str] = set()  # targets of links, and folders below them
    waiting = [(base, "", False)]
    while waiting:
        folder, prefix, through_link = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise PoolError(
                f"folder {folder} cannot be listed: {reason_of(error)}; allow it, or leave it out"
            ) from error
        deeper = []
        for entry in inside:
            if entry.name.startswith("."):
                listing.leave_out(entry.name)
                continue
            is_link = entry.is_symlink()
            # not entry.is_dir() of a link: it raises where the link leads to itself
            is_folder = os.path.isdir(entry.path) if is_link else entry.is_dir()
            if is_link or through_link:
                real = listing.allow(entry.path, f"link {entry.path}")
                if real in seen_through_links or _has_own_entry(real, real_base):
                    continue
                above = os.path.dirname(real)
                if is_link and above in seen_through_links and _has_own_entry(real, above):
                    continue
                if is_link or is_folder:
                    seen_through_links.add(real)
            if is_folder:
                deeper.append((entry.path, f"{prefix}{entry.name}/", is_link or through_link))
            elif _is_image(entry.name):
                yield _local(listing, f"{prefix}{entry.name}", entry.path)
            else:
                listing.leave_out(entry.name)
        waiting.extend(reversed(deeper))


def _has_own_entry(real: str, base: str) -> bool:
    """Whether the target of a link comes up in the walk of `base` under its own name."""
    if real != base and not real.startswith(base.rstrip("/") + "/"):
        return False
    hidden = any(part.startswith(".") for part in os.path.relpath(real, base).split("/") if part != ".")
    return not hidden and (os.path.isdir(real) or (os.path.isfile(real) and _is_image(real)))


def _walk_glob(pattern: str, listing: Listing) -> Iterator[Found]:
    root = os.path.abspath(_glob_root(pattern))
    seen: set[str] = set()
    parts = Path(os.path.abspath(pattern)).parts
    for match in sorted(_matches(parts[0], parts[1:], set())):
        if not _is_image(match):
            listing.leave_out(match)
            continue
        real = listing.allow(match, match)
        if real not in seen:
            seen.add(real)
            yield _local(listing, os.path.relpath(match, root), match)


def _matches(folder: str, parts: Sequence[str], seen: set[tuple[str, int]]) -> Iterator[str]:
    """The files below a folder that a glob matches; `seen`, because glob's own `**` goes around in loops of links."""
    state = (os.path.realpath(folder), len(parts))
    if state in seen:
        return
    seen.add(state)
    name, rest = parts[0], parts[1:]
    if name == "**" and rest:
        yield from _matches(folder, rest, seen)
    for match in _entries(folder, "*" if name == "**" else name):
        path = os.path.join(folder, match)
        if os.path.isdir(path):
            if name == "**" or rest:
                yield from _matches(path, parts if name == "**" else rest, seen)
        elif not rest:
            yield path


def _entries(folder: str, pattern: str) -> list[str]:
    """Names in a folder that a pattern matches, as a shell has it: a hidden one is to be named as such."""
    if not glob.has_magic(pattern):
        return [pattern] if os.path.lexists(os.path.join(folder, pattern)) else []
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise PoolError(f"folder {folder} cannot be listed: {reason_of(error)}; allow it, or leave it out") from error
    matching = fnmatch.filter(names, pattern)
    return sorted(name for name in matching if pattern.startswith(".") or not name.startswith("."))


def _walk_prefix(address: str, listing: Listing) -> Iterator[Found]:

    base, mark, options = address.partition("?")
    scheme, _, rest = base.partition("://")
    bucket = rest.partition("/")[0]
    try:
        file_system, top = open_file_system(address)
        top = top.rstrip("/")
        for info in _below(file_system, top):
            if info.base_name.startswith(".") or not _is_image(info.base_name):
                listing.leave_out(info.base_name)
                continue
            key = info.path.removeprefix(bucket + "/")
            yield Found(
                image_id=info.path.removeprefix(top + "/"),
                uri=f"{scheme}://{bucket}/{percent_encoded(key)}{mark}{options}",
                version=f"{info.size}-{info.mtime_ns}",
            )
    except (OSError, ValueError) as error:
        kind = PoolError if concerns_one_name(error) else StorageError
        raise kind(f"pool {redacted(address)} cannot be listed: {reason_of(error)}") from error


def _below(file_system: Any, top: str) -> Iterator[Any]:
    """What is in a folder of a store, then what is in each folder in it; the next folders are asked for meanwhile."""
    from pyarrow import fs

    waiting, asked = [top], {}
    with ThreadPoolExecutor(_FOLDERS_AT_ONCE, thread_name_prefix="list") as threads:
        try:
            while waiting:
                for folder in reversed(waiting[-_FOLDERS_AT_ONCE:]):
                    if folder not in asked:
                        asked[folder] = threads.submit(file_system.get_file_info, fs.FileSelector(folder))
                inside = sorted(asked.pop(waiting.pop()).result(), key=lambda info: str(info.path))
                folders = [info.type == fs.FileType.Directory and not info.base_name.startswith(".") for info in inside]
                waiting += [info.path for info in reversed(list(compress(inside, folders)))]
                yield from (info for info, is_folder in zip(inside, folders, strict=True) if not is_folder)
        finally:
            for future in asked.values():
                future.cancel()


def _walk_list(path: Path, ending: str, listing: Listing) -> Iterator[Found]:
    listing.rewritten, folder = Rewritten(path), Folder(listing.root, None)
    listing.may_repeat = True
    for row in read_list(path, ending):
        refuse_credentials(row.uri)
        inside = local_path(row.uri)
        if inside is None:
            yield Found(row.image_id or row.uri, row.uri, row.content_hash)
            continue
        image_id, inside = row.uri, os.path.abspath(path.parent / inside)
        try:
            if not os.path.lexists(inside):
                other, ambiguity = found_elsewhere(row.uri, [path.parent], folder)
                if ambiguity:
                    raise PoolError(f"{path}:{row.line}: {quoted(row.uri)} {ambiguity}")
                if other is not None:
                    image_id, inside = os.path.relpath(other, path.parent), os.path.abspath(other)
                    listing.rewritten.add(row.uri, other)
            listing.allow(inside, f"{path}:{row.line}: {row.uri}")
            found = _local(listing, row.image_id or image_id, inside, row.content_hash)
        except (OSError, ValueError) as error:  # a name with a NUL in it
            raise PoolError(f"list {path} cannot be read: line {row.line}: {reason_of(error)}") from error
        yield found


def _is_image(name: str) -> bool:
    ending = os.path.splitext(name)[1].lower()
    return ending in IMAGE_ENDINGS or (ending in HEIF_ENDINGS and heif_is_installed())


def _local(listing: Listing, image_id: str, path: str, content_hash: str = "") -> Found:
    try:
        status = os.stat(path)
        version = f"{status.st_size}-{status.st_mtime_ns}"
    except OSError:
        version = ""  # reading it will say what is wrong
    try:
        path.encode()
        image_id.encode()
    except UnicodeEncodeError:  # a name that is not UTF-8: kept, byte by byte, in the form of an address
        listing.may_repeat = True
        return Found(
            quote(os.fsencode(image_id), safe="/ "), "file://" + quote(os.fsencode(path)), content_hash, version
        )
    return Found(image_id, path, content_hash, version)
