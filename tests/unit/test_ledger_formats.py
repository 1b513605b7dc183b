"""Ledgers of earlier versions: tests/data/ledger_format_1 was made by `raylearn score` before formats had numbers."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylearn.data.storage import Folder
from raylearn.learning.ledger_query import query_ledger
from raylearn.scoring.freezing import freeze
from raylearn.scoring.ledger import Ledger, counts_of, read_facts
from raylearn.scoring.manifest import MANIFEST_FILE, SCHEMA, ManifestFiles
from raylearn.scoring.pass_record import read_record
from raylearn.scoring.updating import read_listings
from raylearn.strategies import Uncertainty

EARLIER = Path(__file__).parent.parent / "data" / "ledger_format_1"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    shutil.copytree(EARLIER, tmp_path / "ledger")
    return Folder(str(tmp_path / "ledger"))


def test_an_earlier_ledger_answers_as_it_did(folder):
    found = query_ledger(folder, Uncertainty("entropy", "sum"), 3, seed=0)
    assert [image.image_id for image in found.images] == [f"clip/clip000{n}_frame00.jpg" for n in (1, 3, 2)]
    scores = [0.17232459999622007, 0.1696741767470659, 0.16464910313482095]
    np.testing.assert_allclose([image.score for image in found.images], scores, rtol=1e-12)
    assert (found.num_candidates, found.num_errors) == (4, 1)


def test_an_earlier_ledger_is_read_whole(folder):
    ledger = Ledger.read(folder)
    assert (len(ledger.image_ids), len(ledger.boxes), list(ledger.errors)) == (4, 20, ["broken.jpg"])
    assert ledger.box_embeddings.shape == (20, 64)


def test_an_earlier_pass_is_one_listing_without_updates(folder):
    record = read_record(folder)
    listings = read_listings(folder, record)
    assert (listings.parts, listings.num_rows, listings.number) == ([0, 1, 2], 5, 0)
    assert counts_of(read_facts(folder)).errors == {"not an image": 1}


def test_a_manifest_of_an_earlier_pass_is_one_file_however_many_parts_it_has(tmp_path):
    ids = [f"{number}.jpg" for number in range(1200)]
    table = pa.table([ids, ids, [""] * 1200, [""] * 1200], schema=SCHEMA)
    pq.write_table(table, tmp_path / MANIFEST_FILE, row_group_size=2)
    listings = read_listings(Folder(str(tmp_path)), {"num_images": 1200, "part_size": 2, "manifest": "hash"})
    files = ManifestFiles(Folder(str(tmp_path)), listings.spans)
    assert files.read(599)["image_id"].to_pylist() == ["1198.jpg", "1199.jpg"]

    (tmp_path / "aside").mkdir()  # listed again, as where the pool was moved, it stays one file
    freeze([table], tmp_path / "aside", 2, listings.spans[0]).put_into(Folder(str(tmp_path)))
    assert [path.name for path in tmp_path.glob("manifest*")] == [MANIFEST_FILE]
    again = ManifestFiles(Folder(str(tmp_path)), listings.spans)
    assert again.read(599).equals(files.read(599))
