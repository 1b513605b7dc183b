"""By the number of detections."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raylearn.measures.sampling import box_counts
from raylearn.strategies.base import Context, ImageScoring, Needs, ScoredImages


@dataclass(frozen=True)
class BoxCount(ImageScoring):
    """Asks for the most crowded images: the control that tells uncertain from crowded, which `sum` rewards."""

    name: ClassVar[str] = "box_count"
    needs: ClassVar[Needs] = "detections"
    is_control: ClassVar[bool] = True

    def image_scores(self, images: ScoredImages, context: Context) -> np.ndarray:  # noqa: ARG002
        return box_counts(images.offsets)
