"""Where bytes lie: on a disk, or at an address that pyarrow's file systems open (s3, gs and others)."""

import errno
import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import unquote_to_bytes

from raylearn.data.s3 import OPTIONS, Bucket, Objects, UnsupportedError
from raylearn.errors import InputError, RaylearnError, StorageError

_OTHER_OPTION = re.compile(rf"([?&](?!(?:{'|'.join(OPTIONS)})=)[\w-]+=)[^&\s'\"]+")
_OPENING = Lock()  # or many threads would open the same bucket at once
_UNFINISHED = ".unfinished"
_OF_ONE_NAME = frozenset(
    {errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}
    | {errno.ENOENT, errno.ENXIO, errno.EROFS}
)
_OF_A_STORE = re.compile(r"AWS Error|google::cloud|curlCode")
_MAY_PASS = re.compile(
    r"NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|THROTTLING|REQUEST_TIMEOUT|curlCode"
    r"|HTTP status (?:408|429|5\d\d)|google::cloud::Status\((?:UNAVAILABLE|DEADLINE_EXCEEDED|INTERNAL)"
)
_CREDENTIALS = re.compile(r"//(?:[^/@\s]*|[^/@\s:]+:(?!\d*/)[^@\s]*)@")  # a secret may hold slashes; host:port/ is none


def scheme_of(uri: str) -> str | None:
    """The scheme of an address such as s3://bucket/key, or None for a local path, which is taken as it is."""
    scheme, separator, _ = uri.partition("://")
    return scheme if separator and _is_scheme(scheme) else None


@lru_cache(maxsize=64)  # lists have millions of addresses, of one scheme
def _is_scheme(text: str) -> bool:
    return re.fullmatch(r"[a-z][a-z0-9+.-]*", text) is not None


def local_path(uri: str) -> str | None:
    """The path that a plain path or a file:// address names; None for any other address."""
    scheme = scheme_of(uri)
    if scheme is None:
        return uri
    if scheme != "file":
        return None
    path = uri.partition("://")[2].partition("?")[0].partition("/")[2]
    return "/" + os.fsdecode(unquote_to_bytes(path))


def percent_encoded(key: str) -> str:
    """A key as it stands in an address: only what an address would misread is encoded."""
    return re.sub(r"[%?#\x00-\x1f]", lambda found: f"%{ord(found.group()):02X}", key)


def redacted(text: str) -> str:
    """The text without what may be secret in an address: s3://key:secret@bucket, or an option that is not known."""
    return _OTHER_OPTION.sub(r"\1***", _CREDENTIALS.sub("//***@", text))


def reason_of(error: BaseException) -> str:
    """What an operating system's or a file system's error says, in one line and without credentials."""
    if isinstance(error, UnicodeDecodeError):
        return f"not valid UTF-8 at byte {error.start}: save it as UTF-8"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return redacted(" ".join(text.split())) or type(error).__name__


def concerns_one_name(error: BaseException) -> bool:
    """Whether an error says something of the one file or folder that was named.

    Any other, such as a mount that went away, a failing disk, too many open files or a store that does not answer, says
    nothing of the file: asked again, it may be fine.
    """
    return not isinstance(error, OSError) or error.errno in _OF_ONE_NAME


def is_damage(error: BaseException) -> bool:
    """Whether pyarrow, reading Parquet, met broken bytes, and not a disk or store that does not give them."""
    return not isinstance(error, OSError) or (error.errno is None and not _OF_A_STORE.search(str(error)))


def storage_error(message: str, error: BaseException) -> StorageError:
    """The error to raise for a file system's own; it may pass where a store does not answer."""
    return StorageError(message, may_pass=_MAY_PASS.search(str(error)) is not None)


