"""What a pool is: every image once, under an id of its own, and nothing from outside of its root."""

import contextlib
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raylearn.data import storage
from raylearn.data.images import read_bytes
from raylearn.errors import ImageError, InputError, PoolError
from raylearn.scoring.listing import list_pool
from raylearn.scoring.manifest import Manifest
from raylearn.scoring.walks import IMAGE_ENDINGS

NAMES = [
    "a b.jpg",
    "a,b.jpg",
    'it\'s "it".jpg',
    "übergröße 海.jpg",
    "new\nline.jpg",
    "-rf.jpg",
    "100%20.jpg",
    "w?#.jpg",
]
NAMES += ["same/x.jpg", "other/x.jpg", "x.jpg", "x.png", "s3:.jpg", "a.jpg.jpg", "=1+1.jpg", "[a].jpg"]


def write(folder: Path, *names: str) -> Path:
    """Files whose bytes are their own names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.fsencode(name))
    return folder


def ids(pool: Path | str, **options: Any) -> list[str]:
    return column(list_pool(str(pool), **options)[0], "image_id")


def column(manifest: Manifest, name: str) -> list[str]:
    return manifest.table[name].to_pylist()


def contents(pool: Path | str, **options: Any) -> dict[str, bytes]:
    manifest = list_pool(str(pool), **options)[0]
    return {
        name: read_bytes(uri) for name, uri in zip(column(manifest, "image_id"), column(manifest, "uri"), strict=True)
    }


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A folder with something beside it that is not of the pool."""
    write(tmp_path / "outside", "secret.jpg")
    (tmp_path / "pool").mkdir()
    return tmp_path / "pool"


# --- folders


def test_a_folder_is_walked_in_one_order_whatever_order_files_were_made_in(pool, tmp_path):
    names = ["b.jpg", "a/2.jpg", "a/10.jpg", "z.jpg", "a/b/c.jpg", "a b.jpg"]
    write(pool, *names)
    found = ids(pool)
    assert sorted(found) == sorted(names)
    for attempt in range(3):
        random.Random(attempt).shuffle(names)
        assert ids(write(tmp_path / f"again{attempt}", *names)) == found


def test_hidden_things_and_other_endings_are_left_out_and_counted(pool):
    write(pool, "a.jpg", ".hidden.jpg", ".folder/1.jpg", ".folder/2.jpg", "notes.txt", "b/data.json", "jpg")
    manifest, left_out = list_pool(str(pool))
    assert column(manifest, "image_id") == ["a.jpg"]
    assert left_out == {
        "hidden": 2,
        ".txt": 1,
        ".json": 1,
        "no ending": 1,
    }  # of a hidden folder nothing is known but that it is there


def test_endings_count_in_any_case(pool):
    names = {f"{case}{case(ending)}" for ending in IMAGE_ENDINGS for case in (str.lower, str.upper, str.title)}
    assert set(ids(write(pool, *names))) == names


def test_every_name_comes_back_exactly_and_leads_to_its_own_bytes(pool):
    write(pool, *NAMES)
    assert contents(pool) == {name: name.encode() for name in NAMES}


def test_a_name_that_is_no_utf8_has_an_id_and_can_be_read(pool):
    odd = os.fsdecode(b"caf\xe9 %41.jpg")
    write(pool, odd, os.fsdecode(b"folder-\xff/a b.jpg"), "caf%E9 x.jpg")
    assert contents(pool) == {
        "caf%E9 %2541.jpg": os.fsencode(odd),
        "caf%E9 x.jpg": b"caf%E9 x.jpg",
        "folder-%FF/a b.jpg": b"folder-\xff/a b.jpg",
    }


def test_the_version_of_a_file_changes_with_its_bytes(pool):
    write(pool, "a.jpg", "b.jpg")
    before = column(list_pool(str(pool))[0], "version")
    (pool / "a.jpg").write_bytes(b"more bytes than before")
    after = column(list_pool(str(pool))[0], "version")
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True]


def test_a_pool_without_images_is_refused(pool):
    with pytest.raises(PoolError, match=r"no images in .*pool: endings of images are"):
        list_pool(str(pool))
    write(pool, "readme.txt", ".hidden.jpg")
    for pattern in ("", "*", "**"):
        with pytest.raises(PoolError, match=r"no images in .*, only [12] other files"):
            list_pool(str(pool / pattern))
    with pytest.raises(PoolError, match=r"no images in .*\*.jpg: endings"):
        list_pool(str(pool / "*.jpg"))


@pytest.mark.parametrize(
    "name", ["nowhere", "nowhere/*.jpg", "a.jpg", "a.jpg/x", "n" * 5000, "nul\0/a.jpg", "é\udcff/x"]
)
def test_what_is_no_pool_is_refused(pool, name):
    write(pool, "a.jpg")
    with pytest.raises(PoolError, match=r"cannot be read|is neither a folder nor a list|no images in"):
        list_pool(f"{pool}/{name}")


