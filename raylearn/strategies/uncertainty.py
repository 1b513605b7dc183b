"""By uncertainty: each detection's, weighted against class imbalance and aggregated over its image."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raylearn.errors import QueryError, nearest
from raylearn.measures.aggregation import AGGREGATIONS, aggregate
from raylearn.measures.uncertainty import PROBABILITIES, UNCERTAINTIES, uncertainty
from raylearn.measures.weighting import WEIGHTINGS, class_weights, detection_weights
from raylearn.strategies.base import Context, ImageScoring, Needs, ScoredImages

AXES = ("uncertainty", "aggregation", "weighting", "probabilities")
"""Of the grid: its options that are columns of results.parquet."""

_CHOICES = {
    "uncertainty": tuple(UNCERTAINTIES),
    "aggregation": AGGREGATIONS,
    "weighting": WEIGHTINGS,
    "probabilities": PROBABILITIES,
}


@dataclass(frozen=True)
class Uncertainty(ImageScoring):
    """Asks for the images whose detections are most uncertain, by aggregated uncertainty.

    Brust, Kaeding and Denzler, Active Learning for Deep Object Detection, 2019, arXiv 1809.09875.

    Args:
        uncertainty: how uncertain one detection is; of `raylearn.measures.uncertainty.UNCERTAINTIES`.
        aggregation: how the detections of an image become its score; of `AGGREGATIONS`.
        weighting: factor of a detection by its predicted class, from the boxes labelled so far; of `WEIGHTINGS`.
        probabilities: how class scores are read as probabilities; of `PROBABILITIES`.
        weight_cap: upper limit of a class weight; None is no limit.

    Raises:
        QueryError: an unknown name, or a cap that is not above 0 or has nothing to limit.
    """

    uncertainty: str = "entropy"
    aggregation: str = "sum"
    weighting: str = "none"
    probabilities: str = "background"
    weight_cap: float | None = None

    name: ClassVar[str] = "uncertainty"
    needs: ClassVar[Needs] = "detections"

    def __post_init__(self) -> None:
        super().__post_init__()
        for axis, known in _CHOICES.items():
            value = getattr(self, axis)
            if value not in known:
                raise QueryError(f"unknown {axis} {value!r}: {nearest(str(value), known)}")
        if self.weight_cap is None:
            return
        if not self.weight_cap > 0:
            raise QueryError(f"the cap on class weights is {self.weight_cap}: it must be above 0, or left out")
        if self.weighting == "none":
            raise QueryError("weight_cap has no meaning without a weighting: give one too, or leave it out")

    @property
    def axes(self) -> dict[str, str]:
        return {axis: getattr(self, axis) for axis in _CHOICES}

    @property
    def words(self) -> tuple[str, ...]:
        limit = () if self.max_per_group is None else (f"max_per_group_{self.max_per_group}",)
        return (*self._own_name, *self.axes.values(), *limit)

    @property
    def label(self) -> str:
        named = [value for value in self.axes.values() if value not in ("none", "background")]
        limit = [] if self.max_per_group is None else [f"max_per_group={self.max_per_group}"]
        return " ".join([*self._own_name, *named, *limit])

    @property
    def _own_name(self) -> tuple[str, ...]:
        """Of a strategy that another package makes of this one."""
        return () if self.name == Uncertainty.name else (self.name,)

    @property
    def needs_class_counts(self) -> bool:
        return self.weighting != "none"

    def refuse_classes(self, num_classes: int) -> None:
        if num_classes == 1 and self.probabilities == "conditional":
            raise QueryError(
                "probabilities `conditional` of one class are always 1, so nothing is uncertain: use `background`"
            )

    def detection_scores(self, class_scores: np.ndarray, context: Context) -> np.ndarray:
        """(D,) float64: the weighted uncertainty of each detection, which `image_scores` aggregates."""
        weights = class_weights(context.class_counts, self.weighting, self.weight_cap)
        per_detection = uncertainty(class_scores, self.uncertainty, self.probabilities)
        return np.asarray(per_detection * detection_weights(class_scores, weights))

    def image_scores(self, images: ScoredImages, context: Context) -> np.ndarray:
        return aggregate(self.detection_scores(images.class_scores, context), images.offsets, self.aggregation)
