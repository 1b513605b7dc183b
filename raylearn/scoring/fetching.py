"""Objects on their way from a store: many are asked for at once, bounded in number and in bytes."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Event, Lock
from weakref import finalize

from raylearn.data.images import read_bytes
from raylearn.data.storage import local_path
from raylearn.errors import ImageError
from raylearn.scoring.patience import patiently

REQUESTS = 256
"""Objects that one process asks for at once, unless it is told otherwise (measured: docs/log.md)."""

MAX_BYTES = 256 << 20
"""Of objects that were asked for and are not decoded yet, in one process: 1,300 photographs of 200 KB."""

_USUAL_BYTES = 8 << 20  # of an object whose size nobody knows, before any has come


class Fetched:
    """An object that was asked for.

    Args:
        uri: its address.
        data: its bytes, once they are there.
        taken: called once, when its bytes are no more of those that wait.
    """

    def __init__(self, uri: str, data: Future[bytes], taken: Callable[[], None]) -> None:
        self.uri, self._data = uri, data
        # Also where it is dropped, and nobody takes its bytes.
        self._taken = finalize(self, taken)

    def bytes(self) -> bytes:
        """Waits for its bytes; raises what `read_bytes` raises."""
        try:
            return self._data.result()
        finally:
            self._taken()

    def drop(self) -> None:
        """Lets go of what nobody wants any more."""
        self._data.cancel()
        self._taken()


Source = str | Fetched
"""Where an image is: a path or an address, or an object that was asked for already."""


class Fetches:
    """Asks a store for many objects at once, as it answers each late; files of a disk are left to whoever decodes them.

    Args:
        requests: objects asked for at once.
        max_bytes: of objects that are on their way or wait; one more for each `ahead` may be, whatever its size. For an
            object of unknown size the mean of those that have come is taken.
    """

    def __init__(self, requests: int = REQUESTS, max_bytes: int = MAX_BYTES) -> None:
        self._threads = ThreadPoolExecutor(requests, thread_name_prefix="fetch")
        self._free, self._lock = max_bytes, Lock()
        self._num_come, self._bytes_come = 0, 0
        self._given_up, self._answered = Event(), Event()

    def ahead(self, uris: Iterable[str], sizes: Iterable[int | None]) -> Generator[Source, None, None]:
        """The sources of images in their order; those that come after are on their way.

        Args:
            uris: of the images.
            sizes: in bytes, or None where nobody knows.
        """
        rest = deque(zip(uris, sizes, strict=True))
        begun: deque[Source] = deque()
        try:
            while rest or begun:
                while rest:
                    uri, size = rest[0]
                    size = size or self._usual_bytes()
                    if local_path(uri) is not None:
                        begun.append(uri)
                    elif self._takes_room(size, always=not begun):
                        begun.append(self._begin(uri, size))
                    else:
                        break
                    rest.popleft()
                yield begun.popleft()
        finally:
            for source in begun:
                if isinstance(source, Fetched):
                    source.drop()

    def close(self) -> None:
        """Ends what is on its way."""
        self._given_up.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _usual_bytes(self) -> int:
        with self._lock:
            return self._bytes_come // self._num_come if self._num_come else _USUAL_BYTES

    def _takes_room(self, size: int, *, always: bool) -> bool:
        with self._lock:
            if size > self._free and not always:
                return False
            self._free -= size
            return True

    def _give_back(self, size: int) -> None:
        with self._lock:
            self._free += size

    def _begin(self, uri: str, size: int) -> Fetched:
        return Fetched(uri, self._threads.submit(self._fetch, uri), partial(self._give_back, size))

    def _fetch(self, uri: str) -> bytes:
        read = partial(read_bytes, uri)
        try:
            # Where nothing was ever answered the address may be wrong, which is told at once.
            data = patiently(read, self._given_up) if self._answered.is_set() else read()
        except ImageError:
            self._answered.set()
            raise
        self._answered.set()
        with self._lock:
            self._num_come, self._bytes_come = self._num_come + 1, self._bytes_come + len(data)
        return data
