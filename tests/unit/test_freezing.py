"""A listing of any length: the files of a manifest, written as rows come, with little in memory."""

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylearn.data.storage import Folder
from raylearn.errors import PoolError
from raylearn.measures.sampling import seeded_order
from raylearn.scoring import spill
from raylearn.scoring.freezing import freeze, quick_hashes, refuse_ids_twice
from raylearn.scoring.listing import list_pool
from raylearn.scoring.manifest import SCHEMA, Manifest, ManifestFiles, Span
from raylearn.scoring.spill import Buckets


def rows_of(ids: list[str]) -> pa.Table:
    return pa.table([ids, [f"/data/{name}" for name in ids], [""] * len(ids), ["1-2"] * len(ids)], schema=SCHEMA)


@pytest.fixture
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "_ROWS_PER_BUCKET", 8)
    monkeypatch.setattr(spill, "_ROWS_AT_ONCE", 16)


@settings(deadline=None, max_examples=30)
@given(
    st.one_of(st.integers(0, 50), st.integers(1000, 1100)),
    st.lists(st.integers(1, 300), max_size=4),
    st.sampled_from([1, 2, 7, 64, None]),
)
def test_rows_that_come_in_pieces_are_frozen_as_the_manifest_of_all_of_them(num_images, cuts, part_size):
    table = rows_of([f"b/{number:05}ä.jpg" for number in range(num_images)])
    whole = Manifest.of_columns(table.columns, part_size)
    borders = [0, *sorted(min(cut, num_images) for cut in cuts), num_images]
    with tempfile.TemporaryDirectory() as name:
        pieces = (table.slice(start, end - start) for start, end in pairwise(borders))
        frozen = freeze(pieces, Path(name), part_size)
        assert frozen.span == whole.span
        assert frozen.hash() == whole.hash
        folder = Folder.at(name + "/pass")
        frozen.put_into(folder)
        files = ManifestFiles(folder, [frozen.span])
        read = pa.concat_tables([SCHEMA.empty_table(), *(files.read(part) for part in range(frozen.span.end))])
        assert read.equals(table)


def test_a_large_pool_has_the_largest_parts_whatever_came_first(tmp_path):
    tables = [rows_of([f"{piece}/{number}" for number in range(5000)]) for piece in range(30)]
    assert freeze(tables, tmp_path).span.part_size == 2048


def test_the_hash_is_that_of_earlier_ledgers():
    """Of tests/data/ledger_format_1, which an earlier raylearn wrote."""
    folder = Path(__file__).parent.parent / "data" / "ledger_format_1"
    files = ManifestFiles(Folder(str(folder)), [Span(0, 5, 2)])
    table = pa.concat_tables(files.read(part) for part in range(3))
    assert Manifest(table, 2).hash == "fecbc940be0325168ba357a8e3c9327ab4f5dbf9b6563797d38e4331e57ef9e2"


@pytest.mark.usefixtures("small_buckets")
@pytest.mark.parametrize("limit", [None, 1, 30, 100, 1000])
def test_a_shuffled_pool_is_in_the_seeded_order_of_its_ids_however_many_buckets_it_takes(tmp_path, limit):
    listed = tmp_path / "pool.txt"
    listed.write_text("".join(f"s3://bucket/{number}.jpg\n" for number in range(100)))
    plain = list_pool(str(listed))[0].table["image_id"].to_pylist()
    shuffled = list_pool(str(listed), shuffle_seed=3, limit=limit)[0].table["image_id"].to_pylist()
    assert shuffled == [plain[i] for i in seeded_order(plain, 3, "pool order")][:limit]


@pytest.mark.usefixtures("small_buckets")
def test_an_id_that_is_listed_twice_is_found_however_far_apart(tmp_path):
    ids = [f"{number}.jpg" for number in range(200)]
    (tmp_path / "fine").mkdir()
    refuse_ids_twice(freeze([rows_of(ids)], tmp_path / "fine"))
    with pytest.raises(PoolError, match=r"image id '7\.jpg' is listed twice"):
        refuse_ids_twice(freeze([rows_of([*ids, "7.jpg"])], tmp_path))


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=60), st.integers(1, 40))
def test_equal_numbers_come_into_one_bucket_in_the_order_they_were_added(numbers, num_rows):
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        patch.setattr(spill, "_ROWS_PER_BUCKET", 4)
        patch.setattr(spill, "_ROWS_AT_ONCE", 7)
        buckets = Buckets(Path(name), "b", pa.schema([("place", pa.int64())]), num_rows)
        for start in range(0, len(numbers), 5):
            some = np.array(numbers[start : start + 5], np.uint64)
            buckets.add(pa.table({"place": np.arange(start, start + len(some))}), some)
        found = [bucket["place"].to_pylist() for bucket in buckets]
    assert len(found) == buckets.count
    where = {place: index for index, bucket in enumerate(found) for place in bucket}
    assert where.keys() == set(range(len(numbers)))
    assert all(bucket == sorted(bucket) for bucket in found)
    by_number = sorted(range(len(numbers)), key=numbers.__getitem__)
    assert [where[place] for place in by_number] == sorted(where.values())
    assert all(where[a] == where[b] for a, b in pairwise(by_number) if numbers[a] == numbers[b])


def test_quick_hashes_tell_ids_apart():
    hashes = quick_hashes(pa.chunked_array([["a", "b"], ["a"]]))
    assert hashes[0] == hashes[2] != hashes[1]
