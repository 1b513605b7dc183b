"""The torchvision family against torchvision itself, on models whose random heads give many detections."""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torchvision

from raylearn.data.dataset import Dataset, GroundTruth, Image
from raylearn.data.images import content_hash
from raylearn.detectors import build_detector, check_detector, default_family, family_named, family_of, read_checkpoint
from raylearn.detectors.base import BOX_EMBEDDING, Detections, DetectorSettings, Engine, TrainingSet
from raylearn.detectors.checkpoints import write_checkpoint
from raylearn.detectors.embeddings import embed
from raylearn.detectors.families.torchvision import FORMAT, class_scores_of
from raylearn.detectors.families.torchvision.models import MODELS, build_model, load_initial_weights, open_model, seeded
from raylearn.detectors.families.torchvision.options import TrainingOptions
from raylearn.detectors.families.torchvision.training import batches, examples_of
from raylearn.detectors.letterbox import letterbox, to_canvas, to_original
from raylearn.errors import CheckpointError, ConfigError, DatasetError, DetectorError, DivergedError, RaylearnError
from raylearn.progress import Steps, heard

SSDLITE, FASTER_RCNN = "ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_fpn"
FCOS, RETINANET = "fcos_resnet50_fpn", "retinanet_resnet50_fpn"
CLASS_NAMES = ("a", "b", "c", "d", "e")
SETTINGS = DetectorSettings(320, confidence=0.05, iou=0.6, max_detections=5000)
_LAST_LAYER = re.compile(r"(cls_logits|cls_score|bbox_pred|bbox_reg|bbox_ctrness|module_list\.\d\.1)$")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _canvases(height: int, width: int, num: int = 2) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (num, 8, 8, 3), dtype=np.uint8)
    return np.stack([cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC) for picture in coarse])


def _tensors(canvases: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(canvas).permute(2, 0, 1).float() / 255 for canvas in canvases]


def _lively_weights(name: str, num_classes: int, canvases: np.ndarray) -> dict[str, torch.Tensor]:
    """Random weights whose scores and boxes vary from place to place and from class to class."""
    model = build_model(name, num_classes, seed=3).eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
            layer.train()
    seen = set()

    def spread(layer: torch.nn.Module, _: object, given: torch.Tensor) -> torch.Tensor | None:
        if layer in seen:
            return None
        seen.add(layer)
        others = [axis for axis in range(given.ndim) if axis != 1]
        mean, std = given.mean(others), given.std(others) + 1e-6
        width = (2.0 if layer in scoring else 0.3) / std
        layer.weight.mul_(width.reshape([-1] + [1] * (layer.weight.ndim - 1)))
        layer.bias.copy_((layer.bias - mean) * width)
        return (given - mean.reshape([1, -1] + [1] * len(others[1:]))) * width.reshape([1, -1] + [1] * len(others[1:]))

    last = {name: layer for name, layer in model.named_modules() if _LAST_LAYER.search(name)}
    scoring = {layer for name, layer in last.items() if not re.search("pred|reg", name)}
    hooks = [layer.register_forward_hook(spread) for layer in last.values()]
    with torch.no_grad():
        model(_tensors(canvases))
    for hook in hooks:
        hook.remove()
    return model.state_dict()


def _checkpoint(path: Path, name: str, num_classes: int, canvases: np.ndarray) -> Path:
    weights = _lively_weights(name, num_classes, canvases)
    write_checkpoint(path, FORMAT, name, CLASS_NAMES[:num_classes], canvases.shape[2], weights)
    return path


def _detector(checkpoint: Path, settings: DetectorSettings, engine: Engine | None = None) -> Any:
    detector = build_detector("", settings, num_threads=1, engine=engine, family="torchvision")
    detector.load(checkpoint)
    return detector


def _predict(checkpoint: Path, canvases: np.ndarray, settings: DetectorSettings = SETTINGS) -> list[Detections]:
    return _detector(checkpoint, settings).predict(canvases, _sizes(canvases))


def _sizes(canvases: np.ndarray) -> np.ndarray:
    return np.array([(canvases.shape[2], canvases.shape[1])] * len(canvases))


