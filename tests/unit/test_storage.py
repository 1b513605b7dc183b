"""Addresses, and folders whose files are whole or absent: after a crash, with a full disk, with a late writer."""

import errno
import os
import shutil
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.fs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylearn.data import storage
from raylearn.data.storage import (
    Folder,
    local_path,
    open_file_system,
    percent_encoded,
    read_address,
    reason_of,
    redacted,
    refuse_credentials,
    scheme_of,
)
from raylearn.errors import InputError, StorageError

# --- addresses


@pytest.mark.parametrize(
    ("uri", "scheme"),
    [
        ("s3://bucket/key", "s3"),
        ("file:///x", "file"),
        ("a+b.c-1://x", "a+b.c-1"),
        ("/data/s3://bucket", None),
        ("s3:/bucket", None),
        ("C://x", None),
        ("1s://x", None),
        ("a b://x", None),
        ("a\n://x", None),
        ("://x", None),
        ("", None),
    ],
)
def test_what_has_a_scheme_is_an_address_and_all_else_a_path(uri, scheme):
    assert scheme_of(uri) == scheme
    assert (local_path(uri) == uri) == (scheme is None)


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_a_local_path_is_itself_and_so_is_what_its_file_address_names(name):
    path = f"/data/{name}"
    assert local_path(path) == path
    assert local_path(f"file://{quote(path)}") == path
    assert local_path(f"file://{percent_encoded(path)}?option=1") == path
    assert local_path(f"file://localhost{percent_encoded(path)}") == path


