"""What tests share: the shared data where it is there, a small reef, a detector trained on it, one local Ray."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

from raylearn.data.dataset import Dataset
from raylearn.data.pool import initial_set
from raylearn.data.reef import ReefSettings, read_reef
from raylearn.data.storage import Folder
from raylearn.measures.sampling import random_generator

# The unit tests have twenty seconds; HYPOTHESIS_PROFILE=default searches longer.
settings.register_profile("quick", max_examples=40, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

SHARED = Path(__file__).resolve().parents[2] / "shared"
IMAGE_SIZE = 128


@pytest.fixture(scope="session")
def reef(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """64 frames to learn from and 40 held out."""
    return read_reef(ReefSettings(num_pool=64, num_test=40), tmp_path_factory.mktemp("reef"))


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that one of the processes of this test session makes, and the others wait for."""
    shared = factory.getbasetemp().parent if os.environ.get("PYTEST_XDIST_WORKER") else factory.getbasetemp()
    folder = shared / f"once-{name}"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            make(folder.with_suffix(".unfinished"))
            folder.with_suffix(".unfinished").rename(folder)
    return folder


def own_copy(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A copy, for this process, of a folder that is made once."""
    return Path(shutil.copytree(made_once(factory, name, make), factory.mktemp(name) / name))


@pytest.fixture(scope="session")
def trained(reef: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YOLOv5n checkpoint that has learned something of the reef: half a minute on one core."""
    from raylearn.detectors.base import CHECKPOINT_FILE

    return own_copy(tmp_path_factory, "trained", lambda folder: _train(reef, folder)) / CHECKPOINT_FILE


def _train(reef: Dataset, folder: Path) -> None:
    from raylearn.detectors.base import TrainingSet
    from raylearn.learning.training import TrainingJob
    from raylearn.work.resources import WorkResources

    drawn = set(initial_set(reef, 56, random_generator(0, "initial set")))
    images = tuple(image for image in reef.pool if image.image_id in drawn)
    truth = {image.image_id: reef.truth[image.image_id] for image in images}
    arguments = {
        "epochs": 24,
        "batch": 8,
        "nbs": 8,
        "mosaic": 0.0,
        "optimizer": "AdamW",
        "lr0": 0.002,
        "warmup_epochs": 0.5,
        "cls": 1.0,
    }
    job = TrainingJob("yolov5n", IMAGE_SIZE, arguments, None, 0, TrainingSet(reef.class_names, images, truth))
    folder.mkdir()
    job.run(Folder.at(folder), WorkResources(cpus=1, gpus=0, scoring_actors=1, cpu_slots=1))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a small sweep that nothing happened to, and what it printed."""
    from tests.small_sweep import CONTENT, run_sweep

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "printed").write_text(run_sweep(CONTENT, folder / "small"))

    folder = own_copy(tmp_path_factory, "finished", make)
    return folder / "small", (folder / "printed").read_text()


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A private Ray for the tests of a file; files that start clusters of their own end the one of this process."""
    from raylearn.cluster.session import ray_session

    with ray_session(None):
        yield


@pytest.fixture(scope="session")
def bccd_voc() -> Path:
    return _shared("data/bccd_voc")


@pytest.fixture(scope="session")
def bccd_yolo() -> Path:
    return _shared("data/bccd_yolo")


@pytest.fixture(scope="session")
def coco_weights() -> Path:
    return _shared("weights/yolov5n_coco_backbone_neck_fp16.pt")


@pytest.fixture(scope="session")
def classic_checkpoint() -> Path:
    """YOLOv5n of the original repository, trained on COCO."""
    return _shared("weights/yolov5n_v6_classic.pt")


def _shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not there; the README says how to get the BCCD data")
    return path
