"""What decides the key of a job: all that can change its result, and nothing else."""

import pickle
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import pytest

from raylearn import plugins
from raylearn.cluster.machines import detection_versions
from raylearn.data.storage import Folder
from raylearn.detectors.base import DetectorSettings, TrainingSet
from raylearn.errors import CheckpointError, ClusterError
from raylearn.learning import evaluation, scoring
from raylearn.learning.evaluation import EvaluationJob
from raylearn.learning.scoring import ScoringJob
from raylearn.learning.training import InitialWeights, TrainingJob
from raylearn.scoring.manifest import Manifest
from raylearn.work.resources import WorkResources
from raylearn.work.store import Artifact
from tests.unit.hand_made import CLASS_NAMES, make_dataset, make_image, make_truth

DATASET = make_dataset({"a.jpg": [0], "b.jpg": [1, 2], "c.jpg": []})
A, B, C = DATASET.pool
SETTINGS = DetectorSettings(image_size=128, confidence=0.05, iou=0.7, max_detections=100)
TRAINING = TrainingJob(
    model="yolov5n",
    image_size=128,
    arguments={"epochs": 3, "batch": 8},
    initial_weights=InitialWeights("/weights.pt", "ab"),
    seed=0,
    train=TrainingSet(CLASS_NAMES, DATASET.pool, DATASET.truth),
)
EVALUATION = EvaluationJob(
    training=Artifact(TRAINING.key, Folder("/store/training/x"), {}),
    model="yolov5n",
    settings=SETTINGS,
    class_names=CLASS_NAMES,
    images=DATASET.test,
    truth=DATASET.truth,
    fingerprint=DATASET.test_fingerprint,
)
SCORING = ScoringJob(
    training=Artifact(TRAINING.key, Folder("/store/training/x"), {}),
    model="yolov5n",
    settings=SETTINGS,
    manifest=Manifest.of(DATASET.pool),
    batch_size=32,
)


def trained_on(*images: Any, class_names: tuple[str, ...] = CLASS_NAMES, **truth: Any) -> TrainingJob:
    labelled = TrainingSet(class_names, images or DATASET.pool, {**DATASET.truth, **truth})
    return replace(TRAINING, train=labelled)


OTHER_SETTINGS = {
    "image size": replace(SETTINGS, image_size=160),
    "confidence": replace(SETTINGS, confidence=0.1),
    "iou": replace(SETTINGS, iou=0.6),
    "max_detections": replace(SETTINGS, max_detections=99),
    "choice of embeddings": replace(SETTINGS, embeddings=True),
}
OTHER_WORK = {
    "a training": TRAINING,
    "an evaluation": EVALUATION,
    "a scoring pass": SCORING,
    "of another model": replace(TRAINING, model="yolov8n"),
    "at another size": replace(TRAINING, image_size=160),
    "for more epochs": replace(TRAINING, arguments={"epochs": 4, "batch": 8}),
    "with one more argument": replace(TRAINING, arguments={"epochs": 3, "batch": 8, "lr0": 0.01}),
    "from other weights": replace(TRAINING, initial_weights=InitialWeights("/weights.pt", "cd")),
    "from scratch": replace(TRAINING, initial_weights=None),
    "with another seed": replace(TRAINING, seed=1),
    "with a class renamed": trained_on(class_names=("crab", "fish", "eel")),
    "without one image": trained_on(A, B),
    "with an image edited": trained_on(A, B, make_image("c.jpg", content="edited")),
    "with an image renamed": trained_on(A, B, make_image("d.jpg", content="c.jpg"), **{"d.jpg": make_truth()}),
    "with a box more": trained_on(**{"c.jpg": make_truth(0)}),
    "with a box of another class": trained_on(**{"a.jpg": make_truth(1)}),
    "measuring another model": replace(EVALUATION, training=Artifact("other", Folder("/store/training/x"), {})),
    "measuring on other data": replace(EVALUATION, fingerprint="other"),
    "scoring with another model": replace(SCORING, training=Artifact("other", Folder("/store/training/x"), {})),
    "scoring fewer images": replace(SCORING, manifest=Manifest.of([A, B])),
    **{f"measuring at another {name}": replace(EVALUATION, settings=other) for name, other in OTHER_SETTINGS.items()},
    **{f"scoring at another {name}": replace(SCORING, settings=other) for name, other in OTHER_SETTINGS.items()},
}
ELSEWHERE = tuple(make_image(image.image_id, folder="/elsewhere") for image in reversed(DATASET.pool))
MOVED = Artifact(TRAINING.key, Folder("s3://elsewhere/x"), {})
SAME_WORK = {
    "weights that lie elsewhere": (
        TRAINING,
        replace(TRAINING, initial_weights=InitialWeights("/elsewhere.pt", "ab")),
    ),
    "images that lie elsewhere, in another order": (TRAINING, trained_on(*ELSEWHERE)),
    "truth of images that are not labelled": (TRAINING, trained_on(**{"test/0.jpg": make_truth(0, 0)})),
    "arguments in another order": (TRAINING, replace(TRAINING, arguments={"batch": 8, "epochs": 3})),
    "a measured checkpoint that lies elsewhere": (EVALUATION, replace(EVALUATION, training=MOVED)),
    "a scoring checkpoint that lies elsewhere": (SCORING, replace(SCORING, training=MOVED)),
    "scored images that lie elsewhere": (SCORING, replace(SCORING, manifest=Manifest.of(ELSEWHERE))),
    "fewer images per call": (SCORING, replace(SCORING, batch_size=1)),
}