def test_a_file_address_can_name_bytes_that_are_no_utf8():
    assert os.fsencode(local_path("file:///a/%FF.jpg")) == b"/a/\xff.jpg"


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a folder in a bucket that lies on the disk."""
    opened = pyarrow.fs.SubTreeFileSystem(str(tmp_path), pyarrow.fs.LocalFileSystem()), "bucket"
    (tmp_path / "bucket/prefix").mkdir(parents=True)
    monkeypatch.setattr(storage, "_file_system", lambda *_: opened)
    return "gs://bucket/prefix?scheme=http"


@given(key=st.text(st.characters(codec="utf-8") | st.sampled_from("%?#/\n 2F"), min_size=1, max_size=20))
def test_a_percent_encoded_key_is_opened_as_the_key_it_was(key):
    _, path = open_file_system(f"mock://bucket/{percent_encoded(key)}?options=%3F")
    assert path.endswith("/" + key)


@given(st.text(string.ascii_letters + string.digits + "/-_.,'()& +=äß海", max_size=20))
def test_a_key_that_no_address_misreads_stays_readable(key):
    assert percent_encoded(key) == key
    assert percent_encoded(f"{key}%?#\n") == f"{key}%25%3F%23%0A"


@pytest.mark.parametrize("credentials", ["key:hunter2", "key:hun/ter2+", "key", "key:", ":", "", "9:hun/ter2"])
def test_credentials_are_not_shown_and_refused(credentials):
    address = f"s3://{credentials}@bucket/x"
    assert redacted(f"no '{address}', nor gs://k:s@b") == "no 's3://***@bucket/x', nor gs://***@b"
    with pytest.raises(InputError, match=r"^s3://\*\*\*@bucket/x holds credentials"):
        refuse_credentials(address)


def test_credentials_with_a_space_in_them_are_refused_too():
    with pytest.raises(InputError, match=r"^s3://\*\*\*@bucket/x holds credentials"):
        refuse_credentials("s3://key:hun ter2@bucket/x")


@pytest.mark.parametrize(
    "address",
    [
        "s3://bucket/mail@home.jpg",
        "s3://bucket/a:b@c.jpg",
        "hdfs://host:9000/mail@home.jpg",
        "file://key:secret@x/y",
        "/data//a@b.jpg",
        "a@b",
    ],
)
def test_an_at_sign_elsewhere_is_no_credential(address):
    refuse_credentials(address)
    if scheme_of(address) not in ("file", None):
        assert redacted(address) == address


def test_a_reason_is_one_line_without_credentials():
    assert reason_of(FileNotFoundError(errno.ENOENT, "No such file", "/x")) == "No such file"
    assert reason_of(OSError("cannot open\n  s3://k:hunter2@b/x")) == "cannot open s3://***@b/x"
    assert reason_of(ValueError()) == "ValueError"


# --- a folder


@pytest.fixture(params=["disk", "address"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder.at(tmp_path / "out" if request.param == "disk" else request.getfixturevalue("bucket"))


def test_what_was_added_is_read_back_and_nothing_else_is_left(folder, tmp_path):
    folder.add("a.bin", b"first")
    folder.add("b.bin", pa.py_buffer(b"second" * 100_000))
    folder.add("empty", b"")
    assert folder.read("a.bin") == b"first"
    assert folder.read("b.bin") == b"second" * 100_000
    assert folder.sizes() == {"a.bin": 5, "b.bin": 600_000, "empty": 0}
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["a.bin", "b.bin", "empty"]
    with folder.open("a.bin") as file:
        file.seek(2)
        assert file.read() == b"rst"


def test_a_late_writer_changes_nothing(folder):
    folder.add("a.bin", b"first")
    folder.add("a.bin", b"late, and longer")
    assert folder.read("a.bin") == b"first"
    assert folder.sizes() == {"a.bin": 5}


def test_a_file_that_is_not_there_is_none_and_removing_it_no_error(folder):
    assert folder.read("a.bin") is None
    with pytest.raises(FileNotFoundError):
        folder.open("a.bin")
    folder.remove("a.bin")
    folder.add("a.bin", b"")
    folder.remove("a.bin")
    assert folder.read("a.bin") is None


def test_a_file_that_may_change_is_replaced_and_hidden_by_its_dot(folder, tmp_path):
    folder.replace(".lock", b"one")
    folder.replace(".lock", b"two")
    assert folder.read(".lock") == b"two"
    assert folder.sizes() == {}
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".lock"]


def test_the_address_of_a_file_is_read_as_that_file(folder):
    folder.add("a.bin", b"first")
    assert read_address(folder.address_of("a.bin")) == b"first"


def test_a_folder_on_a_disk_is_absolute_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("out", "odd ?%41#", "a/b/c"):
        folder = Folder.at(name)
        assert folder.path == (tmp_path / name).resolve()
        folder.add("a.bin", b"first")
        assert read_address(folder.address_of("a.bin")) == (tmp_path / name / "a.bin").read_bytes() == b"first"
    assert Folder.at(f"file://{quote(str(tmp_path / 'odd ?%41#'))}").read("a.bin") == b"first"


@pytest.mark.parametrize(
    "address", ["file", "file/below", "loop/x", "zz://bucket/x", "nul\0", "s3://k:hunter2@bucket/x"]
)
def test_what_cannot_be_a_folder_is_refused(tmp_path, monkeypatch, address):
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(b"")
    Path("loop").symlink_to("loop")
    with pytest.raises(InputError, match=r"cannot be written|holds credentials") as caught:
        Folder.at(address)
    assert "hunter2" not in str(caught.value)


def test_folders_are_no_finished_files_and_a_lost_folder_is_an_error(tmp_path):
    folder = Folder.at(tmp_path / "out")
    (tmp_path / "out/sub").mkdir()
    assert folder.sizes() == {}
    with pytest.raises(StorageError, match="sub cannot be read"):
        folder.read("sub")
    shutil.rmtree(tmp_path / "out")
    for use in (folder.sizes, lambda: folder.add("a", b""), lambda: folder.replace("a", b"")):
        with pytest.raises(StorageError, match="No such file or directory"):
            use()


def test_what_killed_writers_left_is_cleared_and_nothing_else(tmp_path):
    folder = Folder.at(tmp_path)
    folder.add("a.bin", b"first")
    folder.replace(".lock", b"")
    (tmp_path / ".b.bin.0123.unfinished").write_bytes(b"half")
    folder.clear_unfinished()
    assert {path.name for path in tmp_path.iterdir()} == {"a.bin", ".lock"}


# --- commits that are disturbed

CONTENT = b"0123456789" * 50_000


def test_a_writer_that_is_overtaken_while_it_writes_changes_nothing(tmp_path, monkeypatch):
    folder = Folder.at(tmp_path)
    flush = os.fsync
    late = iter([True])

    def overtaken(descriptor: int) -> None:
        if next(late, False):
            folder.add("part.bin", b"first")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", overtaken)
    folder.add("part.bin", b"late")
    assert folder.read("part.bin") == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["part.bin"]


def test_a_file_system_without_hard_links_will_do(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    folder = Folder.at(tmp_path)
    folder.add("part.bin", b"first")
    folder.add("part.bin", b"late")
    assert folder.read("part.bin") == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["part.bin"]


def test_a_file_whose_bytes_did_not_reach_the_disk_does_not_appear(tmp_path, monkeypatch):
    folder = Folder.at(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", refuse(errno.EIO))
        with pytest.raises(StorageError, match=r"part.bin cannot be written: Input/output error"):
            folder.add("part.bin", b"first")
    assert list(tmp_path.iterdir()) == []
    folder.add("part.bin", b"second")
    assert folder.read("part.bin") == b"second"


def refuse(number: int):
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refused


# Runs in a process of its own: one step of a commit, the n-th call of a function, is the last thing it does.
DYING = """
import errno, os, sys
from pathlib import Path
from raylearn.data.storage import Folder

