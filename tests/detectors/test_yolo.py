"""The Ultralytics family against Ultralytics itself, on a model that has learned something."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import yaml

from raylearn.data.dataset import Dataset, GroundTruth, Image
from raylearn.data.images import content_hash, decode, heif_is_installed, read_bytes
from raylearn.detectors import build_detector, check_detector, family_named
from raylearn.detectors.base import Detections, DetectorSettings, TrainingSet
from raylearn.detectors.checkpoints import load_matching, write_checkpoint
from raylearn.detectors.families.ultralytics import training as yolo_training
from raylearn.detectors.families.ultralytics.detector import YoloDetector, build_model, read_weights
from raylearn.detectors.families.ultralytics.training import write_data_yaml
from raylearn.detectors.letterbox import letterbox
from raylearn.errors import CheckpointError, ConfigError, DatasetError, DetectorError, DivergedError, RaylearnError
from raylearn.learning.evaluation import mean_average_precision
from raylearn.progress import Steps, heard
from tests.conftest import IMAGE_SIZE

SCORING = DetectorSettings(IMAGE_SIZE, confidence=0.05, iou=0.7, max_detections=100)
EVALUATION = DetectorSettings(IMAGE_SIZE, confidence=0.001, iou=0.7, max_detections=300)


def _pixels(images: tuple[Image, ...]) -> list[np.ndarray]:
    return [decode(read_bytes(image.uri)) for image in images]


def _predict(checkpoint: Path, settings: DetectorSettings, images: list[np.ndarray], batch: int) -> list[Detections]:
    detector = build_detector("yolov5n", settings, num_threads=1)
    detector.load(checkpoint)
    squares = np.stack([letterbox(image, settings.image_size) for image in images])
    sizes = np.array([(image.shape[1], image.shape[0]) for image in images])
    found: list[Detections] = []
    for start in range(0, len(images), batch):
        found += detector.predict(squares[start : start + batch], sizes[start : start + batch])
    return found


@pytest.fixture(scope="module")
def ultralytics_model(trained: Path):
    from ultralytics import YOLO

    content = torch.load(trained, weights_only=True)
    model = YOLO("yolov5n.yaml", task="detect")
    model.model = build_model("yolov5n", len(content["class_names"]))
    model.model.load_state_dict(content["state_dict"])
    model.model.names = dict(enumerate(content["class_names"]))
    model.model.pt_path = "none.pt"
    return model


def test_detections_agree_with_the_ultralytics_predictor(trained, reef, ultralytics_model) -> None:
    images = _pixels(reef.test)
    ours = _predict(trained, SCORING, images, batch=8)
    theirs = ultralytics_model.predict(
        [image[..., ::-1] for image in images],
        imgsz=IMAGE_SIZE,
        rect=False,
        conf=SCORING.confidence,
        iou=SCORING.iou,
        max_det=SCORING.max_detections,
        verbose=False,
    )
    assert sum(map(len, ours)) > 50
    for found, result in zip(ours, theirs, strict=True):
        assert len(found) == len(result.boxes)
        np.testing.assert_allclose(found.boxes, result.boxes.xyxy.numpy(), atol=0.5)
        np.testing.assert_allclose(found.confidences, result.boxes.conf.numpy(), atol=1e-3)
        np.testing.assert_array_equal(found.class_ids, result.boxes.cls.numpy().astype(int))


def test_map_agrees_with_the_ultralytics_validator(trained, reef, ultralytics_model, tmp_path, monkeypatch) -> None:
    from ultralytics.utils import nms

    # Its validator counts a box once for every class whose score passes, predict for the best one: classes that are
    # hardly learned have an AP there and none here.
    suppression = nms.non_max_suppression
    monkeypatch.setattr(
        nms, "non_max_suppression", lambda *args, **options: suppression(*args, **{**options, "multi_label": False})
    )
    found = _predict(trained, EVALUATION, _pixels(reef.test), batch=8)
    ours = mean_average_precision(
        found, [reef.truth[image.image_id] for image in reef.test], reef.class_names, EVALUATION.max_detections
    )
    data = write_data_yaml(TrainingSet(reef.class_names, reef.test, reef.truth), tmp_path)
    theirs = ultralytics_model.val(
        data=str(data),
        imgsz=IMAGE_SIZE,
        rect=False,
        conf=EVALUATION.confidence,
        iou=EVALUATION.iou,
        max_det=EVALUATION.max_detections,
        plots=False,
        verbose=False,
        workers=0,
        project=str(tmp_path),
    )
    assert ours.map50 > 0.1
    assert ours.map50 == pytest.approx(theirs.box.map50, abs=0.01)
    assert ours.map50_95 == pytest.approx(theirs.box.map, abs=0.01)


def test_batch_size_changes_nothing(trained, reef) -> None:
    images = _pixels(reef.test)
    alone = _predict(trained, SCORING, images, batch=1)
    together = _predict(trained, SCORING, images, batch=32)
    for one, other in zip(alone, together, strict=True):
        assert len(one) == len(other)
        np.testing.assert_allclose(one.class_scores, other.class_scores, atol=1e-5)


def test_every_kept_box_has_the_scores_its_head_gave(trained, reef) -> None:
    """The row of class scores is that of the kept anchor: its box decodes to the same place."""
    image = _pixels(reef.test[:1])
    found = _predict(trained, EVALUATION, image, batch=1)[0]
    content = torch.load(trained, weights_only=True)
    model = build_model("yolov5n", len(reef.class_names))
    model.load_state_dict(content["state_dict"])
    square = torch.from_numpy(letterbox(image[0], IMAGE_SIZE)).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        raw = model.eval()(square)[0][0].T.numpy()
    for scores in found.class_scores:
        assert np.abs(raw[:, 4:] - scores).max(axis=1).min() < 1e-4


def test_same_seed_gives_the_same_model_and_another_seed_another(reef, tmp_path) -> None:
    train = TrainingSet(reef.class_names, reef.pool[:8], reef.truth)

    def weights(name: str, seed: int) -> torch.Tensor:
        detector = YoloDetector("yolov5n", SCORING, {"epochs": 1, "batch": 4}, num_threads=1)
        detector.fit(train, initial_weights=None, seed=seed, checkpoint=tmp_path / name)
        return torch.load(tmp_path / name, weights_only=True)["state_dict"]["model.0.conv.weight"]

    first = weights("a.pt", seed=3)
    assert torch.equal(first, weights("b.pt", seed=3))
    assert not torch.equal(first, weights("c.pt", seed=4))


def test_a_cpu_trains_in_bf16_when_asked(reef: Dataset, tmp_path: Path) -> None:
    train = TrainingSet(reef.class_names, reef.pool[:8], reef.truth)

    def weights(name: str, **options: str) -> torch.Tensor:
        detector = YoloDetector("yolov5n", SCORING, {"epochs": 1, "batch": 4, **options}, num_threads=1)
        detector.fit(train, initial_weights=None, seed=3, checkpoint=tmp_path / name)
        return torch.load(tmp_path / name, weights_only=True)["state_dict"]["model.0.conv.weight"]

    torch.backends.cudnn.allow_tf32 = True  # as torch begins with
    fp32, bf16 = weights("fp32.pt"), weights("bf16.pt", amp="bf16")
    assert not torch.backends.cudnn.allow_tf32
    assert bf16.dtype is torch.float32
    assert not torch.equal(fp32, bf16)
    assert torch.allclose(fp32, bf16, atol=0.01)
    assert torch.equal(fp32, weights("again.pt"))  # and what was asked for once does not stay


@pytest.mark.parametrize("amp", [True, "fp16"])
def test_mixed_fp16_on_a_cpu_is_refused_and_not_silently_fp32(amp: object, reef: Dataset, tmp_path: Path) -> None:
    train = TrainingSet(reef.class_names, reef.pool[:4], reef.truth)
    detector = YoloDetector("yolov5n", SCORING, {"epochs": 1, "batch": 4, "amp": amp}, num_threads=1)
    with pytest.raises(DetectorError, match=f"training.options.amp={amp} needs a GPU"):
        detector.fit(train, initial_weights=None, seed=0, checkpoint=tmp_path / "x.pt")


def test_a_batch_that_does_not_fit_is_told_before_the_training_goes_on_with_another(
    reef: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []

    def first_is_too_large(_: object, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        batches.append(len(batch["img"]))
        raise RuntimeError("CUDA out of memory: planted, as no batch is too large for this machine in reasonable time")

    monkeypatch.setattr(yolo_training._Trainer, "preprocess_batch", first_is_too_large)
    train = TrainingSet(reef.class_names, reef.pool[:8], reef.truth)
    detector = YoloDetector("yolov5n", SCORING, {"epochs": 1, "batch": 4}, num_threads=1)
    with pytest.raises(RaylearnError, match="batch_size 4 does not fit into memory: lower"):
        detector.fit(train, initial_weights=None, seed=0, checkpoint=tmp_path / "x.pt")
    assert batches == [4]


def test_training_labels_keep_boxes_and_classes(reef, tmp_path) -> None:
    train = TrainingSet(reef.class_names, reef.pool[:8], reef.truth)
    data = yaml.safe_load(write_data_yaml(train, tmp_path).read_text())
    assert list(data["names"].values()) == list(reef.class_names)
    for index, image in enumerate(sorted(train.images, key=lambda image: image.image_id)):
        rows = np.loadtxt(tmp_path / "labels" / f"{index:07d}.txt", ndmin=2).reshape(-1, 5)
        size = np.array([image.width, image.height])
        centre, extent = rows[:, 1:3] * size, rows[:, 3:] * size
        boxes = np.hstack([centre - extent / 2, centre + extent / 2])
        np.testing.assert_allclose(boxes, reef.truth[image.image_id].boxes, atol=1e-3)
        np.testing.assert_array_equal(rows[:, 0], reef.truth[image.image_id].class_ids)


@pytest.mark.parametrize("name", ["yolov5n", "yolov8n", "yolo11n", "yolov9t", "yolov10n", "yolo26n"])
def test_heads_with_class_scores_are_accepted(name: str) -> None:
    model = build_model(name, num_classes=3).eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 64, 64))[0].shape[1] == 4 + 3


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("rtdetr-l", "RTDETRDecoder"),
        ("yolov8n-seg", "Segment"),
        ("yolov55", "does not exist"),
        ("../x", "does not exist"),
    ],
)
def test_heads_without_class_scores_and_unknown_names_are_refused(name: str, reason: str) -> None:
    with pytest.raises(DetectorError, match=reason) as refused:
        check_detector(name, {})
    assert name in str(refused.value)
    assert "yolov5n" in str(refused.value)


@pytest.mark.parametrize("options", [{"lr0": 7}, {"optimizer": "Adamm"}, {"mosaic": "often"}])
def test_a_training_option_with_an_impossible_value_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        check_detector("yolov5n", options)


def test_coco_backbone_is_loaded_by_matching_names(coco_weights: Path) -> None:
    model = build_model("yolov5n", num_classes=3)
    matched, total = load_matching(model, read_weights(coco_weights), coco_weights)
    assert matched == 342
    assert total > matched


def test_weights_that_are_none_are_found_before_any_work(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_text("import os")
    with pytest.raises(CheckpointError, match=r"weights\.pt"):
        check_detector("yolov5n", {}, path)


def test_an_image_that_changed_since_the_run_began_is_refused(reef: Dataset, tmp_path: Path) -> None:
    changed = replace(reef.pool[0], content_hash="another")
    train = TrainingSet(reef.class_names, (changed, reef.pool[1]), reef.truth)
    with pytest.raises(DatasetError, match="changed since the run began"):
        write_data_yaml(train, tmp_path)


def test_a_whole_ultralytics_checkpoint_serves_as_initial_weights(tmp_path: Path) -> None:
    """A pickled model, as Ultralytics saves them, opened under its safe loader."""
    from ultralytics import YOLO

    path = tmp_path / "ultralytics.pt"
    saved = YOLO("yolov5n.yaml", task="detect")
    saved.save(path)
    model = build_model("yolov5n", num_classes=3)
    matched, total = load_matching(model, read_weights(path), path)
    assert total > matched > 342  # all but the head's last layers, which are made for 80 classes
    assert torch.equal(model.model[0].conv.weight, saved.model.model[0].conv.weight.half().float())


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save({"encoder.weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="none of the 1 tensors"):
        load_matching(build_model("yolov5n", 3), read_weights(path), path)


def test_fit_reports_how_many_tensors_of_the_initial_weights_fitted(trained, reef, tmp_path) -> None:
    detector = YoloDetector("yolov5n", SCORING, {"epochs": 1, "batch": 4}, num_threads=1)
    train = TrainingSet(reef.class_names, reef.pool[:4], reef.truth)
    told: list[Steps] = []
    with heard(told.append):
        report = detector.fit(train, initial_weights=trained, seed=0, checkpoint=tmp_path / "x.pt")
    assert report["tensors_matched"] == report["tensors_total"]
    assert str(told[0]) == "epoch 0/1"


def test_frozen_layers_stay_as_the_initial_weights_have_them(trained, reef, tmp_path) -> None:
    detector = YoloDetector("yolov5n", SCORING, {"epochs": 1, "batch": 4, "freeze": 10}, num_threads=1)
    train = TrainingSet(reef.class_names, reef.pool[:4], reef.truth)
    detector.fit(train, initial_weights=trained, seed=0, checkpoint=tmp_path / "x.pt")
    before, after = read_weights(trained), read_weights(tmp_path / "x.pt")
    moved = {int(name.split(".")[1]) for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert min(moved) >= 10


@pytest.mark.parametrize("freeze", [25, -1, 1.5, True, 10])
def test_layers_that_cannot_be_frozen_are_refused(freeze: object) -> None:
    said = "give those too, or leave it out" if freeze == 10 else "it must be a number of first layers, 0 to 24"
    with pytest.raises(ConfigError, match=said):
        check_detector("yolov5n", {"freeze": freeze})


def test_what_a_run_says_that_it_takes_is_what_fits_and_of_other_classes_the_head_is_new(tmp_path: Path) -> None:
    path, model = tmp_path / "three.pt", build_model("yolov5n", 3)
    write_checkpoint(path, "raylearn-yolo-1", "yolov5n", ("a", "b", "c"), 64, model.state_dict())
    taken = family_named("ultralytics").taken
    assert taken is not None
    total = len(model.state_dict())
    assert taken("yolov5n", 3, path) == (total, total)
    assert taken("yolov5n", 7, path) == (total - 6, total)  # weight and bias of the classes, at three scales


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04broken"])
def test_a_torn_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "torn.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"torn\.pt"):
        read_weights(path)
    with pytest.raises(CheckpointError, match=r"torn\.pt"):
        build_detector("yolov5n", SCORING).load(path)


class _Hostile:
    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self):
        return (Path.touch, (self._canary,))


def test_a_hostile_checkpoint_runs_no_code(tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "hostile.pt"
    torch.save({"model": _Hostile(canary)}, path)
    with pytest.raises(CheckpointError):
        read_weights(path)
    assert not canary.exists()


def test_a_diverged_training_is_an_error(reef: Dataset, tmp_path: Path) -> None:
    arguments = {"epochs": 3, "batch": 4, "box": 1e38}
    detector = YoloDetector("yolov5n", SCORING, arguments, num_threads=1)
    train = TrainingSet(reef.class_names, reef.pool[:8], reef.truth)
    with pytest.raises(DivergedError, match="diverged"):
        detector.fit(train, initial_weights=None, seed=0, checkpoint=tmp_path / "x.pt")
    assert not (tmp_path / "x.pt").exists()


def test_an_untrained_model_without_detections_measures_zero_and_not_an_error(reef: Dataset) -> None:
    nothing = Detections(np.empty((0, 4), np.float32), np.empty((0, 6), np.float32))
    truth = [reef.truth[image.image_id] for image in reef.test]
    measured = mean_average_precision([nothing] * len(truth), truth, reef.class_names, 300)
    assert measured.map50 == measured.map50_95 == 0


def test_map_of_perfect_detections_is_one_and_absent_classes_do_not_count() -> None:
    truth = [GroundTruth(np.array([[10, 10, 50, 50], [60, 60, 90, 80]]), np.array([0, 2]))]
    scores = np.array([[0.9, 0, 0], [0, 0, 0.8]], np.float32)
    measured = mean_average_precision([Detections(truth[0].boxes, scores)], truth, ("a", "b", "c"), 300)
    assert measured.map50_95 == pytest.approx(1)
    assert measured.class_ap == (pytest.approx(1), None, pytest.approx(1))


@pytest.mark.skipif(not heif_is_installed(), reason="pillow-heif is not installed")
@pytest.mark.parametrize("name", ["a.HEIC", "named-so-by-a-telephone.JPG"])
def test_heic_photographs_are_trained_on_and_measured(name: str, reef: Dataset, tmp_path: Path) -> None:
    """Of a training set of one image nothing would be left, had Ultralytics passed over it."""
    from pillow_heif import register_heif_opener

    register_heif_opener()
    image, path = reef.pool[0], tmp_path / name
    PIL.Image.open(image.uri).convert("RGB").save(path, "HEIF", quality=95)
    image = replace(image, uri=str(path), content_hash=content_hash(path.read_bytes()))
    detector = YoloDetector("yolov5n", SCORING, {"epochs": 1, "batch": 1}, num_threads=1)
    train = TrainingSet(reef.class_names, (image,), reef.truth)
    detector.fit(train, initial_weights=None, seed=0, checkpoint=tmp_path / "x.pt")
    found = _predict(tmp_path / "x.pt", EVALUATION, _pixels((image,)), 1)
    truth = [reef.truth[image.image_id]]
    assert mean_average_precision(found, truth, reef.class_names, 300).map50 is not None


def test_training_leaves_the_users_files_as_they_are(reef: Dataset, tmp_path: Path) -> None:
    """Ultralytics writes a JPEG with bytes behind its end marker anew, where it lies."""
    path = tmp_path / "trailing.jpg"
    path.write_bytes(Path(reef.pool[0].uri).read_bytes() + b"\0\0")
    before = path.read_bytes()
    image = replace(reef.pool[0], uri=str(path), content_hash=content_hash(before))
    detector = YoloDetector("yolov5n", SCORING, {"epochs": 1, "batch": 2}, num_threads=1)
    train = TrainingSet(reef.class_names, (image, reef.pool[1]), reef.truth)
    detector.fit(train, initial_weights=None, seed=0, checkpoint=tmp_path / "x.pt")
    assert path.read_bytes() == before


def test_boxes_of_two_classes_do_not_suppress_each_other_on_the_largest_canvas() -> None:
    side = 8192
    detector = build_detector("yolov5n", replace(SCORING, image_size=side), num_threads=1)
    xywh = [[7830.0, 7930.0, 100.0, 100.0], [150.0, 250.0, 100.0, 100.0]]  # 7680 pixels apart in both
    candidates = torch.tensor([[*xywh[0], 0.9, 0.0], [*xywh[1], 0.0, 0.8]])
    kept = detector._suppress(candidates, torch.zeros(2, dtype=torch.int64), [2], (side, side))
    assert kept.tolist() == [0, 1]
