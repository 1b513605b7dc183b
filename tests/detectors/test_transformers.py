"""The transformers family against the library itself, on tiny random networks."""

import gc
import random
import socket
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from raylearn.config import read_experiment
from raylearn.data.dataset import Dataset
from raylearn.data.images import decode, read_bytes
from raylearn.data.storage import Folder
from raylearn.detectors import build_detector, check_detector, family_named, family_of, read_checkpoint
from raylearn.detectors.base import DetectorSettings, Engine, TrainingSet
from raylearn.detectors.families.transformers import FAMILY
from raylearn.detectors.families.transformers.models import build_model, load_weights, open_model, save_model
from raylearn.detectors.families.transformers.training import Options
from raylearn.detectors.letterbox import letterbox, to_canvas, to_original
from raylearn.errors import CheckpointError, ConfigError, DatasetError, DetectorError, DivergedError
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
        with torch.inference_mode():
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
    report = detector_of(model).fit(small(reef), initial_weights=None, seed=5, checkpoint=checkpoint)
    assert report == {}
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

    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    first = train("a.pt", seed=3)
    torch.rand(7)  # as anything that happens in between
    again, other = train("b.pt", seed=3), train("c.pt", seed=4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    np.random.get_state()
    torch.set_rng_state(states[0])
    train("d.pt", seed=3)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]


def test_a_training_learns(reef: Dataset, tmp_path: Path) -> None:
    """On three images the loss of the trained network is well below that of the untrained one."""
    from raylearn.detectors.families.transformers import training as module

    model = write_folder(tmp_path / "tiny", "rt_detr_v2", num_denoising=0)
    train = small(reef)

    def loss(network) -> float:
        options = Options(epochs=1, batch=3, fliplr=0)
        ((canvases, labels),) = module._batches(train, options, IMAGE_SIZE, seed=0)
        pixels = module.pixel_values(canvases, network.config, torch.device("cpu"))
        with torch.inference_mode():
            return network.eval()(pixel_values=pixels, labels=labels).loss.item()

    losses = []
    for epochs, lr0 in ((1, 1e-9), (30, 3e-3)):
        detector_of(model, epochs=epochs, lr0=lr0).fit(
            train, initial_weights=None, seed=0, checkpoint=tmp_path / f"{epochs}.pt"
        )
        losses.append(loss(open_model(tmp_path / f"{epochs}.pt")[0]))
    assert losses[1] < 0.7 * losses[0]
