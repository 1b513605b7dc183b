"""A detector that has learned where the boxes of each class are on average, and how frequent each class is."""

import json

import numpy as np

from raylearn.detectors.base import CheckpointFacts, Detections
from raylearn.detectors.family import Family

FORMAT = "tide-places-1"


class Places:
    def __init__(self, settings, training):
        self.settings, self.training = settings, training
        self.class_names = ()

    def fit(self, train, *, initial_weights, seed, checkpoint):
        import torch

        boxes = np.concatenate(
            [train.truth[image.image_id].boxes / np.tile((image.width, image.height), 2) for image in train.images]
        )
        ids = np.concatenate([train.truth[image.image_id].class_ids for image in train.images])
        rng, num_classes = np.random.default_rng(seed), len(train.class_names)
        places = np.stack([boxes[ids == k].mean(0) if (ids == k).any() else [0, 0, 1, 1] for k in range(num_classes)])
        scores = (np.bincount(ids, minlength=num_classes) + 1) / (len(ids) + num_classes)
        mixed = np.eye(num_classes) * scores + self.training.get("blur", 0.0) * rng.random((num_classes, num_classes))
        text = json.dumps({"names": train.class_names, "places": places.tolist(), "scores": mixed.clip(0, 1).tolist()})
        torch.save({"format": FORMAT, "content": text}, checkpoint)
        return {"epochs": self.training["epochs"]}

    def load(self, checkpoint):
        content = read(checkpoint)
        self.class_names = tuple(content["names"])
        self.places, self.scores = np.array(content["places"]), np.array(content["scores"], np.float32)

    def predict(self, canvases, sizes):
        kept = np.flatnonzero(self.scores.max(1) > self.settings.confidence)[: self.settings.max_detections]
        bright = canvases.reshape(len(canvases), -1).mean(1) / 255
        return [
            Detections(
                (self.places[kept] * np.tile(size, 2)).astype(np.float32),
                np.clip(self.scores[kept] * (0.5 + light / 2), 0, 1),
            )
            for size, light in zip(sizes, bright.astype(np.float32), strict=True)
        ]


def read(checkpoint):
    import torch

    return json.loads(torch.load(checkpoint, weights_only=True)["content"])


def check(model, training, initial_weights):
    from raylearn.errors import DetectorError

    if model != "mean":
        raise DetectorError(f"detector.model {model!r} is not one of the family places: it has mean only")


FAMILY = Family(
    name="places",
    models="mean",
    class_scores="sigmoid",
    suppression="none",
    build=lambda model, settings, training, device, num_threads, engine: Places(settings, training),
    check=check,
    read_checkpoint=lambda path: CheckpointFacts("mean", tuple(read(path)["names"]), 64),
    recognises=lambda contents: FORMAT in contents.strings,
    training_options=frozenset({"blur"}),
    packages=("tide-plugin",),
    training_packages=("numpy", "tide-plugin"),
)
