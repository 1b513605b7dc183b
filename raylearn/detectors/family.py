"""A family of detectors: what the rest of the house has to know of one, and nothing of its library."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from raylearn.detectors.base import CheckpointFacts, Detector, DetectorSettings, Engine
from raylearn.detectors.checkpoint_contents import Contents

ClassScores = Literal["sigmoid", "softmax"]


class Build(Protocol):
    """Makes a detector of a family; see `Family`."""

    def __call__(
        self,
        model: str,
        settings: DetectorSettings,
        training: Mapping[str, Any],
        device: str,
        num_threads: int | None,
        engine: Engine,
    ) -> Detector:
        """A detector that is not loaded yet.

        Args:
            model: the name of an architecture; "" where a checkpoint is to be loaded, which says it itself.
            settings: what decides the detections of a trained model.
            training: arguments of `fit`: `epochs`, `batch` and options of `training_options`.
            device: "cpu" or "cuda:0".
            num_threads: threads on a CPU, where None leaves the library's own choice; beside a GPU, processes that
                load the images of a training, for families that have them.
            engine: what runs the trained network.

        Raises:
            DetectorError: a backend or precision that the family does not have.
        """
        ...


class Check(Protocol):
    """Finds before any work what would stop a training; see `Family`."""

    def __call__(self, model: str, training: Mapping[str, Any], initial_weights: Path | None) -> None:
        """Looks at a model, its training arguments and the weights it is to start from.

        Raises:
            DetectorError: the model is unknown, gives no class scores, or cannot be trained here.
            ConfigError: impossible training arguments.
            CheckpointError: initial weights that are none, or of which nothing fits.
        """
        ...


class Taken(Protocol):
    """Counts what a model takes of initial weights; see `Family`."""

    def __call__(self, model: str, num_classes: int, initial_weights: Path) -> tuple[int, int]:
        """How many tensors of a model for so many classes the file gives, and how many the model has.

        Raises:
            DetectorError, CheckpointError: see `Check`.
        """
        ...


@dataclass(frozen=True)
class Family:
    """One family of detectors.

    A record is made where its module is imported, and imports its library only inside of its functions. It is found by
    its name in `detector.family`, or by a checkpoint that it recognises.

    Args:
        name: as `detector.family` names it.
        models: what `detector.model` may be, in words, with examples.
        class_scores: what a row of class scores is. "sigmoid": K independent probabilities. "softmax": K of K + 1
            probabilities that sum to 1; what is missing is the background, exactly as the head gave it. A function of
            the model where a family has both.
        suppression: "per class": of two boxes of one class that overlap by more than `iou` the weaker is dropped.
            "none": boxes are kept as the network gives them, so `sum` adds up what other families drop.
        build: makes a detector.
        check: finds before any work what would stop a training.
        read_checkpoint: what a checkpoint that was recognised says of itself; raises CheckpointError or DetectorError.
        recognises: whether a file is a checkpoint of this family, by its contents.
        training_options: what `training.options` may hold.
        packages: distributions whose versions decide detections, beside numpy, pillow and opencv.
        training_packages: distributions whose versions decide what a training gives.
        backends: what may run its network, of "torch" and "openvino".
        embeddings: whether its detections come with embeddings where the settings ask for them.
        device_canvases: whether its detectors take canvases that are on their device, which `decode: gpu` makes, from
            several threads at once that each have a CUDA stream of their own.
        no_training: why it only scores, and what to do; "" for a family that trains. Its `check` says the same.
        recipe: raised when its code comes to train or score otherwise; part of the store's keys.
        is_default: whether an experiment that names no family means this one.
        resolve: gives what `detector.model` means for what it is, so that other machines can be sent it and keys hold
            no path: a name is one already, of a file it is the content. May be given its own answer again.
        taken: counts what a model takes of initial weights, to be told when a run begins; None: the family cannot say.
        other_task: what a checkpoint that was recognised was trained for in place of detection, or "".
    """

    name: str
    models: str
    class_scores: ClassScores | Callable[[str], ClassScores]
    suppression: Literal["per class", "none"]
    build: Build
    check: Check
    read_checkpoint: Callable[[Path], CheckpointFacts]
    recognises: Callable[[Contents], bool]
    training_options: frozenset[str]
    packages: tuple[str, ...]
    training_packages: tuple[str, ...]
    backends: tuple[str, ...] = ("torch",)
    embeddings: bool = False
    device_canvases: bool = False
    no_training: str = ""
    recipe: int = 1
    is_default: bool = False
    resolve: Callable[[str], str] = str
    taken: Taken | None = None
    other_task: Callable[[Contents], str] = lambda _: ""

    def facts(self, model: str) -> dict[str, Any]:
        """What keys and records say of the family of a model; nothing of the default one, as they never did."""
        if self.is_default:
            return {}
        return {
            "family": self.name,
            "family_recipe": self.recipe,
            "class_scores": self.class_scores(model) if callable(self.class_scores) else self.class_scores,
            "suppression": self.suppression,
        }
