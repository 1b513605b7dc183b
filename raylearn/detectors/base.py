"""What raylearn asks of a detector: train, load, and give every detection's class scores."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from raylearn.data.dataset import GroundTruth, Image
from raylearn.errors import DetectorError, DivergedError

CHECKPOINT_FILE = "checkpoint.pt"
"""What a trained detector is kept as, in a store and in the folder of a scoring pass."""

BOX_EMBEDDING, IMAGE_EMBEDDING = 64, 128
"""Numbers of the embedding of a box, and of an image."""


@dataclass(frozen=True, eq=False)
class Detections:
    """The kept boxes of one image.

    Args:
        boxes: (n, 4) float32 xyxy in pixels of the original, upright image; n may be 0.
        class_scores: (n, K) float32 in [0, 1], exactly what the head gave for each kept box.
        box_embeddings: (n, BOX_EMBEDDING) float16, what the network saw in each kept box; None where not asked for.
        image_embedding: (IMAGE_EMBEDDING,) float16, what it saw in the whole image; None where not asked for.

    Raises:
        ValueError: shapes that do not fit, a score outside [0, 1], or one kind of embedding without the other.
        DivergedError: a number that is not finite.
    """

    boxes: np.ndarray
    class_scores: np.ndarray
    box_embeddings: np.ndarray | None = None
    image_embedding: np.ndarray | None = None

    def __post_init__(self) -> None:
        boxes, scores = self.boxes, self.class_scores
        if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.ndim != 2 or len(boxes) != len(scores):
            raise ValueError(f"boxes (n, 4) and class scores (n, K) wanted, got {boxes.shape} and {scores.shape}")
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise DivergedError("the detector gave a box or a score that is not a finite number: its training diverged")
        if scores.size and (scores.min() < 0 or scores.max() > 1):
            raise ValueError(f"class scores must be in [0, 1], got {scores.min():.3g} to {scores.max():.3g}")
        self._check_embeddings()

    def _check_embeddings(self) -> None:
        of_boxes, of_image = self.box_embeddings, self.image_embedding
        if of_boxes is None or of_image is None:
            if of_boxes is not of_image:
                raise ValueError("embeddings of the boxes and of the image come together: give both, or neither")
            return
        for name, found, shape in (
            ("box embeddings", of_boxes, (len(self), BOX_EMBEDDING)),
            ("an image embedding", of_image, (IMAGE_EMBEDDING,)),
        ):
            if found.shape != shape or found.dtype != np.float16:
                raise ValueError(f"expected {name} of shape {shape} in float16, got {found.shape} in {found.dtype}")
            if not np.isfinite(found).all():
                raise DivergedError("the detector gave an embedding that is not finite: its training diverged")

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def confidences(self) -> np.ndarray:
        """(n,) the highest class score of each detection."""
        confidences: np.ndarray = self.class_scores.max(axis=1, initial=0.0)
        return confidences

    @property
    def class_ids(self) -> np.ndarray:
        """(n,) the predicted class: that of the highest score."""
        class_ids: np.ndarray = self.class_scores.argmax(axis=1)
        return class_ids


@dataclass(frozen=True)
class TrainingSet:
    """Labelled images as a detector's training wants them."""

    class_names: tuple[str, ...]
    images: Sequence[Image]
    truth: Mapping[str, GroundTruth]


@dataclass(frozen=True)
class DetectorSettings:
    """What decides the detections of a trained model; recorded beside everything that is computed from them.

    Args:
        image_size: side in pixels of the square that images are letterboxed into.
        confidence: detections whose highest class score is lower are dropped.
        iou: overlap above which non-maximum suppression drops the weaker of two boxes of one class.
        max_detections: the most confident that are kept per image; cuts what `sum` adds up.
        canvas: "square", as in training, or "rectangle", padded only to the next multiple of 32; see letterbox.
        decode: "full"; "reduced": a JPEG of twice image_size or more is decoded at a fraction of its size; or "gpu":
            plain JPEGs are decoded and letterboxed on the GPU, whose pixels differ a little.
        embeddings: whether detections come with embeddings of their boxes and of the image.
    """

    image_size: int
    confidence: float
    iou: float
    max_detections: int
    canvas: str = "square"
    decode: str = "full"
    embeddings: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        """What keys and records say of them; nothing of embeddings where there are none, as they never did."""
        facts = asdict(self)
        return facts if self.embeddings else {name: value for name, value in facts.items() if name != "embeddings"}


@dataclass(frozen=True)
class Engine:
    """What runs the network.

    Args:
        backend: "torch" or "openvino".
        precision: "fp32", "fp16" or "bf16" of the network's arithmetic; boxes are decoded in fp32.
    """

    backend: str = "torch"
    precision: str = "fp32"

    def refuse_embeddings(self) -> None:
        """Raises DetectorError where to keep embeddings would change boxes and scores."""
        # Layers whose output is kept are not joined with the next, and so round it; in fp32 there is nothing to round.
        if self.backend == "openvino" and self.precision != "fp32":
            raise DetectorError(
                f"embeddings need backend torch, or precision fp32: openvino in {self.precision} would give other boxes"
            )


@dataclass(frozen=True)
class CheckpointFacts:
    """What a checkpoint says of itself.

    Args:
        model: the name of its architecture.
        class_names: position is the class id.
        image_size: what it was trained at, pixels; None where it does not say.
    """

    model: str
    class_names: tuple[str, ...]
    image_size: int | None


class Detector(Protocol):
    """A detector that gives class scores for every box it keeps."""

    def fit(
        self, train: TrainingSet, *, initial_weights: Path | None, seed: int, checkpoint: Path
    ) -> dict[str, object]:
        """Trains from `initial_weights` (or from scratch) and writes `checkpoint`.

        Returns:
            What a person would want to know of the training, such as the tensors matched from the initial weights.

        Raises:
            CheckpointError: initial weights of which nothing fits.
            DivergedError: the loss became NaN.
        """
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the loaded checkpoint; position is the class id."""
        ...

    def load(self, checkpoint: Path) -> None:
        """Makes `predict` use the model of `checkpoint`."""
        ...

    def predict(self, canvases: Any, sizes: np.ndarray) -> list[Detections]:
        """Detections of each image.

        Args:
            canvases: (n, height, width, 3) uint8 RGB, letterboxed beside the model by `letterbox`. A tensor on the
                detector's device, where its family says that it takes one.
            sizes: (n, 2) int, width and height of the upright originals, whose pixels the boxes are in.
        """
        ...