folder, content, step, count, when = sys.argv[1:]
if step == "os.replace":
    def no_links(*_):
        raise OSError(errno.EPERM, "no hard links")
    os.link = no_links
owner, name = {"os": os, "Path": Path}[step.partition(".")[0]], step.partition(".")[2]
real, left = getattr(owner, name), int(count)

def dying(*arguments, **options):
    global left
    left -= 1
    if left == 0 and when == "before":
        os._exit(9)
    result = real(*arguments, **options)
    if left == 0 and when == "half":
        result.write(content.encode()[: len(content) // 2])
        result.flush()
    if left == 0:
        os._exit(9)
    return result

setattr(owner, name, dying)
Folder(folder).add("part.bin", content.encode())
"""


@pytest.mark.parametrize(
    ("step", "count", "when", "appears"),
    [
        ("Path.open", 1, "before", False),
        ("Path.open", 1, "after", False),
        ("Path.open", 1, "half", False),
        ("os.fsync", 1, "before", False),
        ("os.fsync", 1, "after", False),
        ("os.link", 1, "before", False),
        ("os.link", 1, "after", True),
        ("os.replace", 1, "before", False),
        ("os.replace", 1, "after", True),
        ("Path.unlink", 1, "before", True),
        ("Path.unlink", 1, "after", True),
        ("os.fsync", 2, "before", True),
        ("os.fsync", 2, "after", True),
    ],
)
def test_a_crash_at_any_step_of_a_commit_leaves_all_or_nothing(tmp_path, step, count, when, appears):
    content = "0123456789" * 5_000
    arguments = [str(tmp_path), content, step, str(count), when]
    crash = subprocess.run([sys.executable, "-c", DYING, *arguments], capture_output=True, text=True, check=False)
    assert (crash.returncode, crash.stderr) == (9, "")
    folder = Folder.at(tmp_path)
    assert folder.sizes() == ({"part.bin": len(content)} if appears else {})
    assert folder.read("part.bin") == (content.encode() if appears else None)
    folder.clear_unfinished()
    folder.add("part.bin", content.encode())
    assert folder.read("part.bin") == content.encode()
    assert [path.name for path in tmp_path.iterdir()] == ["part.bin"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "raylearn-test", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_named_shows_nothing_half_and_is_no_lasting_harm(small_disk):
    folder = Folder.at(small_disk / "out")
    folder.add("first.bin", CONTENT * 3)
    for write in (folder.add, folder.replace):
        with pytest.raises(StorageError, match=r"second.bin cannot be written: No space left on device"):
            write("second.bin", CONTENT * 2)
    assert os.listdir(small_disk / "out") == ["first.bin"]
    assert folder.read("first.bin") == CONTENT * 3
    folder.add("small.bin", CONTENT[:1000])
    folder.remove("first.bin")
    folder.add("second.bin", CONTENT * 2)
    assert folder.read("second.bin") == CONTENT * 2


def test_a_file_that_vanishes_while_it_is_written_does_not_disturb_the_listing(tmp_path):
    folder = Folder.at(tmp_path)
    folder.add("whole", b"12345")
    (tmp_path / ".part.unfinished").symlink_to(tmp_path / "gone")  # as a name that was listed and cannot be looked at
    assert folder.sizes() == {"whole": 5}
