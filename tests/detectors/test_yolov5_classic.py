"""Checkpoints of the original YOLOv5 repository: read without running them, and scored as it scores."""

import hashlib
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from raylearn.cli import main
from raylearn.config_files import load_experiment, load_file
from raylearn.data.dataset import Dataset
from raylearn.data.images import decode
from raylearn.data.storage import Folder
from raylearn.detectors import build_detector, check_detector, family_of, read_checkpoint
from raylearn.detectors.base import CheckpointFacts, Detections, DetectorSettings, Engine, TrainingSet
from raylearn.detectors.checkpoint_contents import Contents
from raylearn.detectors.families.yolov5_classic import FAMILY, detector
from raylearn.detectors.families.yolov5_classic.checkpoint import open_model
from raylearn.detectors.families.yolov5_classic.head import AnchorDecoder
from raylearn.detectors.families.yolov5_classic.network import Network
from raylearn.detectors.letterbox import letterbox
from raylearn.errors import CheckpointError, ConfigError, DetectorError, DivergedError
from raylearn.learning.training import check_detector_of
from raylearn.project.settings import Project
from raylearn.scoring.manifest import Manifest
from raylearn.scoring.pipeline import score_manifest
from raylearn.scoring.plan import ScoringPlan
from tests.conftest import SHARED
from tests.detectors.classic_files import TINY, Model, edit, save
from tests.detectors.data.make_yolov5_classic import fill, sawtooth

