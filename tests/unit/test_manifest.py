"""The manifest: images by id, known by their content."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylearn.errors import LedgerError, PoolError
from raylearn.scoring.manifest import (
    MAX_PART_SIZE,
    Manifest,
    default_part_size,
    describe_difference,
    read_manifest_file,
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


def test_an_image_id_that_stands_twice_is_refused_and_named():
    with pytest.raises(PoolError, match=r"image id 'b/1.jpg' stands twice in the pool"):
        manifest(*IDS, "b/1.jpg")


@given(st.integers(0, 40), st.integers(1, 12))
def test_parts_share_out_the_images_with_one_row_group_each(num_images, part_size):
    ids = [f"{number:03}.jpg" for number in range(num_images)]
    written = Manifest.of(map(make_image, ids), part_size)
    file = pq.ParquetFile(written.to_buffer())
    sizes = [file.metadata.row_group(part).num_rows for part in range(file.num_row_groups)] if num_images else []
    assert sum(sizes) == num_images
    assert all(size == part_size for size in sizes[:-1])
    assert all(1 <= size <= part_size for size in sizes)

    assert [file.read_row_group(part).num_rows for part in range(written.num_parts)] == sizes
    assert [
        name for part in range(written.num_parts) for name in file.read_row_group(part)["image_id"].to_pylist()
    ] == ids

    read = Manifest.from_file(written.to_buffer(), part_size)
    assert read.table.equals(written.table)
    assert (read.hash, read.num_parts) == (written.hash, written.num_parts)


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


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no parquet file at all", "cut"])
def test_a_damaged_manifest_is_named(data):
    data = manifest(*IDS).to_buffer().to_pybytes()[:-20] if data == "cut" else data
    with pytest.raises(LedgerError, match=r"manifest.parquet is damaged .*: score into a new folder"):
        read_manifest_file(io.BytesIO(data))


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ({"a": "1", "b": "2", "c": "3", "e": "5", "f": "6"}, "2 added (the first 'e.jpg')"),
        ({"c": "3"}, "2 removed (the first 'a.jpg')"),
        ({"a": "1", "b": "9", "c": "9"}, "2 changed (the first 'b.jpg')"),
        (
            {"d": "4", "b": "2", "c": "9"},
            "1 added (the first 'd.jpg'), 1 removed (the first 'a.jpg'), 1 changed (the first 'c.jpg')",
        ),
        ({"b": "2", "a": "1", "c": "3"}, "the order of its images"),
    ],
    ids=["added", "removed", "changed", "all three", "order"],
)
def test_a_difference_is_told_with_its_first_example(now, told):
    assert describe_difference(listed(a="1", b="2", c="3"), listed(**now)) == told


def test_an_edited_content_is_a_change():
    edited = Manifest.of([make_image("a.jpg", content="edited"), make_image("b.jpg")])
    assert describe_difference(manifest("a.jpg", "b.jpg"), edited) == "1 changed (the first 'a.jpg')"