@dataclass(frozen=True)
class _Theirs:
    """What torchvision's own call gives for one image, and the head's row that each detection was made of."""

    boxes: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray
    class_scores: np.ndarray
    background: np.ndarray | None

    def of_the_highest_class(self) -> "_Theirs":
        mine = self.class_scores.argmax(axis=1) == self.class_ids
        background = None if self.background is None else self.background[mine]
        return _Theirs(self.boxes[mine], self.scores[mine], self.class_ids[mine], self.class_scores[mine], background)


def _torchvision(
    checkpoint: Path,
    canvas: np.ndarray,
    settings: DetectorSettings,
    fixed_size: tuple[int, int] | None = None,
    **arguments: Any,
) -> _Theirs:
    content = torch.load(checkpoint, weights_only=True)
    name, num_classes = content["model"], len(content["class_names"])
    softmax = class_scores_of(name) == "softmax"
    model = getattr(torchvision.models.detection, name)(
        weights=None, weights_backbone=None, num_classes=num_classes + softmax, **arguments
    ).eval()
    model.load_state_dict(content["state_dict"])
    model.to(memory_format=torch.channels_last)  # which rounds otherwise, and random heads make much of the last bits
    model.transform.fixed_size = fixed_size or model.transform.fixed_size
    last = getattr(model, "roi_heads", model)
    last.score_thresh, last.nms_thresh, last.detections_per_img = (
        settings.confidence,
        settings.iou,
        settings.max_detections,
    )
    given: list[Any] = []
    head = last.box_predictor if last is not model else model.head
    head.register_forward_hook(lambda *call: given.append(call[-1]))
    with torch.inference_mode():
        (found,) = model(_tensors(canvas[None]))
    (outputs,) = given
    if isinstance(outputs, tuple):
        scores = outputs[0].softmax(-1).numpy()
    elif softmax:
        scores = outputs["cls_logits"][0].softmax(-1).numpy()
    else:
        scores = outputs["cls_logits"][0].sigmoid()
        if "bbox_ctrness" in outputs:
            scores = torch.sqrt(scores * outputs["bbox_ctrness"][0].sigmoid())
        scores = scores.numpy()
    labels = found["labels"].numpy()
    # A score tells the row it was taken from, or rows that are alike, as of two proposals that fill the canvas.
    distance = np.abs(scores[:, labels] - found["scores"].numpy())
    rows, others = scores[np.argsort(distance, axis=0)[:2]]
    assert (distance.min(axis=0) < 1e-6).all()
    np.testing.assert_allclose(rows[(second := np.sort(distance, axis=0)[1]) == 0], others[second == 0], atol=1e-5)
    return _Theirs(
        found["boxes"].numpy(),
        found["scores"].numpy(),
        labels - softmax,
        rows[:, int(softmax) :],
        rows[:, 0] if softmax else None,
    )