def not_writable(what: object, error: BaseException) -> RaylearnError:
    """The error to raise where `what` cannot be written: the user's where the name is at fault, else the disk's."""
    kind = InputError if concerns_one_name(error) else StorageError
    return kind(f"{what} cannot be written: {reason_of(error)}; give another with --out")


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file that was asked for by name, at once; an old one stays until then.

    Raises:
        InputError, StorageError: it cannot be written.
    """
    try:
        temporary = _write_aside(path.parent, path.name, data)
        try:
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise not_writable(path, error) from error


def open_file_system(address: str) -> tuple[Any, str]:
    """pyarrow's file system of an address with a scheme, and the path in it.

    Raises:
        ValueError, OSError: pyarrow's own, for an address it cannot open.
    """
    scheme, bucket, key, options = _parts_of(address)
    # Kept by bucket: to open S3 anew asks the network for the bucket's region, once for every image.
    with _OPENING:
        file_system, root = _file_system(scheme, bucket, options)
    return file_system, f"{root}/{key}" if key else root


def _parts_of(address: str) -> tuple[str, str, str, str]:
    """Scheme, bucket, key and options."""
    scheme, _, rest = address.partition("://")
    path, _, options = rest.partition("?")
    bucket, _, key = path.partition("/")
    return scheme, bucket, unquote_to_bytes(key).decode(errors="surrogateescape"), options


def read_address(address: str) -> bytes:
    """All bytes of a file, at a local path or an address.

    Raises:
        ValueError, OSError: the file system's own.
    """
    path = local_path(address)
    if path is not None:
        # a named pipe would make a plain open wait for a writer
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            return file.read()
    objects, key = _objects_of(address)
    if objects is not None:
        return objects.read(key)
    file_system, path = open_file_system(address)
    # Two requests of S3, one for the size and one for all bytes: a stream asks for each 256 KiB after the other.
    with file_system.open_input_file(path) as file:
        return bytes(file.readall())


@lru_cache(maxsize=64)
def _file_system(scheme: str, bucket: str, options: str) -> tuple[Any, str]:
    from pyarrow import fs

    if scheme != "s3" or "@" in bucket:
        try:
            file_system, root = fs.FileSystem.from_uri(f"{scheme}://{bucket}" + (f"?{options}" if options else ""))
        except NotImplementedError as error:  # a file system that this pyarrow was built without
            raise ValueError(str(error)) from error
        return file_system, root
    return Bucket.of(bucket, options).file_system(), bucket


def _objects_of(address: str) -> tuple[Objects | None, str]:
    """What reads and writes whole objects of a bucket, where there is such a thing, and the key of the address."""
    scheme, bucket, key, options = _parts_of(address)
    if scheme != "s3":
        return None, key
    with _OPENING:
        return _opened_objects(bucket, options), key


@lru_cache(maxsize=64)
def _opened_objects(bucket: str, options: str) -> Objects | None:
    return Bucket.of(bucket, options).objects()


def forget_buckets() -> None:
    """Opens them anew, where the environment says something else by now."""
    _file_system.cache_clear()
    _opened_objects.cache_clear()


@dataclass(frozen=True)
class Folder:
    """A folder of files that are written once, each whole or absent; on a disk or at an address.

    On a disk a file is written aside and linked under its name; at an address it is put with one request. A file that
    is there stays as it is, so a writer that comes late changes nothing. (On a disk without hard links, and at an
    address that is not S3 by botocore or whose store knows no conditions, two that write the same name in the same
    moment may both do so, and the last one stays.)

    Args:
        address: a local path or an address with a scheme.
    """

    address: str

    @classmethod
    def at(cls, address: str | Path) -> "Folder":
        """Makes the folder where it is not there.

        Raises:
            InputError: it cannot be a folder to write in, or the address holds credentials.
            StorageError: the disk fails.
        """
        folder = cls(str(address))
        refuse_credentials(folder.address)
        path = local_path(folder.address)
        try:
            if path is None:
                open_file_system(folder.address)
            else:
                Path(path).mkdir(parents=True, exist_ok=True)
                folder = cls(str(Path(path).resolve()))  # workers have working directories of their own
        except (OSError, ValueError, RuntimeError) as error:  # a loop of links is a RuntimeError
            raise not_writable(folder, error) from error
        return folder

    def __str__(self) -> str:
        return redacted(self.address)

    @property
    def path(self) -> Path | None:
        """Where it is on a disk, or None."""
        path = local_path(self.address)
        return None if path is None else Path(path)

    def address_of(self, name: str) -> str:
        """Where a file of this folder is, as `raylearn.data.images.read_bytes` takes it."""
        base, mark, options = self.address.partition("?") if self.path is None else (self.address, "", "")
        return f"{base.rstrip('/')}/{name}{mark}{options}"

    def below(self, name: str) -> "Folder":
        """A folder in this one; on a disk it may not be there yet."""
        return Folder(self.address_of(name))

    def open(self, name: str) -> Any:
        """A file for pyarrow to read at random.

        Raises:
            FileNotFoundError: it is not there.
            StorageError: it cannot be read.
        """
        import pyarrow as pa

        try:
            if self.path is not None:
                return pa.OSFile(str(self.path / name))
            file_system, root = open_file_system(self.address)
            return file_system.open_input_file(f"{root.rstrip('/')}/{name}")
        except FileNotFoundError:
            raise
        except (NotADirectoryError, ValueError) as error:
            raise InputError(f"{self} is no folder that can be read: {reason_of(error)}") from error
        except OSError as error:
            raise storage_error(f"{self}/{name} cannot be read: {reason_of(error)}", error) from error

    def read(self, name: str) -> bytes | None:
        """The content of a file, or None where it is not there."""
        try:
            with self.open(name) as file:
                return bytes(file.read())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(f"{self}/{name} cannot be read: {reason_of(error)}", error) from error

    def sizes(self) -> dict[str, int]:
        """Name -> bytes of every finished file."""
        from pyarrow import fs

        try:
            if self.path is not None:
                with os.scandir(self.path) as entries:
                    # what is still being written may be gone before it can be looked at
                    finished = [entry for entry in entries if not entry.name.startswith(".")]
                    found = {entry.name: entry.stat().st_size for entry in finished if entry.is_file()}
            else:
                file_system, root = open_file_system(self.address)
                infos = file_system.get_file_info(fs.FileSelector(root, allow_not_found=True))
                found = {info.base_name: info.size for info in infos if info.type == fs.FileType.File}
        except (OSError, ValueError) as error:
            raise storage_error(f"{self} cannot be listed: {reason_of(error)}", error) from error
        return {name: size for name, size in found.items() if not name.startswith(".")}

    def add(self, name: str, data: Any) -> bool:
        """Makes a file appear, whole; one that is there stays as it is.

        Args:
            name: of the file.
            data: bytes, or a buffer of pyarrow's.

        Returns:
            Whether it was not there before.

        Raises:
            StorageError: it cannot be written, a full disk among the reasons; nothing of it can be seen then.
        """
        try:
            if self.path is not None:
                return _write_and_link(self.path, name, data)
            objects, key = _objects_of(self.address_of(name))
            if objects is not None:
                with suppress(UnsupportedError):
                    return objects.put(key, bytes(data), replacing=None) is not None
            file_system, root = open_file_system(self.address)
            target = f"{root.rstrip('/')}/{name}"
            if file_system.get_file_info(target).is_file:
                return False
            # In one piece: a stream that is left by an exception would put what it had been given so far.
            stream = file_system.open_output_stream(target, buffer_size=None)
            stream.write(data)
            stream.close()
            return True
        except (OSError, ValueError) as error:
            raise storage_error(f"{self}/{name} cannot be written: {reason_of(error)}", error) from error

    def read_tagged(self, name: str) -> tuple[bytes, str] | None:
        """The content of a file at an address, and a tag that changes with it; None where it is not there."""
        try:
            objects, key = _objects_of(self.address_of(name))
            if objects is not None:
                return objects.read_tagged(key)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise storage_error(f"{self}/{name} cannot be read: {reason_of(error)}", error) from error
        content = self.read(name)
        return None if content is None else (content, hashlib.sha256(content).hexdigest())

    def swap(self, name: str, data: bytes, replacing: str | None) -> str | None:
        """Writes a file at an address if it is as it was.

        Args:
            name: of the file.
            data: its bytes.
            replacing: the tag of what is there; None where nothing is.

        Returns:
            The new tag; None where it is another by now, and stays. Where the store knows no conditions, it is looked
            at first, and of two that do so in the same moment the last one stays.
        """
        try:
            objects, key = _objects_of(self.address_of(name))
            if objects is not None:
                with suppress(UnsupportedError):
                    return objects.put(key, data, replacing)
        except (OSError, ValueError) as error:
            raise storage_error(f"{self}/{name} cannot be written: {reason_of(error)}", error) from error
        there = self.read_tagged(name)
        if (there and there[1]) != replacing:
            return None
        self.replace(name, data)
        written = self.read_tagged(name)
        return written[1] if written and written[0] == data else None

    def replace(self, name: str, data: bytes) -> None:
        """Writes a file that may change, such as a lock; whole at any time."""
        try:
            if self.path is not None:
                temporary = _write_aside(self.path, name, data)
                os.replace(temporary, self.path / name)
            else:
                file_system, root = open_file_system(self.address)
                with file_system.open_output_stream(f"{root.rstrip('/')}/{name}") as stream:
                    stream.write(data)
        except (OSError, ValueError) as error:
            raise storage_error(f"{self}/{name} cannot be written: {reason_of(error)}", error) from error

    def remove(self, name: str) -> None:
        """Removes a file; one that is not there is no error."""
        try:
            if self.path is not None:
                (self.path / name).unlink(missing_ok=True)
            else:
                file_system, root = open_file_system(self.address)
                file_system.delete_file(f"{root.rstrip('/')}/{name}")
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise storage_error(f"{self}/{name} cannot be removed: {reason_of(error)}", error) from error

    def clear_unfinished(self) -> None:
        """Removes what killed writers left aside; only for whoever knows that nobody writes."""
        for path in self._unfinished():
            path.unlink(missing_ok=True)

    def _unfinished(self) -> Iterator[Path]:
        if self.path is not None:
            yield from self.path.glob(f".*{_UNFINISHED}")


def refuse_credentials(address: str) -> None:
    """Raises InputError for an address with a key and a secret in it: they would end up in records and messages."""
    scheme = scheme_of(address)
    if scheme in (None, "file"):
        return
    rest = address.partition("://")[2]
    if "@" in rest.partition("/")[0] or _CREDENTIALS.match("//" + rest):
        shown = redacted(f"{scheme}://***@{rest.partition('@')[2]}")
        raise InputError(
            f"{shown} holds credentials, which would be written into records: take them out, and give them in the "
            "environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) or by the machine's role"
        )


def _write_and_link(folder: Path, name: str, data: Any) -> bool:
    if (folder / name).exists():
        return False
    temporary = _write_aside(folder, name, data)
    try:
        os.link(temporary, folder / name)
    except FileExistsError:
        return False  # another attempt was first
    except OSError:  # a file system without hard links
        os.replace(temporary, folder / name)
    finally:
        temporary.unlink(missing_ok=True)
    _flush(folder)
    return True


def _write_aside(folder: Path, name: str, data: Any) -> Path:
    temporary = folder / f".{name}.{uuid.uuid4().hex}{_UNFINISHED}"
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
