"""What runs the network changes how fast the detections come, not what they are."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from raylearn.data.dataset import Dataset
from raylearn.data.images import decode, read_bytes
from raylearn.detectors import build_detector, read_checkpoint
from raylearn.detectors.base import Detections, DetectorSettings, Engine
from raylearn.detectors.families.ultralytics.detector import build_model, open_model
from raylearn.detectors.families.ultralytics.engines import start_engine
from raylearn.detectors.letterbox import letterbox
from raylearn.errors import CheckpointError, DetectorError, DivergedError
from tests.conftest import IMAGE_SIZE

SETTINGS = DetectorSettings(IMAGE_SIZE, confidence=0.02, iou=0.7, max_detections=100)


def _detect(
    checkpoint: Path, images: list[np.ndarray], canvas: str = "square", engine: Engine | None = None
) -> list[Detections]:
    detector = build_detector("", SETTINGS, num_threads=1, engine=engine)
    detector.load(checkpoint)
    found = []
    for image in images:
        sizes = np.array([[image.shape[1], image.shape[0]]])
        found += detector.predict(letterbox(image, IMAGE_SIZE, canvas)[None], sizes)
    return found


def _images(reef: Dataset) -> list[np.ndarray]:
    """Of several shapes, so that canvases differ."""
    whole = [decode(read_bytes(image.uri)) for image in reef.test[:12]]
    return [*whole, *(np.ascontiguousarray(image[: image.shape[0] // 2]) for image in whole[:4])]


@pytest.mark.parametrize("canvas", ["square", "rectangle"])
def test_openvino_finds_what_torch_finds_on_canvases_of_any_shape(reef: Dataset, trained: Path, canvas: str) -> None:
    images = _images(reef)
    ours = _detect(trained, images, canvas, Engine("openvino"))
    theirs = _detect(trained, images, canvas)
    assert sum(map(len, theirs)) > 20
    for one, other in zip(ours, theirs, strict=True):
        assert len(one) == len(other)
        np.testing.assert_allclose(one.boxes, other.boxes, atol=0.05)
        np.testing.assert_allclose(one.class_scores, other.class_scores, atol=1e-4)


@pytest.mark.parametrize("canvas", ["square", "rectangle"])
def test_detections_are_those_of_ultralytics_predict(reef: Dataset, trained: Path, canvas: str) -> None:
    from ultralytics import YOLO

    content = torch.load(trained, weights_only=True)
    model = YOLO("yolov5n.yaml", task="detect")
    model.model = build_model("yolov5n", len(content["class_names"]))
    model.model.load_state_dict(content["state_dict"])
    model.model.names = dict(enumerate(content["class_names"]))
    model.model.pt_path = "none.pt"
    images = _images(reef)
    for image, found in zip(images, _detect(trained, images, canvas), strict=True):
        (result,) = model.predict(
            image[..., ::-1],
            imgsz=IMAGE_SIZE,
            rect=canvas == "rectangle",
            conf=SETTINGS.confidence,
            iou=SETTINGS.iou,
            max_det=SETTINGS.max_detections,
            verbose=False,
        )
        assert len(found) == len(result.boxes)
        np.testing.assert_allclose(found.boxes, result.boxes.xyxy.numpy(), atol=0.5)
        np.testing.assert_allclose(found.confidences, result.boxes.conf.numpy(), atol=1e-3)
        np.testing.assert_array_equal(found.class_ids, result.boxes.cls.numpy().astype(int))


def test_a_checkpoint_of_ultralytics_is_opened_with_its_names_and_image_size(
    reef: Dataset, trained: Path, tmp_path: Path
) -> None:
    content = torch.load(trained, weights_only=True)
    model = build_model("yolov5n", len(content["class_names"]))
    model.load_state_dict(content["state_dict"])
    model.names = dict(enumerate(content["class_names"]))
    model.args = {"imgsz": IMAGE_SIZE, "task": "detect"}
    theirs = tmp_path / "best.pt"
    torch.save({"model": model, "ema": None, "train_args": {"imgsz": IMAGE_SIZE}, "epoch": -1}, theirs)
    facts = read_checkpoint(theirs)
    assert facts.class_names == reef.class_names
    assert facts.image_size == IMAGE_SIZE
    images = _images(reef)
    for one, other in zip(_detect(theirs, images), _detect(trained, images), strict=True):
        np.testing.assert_allclose(one.class_scores, other.class_scores, atol=1e-5)


def test_raylearns_own_checkpoint_says_what_it_was_trained_at(reef: Dataset, trained: Path) -> None:
    facts = read_checkpoint(trained)
    assert (facts.model, facts.class_names, facts.image_size) == ("yolov5n", reef.class_names, IMAGE_SIZE)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps({"a": 1})], ids=["empty", "text", "pickle"])
def test_what_is_no_checkpoint_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "some.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"some\.pt"):
        read_checkpoint(tmp_path / "some.pt")


def test_a_state_dict_alone_is_no_detector(tmp_path: Path) -> None:
    torch.save(build_model("yolov5n", 2).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"weights\.pt is no detector"):
        read_checkpoint(tmp_path / "weights.pt")


def test_half_precision_needs_a_gpu(trained: Path) -> None:
    with pytest.raises(DetectorError, match="needs a GPU"):
        _detect(trained, [], engine=Engine("torch", "fp16"))


def test_a_diverged_model_is_an_error_and_no_model_without_detections(
    reef: Dataset, trained: Path, tmp_path: Path
) -> None:
    content = torch.load(trained, weights_only=True)
    name = next(name for name in content["state_dict"] if name.endswith("conv.weight"))
    content["state_dict"][name].fill_(float("nan"))
    torch.save(content, tmp_path / "diverged.pt")
    with pytest.raises(DivergedError, match="not a finite number"):
        _detect(tmp_path / "diverged.pt", _images(reef)[:1])


def test_boxes_are_decoded_in_full_precision_whatever_the_network_runs_in(reef: Dataset, trained: Path) -> None:
    canvases = np.stack([letterbox(image, IMAGE_SIZE) for image in _images(reef)[:2]])
    device = torch.device("cpu")
    with torch.inference_mode():
        exact, reduced = (
            start_engine(open_model(trained)[0].eval().fuse(verbose=False), Engine("torch", precision), device, 1)(
                canvases
            ).predictions
            for precision in ("fp32", "bf16")
        )
    boxes = reduced[:, :4]
    assert reduced.dtype == torch.float32
    assert (boxes != boxes.bfloat16().float()).float().mean() > 0.9  # bf16 knows whole pixels only
    assert (boxes - exact[:, :4]).abs().median() < 0.5


def test_an_unknown_backend_is_named(trained: Path) -> None:
    with pytest.raises(DetectorError, match="did you mean 'openvino'"):
        _detect(trained, [], engine=Engine("openvin"))


def test_openvino_reports_to_nobody(trained: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from raylearn.detectors import build_detector;"
        "from raylearn.detectors.base import DetectorSettings, Engine;"
        "build_detector('', DetectorSettings(64, .1, .7, 9), engine=Engine('openvino')).load(Path(sys.argv[1]));"
        "from openvino.tools.ovc import telemetry_utils; print(telemetry_utils.tm.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(trained)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["openvino.tools.ovc.telemetry_stub"]
