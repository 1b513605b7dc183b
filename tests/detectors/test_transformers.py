"""The transformers family against the library itself, on tiny random networks."""

import random
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from raylearn.config import Experiment
from raylearn.data.dataset import Dataset, GroundTruth, Image
from raylearn.data.images import content_hash, decode, read_bytes
from raylearn.data.storage import Folder
from raylearn.detectors import build_detector, check_detector, family_named, family_of, read_checkpoint
from raylearn.detectors.base import DetectorSettings, Engine, TrainingSet
from raylearn.detectors.families.transformers import FAMILY
from raylearn.detectors.families.transformers import training as training_module
from raylearn.detectors.families.transformers.models import build_model, load_weights, open_model, save_model
from raylearn.detectors.families.transformers.training import Options
from raylearn.detectors.letterbox import letterbox, to_canvas, to_original
from raylearn.errors import CheckpointError, ConfigError, DatasetError, DetectorError, DivergedError
from raylearn.learning.training import with_resolved_model
from raylearn.progress import Steps, heard
from raylearn.scoring.ledger import read_facts
from raylearn.scoring.pool_scoring import score_pool
from raylearn.scoring.request import ScoreRequest
from tests.conftest import IMAGE_SIZE
from tests.detectors.transformers_configs import CONFIGS, write_folder

NAMES = ("fish", "crab", "star")
EVERY_TYPE = pytest.mark.parametrize("model_type", sorted(CONFIGS))
SETTINGS = DetectorSettings(IMAGE_SIZE, confidence=0.01, iou=0.7, max_detections=300)
TRAINING = {"epochs": 1, "batch": 2, "lr0": 1e-3}


@pytest.fixture(autouse=True)
def _one_thread_and_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    torch.set_num_threads(1)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def detector_of(model: str, settings: DetectorSettings = SETTINGS, **training: object):
    return build_detector(
        model, settings, {**TRAINING, **training}, num_threads=1, engine=Engine(), family="transformers"
    )


def saved(tmp_path: Path, model_type: str, name: str = "random.pt", seed: int = 0, **more: object) -> Path:
    """A checkpoint of a random network."""
    folder = tmp_path / name.replace(".", "-")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_model(write_folder(folder, model_type, **more), NAMES)
    save_model(network, tmp_path / name, NAMES, IMAGE_SIZE)
    return tmp_path / name


def small(reef: Dataset, count: int = 3) -> TrainingSet:
    """The first images, one of them without boxes."""
    images = reef.pool[:count]
    truth = {image.image_id: reef.truth[image.image_id] for image in images}
    empty = type(truth[images[0].image_id])(np.empty((0, 4)), np.empty(0))
    return TrainingSet(reef.class_names, images, {**truth, images[0].image_id: empty})


