"""One training of the detector, as a job."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from raylearn.cluster.devices import refuse_unusable_gpu, torch_device
from raylearn.config import Experiment
from raylearn.data.storage import Folder, local_path, read_address, reason_of
from raylearn.detectors import build_detector, check_detector, default_family, family_named
from raylearn.detectors.base import CHECKPOINT_FILE, DetectorSettings, TrainingSet
from raylearn.errors import CheckpointError
from raylearn.plugins import versions_of
from raylearn.work.jobs import refuse_other_versions
from raylearn.work.resources import WorkResources
from raylearn.work.store import artifact_key


@dataclass(frozen=True)
class InitialWeights:
    """A weights file, at a path or an address, and the hash of what is in it; a copy elsewhere counts as the same."""

    address: str
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "InitialWeights":
        """Raises CheckpointError if the file cannot be read."""
        try:
            with path.open("rb") as file:
                return cls(str(path.resolve()), hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise CheckpointError(f"initial weights {path} cannot be read: {error.strerror}") from error

    def put_into(self, folder: Folder) -> "InitialWeights":
        """The same, from a copy in this folder, where every node can read it."""
        name = f"{self.sha256}.pt"
        if name not in folder.sizes():
            folder.add(name, self.read())
        return InitialWeights(folder.address_of(name), self.sha256)

    def on_disk(self, folder: Path) -> Path:
        """The file itself where it is on this disk, else a copy below `folder`; either has the bytes of the hash."""
        data, path = self.read(), local_path(self.address)
        if path is not None:
            return Path(path)
        copy = folder / "initial_weights.pt"
        copy.write_bytes(data)
        return copy

    def read(self) -> bytes:
        """Raises CheckpointError if the file cannot be read, or is another by now."""
        try:
            data = read_address(self.address)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"initial weights {self.address} cannot be read: {reason_of(error)}") from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise CheckpointError(f"initial weights {self.address} changed since the run began: start a new run")
        return data


def check_detector_of(experiment: Experiment) -> None:
    """Finds before any work what would stop the trainings of an experiment; see raylearn.detectors.family.Check."""
    detector = experiment.detector
    check_detector(detector.model, experiment.training.arguments, detector.initial_weights, detector.family)


@dataclass(frozen=True)
class BroughtCheckpoint:
    """A checkpoint that somebody trained elsewhere, in the place of a training here.

    Args:
        file: the checkpoint.
        family: of the detector.
        num_images: labelled ones that it is to stand for.
    """

    file: InitialWeights
    family: str
    num_images: int

    kind = "training"

    @cached_property
    def key(self) -> str:
        facts = family_named(self.family).facts("")
        return artifact_key(
            kind=self.kind, recipe=1, brought=self.file.sha256, num_images=self.num_images, family=facts
        )

    def run(self, folder: Folder, resources: WorkResources) -> dict[str, Any]:  # noqa: ARG002  it computes nothing
        folder.add(CHECKPOINT_FILE, self.file.read())
        return {"device": "elsewhere", "num_images": self.num_images}


def with_resolved_model(experiment: Experiment) -> Experiment:
    """The same, with what its `detector.model` means in place of a path; see raylearn.detectors.family.Family."""
    detector = experiment.detector
    model = family_named(detector.family).resolve(detector.model)
    return experiment.model_copy(update={"detector": detector.model_copy(update={"model": model})})


@dataclass(frozen=True)
class TrainingJob:
    """Trains `model` on a labelled set.

    Args:
        model: the detector's name, or what its family's `resolve` gave for it.
        image_size: side of the square it is trained on, pixels.
        arguments: training arguments by the names of the detector's own library.
        initial_weights: what it starts from; None starts from scratch.
        seed: of the random head, the batches and the augmentation.
        train: the labelled set.
        family: of the detector.
    """

    model: str
    image_size: int
    arguments: Mapping[str, Any]
    initial_weights: InitialWeights | None
    seed: int
    train: TrainingSet
    family: str = field(default_factory=default_family)

    kind = "training"

    @cached_property
    def key(self) -> str:
        family = family_named(self.family)
        return artifact_key(
            kind=self.kind,
            recipe=4,  # raise it when the code comes to train otherwise
            model=self.model,
            image_size=self.image_size,
            arguments=dict(self.arguments),
            initial_weights=self.initial_weights.sha256 if self.initial_weights else None,
            seed=self.seed,
            class_names=self.train.class_names,
            labelled=sorted(
                (
                    image.image_id,
                    image.content_hash,
                    self.train.truth[image.image_id].boxes.tolist(),
                    self.train.truth[image.image_id].class_ids.tolist(),
                )
                for image in self.train.images
            ),
            versions=versions_of(family.training_packages),
            **family.facts(self.model),
        )

    def run(self, folder: Folder, resources: WorkResources) -> dict[str, Any]:
        """Raises ClusterError on a node whose versions are not those that the key was made of."""
        refuse_other_versions(replace(self), self, family_named(self.family).training_packages)
        refuse_unusable_gpu(resources.gpus)
        device = torch_device(resources.gpus)
        settings = DetectorSettings(self.image_size, confidence=0, iou=1, max_detections=1)  # of no use in training
        detector = build_detector(
            self.model, settings, self.arguments, device, num_threads=resources.cpus, family=self.family
        )
        with TemporaryDirectory(prefix="raylearn-checkpoint-") as name:
            checkpoint = Path(name) / CHECKPOINT_FILE
            report = detector.fit(
                self.train,
                initial_weights=self.initial_weights.on_disk(Path(name)) if self.initial_weights else None,
                seed=self.seed,
                checkpoint=checkpoint,
            )
            folder.add(CHECKPOINT_FILE, checkpoint.read_bytes())
        return {**report, "device": device, "num_images": len(self.train.images)}
