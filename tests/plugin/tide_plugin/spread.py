"""A strategy that weighs images against each other, and one that gives each a number."""

from dataclasses import dataclass

import numpy as np

import raylearn


@dataclass(frozen=True)
class Spread(raylearn.Strategy):
    """Takes images whose predicted classes are unlike those already taken: greedy farthest-first on class shares."""

    power: float = 1.0

    name = "spread"
    needs = "detections"

    def select(self, candidates, size, context):
        order = sorted(range(len(candidates.image_ids)), key=lambda i: candidates.image_ids[i])
        counts = candidates.predicted_counts[order].astype(float) + 1e-3 * (1 + context.seed)
        shares = counts / counts.sum(axis=1, keepdims=True)
        chosen, distance = [], np.full(len(order), 2.0)
        for _ in range(size):
            chosen.append(int(np.argmax(distance)))
            distance = np.minimum(distance, np.abs(shares - shares[chosen[-1]]).sum(axis=1) ** self.power)
            distance[chosen] = -1
        ids = tuple(str(candidates.image_ids[order[i]]) for i in chosen)
        return raylearn.Query(ids, tuple(float(size - rank) for rank in range(size)))


@dataclass(frozen=True)
class SureBoxes(raylearn.ImageScoring):
    """Asks for the images with the most confident boxes, each above `above`."""

    above: float = 0.0

    name = "sure_boxes"
    needs = "detections"

    def image_scores(self, images, context):
        sure = (images.class_scores.max(axis=1, initial=0) > self.above).astype(float)
        return raylearn.aggregate(sure, images.offsets, "sum")