def shapes(reef: Dataset) -> list[np.ndarray]:
    whole = [decode(read_bytes(image.uri)) for image in reef.test[:2]]
    return [*whole, np.ascontiguousarray(whole[0][: whole[0].shape[0] // 2])]


def weights_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


@EVERY_TYPE
@pytest.mark.parametrize("canvas", ["square", "rectangle"])
def test_detections_are_those_of_the_librarys_post_processing_with_all_class_scores(
    model_type: str, canvas: str, reef: Dataset, tmp_path: Path
) -> None:
    from transformers import DeformableDetrImageProcessor, RTDetrImageProcessor

    checkpoint = saved(tmp_path, model_type)
    detector = detector_of("")
    detector.load(checkpoint)
    network = open_model(checkpoint)[0].eval()
    processor = (DeformableDetrImageProcessor if model_type == "deformable_detr" else RTDetrImageProcessor)()
    compared = 0
    for image in shapes(reef):
        height, width = image.shape[:2]
        boxed = letterbox(image, IMAGE_SIZE, canvas)
        inputs = processor(images=boxed, do_resize=False, return_tensors="pt")
        with torch.no_grad():
            outputs = network(pixel_values=inputs["pixel_values"])
        (theirs,) = processor.post_process_object_detection(
            outputs, threshold=SETTINGS.confidence, target_sizes=[boxed.shape[:2]]
        )
        (ours,) = detector.predict(boxed[None], np.array([[width, height]]))
        assert len(ours) == network.config.num_queries  # each once, though the library gives some twice and some not
        boxes = to_original(theirs["boxes"].numpy(), boxed.shape[:2], (width, height))
        for box, label, score in zip(boxes, theirs["labels"].tolist(), theirs["scores"].tolist(), strict=True):
            near = np.abs(ours.boxes - box).max(axis=1) < 0.5
            same = near & (np.abs(ours.class_scores[:, label] - score) < 1e-3)
            assert same.any()
            compared += bool((ours.class_ids[same] == label).any())
    assert compared > 20


@EVERY_TYPE
def test_a_trained_detector_is_found_again_in_its_checkpoint(model_type: str, reef: Dataset, tmp_path: Path) -> None:
    model, checkpoint = write_folder(tmp_path / "tiny", model_type), tmp_path / "trained.pt"
    before = build_model(model, reef.class_names).state_dict()
    told: list[Steps] = []
    with heard(told.append):
        report = detector_of(model).fit(small(reef), initial_weights=None, seed=5, checkpoint=checkpoint)
    assert report == {}
    assert told[0].unit == "epoch"
    assert family_of(checkpoint) is FAMILY
    facts = read_checkpoint(checkpoint)
    assert (facts.model, facts.class_names, facts.image_size) == (model_type, reef.class_names, IMAGE_SIZE)
    network, _ = open_model(checkpoint)
    assert network.config.id2label == dict(enumerate(reef.class_names))
    assert network.state_dict().keys() == before.keys()
    detector = detector_of("")
    detector.load(checkpoint)
    canvases = np.stack([letterbox(image, IMAGE_SIZE) for image in shapes(reef)])
    sizes = np.array([(image.shape[1], image.shape[0]) for image in shapes(reef)])
    together = detector.predict(canvases, sizes)
    assert together[0].class_scores.shape[1] == len(reef.class_names)
    for index, found in enumerate(together):
        (alone,) = detector.predict(canvases[index : index + 1], sizes[index : index + 1])
        np.testing.assert_allclose(found.class_scores, alone.class_scores, atol=1e-5)
        np.testing.assert_allclose(found.boxes, alone.boxes, atol=0.05)


@EVERY_TYPE
def test_the_same_seed_gives_the_same_bits_and_random_states_stay(
    model_type: str, reef: Dataset, tmp_path: Path
) -> None:
    model = write_folder(tmp_path / "tiny", model_type)

    def train(name: str, seed: int) -> dict[str, torch.Tensor]:
        detector_of(model).fit(small(reef), initial_weights=None, seed=seed, checkpoint=tmp_path / name)
        return weights_of(tmp_path / name)

    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first = train("a.pt", seed=3)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]
    torch.rand(7)  # as anything that happens in between
    again, other = train("b.pt", seed=3), train("c.pt", seed=4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_training_learns(reef: Dataset, tmp_path: Path) -> None:
    """On three images the loss of the trained network is well below that of the untrained one."""
    model = write_folder(tmp_path / "tiny", "rt_detr_v2", num_denoising=0)
    train = small(reef)

    def loss(network) -> float:
        options = Options(epochs=1, batch=3, fliplr=0)
        ((canvases, labels),) = training_module._batches(train, options, IMAGE_SIZE, seed=0)
        pixels = training_module.pixel_values(canvases, network.config, torch.device("cpu"))
        with torch.no_grad():
            return network.eval()(pixel_values=pixels, labels=labels).loss.item()

    losses = []
    for epochs, lr0 in ((1, 1e-9), (16, 5e-3)):
        detector_of(model, epochs=epochs, lr0=lr0).fit(
            train, initial_weights=None, seed=0, checkpoint=tmp_path / f"{epochs}.pt"
        )
        losses.append(loss(open_model(tmp_path / f"{epochs}.pt")[0]))
    assert losses[1] < 0.7 * losses[0]


def test_a_query_is_one_detection_and_the_most_confident_are_kept(reef: Dataset, tmp_path: Path) -> None:
    checkpoint, canvas = saved(tmp_path, "rt_detr"), letterbox(shapes(reef)[0], IMAGE_SIZE)[None]
    size = np.array([[400, 300]])

    def predict(confidence: float, max_detections: int):
        detector = detector_of("", DetectorSettings(IMAGE_SIZE, confidence, 0.7, max_detections))
        detector.load(checkpoint)
        return detector.predict(canvas, size)[0]

    every = predict(0, 300)
    assert len(every) == 20
    assert (np.diff(every.confidences) <= 0).all()
    middle = float(every.confidences[9:11].mean())
    np.testing.assert_array_equal(predict(middle, 300).class_scores, every.class_scores[:10])
    np.testing.assert_array_equal(predict(0, 4).boxes, every.boxes[:4])
    assert len(predict(1, 300)) == 0
    assert predict(1, 300).class_scores.shape == (0, len(NAMES))


@pytest.mark.parametrize("model_type", ["d_fine", "rt_detr", "rt_detr_v2"])
def test_a_configuration_made_for_one_size_takes_canvases_of_any(model_type: str, tmp_path: Path) -> None:
    fixed = saved(tmp_path, model_type, "fixed.pt", anchor_image_size=[96, 96], eval_size=[96, 96])
    free = saved(tmp_path, model_type, "free.pt")
    for shape in ((96, 96), (64, 128)):
        canvases = np.random.default_rng(0).integers(0, 256, (1, *shape, 3), dtype=np.uint8)
        found = []
        for checkpoint in (fixed, free):
            detector = detector_of("")
            detector.load(checkpoint)
            found += detector.predict(canvases, np.array([[shape[1], shape[0]]]))
        assert len(found[0])
        np.testing.assert_array_equal(found[0].class_scores, found[1].class_scores)


def test_a_canvas_too_small_for_the_queries_is_refused(tmp_path: Path) -> None:
    detector = detector_of("")
    detector.load(saved(tmp_path, "rt_detr", num_queries=43))
    with pytest.raises(DetectorError, match="64x32 has 42 places for the 43 queries"):
        detector.predict(np.zeros((1, 32, 64, 3), np.uint8), np.array([[64, 32]]))


@EVERY_TYPE
@pytest.mark.parametrize("form", ["safetensors", "state dict", "raylearn checkpoint"])
def test_initial_weights_fill_all_but_the_heads_of_other_classes(model_type: str, form: str, tmp_path: Path) -> None:
    """A file of the library's own has older names for some tensors, and one of those that layers share."""
    checkpoint = saved(tmp_path, model_type)
    source = open_model(checkpoint)[0]
    own = source.state_dict()
    if form == "safetensors":
        source.save_pretrained(tmp_path / "folder")
        path = tmp_path / "folder" / "model.safetensors"
    elif form == "state dict":
        path = tmp_path / "plain.pt"
        torch.save(own, path)
    else:
        path = checkpoint
    renamed = tmp_path / "initial_weights.pt"  # as a worker gets it, whatever it was
    path.rename(renamed)
    network = build_model(write_folder(tmp_path / "five", model_type), tuple("abcde"))
    matched, total = load_weights(network, renamed)
    after = network.state_dict()
    fitting = [name for name in own if own[name].shape == after[name].shape]
    assert (matched, total) == (len(fitting), len(own))
    assert len(own) // 2 < matched < total
    assert all(torch.equal(own[name], after[name]) for name in fitting)


def test_one_name_of_a_shared_tensor_is_enough(tmp_path: Path) -> None:
    source = open_model(saved(tmp_path, "rt_detr_v2"))[0]
    half = {name: w for name, w in source.state_dict().items() if not name.startswith(("class_embed", "bbox_embed"))}
    save_file({name: w.clone() for name, w in half.items()}, tmp_path / "half.safetensors")
    network = build_model(write_folder(tmp_path / "same", "rt_detr_v2"), NAMES)
    matched, total = load_weights(network, tmp_path / "half.safetensors")
    assert len(half) < matched == total
    after = network.state_dict()
    assert all(torch.equal(w, after[name]) for name, w in source.state_dict().items())


def test_a_training_says_how_much_of_the_initial_weights_it_took(reef: Dataset, tmp_path: Path) -> None:
    model, initial = write_folder(tmp_path / "tiny", "rt_detr"), saved(tmp_path, "rt_detr")
    check_detector(model, TRAINING, initial, "transformers")
    report = detector_of(model).fit(small(reef), initial_weights=initial, seed=0, checkpoint=tmp_path / "a.pt")
    assert 0 < report["tensors_matched"] < report["tensors_total"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be opened as a checkpoint"),
        (b"\x10\0\0\0\0\0\0\0{torn", "cannot be opened as safetensors"),
        (None, "are not there"),
    ],
    ids=["empty", "torn", "missing"],
)
def test_initial_weights_that_are_none_are_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        check_detector(write_folder(tmp_path / "tiny", "rt_detr"), TRAINING, path, "transformers")


def test_initial_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    save_file({"layer.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="none of the 1 tensors"):
        check_detector(
            write_folder(tmp_path / "tiny", "rt_detr"), TRAINING, tmp_path / "other.safetensors", "transformers"
        )


def test_a_torn_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, "rt_detr")
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"].popitem()
    torch.save(content, tmp_path / "lacking.pt")
    torch.save({**content, "config": "{"}, tmp_path / "broken.pt")
    for name in ("lacking.pt", "broken.pt"):
        with pytest.raises(CheckpointError, match=rf"{name} is no whole checkpoint"):
            build_detector("", SETTINGS, num_threads=1, family="transformers").load(tmp_path / name)


def test_a_training_that_diverges_says_so(reef: Dataset, tmp_path: Path) -> None:
    model = write_folder(tmp_path / "tiny", "rt_detr_v2")
    detector = detector_of(model, lr0=1e30, epochs=4, warmup_epochs=0)
    with pytest.raises(DivergedError, match=r"the training diverged: .* lower training\.options\.lr0"):
        detector.fit(small(reef), initial_weights=None, seed=0, checkpoint=tmp_path / "a.pt")
    assert not (tmp_path / "a.pt").exists()


def test_a_diverged_model_is_an_error_and_no_model_without_detections(tmp_path: Path) -> None:
    network, facts = open_model(saved(tmp_path, "rt_detr"))
    with torch.no_grad():
        next(network.model.decoder.parameters()).fill_(float("nan"))
    save_model(network, tmp_path / "nan.pt", facts.class_names, IMAGE_SIZE)
    detector = detector_of("")
    detector.load(tmp_path / "nan.pt")
    with pytest.raises(DivergedError, match="not a finite number"):
        detector.predict(np.zeros((1, 96, 96, 3), np.uint8), np.array([[96, 96]]))


def test_an_image_that_changed_since_the_run_began_is_refused(reef: Dataset, tmp_path: Path) -> None:
    train = small(reef)
    changed = [replace(image, content_hash="0" * 64) for image in train.images]
    with pytest.raises(DatasetError, match="changed since the run began"):
        detector_of(write_folder(tmp_path / "tiny", "rt_detr")).fit(
            replace(train, images=changed), initial_weights=None, seed=0, checkpoint=tmp_path / "a.pt"
        )


def test_boxes_are_where_the_picture_is_in_the_canvas_mirrored_or_not(tmp_path: Path) -> None:
    pixels = np.full((60, 120, 3), 10, np.uint8)
    pixels[10:30, 20:50] = 240
    path = tmp_path / "box.png"
    PIL.Image.fromarray(pixels).save(path)
    image = Image("box.png", str(path), 120, 60, content_hash(path.read_bytes()))
    truth = GroundTruth(np.array([[20, 10, 50, 30]]), np.array([1]))
    train = TrainingSet(NAMES, [image], {"box.png": truth})
    centres = set()
    for fliplr in (0, 1):
        options = Options(epochs=1, batch=1, fliplr=fliplr)
        ((canvases, labels),) = training_module._batches(train, options, 240, seed=0)
        rows, columns = np.nonzero(canvases[0, ..., 0] > 200)
        seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 240
        centre, size = labels[0]["boxes"][0, :2].numpy(), labels[0]["boxes"][0, 2:].numpy()
        np.testing.assert_allclose(np.concatenate([centre - size / 2, centre + size / 2]), seen, atol=1.5 / 240)
        assert labels[0]["class_labels"].tolist() == [1]
        centres.add(round(float(centre[0]), 2))
    assert len(centres) == 2


def test_to_canvas_undoes_to_original_and_cuts_to_the_image() -> None:
    boxes = np.array([[10, 20, 300, 90], [-5, -5, 999, 999]], np.float32)
    moved = to_canvas(boxes, (128, 128), (400, 100))
    np.testing.assert_allclose(to_original(moved, (128, 128), (400, 100)), boxes.clip(0, (400, 100) * 2), atol=1e-4)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("detr", "softmax over the classes and 'no object'"),
        (
            '{"model_type": "deformable_detr", "backbone_config": {"model_type": "timm_backbone", "backbone": "x"}}',
            "TimmBackbone requires the timm library, which is not installed",
        ),
        ("rt_detr_v3", "did you mean 'rt_detr_v2'"),
        ("no/such/folder", r"has no config\.json that can be read"),
        ('{"model_type": "rt_detr", "d_model": "wide"}', "'rt_detr' cannot be built"),
        ("{}", "None cannot be used here"),
        ("{", "begins as a JSON configuration"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_with_what_to_do(model: str, message: str) -> None:
    with pytest.raises(DetectorError, match=message):
        check_detector(model, TRAINING, None, "transformers")


@pytest.mark.parametrize(("content", "message"), [("[]", "holds no configuration"), ("{,", "is not JSON")])
def test_a_config_json_that_is_none_is_refused_by_name(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(DetectorError, match=rf"config\.json {message}"):
        check_detector(str(tmp_path), TRAINING, None, "transformers")


@pytest.mark.parametrize("model", ["d_fine", "rt_detr_v2"])
def test_a_model_type_alone_is_the_librarys_default(model: str) -> None:
    check_detector(model, {"epochs": 2, "batch": 4}, None, "transformers")


@pytest.mark.parametrize(
    ("option", "message"),
    [({"lr0": 0}, "lr0"), ({"fliplr": 1.5}, "fliplr"), ({"lr1": 1}, "lr1"), ({"lr0": float("nan")}, "lr0")],
)
def test_impossible_options_are_refused_by_name(option: dict[str, float], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"training\.options\.{message}"):
        check_detector(write_folder(tmp_path / "tiny", "rt_detr"), {**TRAINING, **option}, None, "transformers")


def test_the_record_names_the_options_there_are() -> None:
    assert FAMILY.training_options == Options.model_fields.keys() - {"epochs", "batch"}


def test_a_backend_or_precision_that_is_not_to_be_had_is_refused() -> None:
    for engine, message in (
        (Engine("openvino"), "use torch"),
        (Engine("torch", "fp16"), "needs a GPU"),
        (Engine("torch", "fp8"), "unknown precision"),
    ):
        with pytest.raises(DetectorError, match=message):
            build_detector("", SETTINGS, engine=engine, family="transformers")


@EVERY_TYPE
def test_reduced_precision_leaves_boxes_in_full_precision(model_type: str, reef: Dataset, tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, model_type)
    canvas, size = letterbox(shapes(reef)[0], IMAGE_SIZE)[None], np.array([[IMAGE_SIZE, IMAGE_SIZE]])
    found = []
    for precision in ("fp32", "bf16"):
        detector = build_detector("", SETTINGS, engine=Engine("torch", precision), family="transformers")
        detector.load(checkpoint)
        found += detector.predict(canvas, size)
    exact, reduced = found
    assert not np.array_equal(exact.class_scores, reduced.class_scores)
    np.testing.assert_allclose(exact.confidences, reduced.confidences, atol=0.05)
    places = torch.from_numpy(reduced.boxes / IMAGE_SIZE)
    inner = (places > 0.01) & (places < 0.99)
    assert (places != places.bfloat16().float())[inner].float().mean() > 0.9


def test_a_folder_and_its_copy_are_one_model_and_an_edited_one_is_another(tmp_path: Path) -> None:
    same = [family_named("transformers").resolve(write_folder(tmp_path / name, "rt_detr")) for name in "ab"]
    edited = family_named("transformers").resolve(write_folder(tmp_path / "c", "rt_detr", decoder_layers=3))
    assert same[0] == same[1] != edited
    assert str(tmp_path) not in same[0]
    assert family_named("transformers").resolve(edited) == edited
    experiment = Experiment.model_validate(
        {
            "name": "x",
            "dataset": {"format": "reef"},
            "initial_size": 4,
            "budget": 4,
            "arms": {"query_size": [4]},
            "detector": {"family": "transformers", "model": str(tmp_path / "c")},
        }
    )
    assert with_resolved_model(experiment).detector.model == edited


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_record_is_read_without_the_library() -> None:
    code = (
        "import sys; from raylearn.detectors import family_named; family_named('transformers').resolve('rt_detr');"
        "print({'torch', 'transformers', 'safetensors'} & set(sys.modules))"
    )
    assert _run(code) == "set()"


def test_the_library_is_told_to_stay_offline_before_its_import() -> None:
    code = (
        "import raylearn.detectors.families.transformers.models; from huggingface_hub import constants as c;"
        "print(c.HF_HUB_OFFLINE, c.HF_HUB_DISABLE_TELEMETRY)"
    )
    assert _run(code) == "True True"


def test_without_the_library_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "from raylearn.detectors import check_detector\n"
        "from raylearn.errors import DetectorError\n"
        "try: check_detector('rt_detr', {}, None, 'transformers')\n"
        "except DetectorError as error: print(error)"
    )
    assert _run(code).endswith('pip install "raylearn[transformers]"')


def test_the_ledger_says_that_nothing_was_suppressed(reef: Dataset, tmp_path: Path) -> None:
    """`raylearn score` on a real local Ray."""
    checkpoint = saved(tmp_path, "rt_detr_v2")
    pool = str(Path(reef.test[0].uri).parent)
    request = ScoreRequest(pool, checkpoint, confidence=0.01, limit=4, num_actors=1)
    counts = score_pool(request, str(tmp_path / "ledger"), address=None, console=Console(quiet=True))
    assert (counts.num_images, counts.num_errors, counts.num_detections) == (4, 0, 4 * 20)
    facts = read_facts(Folder.at(tmp_path / "ledger"))
    wanted = {"family": "transformers", "suppression": "none", "class_scores": "sigmoid", "model": "rt_detr_v2"}
    assert {name: facts[name] for name in wanted} == wanted
    assert facts["class_names"] == list(NAMES)
    assert facts["versions"].keys() >= {"torch", "transformers"}