@given(st.text(max_size=12))
@example("file:///\0/x")
@example("zz://bucket/key")
def test_any_text_as_pool_raises_only_what_a_user_can_read(text):
    if text.partition("://")[0] not in ("s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss", "http", "https"):
        with contextlib.suppress(InputError):
            list_pool("no/such/folder/" + text)
            list_pool(text.replace("/", ""))


# --- links


def test_loops_of_folders_end_and_every_file_comes_once(pool):
    write(pool, "a/1.jpg", "b/2.jpg")
    (pool / "a/loop").symlink_to("..")
    (pool / "a/self").symlink_to(".")
    (pool / "b/across").symlink_to("../a")
    assert ids(pool) == ["a/1.jpg", "b/2.jpg"]
    assert ids(pool / "**/*.jpg") == ["a/1.jpg", "b/2.jpg"]


def test_a_link_to_a_file_of_the_pool_is_the_same_image(pool):
    write(pool, "z.jpg")
    (pool / "a.jpg").symlink_to("z.jpg")
    assert ids(pool) == ["z.jpg"]


def test_a_link_to_a_hidden_file_is_listed_under_its_name_and_once(pool):
    write(pool, ".blobs/1234")
    (pool / "a.jpg").symlink_to(".blobs/1234")
    (pool / "b.jpg").symlink_to(".blobs/1234")
    assert contents(pool) == {"a.jpg": b".blobs/1234"}


def test_files_in_folders_that_several_links_lead_into_come_once(pool):
    write(pool, ".store/1.jpg", ".store/sub/2.jpg", ".store/sub/blob", ".store/sub/deep/3.jpg")
    for name, target in {"a": ".store/sub", "b": ".store", "b.jpg": ".store/1.jpg", "c": ".store/sub/deep"}.items():
        (pool / name).symlink_to(target)
    (pool / "d.jpg").symlink_to(".store/sub/blob")
    (pool / "e.jpg").symlink_to(".store/sub/2.jpg")
    (pool / "f").mkdir()
    (pool / "f/g.jpg").symlink_to("../.store/sub/deep/3.jpg")
    assert sorted(contents(pool).values()) == [
        b".store/1.jpg",
        b".store/sub/2.jpg",
        b".store/sub/blob",
        b".store/sub/deep/3.jpg",
    ]


def test_a_link_to_a_folder_above_does_not_list_the_pool_again(pool):
    write(pool, "a.jpg")
    (pool / "up").symlink_to("..")
    assert ids(pool, root=pool.parent) == ["a.jpg", "up/outside/secret.jpg"]


@pytest.mark.parametrize("target", ["../outside", "../outside/secret.jpg", "../outside/not-there.jpg"])
@pytest.mark.parametrize("walk", ["", "*", "**"])
def test_a_link_out_of_the_root_is_refused_unless_root_allows_it(pool, target, walk):
    write(pool, "a.jpg")
    (pool / "link.jpg").symlink_to(target)
    if walk == "*" and target == "../outside":
        walk = "*/*"
    with pytest.raises(PoolError, match=r"link.jpg.* leads out of .*, to .*outside.*--root"):
        list_pool(str(pool / walk))
    allowed = ids(pool / walk, root=pool.parent)
    assert ("link.jpg/secret.jpg" if target == "../outside" else "link.jpg") in allowed


def test_a_folder_whose_name_only_begins_like_the_root_is_outside(pool):
    write(pool.parent / "pool-secret", "x.jpg")
    (pool / "a.jpg").symlink_to("../pool-secret/x.jpg")
    with pytest.raises(PoolError, match="leads out of"):
        list_pool(str(pool))


@pytest.mark.parametrize("target", ["nothing.jpg", "link.jpg", "other.jpg"])
def test_a_link_that_leads_nowhere_is_that_images_error(pool, target):
    write(pool, "a.jpg")
    (pool / "link.jpg").symlink_to(target)
    if target == "other.jpg":
        (pool / "other.jpg").symlink_to("link.jpg")
    manifest = list_pool(str(pool))[0]
    uris = dict(zip(column(manifest, "image_id"), column(manifest, "uri"), strict=True))
    assert {"a.jpg", "link.jpg"} <= uris.keys()
    with pytest.raises(ImageError, match="cannot be read"):
        read_bytes(uris["link.jpg"])


@pytest.fixture
def open_folder() -> Iterator[tuple[Path, Callable[[], contextlib.AbstractContextManager[None]]]]:
    """A folder that other users can reach, and a way to be another user for a while."""
    if os.geteuid():
        pytest.skip("only root can act as another user")

    @contextlib.contextmanager
    def as_nobody() -> Iterator[None]:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name), as_nobody


