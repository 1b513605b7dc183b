"""The scoring pass on a real Ray."""

import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raylearn.data.dataset import Dataset, Image
from raylearn.data.images import decode, read_bytes
from raylearn.data.storage import Folder
from raylearn.detectors import build_detector
from raylearn.detectors.base import BOX_EMBEDDING, IMAGE_EMBEDDING, DetectorSettings
from raylearn.detectors.letterbox import letterbox
from raylearn.errors import ClusterError
from raylearn.scoring.ledger import Ledger, map_parts
from raylearn.scoring.manifest import Manifest
from raylearn.scoring.pipeline import score_manifest, score_parts
from raylearn.scoring.plan import ScoringPlan
from raylearn.strategies import (
    Candidates,
    Context,
    CoreSet,
    Coverage,
    Diverse,
    Labelled,
    Ppal,
    Strategy,
    Uncertainty,
    ask,
)
from tests.conftest import IMAGE_SIZE

pytestmark = pytest.mark.usefixtures("local_ray")
CHOICE = Uncertainty("entropy", "sum", "none", "background")
CONTEXT = Context(0, np.ones(6, dtype=np.int64))


@pytest.fixture(scope="module")
def plan(trained: Path) -> ScoringPlan:
    settings = DetectorSettings(IMAGE_SIZE, confidence=0.05, iou=0.7, max_detections=100)
    return ScoringPlan(str(trained), settings)


def _score(images: tuple[Image, ...], plan: ScoringPlan, folder: Path) -> Ledger:
    folder.mkdir()
    score_manifest(Manifest.of(images, part_size=8), plan, {}, Folder.at(folder))  # so that actors share a small pool
    return Ledger.read(Folder.at(folder))


def _query(ledger: Ledger) -> tuple[str, ...]:
    candidates = Candidates(ledger.image_ids, ledger.offsets, ledger.class_scores)
    return CHOICE.select(candidates, 10, CONTEXT).image_ids


def test_actors_and_batches_change_neither_ledger_nor_query(reef: Dataset, plan: ScoringPlan, tmp_path: Path) -> None:
    first = _score(reef.pool, replace(plan, num_actors=1, batch_size=1), tmp_path / "one")
    assert len(first.class_scores) > 30
    for name, actors, batch in (("three", 3, 32), ("again", 3, 5)):
        other = _score(
            reef.pool[::-1], replace(plan, num_actors=actors, batch_size=batch, cpus_per_actor=0.5), tmp_path / name
        )
        np.testing.assert_array_equal(first.image_ids, other.image_ids)
        np.testing.assert_array_equal(first.offsets, other.offsets)
        np.testing.assert_allclose(first.boxes, other.boxes, atol=1e-3)
        np.testing.assert_allclose(first.class_scores, other.class_scores, atol=1e-5)
        assert _query(first) == _query(other)


def _answer(strategy: Strategy, ledger: Ledger) -> tuple[str, ...]:
    """What a strategy asks for where the first of a ledger's images are labelled."""
    labelled, rest = np.split(np.arange(len(ledger.image_ids)), [8])
    seen = ledger.candidates.take(labelled)
    context = Context(0, np.ones(6, dtype=np.int64), Labelled(seen, seen.predicted_counts))
    return ask(strategy, ledger.candidates.take(rest), 10, context).image_ids


def test_the_ledger_holds_what_the_detector_gives(reef: Dataset, plan: ScoringPlan, tmp_path: Path) -> None:
    ledger = _score(reef.pool, plan, tmp_path / "ledger")
    detector = build_detector("yolov5n", plan.settings, num_threads=1)
    detector.load(Path(plan.checkpoint))
    by_id = {image.image_id: image for image in reef.pool}
    for position, image_id in enumerate(ledger.image_ids):
        pixels = decode(read_bytes(by_id[image_id].uri))
        sizes = np.array([[pixels.shape[1], pixels.shape[0]]])
        found = detector.predict(letterbox(pixels, IMAGE_SIZE)[None], sizes)[0]
        rows = slice(ledger.offsets[position], ledger.offsets[position + 1])
        np.testing.assert_allclose(ledger.boxes[rows], found.boxes, atol=1e-3)
        np.testing.assert_allclose(ledger.class_scores[rows], found.class_scores, atol=1e-5)