def test_a_key_changes_with_all_that_can_change_the_result():
    keys = {name: job.key for name, job in OTHER_WORK.items()}
    assert len(set(keys.values())) == len(keys), keys


@pytest.mark.parametrize("name", SAME_WORK)
def test_a_key_does_not_change_with(name):
    job, same = SAME_WORK[name]
    assert same.key == job.key


def test_the_keys_that_stores_hold_do_not_change_by_themselves(monkeypatch):
    trained = Artifact("trained", Folder("/store/training/x"), {}, {"checkpoint.pt": "cd"})
    for module in (evaluation, scoring):
        monkeypatch.setattr(module, "detection_versions", lambda _: {"torch": "1"})
    monkeypatch.setattr("raylearn.plugins.version", lambda _: "1")
    ledger, measured = replace(SCORING, training=trained), replace(EVALUATION, training=trained)
    assert ledger.key == "a7dcd177a123ab098cb83d32187db8f49f3b7fd52874146333becb448948620a"
    assert measured.key == "26a51bd951258447f9ed5b210d9e622b94ba4915a1f961763d1d9b29ee30c7e3"


@pytest.mark.parametrize("job", [EVALUATION, SCORING], ids=lambda job: job.kind)
@pytest.mark.parametrize("package", ["torch", "torchvision", "ultralytics", "numpy", "pillow"])
def test_another_version_of_what_decides_detections_is_another_key(job, package, monkeypatch):
    real = version(package)
    monkeypatch.setattr(plugins, "version", lambda name: "0.0" if name == package else version(name))
    detection_versions.cache_clear()
    try:
        assert detection_versions(job.family)[package] == "0.0" != real
        assert replace(job).key != job.key
    finally:
        detection_versions.cache_clear()


@pytest.mark.parametrize("job", [EVALUATION, SCORING], ids=lambda job: job.kind)
def test_a_checkpoint_that_was_trained_again_to_other_bytes_shares_nothing_with_the_lost_one(job):
    first, again = (replace(job.training, files={"checkpoint.pt": digest}) for digest in ("ab", "cd"))
    assert replace(job, training=first).key != replace(job, training=again).key


@pytest.mark.parametrize("job", [EVALUATION, SCORING], ids=lambda job: job.kind)
def test_work_is_refused_where_other_versions_are_installed(job, tmp_path, monkeypatch):
    assert job.key
    sent = pickle.loads(pickle.dumps(job))
    for module in (evaluation, scoring):
        monkeypatch.setattr(module, "detection_versions", lambda _: {"torchvision": "another"})
    with pytest.raises(ClusterError, match=r"other versions of torchvision.* than the driver"):
        sent.run(Folder.at(tmp_path), WorkResources(1, 0, 1, None))


def test_initial_weights_are_known_by_their_content(tmp_path):
    for name, content in [("a.pt", b"1"), ("copy.pt", b"1"), ("b.pt", b"2")]:
        (tmp_path / name).write_bytes(content)
    a, copy, b = (InitialWeights.of(tmp_path / name) for name in ("a.pt", "copy.pt", "b.pt"))
    assert a.sha256 == copy.sha256 != b.sha256


def test_initial_weights_that_changed_since_are_refused_and_a_copy_in_the_store_serves_instead(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(b"1")
    weights = InitialWeights.of(path)
    assert weights.on_disk(tmp_path) == path.resolve()  # what messages name
    copy = weights.put_into(Folder.at(tmp_path / "store"))
    path.write_bytes(b"2")
    with pytest.raises(CheckpointError, match="changed since the run began"):
        weights.read()
    assert (copy.read(), copy.sha256) == (b"1", weights.sha256)
    assert copy.on_disk(tmp_path).read_bytes() == b"1"
    path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        weights.read()


def test_a_training_is_refused_where_other_versions_are_installed(tmp_path, monkeypatch):
    assert TRAINING.key  # of the versions here
    job = pickle.loads(pickle.dumps(TRAINING))  # as a worker gets it
    monkeypatch.setattr("raylearn.plugins.version", lambda name: f"another {name}")
    with pytest.raises(ClusterError, match="other versions of opencv-python, torch, ultralytics than the driver"):
        job.run(Folder.at(tmp_path), WorkResources(1, 0, 1, None))