def test_a_folder_that_may_not_be_listed_is_refused_and_a_file_is_not(open_folder):
    folder, as_nobody = open_folder
    write(folder, "a.jpg", "closed.jpg", "closed/b.jpg")
    (folder / "closed.jpg").chmod(0)
    (folder / "closed").chmod(0)
    with as_nobody(), pytest.raises(PoolError, match=r"folder .*closed cannot be listed: Permission denied"):
        list_pool(str(folder))
    (folder / "closed").rename(folder / ".closed")
    (folder / "link.jpg").symlink_to(".closed/b.jpg")
    with as_nobody():
        assert ids(folder) == ["a.jpg", "closed.jpg", "link.jpg"]
        for name in ("closed.jpg", "link.jpg"):
            with pytest.raises(ImageError, match="Permission denied"):
                read_bytes(str(folder / name))


# --- globs


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["x.jpg", "y.jpg"]),
        ("**/*.jpg", ["cam-1/a.jpg", "cam-1/deep/b.jpg", "cam-2/c.jpg", "x.jpg", "y.jpg"]),
        ("cam-*/**/*", ["cam-1/a.jpg", "cam-1/deep/b.jpg", "cam-2/c.jpg"]),
        ("cam-1/**", ["a.jpg", "deep/b.jpg"]),
        ("**/**/b.jpg", ["cam-1/deep/b.jpg"]),
        ("cam-[2-9]/?.jpg", ["cam-2/c.jpg"]),
        ("**/deep/*", ["cam-1/deep/b.jpg"]),
    ],
)
def test_a_glob_gives_the_files_it_matches_by_their_path_below_its_steady_part(pool, pattern, expected):
    write(pool, "cam-1/a.jpg", "cam-1/deep/b.jpg", "cam-2/c.jpg", "cam-2/.hidden.jpg", "x.jpg", "y.jpg", ".z/q.jpg")
    assert ids(pool / pattern) == expected


def test_a_glob_leaves_out_other_files_and_lists_one_file_once(pool):
    write(pool, "a/1.jpg", "a/notes.txt")
    (pool / "b").symlink_to("a")
    (pool / "c.jpg").symlink_to("a/1.jpg")
    assert list_pool(str(pool / "**"))[1] == {".txt": 1}
    assert ids(pool / "**") == ["a/1.jpg"]


def test_a_folder_whose_name_looks_like_a_glob_is_a_folder(pool):
    write(pool, "[ab]/1.jpg", "a/2.jpg")
    assert ids(pool / "[ab]") == ["1.jpg"]


# --- order, limit, address


def test_a_seed_decides_the_order_whatever_order_the_pool_has(pool):
    write(pool, *(f"{number}.jpg" for number in range(40)))
    (pool.parent / "list.txt").write_text("".join(f"pool/{number}.jpg\n" for number in reversed(range(40))))
    shuffled = ids(pool, shuffle_seed=7)
    assert sorted(shuffled) == sorted(ids(pool))
    assert shuffled not in (ids(pool), ids(pool, shuffle_seed=8))
    listed = ids(pool.parent / "list.txt", shuffle_seed=7, limit=40)
    assert sorted(listed) == sorted(f"pool/{name}" for name in shuffled)
    (pool / "list.csv").write_text("uri\n" + "".join(f"{number}.jpg\n" for number in reversed(range(40))))
    assert ids(pool / "list.csv", shuffle_seed=7) == shuffled


@given(st.integers(1, 12), st.integers(1, 12))
def test_the_images_of_a_limit_are_the_first_of_any_larger_limit(one, two):
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), *(f"{number}.jpg" for number in range(10)))
        for seed in (None, 3):
            few, many = (ids(folder, limit=limit, shuffle_seed=seed) for limit in sorted((one, two)))
            assert len(few) == min(one, two, 10)
            assert many[: len(few)] == few


def test_progress_is_told_the_images_found_so_far(pool):
    write(pool, "a.jpg", "b.jpg")
    told: list[int] = []
    list_pool(str(pool), progress=told.append)
    assert told == [2]


def test_keys_of_an_object_store_come_back_as_addresses_that_can_be_read(pool, monkeypatch):
    import pyarrow.fs

    write(pool / "prefix", *NAMES, ".hidden/x.jpg", "notes.txt")
    opened = pyarrow.fs.SubTreeFileSystem(str(pool.parent), pyarrow.fs.LocalFileSystem()), "pool"
    monkeypatch.setattr(storage, "_file_system", lambda *_: opened)
    manifest, left_out = list_pool("gs://pool/prefix/?scheme=http")
    assert left_out.total() == 2
    assert all(uri.startswith("gs://pool/prefix/") for uri in column(manifest, "uri"))
    assert all(uri.endswith("?scheme=http") for uri in column(manifest, "uri"))
    assert contents("gs://pool/prefix?scheme=http") == {name: name.encode() for name in NAMES}


def test_a_pool_address_with_credentials_is_refused_without_showing_them():
    for address in ("s3://key:hunter2@bucket/x", "s3://key:hun/ter2@bucket/x"):
        with pytest.raises(InputError, match="holds credentials") as caught:
            list_pool(address)
        assert "ter2" not in str(caught.value)