def test_what_cannot_be_read_is_a_row_and_the_others_do_not_notice(
    reef: Dataset, plan: ScoringPlan, tmp_path: Path
) -> None:
    whole = Path(reef.pool[0].uri).read_bytes()
    bad = {"empty.jpg": b"", "text.jpg": b"no image", "cut.jpg": whole[: len(whole) // 2]}
    images = list(reef.pool[:5])
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        images.append(Image(name, str(tmp_path / name), 0, 0, name))
    images.append(Image("gone.jpg", str(tmp_path / "gone.jpg"), 0, 0, "gone"))
    images.append(replace(reef.pool[5], content_hash="another"))
    ledger = _score(tuple(images), plan, tmp_path / "ledger")
    assert set(ledger.errors) == {*bad, "gone.jpg", reef.pool[5].image_id}
    assert all(ledger.errors.values())
    assert ledger.facts["num_images"] == len(images)
    assert ledger.facts["num_errors"] == len(ledger.errors)
    alone = _score(reef.pool[:5], plan, tmp_path / "alone")
    np.testing.assert_array_equal(ledger.image_ids, alone.image_ids)
    np.testing.assert_allclose(ledger.class_scores, alone.class_scores, atol=1e-5)
    folder = Folder(str(tmp_path / "ledger"))
    assert sum(map_parts(folder, ledger.facts, ["image_id"], lambda table: table.num_rows)) == len(images)


def test_an_image_without_detections_keeps_its_row(reef: Dataset, plan: ScoringPlan, tmp_path: Path) -> None:
    sure = replace(plan, settings=replace(plan.settings, confidence=1.0))
    ledger = _score(reef.pool[:7], sure, tmp_path / "ledger")
    assert len(ledger.image_ids) == 7
    assert len(ledger.class_scores) == 0
    assert (CHOICE.image_scores(ledger, CONTEXT) == 0).all()


def test_a_pass_that_is_left_early_leaves_no_thread_behind(reef: Dataset, plan: ScoringPlan, tmp_path: Path) -> None:
    """One that called Ray after its shutdown would end the process with exit code 1 and without a word."""
    manifest, folder = Manifest.of(reef.pool, part_size=2), Folder.at(tmp_path)
    manifest.write(folder)
    before = set(threading.enumerate())
    with closing(score_parts(range(manifest.num_parts), plan, folder, manifest.hash)) as parts:
        next(parts)
    for thread in set(threading.enumerate()) - before:
        thread.join(20)
        assert not thread.is_alive(), thread.name


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"versions": {"torch": "1.0"}}, "but the pass was begun with 1.0: install the same versions on every node"),
        ({"needs_cuda": True}, "torch cannot use it"),
    ],
    ids=["another torch", "no CUDA"],
)
def test_a_worker_that_would_detect_otherwise_is_refused(
    reef: Dataset, plan: ScoringPlan, tmp_path: Path, wanted: dict[str, object], said: str
) -> None:
    with pytest.raises(ClusterError, match=said):
        _score(reef.pool[:3], replace(plan, **wanted), tmp_path / "ledger")
    assert not list((tmp_path / "ledger").glob("part-*"))


def test_actors_and_batches_change_no_embedding_and_embeddings_change_nothing_else(
    reef: Dataset, plan: ScoringPlan, tmp_path: Path
) -> None:
    plain = _score(reef.pool, replace(plan, num_actors=1), tmp_path / "plain")
    asked = replace(plan, settings=replace(plan.settings, embeddings=True))
    one = _score(reef.pool, replace(asked, num_actors=1), tmp_path / "one")
    three = _score(reef.pool[::-1], replace(asked, num_actors=3, cpus_per_actor=0.5, batch_size=5), tmp_path / "three")
    assert plain.box_embeddings is None
    for name in ("image_ids", "offsets", "boxes", "class_scores"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(one, name))
    np.testing.assert_array_equal(one.offsets, three.offsets)
    for ledger in (one, three):
        assert ledger.box_embeddings is not None
        assert ledger.image_embeddings is not None
        assert ledger.box_embeddings.shape == (len(ledger.boxes), BOX_EMBEDDING)
        assert ledger.image_embeddings.shape == (len(reef.pool), IMAGE_EMBEDDING)
    for strategy in (Diverse(), Coverage(), Coverage(clusters=4), CoreSet(), Ppal(), CHOICE):
        assert _answer(strategy, one) == _answer(strategy, three), strategy.label
    np.testing.assert_allclose(one.box_embeddings, three.box_embeddings, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(one.image_embeddings, three.image_embeddings, rtol=2e-3, atol=2e-3)