def _assert_equal(ours: Detections, theirs: _Theirs) -> None:
    assert len(ours) == len(theirs.scores)
    np.testing.assert_allclose(ours.confidences, theirs.scores, atol=1e-3)
    np.testing.assert_array_equal(ours.class_ids, theirs.class_ids)
    np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=0.5)
    np.testing.assert_allclose(ours.class_scores, theirs.class_scores, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_detections_are_torchvisions_own_each_with_all_scores_of_its_head(name: str, tmp_path: Path) -> None:
    """Of an anchor or a proposal that torchvision keeps for several classes, the detection of the highest one."""
    ssd = name.startswith("ssd")
    canvases = _canvases(320, 320) if ssd else _canvases(64, 96)
    unscaled = {} if ssd else {"min_size": 96, "max_size": 96}
    checkpoint = _checkpoint(tmp_path / "x.pt", name, len(CLASS_NAMES), canvases)
    (ours,) = _predict(checkpoint, canvases[:1])
    everything = _torchvision(checkpoint, canvases[0], SETTINGS, **unscaled)
    theirs = everything.of_the_highest_class()
    assert len(theirs.scores) > 30
    assert ssd or len(theirs.scores) < len(everything.scores)
    _assert_equal(ours, theirs)
    if theirs.background is not None:
        background = np.sort(1 - ours.class_scores.sum(axis=1))
        np.testing.assert_allclose(background, np.sort(theirs.background), atol=1e-5)
        assert background.max() > 0.1


@pytest.mark.parametrize("name", [SSDLITE, FASTER_RCNN, FCOS])
def test_with_one_class_nothing_of_torchvisions_is_left_out(name: str, tmp_path: Path) -> None:
    ssd = name.startswith("ssd")
    canvases = _canvases(320, 320) if ssd else _canvases(96, 96)
    checkpoint = _checkpoint(tmp_path / "x.pt", name, 1, canvases)
    unscaled = {} if ssd else {"min_size": 96, "max_size": 96}
    theirs = _torchvision(checkpoint, canvases[0], SETTINGS, **unscaled)
    assert len(theirs.scores) > 30
    _assert_equal(_predict(checkpoint, canvases[:1])[0], theirs)


def test_above_one_half_nothing_of_a_softmax_head_is_left_out(tmp_path: Path) -> None:
    canvases = _canvases(320, 320)
    checkpoint = _checkpoint(tmp_path / "x.pt", SSDLITE, len(CLASS_NAMES), canvases)
    settings = replace(SETTINGS, confidence=0.5)
    theirs = _torchvision(checkpoint, canvases[0], settings)
    assert len(theirs.scores) > 30
    _assert_equal(_predict(checkpoint, canvases[:1], settings)[0], theirs)


@pytest.fixture(scope="module")
def ssdlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ssdlite") / "x.pt"
    return _checkpoint(path, SSDLITE, len(CLASS_NAMES), _canvases(320, 320))


def test_max_detections_keeps_the_most_confident_of_what_is_kept(ssdlite: Path) -> None:
    canvases = _canvases(320, 320)
    (all_of_it, *_), (few, *_) = (
        _predict(ssdlite, canvases, replace(SETTINGS, max_detections=most)) for most in (5000, 40)
    )
    assert len(few) == 40 < len(all_of_it)
    np.testing.assert_array_equal(few.class_scores, all_of_it.class_scores[:40])
    # torchvision counts the detections that are left out here too
    theirs = _torchvision(ssdlite, canvases[0], replace(SETTINGS, max_detections=40)).of_the_highest_class()
    assert 0 < len(theirs.scores) <= 40
    np.testing.assert_allclose(few.confidences[: len(theirs.scores)], theirs.scores, atol=1e-5)


def test_ssdlite_takes_canvases_of_another_size_and_shape_as_they_are(ssdlite: Path) -> None:
    canvases = _canvases(96, 128, num=1)
    everything = _torchvision(ssdlite, canvases[0], SETTINGS, fixed_size=(128, 96))
    theirs = everything.of_the_highest_class()
    assert 30 < len(theirs.scores) < len(everything.scores)
    _assert_equal(_predict(ssdlite, canvases)[0], theirs)


# Embeddings


def _by_hand(checkpoint: Path, canvas: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What the last layer of the class branch is given and what it makes of that, at every place of every level."""
    model, _ = open_model(checkpoint)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    for name, layer in model.named_modules():
        if re.search(r"(classification_head\.(cls_logits|module_list\.\d\.1)|cls_score)$", name):
            layer.register_forward_hook(lambda _, given, made: seen.append((given[0], made)))
    with torch.inference_mode():
        model.eval()(_tensors(canvas[None]))
    for given, made in seen:
        if given.ndim == 2:
            yield given.numpy(), made.softmax(-1)[:, 1:].numpy()
            continue
        softmax = "softmax" in class_scores_of(read_checkpoint(checkpoint).model)
        columns = len(CLASS_NAMES) + softmax
        rows = made[0].reshape(-1, columns, *made.shape[2:]).permute(2, 3, 0, 1).reshape(-1, columns)
        per_cell = made.shape[1] // columns
        features = given[0].flatten(1).T.repeat_interleave(per_cell, 0)
        yield features.numpy(), (rows.softmax(-1)[:, 1:] if softmax else rows.sigmoid()).numpy()


@pytest.mark.parametrize("name", [SSDLITE, FASTER_RCNN, FCOS, RETINANET])
def test_a_box_is_embedded_by_what_its_own_class_scores_are_made_of(name: str, tmp_path: Path) -> None:
    canvases = _canvases(96, 96)
    checkpoint = _checkpoint(tmp_path / "x.pt", name, len(CLASS_NAMES), canvases)
    settings = replace(SETTINGS, max_detections=60)
    plain = _predict(checkpoint, canvases, settings)
    found = _predict(checkpoint, canvases, replace(settings, embeddings=True))
    for one, other in zip(plain, found, strict=True):
        assert one.boxes.tobytes() == other.boxes.tobytes()
        assert one.class_scores.tobytes() == other.class_scores.tobytes()
    for canvas, own in zip(canvases, found, strict=True):
        best, embeddings = np.full(len(own), np.inf), np.zeros((len(own), BOX_EMBEDDING))
        of_boxes, of_image = own.box_embeddings, own.image_embedding
        assert of_boxes is not None
        assert of_image is not None
        assert len(own) > 20
        assert np.abs(of_image).max() > 0
        # FCOS gives the root of the class score times a number of the place: rows are compared by their direction.
        scores = own.class_scores**2 if name == FCOS else own.class_scores
        for features, rows in _by_hand(checkpoint, canvas):
            apart = 1 - _unit(scores) @ _unit(rows).T if name == FCOS else _distances(scores, rows)
            nearest = apart.argmin(axis=1)
            closer = apart.min(axis=1) < best
            best = np.where(closer, apart.min(axis=1), best)
            projected = embed(torch.from_numpy(features[nearest].copy()), BOX_EMBEDDING)
            embeddings[closer] = projected[closer]
        assert best.max() < 1e-4
        off = np.linalg.norm(of_boxes - embeddings, axis=1) / np.linalg.norm(embeddings, axis=1)
        assert np.median(off) < 1e-2
        assert (off < 0.02).mean() > 0.95  # places with equal scores may be told from each other by nothing


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _distances(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.abs(rows[:, None] - others).max(axis=2)


def test_a_box_is_embedded_alike_whatever_its_batch_mates(ssdlite: Path) -> None:
    canvases = _canvases(320, 320, num=3)
    detector = _detector(ssdlite, replace(SETTINGS, max_detections=40, embeddings=True))
    for canvas, found in zip(canvases, detector.predict(canvases, _sizes(canvases)), strict=True):
        (alone,) = detector.predict(canvas[None], _sizes(canvas[None]))
        np.testing.assert_allclose(alone.box_embeddings, found.box_embeddings, rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(alone.image_embedding, found.image_embedding, rtol=2e-3, atol=2e-3)


def test_batch_mates_change_nothing(ssdlite: Path) -> None:
    canvases = _canvases(320, 320, num=4)
    detector = _detector(ssdlite, SETTINGS)
    together = detector.predict(canvases, _sizes(canvases))
    for canvas, found in zip(canvases, together, strict=True):
        (alone,) = detector.predict(canvas[None], _sizes(canvas[None]))
        assert len(alone) == len(found)
        np.testing.assert_allclose(alone.class_scores, found.class_scores, atol=1e-5)


def test_threads_that_predict_at_once_get_what_each_gets_alone(ssdlite: Path) -> None:
    canvases = [_canvases(320, 320, num=1), _canvases(192, 256, num=1)] * 3
    detector = _detector(ssdlite, SETTINGS)
    alone = [detector.predict(batch, _sizes(batch))[0] for batch in canvases]
    with ThreadPoolExecutor(2) as threads:
        at_once = list(threads.map(lambda batch: detector.predict(batch, _sizes(batch))[0], canvases))
    for one, other in zip(alone, at_once, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.class_scores, other.class_scores)


def test_boxes_come_back_in_pixels_of_the_original(ssdlite: Path) -> None:
    image = _canvases(100, 200, num=1)[0]
    canvases = letterbox(image, 320)[None]
    (ours,) = _detector(ssdlite, SETTINGS).predict(canvases, np.array([[200, 100]]))
    (in_canvas,) = _predict(ssdlite, canvases)
    assert len(ours) > 30
    np.testing.assert_allclose(ours.boxes, to_original(in_canvas.boxes, (320, 320), (200, 100)), atol=1e-3)
    assert (ours.boxes <= (200, 100, 200, 100)).all()


def test_boxes_go_into_a_canvas_and_back() -> None:
    boxes = np.array([[0, 0, 200, 100], [20.5, 30, 60, 91]], np.float32)
    canvas = (320, 320)
    np.testing.assert_allclose(to_canvas(boxes, canvas, (200, 100)), [[0, 80, 320, 240], [32.8, 128, 96, 225.6]])
    np.testing.assert_allclose(to_original(to_canvas(boxes, canvas, (200, 100)), canvas, (200, 100)), boxes, atol=1e-4)


@pytest.mark.parametrize("name", [SSDLITE, FASTER_RCNN])
def test_boxes_and_scores_are_made_in_fp32_whatever_the_layers_compute_in(name: str, tmp_path: Path) -> None:
    canvases = _canvases(192, 192)
    checkpoint = _checkpoint(tmp_path / "x.pt", name, 1, canvases)
    exact, reduced = (
        _detector(checkpoint, replace(SETTINGS, confidence=0.2), Engine("torch", precision)).predict(
            canvases, _sizes(canvases)
        )[0]
        for precision in ("fp32", "bf16")
    )
    assert not np.array_equal(exact.boxes[:9], reduced.boxes[:9])
    assert len(reduced) == pytest.approx(len(exact), rel=0.2)
    inside = reduced.boxes[(reduced.boxes > 128) & (reduced.boxes < 191)]
    assert len(inside) > 30
    assert (inside != np.round(inside)).mean() > 0.9  # bf16 knows whole pixels only


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (Engine("openvino"), "no backend 'openvino': use torch"),
        (Engine("torch", "fp16"), "needs a GPU"),
        (Engine("torch", "fp23"), "unknown precision 'fp23': did you mean 'fp32'"),
    ],
)
def test_an_engine_that_is_not_to_be_had_is_refused(engine: Engine, message: str) -> None:
    with pytest.raises(DetectorError, match=message):
        build_detector("", SETTINGS, engine=engine, family="torchvision")


def test_an_unknown_model_is_named_with_the_nearest() -> None:
    with pytest.raises(DetectorError, match="did you mean 'fcos_resnet50_fpn'"):
        check_detector("fcos_resnet50", {}, family="torchvision")


def test_a_checkpoint_says_what_it_is_and_is_found_by_its_contents(ssdlite: Path) -> None:
    assert family_of(ssdlite).name == "torchvision"
    facts = read_checkpoint(ssdlite)
    assert (facts.model, facts.class_names, facts.image_size) == (SSDLITE, CLASS_NAMES, 320)


def test_keys_and_records_say_which_convention_the_scores_of_a_model_have() -> None:
    family = family_named("torchvision")
    assert family.facts(SSDLITE)["class_scores"] == family.facts(FASTER_RCNN)["class_scores"] == "softmax"
    assert family.facts(FCOS)["class_scores"] == family.facts("retinanet_resnet50_fpn")["class_scores"] == "sigmoid"
    assert family_named(default_family()).facts("yolov5n") == {}


def test_a_checkpoint_that_lacks_a_tensor_is_refused(ssdlite: Path, tmp_path: Path) -> None:
    content = torch.load(ssdlite, weights_only=True)
    content["state_dict"].popitem()
    torch.save(content, tmp_path / "torn.pt")
    with pytest.raises(CheckpointError, match=r"torn\.pt is no whole checkpoint"):
        _predict(tmp_path / "torn.pt", _canvases(64, 64))


@pytest.mark.parametrize("part", ["backbone.fpn.inner_blocks.0.0.weight", "rpn.head.bbox_pred.weight"])
def test_a_diverged_model_is_an_error_and_not_a_model_without_detections(part: str, tmp_path: Path) -> None:
    weights = build_model(FASTER_RCNN, 2).state_dict()
    weights[part].fill_(float("nan"))
    write_checkpoint(tmp_path / "x.pt", FORMAT, FASTER_RCNN, ("a", "b"), 64, weights)
    with pytest.raises(DivergedError, match="not a finite number"):
        _predict(tmp_path / "x.pt", _canvases(64, 64))


def test_the_record_of_the_family_is_read_without_torch() -> None:
    code = (
        "import sys; from raylearn.detectors import family_named; family_named('torchvision').facts('x');"
        "print([name for name in ('torch', 'torchvision') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]"]


# Training


def _fit(train: TrainingSet, path: Path, seed: int = 0, size: int = 64, model: str = SSDLITE, **options: Any) -> Any:
    initial_weights = options.pop("initial_weights", None)
    settings = replace(SETTINGS, image_size=size)
    arguments = {"epochs": 1, "batch": 4, **options}
    detector = build_detector(model, settings, arguments, num_threads=1, family="torchvision")
    return detector.fit(train, initial_weights=initial_weights, seed=seed, checkpoint=path)


def _weights(path: Path) -> Mapping[str, torch.Tensor]:
    weights: Mapping[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return weights


def _equal(one: Path, other: Path) -> bool:
    theirs = _weights(other)
    return all(torch.equal(tensor, theirs[name]) for name, tensor in _weights(one).items())


AUGMENTED = {"photometric": 0.5, "scale": 0.3, "translate": 0.1, "flipud": 0.5}


@pytest.mark.parametrize("model", [SSDLITE, FASTER_RCNN])
def test_same_seed_gives_the_same_model_to_the_bit_and_another_seed_another(
    model: str, reef: Dataset, tmp_path: Path
) -> None:
    train = TrainingSet(reef.class_names, reef.pool[:5], reef.truth)
    for name, seed, images in (("a", 3, train.images), ("b", 3, train.images[::-1]), ("c", 4, train.images)):
        torch.rand(seed + len(name))  # what was drawn before does not count
        _fit(replace(train, images=images), tmp_path / name, seed, model=model, **AUGMENTED)
    assert _equal(tmp_path / "a", tmp_path / "b")
    assert not _equal(tmp_path / "a", tmp_path / "c")


def test_training_and_loading_leave_torchs_own_random_numbers_alone(reef: Dataset, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    _fit(TrainingSet(reef.class_names, reef.pool[:4], reef.truth), tmp_path / "x.pt")
    _predict(tmp_path / "x.pt", _canvases(64, 64))
    assert torch.equal(torch.get_rng_state(), before)


def test_boxes_and_classes_stay_with_what_they_are_of(tmp_path: Path) -> None:
    """Through letterbox, flips, scaling and moving; the first class of a softmax head is behind the background."""
    picture = np.zeros((60, 100, 3), np.uint8)
    picture[12:31, 20:51] = (0, 255, 0)
    cv2.imwrite(str(tmp_path / "green.png"), picture)
    data = (tmp_path / "green.png").read_bytes()
    image = Image("green.png", str(tmp_path / "green.png"), 100, 60, content_hash(data))
    truth = {"green.png": GroundTruth(np.array([[20, 12, 51, 31]]), np.array([0]))}
    train = TrainingSet(("green", "red"), (image,), truth)
    options = TrainingOptions(epochs=30, batch=1, flipud=0.5, scale=0.4, translate=0.2)
    lefts = set()
    with seeded(0, torch.device("cpu")):
        drawn = list(batches(examples_of(train, 128, first_class=1), options, steps_per_epoch=1))
    for (pixels, target), *others in drawn:
        assert not others
        assert target["labels"].tolist() == [1]
        left, top, right, bottom = target["boxes"][0].round().int().tolist()
        green = (pixels[1].float() > 200) & (pixels[0] < 100)
        width, height = right - left, bottom - top
        assert green.sum() == pytest.approx(width * height, abs=2 * (width + height))  # the edges are blurred
        assert green[top + 1 : bottom - 1, left + 1 : right - 1].float().mean() > 0.99
        lefts.add(left)
    assert len(lefts) > 5


@pytest.mark.parametrize("model", [SSDLITE, FASTER_RCNN, FCOS])
def test_images_without_boxes_are_learned_from(model: str, reef: Dataset, tmp_path: Path) -> None:
    nothing = GroundTruth(np.empty((0, 4)), np.empty(0))
    images = reef.pool[:3]
    truth = {image.image_id: nothing for image in images}
    _fit(TrainingSet(reef.class_names, images, truth), tmp_path / "x.pt", model=model, batch=2)
    assert read_checkpoint(tmp_path / "x.pt").class_names == reef.class_names


def test_a_cpu_trains_in_bf16_when_asked_but_not_ssdlite(reef: Dataset, tmp_path: Path) -> None:
    train = TrainingSet(reef.class_names, reef.pool[:2], reef.truth)
    _fit(train, tmp_path / "fp32", model=FASTER_RCNN)
    _fit(train, tmp_path / "bf16", model=FASTER_RCNN, amp="bf16")
    fp32, bf16 = _weights(tmp_path / "fp32"), _weights(tmp_path / "bf16")
    name = "backbone.body.0.0.weight"
    assert bf16[name].dtype is torch.float32
    assert not torch.equal(fp32[name], bf16[name])
    assert torch.allclose(fp32[name], bf16[name], atol=0.01)
    with pytest.raises(DetectorError, match="amp=bf16 needs a GPU for ssdlite"):
        _fit(train, tmp_path / "x.pt", amp="bf16")


def test_an_image_that_changed_since_the_run_began_is_refused(reef: Dataset, tmp_path: Path) -> None:
    changed = replace(reef.pool[0], content_hash="another")
    with pytest.raises(DatasetError, match="changed since the run began"):
        _fit(TrainingSet(reef.class_names, (changed, reef.pool[1]), reef.truth), tmp_path / "x.pt")


def test_ssdlite_refuses_one_image_whose_last_feature_map_cannot_be_normalised(reef: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match="does not train on one image"):
        _fit(TrainingSet(reef.class_names, reef.pool[:1], reef.truth), tmp_path / "x.pt")
    with pytest.raises(ConfigError, match="batch_size 1"):
        check_detector(SSDLITE, {"batch": 1, "epochs": 1}, family="torchvision")


def test_a_diverged_training_is_an_error(reef: Dataset, tmp_path: Path) -> None:
    weights = build_model(SSDLITE, len(reef.class_names)).state_dict()
    weights["head.regression_head.module_list.0.1.bias"].fill_(1e38)
    torch.save(weights, tmp_path / "large.pt")
    train = TrainingSet(reef.class_names, reef.pool[:4], reef.truth)
    with pytest.raises(DivergedError, match=r"lower training\.options\.lr0"):
        _fit(train, tmp_path / "x.pt", initial_weights=tmp_path / "large.pt")
    assert not (tmp_path / "x.pt").exists()


def test_a_batch_that_does_not_fit_is_told(reef: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: object) -> None:
        raise torch.OutOfMemoryError("planted, as this machine has no GPU")

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", too_large)
    with pytest.raises(RaylearnError, match="batch_size 4 does not fit into memory: lower"):
        _fit(TrainingSet(reef.class_names, reef.pool[:4], reef.truth), tmp_path / "x.pt")


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "Adam"},
        {"lr0": "fast"},
        {"lr0": 0},
        {"fliplr": 1.5},
        {"cos_lr": 1},
        {"momentum": True},
        {"scale": float("nan")},
        {"amp": True},
        {"mosaic": 0.5},
        {"epochs": 0},
        {"batch": 2.5},
    ],
    ids=lambda options: "-".join(map(str, *options.items())),
)
def test_a_training_option_that_is_unknown_or_impossible_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        check_detector(FCOS, {"epochs": 1, "batch": 2, **options}, family="torchvision")


def test_every_option_is_taken_and_has_a_check() -> None:
    family = family_named("torchvision")
    defaults = TrainingOptions()
    assert TrainingOptions.of({name: getattr(defaults, name) for name in family.training_options}, FCOS) == defaults


# Initial weights


def test_a_checkpoint_of_its_own_fits_whole(ssdlite: Path, reef: Dataset, tmp_path: Path) -> None:
    train = TrainingSet(CLASS_NAMES, reef.pool[:4], {i.image_id: GroundTruth([], []) for i in reef.pool[:4]})
    told: list[Steps] = []
    with heard(told.append):
        report = _fit(train, tmp_path / "x.pt", initial_weights=ssdlite)
    assert report["tensors_matched"] == report["tensors_total"]
    assert told[0].unit == "epoch"


@pytest.mark.parametrize(
    ("model", "classifier"),
    [
        (SSDLITE, lambda: torchvision.models.mobilenet_v3_large(weights=None, reduced_tail=True)),
        (FASTER_RCNN, lambda: torchvision.models.mobilenet_v3_large(weights=None)),
        (FCOS, lambda: torchvision.models.resnet50(weights=None)),
    ],
    ids=[SSDLITE, FASTER_RCNN, FCOS],
)
def test_a_backbone_of_torchvisions_fits_whole_into_a_detector(model: str, classifier: Any, tmp_path: Path) -> None:
    given = {name: torch.rand_like(w.float()).to(w.dtype) for name, w in classifier().state_dict().items()}
    torch.save(given, tmp_path / "backbone.pth")
    built = build_model(model, 3)
    of_backbone = [name for name in given if not name.startswith(("classifier.", "fc."))]
    matched, total = load_initial_weights(built, model, tmp_path / "backbone.pth")
    assert matched == len(of_backbone) < total
    loaded = [w for name, w in built.state_dict().items() if not name.endswith("num_batches_tracked")]
    for name in of_backbone:
        if name.endswith("weight") and given[name].ndim > 1:
            assert any(w.shape == given[name].shape and torch.equal(w, given[name]) for w in loaded)


@pytest.mark.parametrize("model", [FASTER_RCNN, "retinanet_resnet50_fpn"])
def test_a_detector_that_an_older_torchvision_saved_fits_whole(model: str, tmp_path: Path) -> None:
    newer = build_model(model, 3, seed=5).state_dict()
    older = {}
    for name, tensor in newer.items():
        if found := re.fullmatch(r"(head\.\w+_head\.conv\.)(\d)\.0\.(\w+)", name):
            older[f"{found[1]}{2 * int(found[2])}.{found[3]}"] = tensor
        else:
            older[re.sub(r"(_blocks\.\d)\.0\.|(rpn\.head\.conv)\.0\.0\.", r"\1\2.", name)] = tensor
    assert len(older.keys() - newer.keys()) > 8
    build_model(model, 3).load_state_dict(dict(older))  # torchvision knows these names
    torch.save(older, tmp_path / "older.pth")
    built = build_model(model, 3)
    matched, total = load_initial_weights(built, model, tmp_path / "older.pth")
    assert matched == total
    assert all(torch.equal(tensor, newer[name]) for name, tensor in built.state_dict().items())


def test_batch_normalisation_that_learned_elsewhere_stays_as_it_is(reef: Dataset, tmp_path: Path) -> None:
    """As in torchvision, for the models that it freezes it in; from scratch it is learned."""
    path = tmp_path / "backbone.pth"
    torch.save(torchvision.models.mobilenet_v3_large(weights=None).state_dict(), path)
    train = TrainingSet(reef.class_names, reef.pool[:4], reef.truth)
    before = build_model(FASTER_RCNN, len(reef.class_names))
    load_initial_weights(before, FASTER_RCNN, path)
    _fit(train, tmp_path / "frozen", model=FASTER_RCNN, initial_weights=path)
    _fit(train, tmp_path / "scratch", model=FASTER_RCNN)
    frozen, scratch = _weights(tmp_path / "frozen"), _weights(tmp_path / "scratch")
    for part in ("0.1.running_mean", "0.1.weight"):
        name = f"backbone.body.{part}"
        assert torch.equal(frozen[name], before.state_dict()[name])
        assert not torch.equal(scratch[name], before.state_dict()[name])
    assert not torch.equal(frozen["backbone.body.0.0.weight"], before.state_dict()["backbone.body.0.0.weight"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"encoder.weight": torch.zeros(3)}, "none of the 1 tensors"),
        ({"epoch": 3}, "holds no state dict"),
        # Once Ultralytics has opened a model in this process, torch opens such a file.
        (torch.nn.Linear(2, 2), "cannot be opened|holds no state dict"),
    ],
    ids=["other", "no tensors", "a module"],
)
def test_initial_weights_that_do_not_fit_are_found_before_any_work(
    content: object, message: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=message):
        check_detector(SSDLITE, {"epochs": 1, "batch": 2}, tmp_path / "weights.pth", family="torchvision")


def test_initial_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(RaylearnError, match=r"weights\.pth are not there"):
        check_detector(SSDLITE, {"epochs": 1, "batch": 2}, tmp_path / "weights.pth", family="torchvision")
