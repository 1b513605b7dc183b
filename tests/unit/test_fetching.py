"""Objects on their way from a store: in order, bounded in number and bytes; what is dropped keeps no room."""

import threading
import time

import pytest

from raylearn.errors import ImageError, StorageError
from raylearn.scoring import fetching
from raylearn.scoring.fetching import Fetched, Fetches


class Store:
    """Answers when it is let; knows how many were asked for at once, and at most."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.asked: list[str] = []
        self.at_once, self.most = 0, 0
        self._lock = threading.Lock()

    def read(self, uri: str) -> bytes:
        with self._lock:
            self.asked.append(uri)
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        self.open.wait(5)
        with self._lock:
            self.at_once -= 1
        if uri.endswith("gone"):
            raise ImageError("gone", "missing")
        return uri.encode()

    def await_asked(self, number: int) -> list[str]:
        deadline = time.monotonic() + 5
        while len(self.asked) < number and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.01)  # for one too many
        return sorted(self.asked)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store()
    monkeypatch.setattr(fetching, "read_bytes", made.read)
    return made


def addresses(count: int) -> list[str]:
    return [f"s3://bucket/{number:02d}" for number in range(count)]


@pytest.mark.usefixtures("store")
def test_objects_come_in_their_order_with_their_own_bytes():
    uris = addresses(20)
    found = [source.bytes() for source in Fetches(4).ahead(uris, [10] * 20)]
    assert found == [uri.encode() for uri in uris]


def test_no_more_are_asked_for_at_once_than_agreed(store):
    store.open.clear()
    sources = Fetches(3).ahead(addresses(10), [1] * 10)
    first = next(sources)
    assert len(store.await_asked(3)) == 3
    store.open.set()
    assert [first.bytes(), *(source.bytes() for source in sources)] == [uri.encode() for uri in addresses(10)]
    assert store.most == 3


def test_bytes_that_wait_are_bounded_and_room_comes_back_when_they_are_taken(store):
    uris = addresses(5)
    sources = Fetches(5, max_bytes=25).ahead(uris, [10] * 5)
    first = next(sources)
    assert store.await_asked(2) == uris[:2]
    first.bytes()
    second = next(sources)
    assert store.await_asked(3) == uris[:3]
    second.bytes()
    assert [source.bytes() for source in sources] == [uri.encode() for uri in uris[2:]]


def test_an_object_larger_than_all_room_is_fetched_alone(store):
    uris = addresses(3)
    sources = Fetches(3, max_bytes=5).ahead(uris, [10] * 3)
    next(sources)
    assert store.await_asked(1) == uris[:1]
    next(sources)
    assert store.await_asked(2) == uris[:2]


def test_an_object_of_unknown_size_takes_the_room_of_a_usual_one(store, monkeypatch):
    monkeypatch.setattr(fetching, "_USUAL_BYTES", 10)
    sources = Fetches(5, max_bytes=25).ahead(uris := addresses(5), [None] * 5)
    next(sources)
    assert store.await_asked(2) == uris[:2]


def test_objects_of_unknown_size_take_the_room_of_those_that_have_come(store, monkeypatch):
    monkeypatch.setattr(fetching, "_USUAL_BYTES", 7)
    uris = addresses(20)  # of 14 bytes each, which nobody tells
    store.open.clear()
    sources = Fetches(20, max_bytes=70).ahead(uris, [None] * 20)
    first = next(sources)
    assert store.await_asked(10) == uris[:10]
    store.open.set()
    first.bytes()
    second = next(sources)
    assert store.await_asked(10) == uris[:10]
    second.bytes()
    next(sources)
    assert store.await_asked(11) == uris[:11]


def test_what_is_dropped_gives_its_room_back_and_is_not_asked_for_any_more(store):
    store.open.clear()
    fetches = Fetches(1, max_bytes=50)
    abandoned = fetches.ahead(addresses(5), [10] * 5)
    next(abandoned)
    abandoned.close()
    store.await_asked(1)
    store.open.set()
    others = [f"s3://bucket/other-{number}" for number in range(5)]
    sources = fetches.ahead(others, [10] * 5)
    next(sources)
    assert store.await_asked(6) == [addresses(1)[0], *others]


def test_files_of_a_disk_are_left_to_whoever_decodes_them(store):
    uris = ["/disk/a.jpg", "s3://bucket/b.jpg", "file:///disk/c.jpg"]
    a, b, c = Fetches(4).ahead(uris, [1, 1, 1])
    assert (a, c) == (uris[0], uris[2])
    assert isinstance(b, Fetched)
    assert store.await_asked(1) == [uris[1]]


@pytest.mark.usefixtures("store")
def test_what_is_wrong_with_one_object_is_told_to_whoever_takes_it():
    gone, there = Fetches(2).ahead(["s3://bucket/gone", "s3://bucket/there"], [1, 1])
    with pytest.raises(ImageError, match="gone"):
        gone.bytes()
    assert there.bytes() == b"s3://bucket/there"


def test_closing_ends_a_wait_for_a_store_that_does_not_answer(monkeypatch):
    asked = threading.Event()

    def read(uri: str) -> bytes:
        if uri.endswith("00"):
            return b""
        asked.set()
        raise StorageError("away", may_pass=True)

    monkeypatch.setattr(fetching, "read_bytes", read)
    fetches = Fetches(1)
    answered, away = fetches.ahead(addresses(2), [1, 1])
    answered.bytes()
    asked.wait(5)
    start = time.monotonic()
    fetches.close()
    with pytest.raises(StorageError, match="away"):
        away.bytes()
    assert time.monotonic() - start < 0.4


def test_a_store_that_never_answered_is_not_waited_for(monkeypatch):
    def read(_: str) -> bytes:
        raise StorageError("no such host", may_pass=True)

    monkeypatch.setattr(fetching, "read_bytes", read)
    (source,) = Fetches(1).ahead(addresses(1), [1])
    start = time.monotonic()
    with pytest.raises(StorageError, match="no such host"):
        source.bytes()
    assert time.monotonic() - start < 0.4
