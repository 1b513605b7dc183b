"""The manifest: images by id, known by their content."""

import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylearn.data.storage import Folder
from raylearn.errors import LedgerError, PoolError
from raylearn.scoring.manifest import (
    MANIFEST_FILE,
    MAX_PART_SIZE,
    Manifest,
    ManifestFiles,
    default_part_size,
)
from tests.unit.hand_made import make_image

IDS = ["b/1.jpg", "a/2.jpg", "a/10.jpg", "ä.jpg", "a b,'c\".png"]


def manifest(*ids: str, **changes: str) -> Manifest:
    return Manifest.of(make_image(image_id, **changes) for image_id in ids)


def test_images_come_back_sorted_by_id_with_what_belongs_to_them():
    images = [make_image(image_id) for image_id in IDS]
    table = Manifest.of(images).table
    assert table["image_id"].to_pylist() == sorted(IDS)
    found = zip(*(table[name].to_pylist() for name in ("image_id", "uri", "content_hash")), strict=True)
    assert set(found) == {(image.image_id, image.uri, image.content_hash) for image in images}
    assert len(Manifest.of(images)) == len(IDS)


@settings(deadline=None, max_examples=20)
@given(st.permutations(IDS))
def test_the_order_images_are_given_in_has_no_influence(order):
    assert manifest(*order).hash == manifest(*IDS).hash
    assert manifest(*order).table.equals(manifest(*IDS).table)


def test_the_hash_does_not_depend_on_where_the_files_lie():
    assert manifest(*IDS, folder="s3://bucket").hash == manifest(*IDS).hash


def test_the_hash_changes_with_ids_content_and_number():
    hashes = {
        manifest(*IDS).hash,
        manifest(*IDS[1:]).hash,
        manifest(*IDS, "more.jpg").hash,
        manifest(*IDS, content="edited").hash,
        Manifest.of([make_image("renamed.jpg", content=IDS[0]), *map(make_image, IDS[1:])]).hash,
        manifest().hash,
    }
    assert len(hashes) == 6


def test_the_hash_knows_which_content_belongs_to_which_image():
    swapped = [make_image("a.jpg", content="b.jpg"), make_image("b.jpg", content="a.jpg")]
    assert Manifest.of(swapped).hash != manifest("a.jpg", "b.jpg").hash


def test_a_manifest_may_be_empty():
    empty = manifest()
    assert len(empty) == 0
    assert empty.table.column_names == ["image_id", "uri", "content_hash", "version"]


def listed(**versions: str) -> Manifest:
    """In the order given, by what the file system tells of them; no content is known."""
    names = [f"{name}.jpg" for name in versions]
    return Manifest.of_columns([names, names, [""] * len(names), list(versions.values())])


def test_a_listed_pool_keeps_its_order_and_its_hash_depends_on_it():
    one, other = listed(b="1", a="2"), listed(a="2", b="1")
    assert one.table["image_id"].to_pylist() == ["b.jpg", "a.jpg"]
    assert one.hash != other.hash
    assert one.hash == listed(b="1", a="2").hash


def test_the_hash_depends_on_versions_where_contents_are_not_known():
    assert len({listed(a="1", b="2").hash, listed(a="1", b="3").hash, listed(a="2", b="1").hash}) == 3


def test_the_hash_does_not_take_a_content_for_a_version():
    content = Manifest.of_columns([["a"], ["a"], ["x"], [""]])
    version = Manifest.of_columns([["a"], ["a"], [""], ["x"]])
    assert content.hash != version.hash


def test_the_hash_does_not_depend_on_the_pieces_the_columns_come_in():
    whole = manifest(*IDS)
    in_pieces = whole.table.slice(0, 2), whole.table.slice(2)
    assert (
        Manifest.of_columns([pa.concat_tables(in_pieces)[name] for name in whole.table.column_names]).hash == whole.hash
    )


def test_an_image_id_that_is_listed_twice_is_refused_and_named():
    with pytest.raises(PoolError, match=r"image id 'b/1.jpg' is listed twice in the pool"):
        manifest(*IDS, "b/1.jpg")


@settings(deadline=None)
@given(st.one_of(st.integers(0, 40), st.integers(500, 1100)), st.integers(1, 12))
def test_parts_share_out_the_images_with_one_row_group_each(num_images, part_size):
    ids = [f"{number:04}.jpg" for number in range(num_images)]
    written = Manifest.of(map(make_image, ids), part_size)
    with tempfile.TemporaryDirectory() as name:
        written.write(Folder(name))
        written_files = {path.name for path in Path(name).iterdir()}
        assert written_files == set(written.span.file_names or [MANIFEST_FILE])
        files = ManifestFiles(Folder(name), [written.span])
        parts = [files.read(part) for part in range(written.num_parts)]
    sizes = [len(part) for part in parts]
    assert sum(sizes) == num_images
    assert all(size == part_size for size in sizes[:-1])
    assert all(1 <= size <= part_size for size in sizes)
    assert [name for part in parts for name in part["image_id"].to_pylist()] == ids


@given(st.integers(0, 2_000_000))
def test_a_part_is_a_multiple_of_64_images_and_never_more_than_2048(num_images):
    size = default_part_size(num_images)
    assert size % 64 == 0
    assert 64 <= size <= MAX_PART_SIZE == 2048
    parts = -(-num_images // size)
    assert parts <= 64 or size == MAX_PART_SIZE
    assert size == 64 or parts > 32


@pytest.mark.parametrize(
    ("num_images", "size"), [(0, 64), (1, 64), (4096, 64), (4097, 128), (131_072, 2048), (10_000_000, 2048)]
)
def test_small_pools_have_small_parts(num_images, size):
    assert default_part_size(num_images) == size
    assert manifest(*(f"{number}.jpg" for number in range(min(num_images, 5)))).part_size == 64


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not a parquet file at all", "cut"])
def test_a_damaged_manifest_is_named(tmp_path, data):
    manifest(*IDS).write(Folder(str(tmp_path)))
    file = tmp_path / MANIFEST_FILE
    file.write_bytes(file.read_bytes()[:-20] if data == "cut" else data)
    with pytest.raises(LedgerError, match=r"manifest.parquet is damaged .*: score into a new folder"):
        ManifestFiles(Folder(str(tmp_path))).read(0)
