"""The manifest: images by id, known by their content."""

from hypothesis import given, settings
from hypothesis import strategies as st

from raylearn.scoring.manifest import Manifest
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