REFERENCE = json.loads((Path(__file__).parent / "data" / "yolov5_classic.json").read_text())
SETTINGS = DetectorSettings(64, confidence=0.01, iou=0.45, max_detections=300)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A checkpoint with weights that mean nothing."""
    return save(tmp_path / "tiny.pt", {"epoch": -1, "model": Model(TINY), "ema": None})


def _loaded(checkpoint: Path, settings: DetectorSettings = SETTINGS, engine: Engine | None = None) -> Any:
    found = build_detector("", settings, num_threads=1, engine=engine, family="yolov5-classic")
    found.load(checkpoint)
    return found


def _detect(checkpoint: Path, engine: Engine | None = None) -> Detections:
    canvas = ((sawtooth((1, 64, 64, 3), 5) + 1) * 127).numpy().astype(np.uint8)
    return _loaded(checkpoint, engine=engine).predict(canvas, np.array([[64, 64]]))[0]


# Against the repository itself


def _photograph(entry: dict[str, Any]) -> np.ndarray:
    package, _, rest = entry["name"].partition("/")
    if package == "data":
        path = SHARED / entry["name"]
    else:
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        path = Path(spec.origin).parent / rest
    data = path.read_bytes()
    assert hashlib.sha256(data).hexdigest() == entry["sha256"], f"{path} is another photograph"
    return np.ascontiguousarray(decode(data)[:, : entry["columns"]])


@pytest.mark.parametrize("canvas", ["square", "rectangle"])
def test_it_finds_what_the_original_repository_finds(
    classic_checkpoint: Path,
    bccd_voc: Path,  # noqa: ARG001  some of the photographs
    canvas: str,
) -> None:
    settings = DetectorSettings(**REFERENCE["settings"], canvas=canvas)
    found = _loaded(classic_checkpoint, settings)
    expected_boxes = 0
    for entry in REFERENCE["photographs"]:
        image, expected = _photograph(entry), np.array(entry[canvas]).reshape(-1, 6)
        (own,) = found.predict(letterbox(image, 640, canvas)[None], np.array([[image.shape[1], image.shape[0]]]))
        np.testing.assert_array_equal(own.class_ids, expected[:, 5])
        np.testing.assert_allclose(own.boxes, expected[:, :4], atol=0.1)
        np.testing.assert_allclose(own.confidences, expected[:, 4], atol=1e-4)
        assert own.class_scores.shape == (len(expected), 80)
        expected_boxes += len(expected)
    assert len(REFERENCE["photographs"]) >= 20
    assert expected_boxes > 150


@pytest.mark.parametrize("name", [network["name"] for network in REFERENCE["networks"]])
@pytest.mark.parametrize("fused", [False, True])
def test_networks_of_every_module_give_what_the_repositorys_give(name: str, fused: bool) -> None:
    (expected,) = (network for network in REFERENCE["networks"] if network["name"] == name)
    network = Network(expected["yaml"], 2 * (5 + 2)).eval()
    fill(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.001
    if fused:
        network.fuse()
    with torch.inference_mode():
        maps = network(sawtooth((1, 3, 64, 96), 0))
    for level, raw in zip(maps, expected["raw"], strict=True):
        theirs = level.unflatten(1, (2, 7)).permute(0, 1, 3, 4, 2)
        np.testing.assert_allclose(theirs.flatten()[::7].numpy(), raw, atol=1e-3)


def test_the_real_checkpoint_says_what_it_is(classic_checkpoint: Path) -> None:
    assert family_of(classic_checkpoint).name == "yolov5-classic"
    facts = read_checkpoint(classic_checkpoint)
    assert (facts.model, len(facts.class_names), facts.image_size) == ("yolov5n1", 80, None)
    assert facts.class_names[0] == "person"
    assert facts.class_names[79] == "toothbrush"


# The head


def test_a_cell_decodes_by_the_published_formula() -> None:
    raw = torch.full((1, 2 * 7, 3, 4), -20.0)
    logits = torch.tensor([0.4, -0.3, 0.2, -0.1, 2.0, 1.0, -1.0])
    raw[0, 7:, 2, 1] = logits  # second anchor, row 2, column 1
    decoder = AnchorDecoder(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([8.0]))
    found = decoder.candidates([raw], confidence=0.1)
    p = 1 / (1 + np.exp(-logits.numpy().astype(np.float64)))
    x, y = (2 * p[0] - 0.5 + 1) * 8, (2 * p[1] - 0.5 + 2) * 8
    w, h = (2 * p[2]) ** 2 * 24, (2 * p[3]) ** 2 * 32
    assert found.images.tolist() == [0]
    np.testing.assert_allclose(found.boxes[0].numpy(), [x - w / 2, y - h / 2, x + w / 2, y + h / 2], rtol=1e-5)
    np.testing.assert_allclose(found.class_scores[0].numpy(), p[4] * p[5:], rtol=1e-5)


def test_a_box_needs_a_class_score_above_the_threshold_not_objectness_alone() -> None:
    raw = torch.full((1, 7, 1, 2), -20.0)
    raw[0, 4] = 3.0
    raw[0, 5, 0, 1] = 3.0
    found = AnchorDecoder(torch.ones(1, 1, 2), torch.tensor([8.0])).candidates([raw], confidence=0.5)
    assert found.boxes[:, 0].tolist() == pytest.approx([4.0], abs=0.01)  # of column 1; column 0 has its centre at -4


def test_candidates_stay_with_their_image_across_levels() -> None:
    maps = [torch.full((3, 7, 2, 2), -20.0), torch.full((3, 7, 1, 1), -20.0)]
    maps[0][2, 4:, 1, 1] = 5.0
    maps[1][0, 4:, 0, 0] = 4.0
    maps[1][2, 4:, 0, 0] = 3.0
    found = AnchorDecoder(torch.ones(2, 1, 2), torch.tensor([8.0, 16.0])).candidates(maps, confidence=0.1)
    assert found.images.tolist() == [0, 2, 2]
    assert found.class_scores[:, 0].argsort().tolist() == [2, 0, 1]


def test_only_the_most_confident_candidates_go_into_suppression(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "_MOST_CANDIDATES", 1)
    boxes = torch.tensor([[0.0, 0, 9, 9], [30, 30, 40, 40]])
    kept = _loaded(tiny)._suppress(boxes, torch.tensor([[0.2, 0.1], [0.1, 0.6]]), (64, 64), (64, 64))
    np.testing.assert_allclose(kept.boxes, [[30, 30, 40, 40]])


# What checkpoints may look like


def test_batches_and_single_images_give_the_same(tiny: Path) -> None:
    canvases = ((sawtooth((3, 64, 64, 3), 5) + 1) * 127).numpy().astype(np.uint8)
    sizes, found = np.array([[64, 64], [100, 50], [640, 640]]), _loaded(tiny)
    together = found.predict(canvases, sizes)
    assert all(map(len, together))
    for index, one in enumerate(together):
        (alone,) = found.predict(canvases[index : index + 1], sizes[index : index + 1])
        np.testing.assert_allclose(one.boxes, alone.boxes, atol=1e-3)
        np.testing.assert_allclose(one.class_scores, alone.class_scores, atol=1e-5)


def test_the_average_of_the_weights_is_used_where_there_is_one(tiny: Path, tmp_path: Path) -> None:
    other = Model(TINY)
    nn.init.zeros_(other.model[0].conv.weight)
    both = save(tmp_path / "both.pt", {"model": other, "ema": Model(TINY), "updates": 7})
    np.testing.assert_array_equal(_detect(both).boxes, _detect(tiny).boxes)


def test_a_fused_checkpoint_in_halves_finds_the_same(tiny: Path, tmp_path: Path) -> None:
    fused = save(tmp_path / "fused.pt", {"model": Model(TINY).fuse().half()})
    assert not any(".bn." in name for name in open_model(fused).network.state_dict())
    ours, theirs = _detect(fused), _detect(tiny)
    assert len(theirs) > 5
    np.testing.assert_allclose(ours.class_scores, theirs.class_scores, atol=5e-3)


def test_names_in_a_dictionary_and_the_image_size_of_the_options_are_read(tmp_path: Path) -> None:
    content = {"model": Model(TINY, {0: "crab", 1: "fish"}), "opt": {"imgsz": 320, "save_dir": Path("runs")}}
    assert read_checkpoint(save(tmp_path / "v7.pt", content)) == CheckpointFacts("yolov5n", ("crab", "fish"), 320)


@pytest.mark.parametrize(
    ("classes", "is_classic"),
    [
        ({"models.yolo.Model", "models.common.Conv"}, True),
        ({"models.yolo.DetectionModel"}, True),
        ({"models.yolo.SegmentationModel"}, True),
        ({"yolov5.models.yolo.DetectionModel"}, True),
        ({"ultralytics.nn.tasks.DetectionModel"}, False),
        ({"mymodels.yolo.Model"}, False),
        ({"collections.OrderedDict"}, False),
        (set(), False),
    ],
)
def test_it_recognises_the_repositorys_own_classes_only(classes: set[str], is_classic: bool) -> None:
    assert FAMILY.recognises(Contents(classes=frozenset(classes))) == is_classic


def test_the_package_on_pypi_writes_other_names_for_the_same(tiny: Path) -> None:
    edit(tiny, {"data.pkl": lambda data: data.replace(b"cmodels.", b"cyolov5.models.")})
    assert family_of(tiny).name == "yolov5-classic"
    assert len(_detect(tiny))


def _changed(**changes: Any) -> Model:
    model = Model(TINY)
    for name, value in changes.items():
        setattr(model, name, value)
    return model


def _with_layer(position: int, name: str) -> dict[str, Any]:
    rows = [*TINY["backbone"], *TINY["head"]]
    rows[position] = [rows[position][0], 1, name, rows[position][3]]
    return {**TINY, "backbone": rows[:3], "head": rows[3:]}


def _relu() -> Model:
    model = Model(TINY)
    model.model[1].act = nn.LeakyReLU(0.1)
    return model


def _strided() -> Model:
    model = Model(TINY)
    model.model[4].cv1.conv.stride = (2, 2)
    return model


@pytest.mark.parametrize(
    ("model", "error", "said"),
    [
        (_changed(yaml=_with_layer(1, "RepConv")), DetectorError, "its module RepConv is not one of the yolov5 repo"),
        (_changed(yaml=_with_layer(5, "Segment")), DetectorError, "its head is Segment, not Detect"),
        (_changed(yaml=_with_layer(5, "Classify")), DetectorError, "its head is Classify, not Detect"),
        (_relu(), DetectorError, "its model.1.act is LeakyReLU, where the yolov5 repository has SiLU"),
        (_strided(), DetectorError, r"its model.4.cv1.conv has stride \(2, 2\), not \(1, 1\)"),
        (_changed(names=["one"]), CheckpointError, "1 class names, but 2 classes"),
        (_changed(yaml={**TINY, "width_multiple": 0.5}), CheckpointError, "size mismatch|Error"),
        (_changed(yaml={**TINY, "depth_multiple": 1e9}), CheckpointError, "C3 is repeated 3000000000 times"),
        (_changed(yaml={"nc": 2}), CheckpointError, "'backbone'"),
        (_changed(yaml=None), CheckpointError, "not a whole checkpoint of the yolov5 repository"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_plain_detector_is_refused_with_the_reason(
    tmp_path: Path, model: Model, error: type[Exception], said: str
) -> None:
    path = save(tmp_path / "other.pt", {"model": model})
    with pytest.raises(error, match=said) as refused:
        read_checkpoint(path)
    assert "other.pt" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["SegmentationModel", "ClassificationModel"])
def test_models_of_other_tasks_are_refused(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / "task.pt", {"model": Model(TINY)})
    edit(path, {"data.pkl": lambda data: data.replace(b"cmodels.yolo\nModel\n", f"cmodels.yolo\n{name}\n".encode())})
    with pytest.raises(DetectorError, match=f"is a {name}, not a detector: give one trained for detection"):
        read_checkpoint(path)


def test_a_model_without_its_yaml_is_told_from_other_files(tmp_path: Path) -> None:
    model = Model(TINY)
    del model.yaml
    with pytest.raises(CheckpointError, match="is of the yolov5 repository, but without its yaml"):
        read_checkpoint(save(tmp_path / "stub.pt", {"model": model}))


def test_a_checkpoint_from_before_torch_1_6_is_told_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save({"model": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes().replace(b"ctorch._utils\n_rebuild_tensor_v2\n", b"cmodels.yolo\nModel\n")
    path.write_bytes(data)
    assert family_of(path).name == "yolov5-classic"
    with pytest.raises(CheckpointError, match=r"old\.pt cannot be used: torch before 1\.6 wrote it: load and save"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 5\n", "is a git-lfs pointer; run"),
        ("<!DOCTYPE html><html>Größe</html>".encode(), "it is a web page, so its address"),
    ],
)
def test_a_pointer_or_a_web_page_in_place_of_a_checkpoint_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=said) as refused:
        read_checkpoint(path)
    assert "best.pt" in str(refused.value)


# Running it


def test_bf16_is_near_fp32(classic_checkpoint: Path) -> None:
    image = _photograph(REFERENCE["photographs"][0])
    canvas, sizes = letterbox(image, 320)[None], np.array([[image.shape[1], image.shape[0]]])
    settings = DetectorSettings(320, confidence=0.5, iou=0.45, max_detections=300)
    fp32, bf16 = (
        _loaded(classic_checkpoint, settings, Engine("torch", precision)).predict(canvas, sizes)[0]
        for precision in ("fp32", "bf16")
    )
    assert len(fp32) == len(bf16) > 2
    assert not np.array_equal(fp32.class_scores, bf16.class_scores)
    np.testing.assert_allclose(bf16.class_scores, fp32.class_scores, atol=0.05)
    np.testing.assert_allclose(bf16.boxes, fp32.boxes, atol=10)


@pytest.mark.parametrize(
    ("engine", "changes", "said"),
    [
        (Engine("torch", "fp16"), {}, "fp16 needs a GPU"),
        (Engine("openvino"), {}, "backend 'openvino' does not run yolov5-classic models: use torch"),
        (Engine(), {"image_size": 72}, "image size 72 does not fit the checkpoint: give a multiple of 16"),
    ],
)
def test_what_cannot_run_it_is_refused_when_it_is_loaded(
    tiny: Path, engine: Engine, changes: dict[str, int], said: str
) -> None:
    with pytest.raises(DetectorError, match=said):
        _loaded(tiny, replace(SETTINGS, **changes), engine)


def test_a_model_of_a_coarser_grid_than_rectangles_have_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "_RECTANGLE_STRIDE", 8)  # the tiny one's is 16; those of P6 have 64
    with pytest.raises(DetectorError, match="canvas rectangle does not fit the checkpoint, whose stride is 16"):
        _loaded(tiny, replace(SETTINGS, canvas="rectangle"))


def test_a_diverged_model_is_an_error_and_not_a_model_without_detections(tmp_path: Path) -> None:
    model = Model(TINY)
    nn.init.constant_(model.model[-1].m[0].bias, float("nan"))
    with pytest.raises(DivergedError, match="not a finite number"):
        _detect(save(tmp_path / "nan.pt", {"model": model}))


def test_training_is_left_to_the_repository(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match="train in the yolov5 repository, then use `raylearn score"):
        check_detector("yolov5n", {}, family="yolov5-classic")
    found = build_detector("yolov5n", SETTINGS, family="yolov5-classic")
    with pytest.raises(DetectorError, match="cannot train"):
        found.fit(TrainingSet((), (), {}), initial_weights=None, seed=0, checkpoint=tmp_path / "x.pt")


def test_an_experiment_that_would_train_it_is_refused_before_any_work() -> None:
    file = Path(__file__).parents[2] / "experiments" / "quickstart.yaml"
    with pytest.raises(ConfigError, match="yolov5-classic scores checkpoints and cannot train"):
        load_experiment(file, ["detector.family=yolov5-classic"])  # it has training options
    experiment = load_experiment(file, ["detector.family=yolov5-classic", "training.options={}"])
    with pytest.raises(DetectorError, match="yolov5-classic scores checkpoints and cannot train"):
        check_detector_of(experiment)


def test_a_project_may_have_it_since_its_checkpoints_can_be_brought(tmp_path: Path) -> None:
    path = tmp_path / "project.yaml"
    path.write_text("{name: a, pool: a, held_out: {format: yolo, path: a}, query: {size: 1}}")
    project = load_file(path, Project, ["detector.family=yolov5-classic"])
    assert project.experiment.detector.family == "yolov5-classic"
    with pytest.raises(ConfigError, match="yolov5-classic scores checkpoints and cannot train"):
        load_file(path, Project, ["detector.family=yolov5-classic", "training.options.lr0=1"])


def test_a_ledger_of_it_can_be_queried(tiny: Path, reef: Dataset, tmp_path: Path) -> None:
    folder = Folder.at(tmp_path / "ledger")
    facts = {**FAMILY.facts("yolov5"), "class_names": read_checkpoint(tiny).class_names}
    counts = score_manifest(Manifest.of(reef.test[:6]), ScoringPlan(str(tiny), SETTINGS), facts, folder)
    assert (counts.num_images, counts.num_errors) == (6, 0)
    assert counts.num_detections > 6
    with pytest.raises(SystemExit, match="0"):
        main(["query", str(folder), "--size", "3", "--out", str(tmp_path / "query")])
    assert len((tmp_path / "query" / "query.csv").read_text().splitlines()) == 1 + 3
