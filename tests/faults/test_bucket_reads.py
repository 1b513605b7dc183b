"""How an actor reads a bucket: how often it asks for an image, and that it waits for a store that is away."""

import io
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raylearn.data import s3
from raylearn.data.storage import Folder
from raylearn.detectors.base import Detections, DetectorSettings
from raylearn.errors import StorageError
from raylearn.scoring import patience
from raylearn.scoring.ledger import open_part
from raylearn.scoring.listing import list_pool
from raylearn.scoring.manifest import Manifest
from raylearn.scoring.patience import until_all_are_there
from raylearn.scoring.pipeline import _number_of, _score_each
from raylearn.scoring.plan import ScoringPlan
from raylearn.scoring.reading import read_image
from raylearn.scoring.score_part import Part, ScorePart
from tests.faults.object_store import BUCKET, ObjectStore, object_store, used_here

NUM_IMAGES = 12
PART_SIZE = 4


class Bright:
    """One box in each image, which says how bright it is."""

    class_names = ("bright",)

    def predict(self, canvases: np.ndarray, sizes: np.ndarray) -> list[Detections]:  # noqa: ARG002
        means = canvases.mean(axis=(1, 2, 3))
        return [Detections(np.full((1, 4), mean, np.float32), np.ones((1, 1), np.float32)) for mean in means]


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as running:
        for number in range(NUM_IMAGES):
            running.put(f"images/{number:02d}.bmp", _picture(number))
        yield running


@pytest.fixture(autouse=True, params=["botocore", "pyarrow alone"])
def requests_per_image(
    store: ObjectStore, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[int]:
    """Without botocore, pyarrow asks for the size of what it opens, and then for all of it."""
    alone = request.param == "pyarrow alone"
    if alone:
        monkeypatch.setattr(s3, "find_spec", lambda _: None)
    with used_here(store):
        yield 2 if alone else 1
    store.asked.clear()


def _picture(number: int) -> bytes:
    """400 KB, more than one request of 256 KiB had."""
    file = io.BytesIO()
    Image.fromarray(np.full((400, 340, 3), 20 * number, np.uint8)).save(file, "BMP")
    return file.getvalue()


def _scorer(manifest: Manifest, folder: Folder, requests: int) -> ScorePart:
    manifest.write(folder)
    settings = DetectorSettings(64, 0.05, 0.7, 100)
    return ScorePart(
        Bright, partial(read_image, settings=settings), folder, "key", ScoringPlan("", settings, requests=requests)
    )


def _pool() -> Manifest:
    return list_pool(f"s3://{BUCKET}/images", part_size=PART_SIZE)[0]


def _scored(scorer: ScorePart, num_parts: int) -> list[int]:
    parts = until_all_are_there(range(num_parts), partial(_score_each, scorer), _number_of, 1)
    return [part.number for part in parts]


def _rows(folder: Path) -> list[Any]:
    return [open_part(Folder(str(folder)), part).read() for part in range(NUM_IMAGES // PART_SIZE)]


def test_an_image_of_any_size_costs_one_request_however_many_are_asked_for_at_once(
    store: ObjectStore, tmp_path: Path, requests_per_image: int
) -> None:
    manifest = _pool()
    for requests in (0, 1, 8):
        store.asked.clear()
        folder = tmp_path / str(requests)
        assert _scored(_scorer(manifest, Folder.at(folder), requests), manifest.num_parts) == [0, 1, 2]
        assert {key: count for key, count in store.asked.items() if "images/" in key} == {
            f"/{BUCKET}/images/{number:02d}.bmp": requests_per_image for number in range(NUM_IMAGES)
        }
    assert _rows(tmp_path / "0") == _rows(tmp_path / "1") == _rows(tmp_path / "8")


def test_a_store_that_fails_for_seconds_in_the_middle_of_a_pass_does_not_end_it(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)  # none is tried a second time by whoever asks
    manifest = _pool()
    _scored(_scorer(manifest, Folder.at(tmp_path / "undisturbed"), 4), manifest.num_parts)
    scorer = _scorer(manifest, Folder.at(tmp_path / "disturbed"), 4)
    (first,) = scorer({"number": np.array([0])})["part"]
    assert isinstance(first, Part)
    back, failed = time.monotonic() + 2, []

    def away(_: int) -> int | None:
        if time.monotonic() < back:
            failed.append(time.monotonic())
            return 503
        return None

    store.faults["bmp"] = away
    for number in (1, 2):
        (part,) = scorer({"number": np.array([number])})["part"]
        assert isinstance(part, Part), part
        assert part.counts.num_errors == 0
    assert len(failed) >= 4
    assert _rows(tmp_path / "undisturbed") == _rows(tmp_path / "disturbed")


def test_a_part_whose_store_stays_away_is_scored_after_the_others(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.0)
    manifest = _pool()
    scorer = _scorer(manifest, Folder.at(tmp_path), 4)
    store.faults["05.bmp"] = lambda count: 503 if count < 1 else None
    assert _scored(scorer, manifest.num_parts) == [0, 2, 1]
    assert sum(len(rows) for rows in _rows(tmp_path)) == NUM_IMAGES


def test_an_image_that_may_not_be_read_ends_the_pass_at_once(store: ObjectStore, tmp_path: Path) -> None:
    manifest = _pool()
    scorer = _scorer(manifest, Folder.at(tmp_path), 4)
    store.asked.clear()
    store.faults["05.bmp"] = lambda _: 403
    with pytest.raises(StorageError, match="ACCESS_DENIED"):
        _scored(scorer, manifest.num_parts)
    assert store.asked[f"/{BUCKET}/images/05.bmp"] == 1
