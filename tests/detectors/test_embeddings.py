"""Embeddings of the Ultralytics family: what the head saw at each kept box's own place, and nothing else changes."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from raylearn.detectors import build_detector
from raylearn.detectors.base import BOX_EMBEDDING, IMAGE_EMBEDDING, Detections, DetectorSettings, Engine
from raylearn.detectors.checkpoints import write_checkpoint
from raylearn.detectors.embeddings import embed, projection
from raylearn.detectors.families.ultralytics import FORMAT
from raylearn.detectors.families.ultralytics.detector import build_model, open_model
from raylearn.errors import DetectorError, DivergedError

SIZE = 128
CLASS_NAMES = ("a", "b", "c")
ENGINES = [Engine("torch", "fp32"), Engine("torch", "bf16"), Engine("openvino", "fp32")]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _pictures(num: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (num, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(SIZE // 8, axis=1).repeat(SIZE // 8, axis=2)


def _write(path: Path, name: str) -> Path:
    """Random weights that are normalised to the pictures, so that scores differ from place to place."""
    torch.manual_seed(0)
    model = build_model(name, len(CLASS_NAMES)).train()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        model(torch.from_numpy(_pictures(4)).permute(0, 3, 1, 2).float() / 255)
        for branch in model.model[-1].cv3:
            branch[-1].weight.mul_(20)
            branch[-1].bias.zero_()
    write_checkpoint(path, FORMAT, name, CLASS_NAMES, SIZE, model.state_dict())
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("lively") / "x.pt", "yolov5n")


def _predict(
    checkpoint: Path, pictures: np.ndarray, *, embeddings: bool = True, engine: Engine | None = None
) -> list[Detections]:
    settings = DetectorSettings(SIZE, confidence=0.6, iou=0.7, max_detections=40, embeddings=embeddings)
    detector = build_detector("", settings, num_threads=1, engine=engine)
    detector.load(checkpoint)
    return detector.predict(pictures, np.array([[SIZE, SIZE]] * len(pictures)))


def _of_boxes(found: Detections) -> np.ndarray:
    assert found.box_embeddings is not None
    return found.box_embeddings


def _of_image(found: Detections) -> np.ndarray:
    assert found.image_embedding is not None
    return found.image_embedding


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: f"{engine.backend} {engine.precision}")
def test_boxes_and_class_scores_are_the_same_bytes_with_embeddings_and_without(
    checkpoint: Path, engine: Engine
) -> None:
    plain = _predict(checkpoint, _pictures(4), embeddings=False, engine=engine)
    asked = _predict(checkpoint, _pictures(4), engine=engine)
    assert sum(map(len, plain)) > 40
    for one, other in zip(plain, asked, strict=True):
        assert one.boxes.tobytes() == other.boxes.tobytes()
        assert one.class_scores.tobytes() == other.class_scores.tobytes()
        assert one.box_embeddings is None
        assert one.image_embedding is None
        assert _of_boxes(other).shape == (len(other), BOX_EMBEDDING)


@pytest.mark.parametrize("name", ["yolov5n", "yolo11n", "yolov10n", "yolo26n"])
def test_a_box_is_embedded_by_what_its_own_class_scores_are_made_of(name: str, tmp_path: Path) -> None:
    # These heads have 64 channels, so that the projection to 64 numbers can be undone.
    path = _write(tmp_path / "x.pt", name)
    head = open_model(path)[0].model[-1]
    found = _predict(path, _pictures(3))
    assert min(map(len, found)) > 10
    for image in found:
        features = torch.from_numpy(_of_boxes(image).astype(np.float32) @ projection(64, BOX_EMBEDDING).T)
        with torch.no_grad():
            by_level = [branch[-1](features[:, :, None, None])[:, :, 0, 0].sigmoid().numpy() for branch in head.cv3]
        errors = np.abs(np.stack(by_level) - image.class_scores).max(axis=2)
        assert errors.min(axis=0).max() < 0.02
        assert np.median(errors) > 0.1  # that of another level


def test_an_image_and_its_copy_have_the_same_embeddings_and_another_image_has_others(checkpoint: Path) -> None:
    first, second = _pictures(2)
    one, other, copy = _predict(checkpoint, np.stack([first, second, first]))
    np.testing.assert_allclose(_of_image(one), _of_image(copy), rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(_of_boxes(one), _of_boxes(copy), rtol=2e-3, atol=1e-3)
    assert np.abs(_of_image(one) - _of_image(other)).max() > 0.1


def test_batch_mates_change_embeddings_no_more_than_rounding_does(checkpoint: Path) -> None:
    together = _predict(checkpoint, _pictures(5))
    for picture, found in zip(_pictures(5), together, strict=True):
        (alone,) = _predict(checkpoint, picture[None])
        np.testing.assert_allclose(_of_boxes(alone), _of_boxes(found), rtol=2e-3, atol=1e-3)
        np.testing.assert_allclose(_of_image(alone), _of_image(found), rtol=2e-3, atol=1e-4)


def test_openvino_sees_what_torch_sees(checkpoint: Path) -> None:
    torchs, openvinos = (_predict(checkpoint, _pictures(3), engine=Engine(name)) for name in ("torch", "openvino"))
    for one, other in zip(torchs, openvinos, strict=True):
        np.testing.assert_allclose(_of_boxes(one), _of_boxes(other), rtol=1e-2, atol=1e-2)
        np.testing.assert_allclose(_of_image(one), _of_image(other), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_an_engine_that_would_give_other_boxes_is_refused(checkpoint: Path, precision: str) -> None:
    with pytest.raises(DetectorError, match=f"embeddings need backend torch.*openvino in {precision}"):
        _predict(checkpoint, _pictures(1), engine=Engine("openvino", precision))


def test_an_image_without_boxes_is_embedded_too(checkpoint: Path) -> None:
    settings = DetectorSettings(SIZE, confidence=1.0, iou=0.7, max_detections=40, embeddings=True)
    detector = build_detector("", settings, num_threads=1)
    detector.load(checkpoint)
    (found,) = detector.predict(_pictures(1), np.array([[SIZE, SIZE]]))
    assert _of_boxes(found).shape == (0, BOX_EMBEDDING)
    assert np.abs(_of_image(found)).max() > 0


# The projection


@pytest.mark.parametrize(("width", "numbers"), [(80, 64), (448, 128), (64, 64), (1024, 64)])
def test_a_projection_is_orthogonal(width: int, numbers: int) -> None:
    matrix = projection(width, numbers)
    assert matrix.shape == (width, numbers)
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(numbers), atol=1e-5)


def test_features_narrower_than_an_embedding_keep_their_distances() -> None:
    features = np.random.default_rng(0).standard_normal((20, 16)).astype(np.float32)
    found = embed(torch.from_numpy(features), IMAGE_EMBEDDING).astype(np.float32)
    assert found.shape == (20, IMAGE_EMBEDDING)

    def distances(points: np.ndarray) -> np.ndarray:
        return np.linalg.norm(points[:, None] - points, axis=2)

    np.testing.assert_allclose(distances(found), distances(features), atol=5e-3)


def test_a_projection_is_the_same_in_every_process() -> None:
    program = (
        "import hashlib; from raylearn.detectors.embeddings import projection; "
        "print(hashlib.sha256(projection(448, 128).tobytes() + projection(80, 64).tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    own = hashlib.sha256(projection(448, 128).tobytes() + projection(80, 64).tobytes())
    assert other.stdout.strip() == own.hexdigest()


def test_a_feature_too_large_for_float16_is_cut_and_one_that_is_not_finite_is_a_diverged_model() -> None:
    (found,) = embed(torch.full((1, 64), 1e6), BOX_EMBEDDING)
    assert np.isfinite(found).all()
    assert np.abs(found).max() == np.finfo(np.float16).max
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(DivergedError, match="feature that is not a finite number"):
            embed(torch.tensor([[1.0, wrong]]), BOX_EMBEDDING)
