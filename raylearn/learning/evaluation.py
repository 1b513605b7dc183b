"""COCO mAP of a checkpoint on the held-out split."""

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from itertools import repeat
from typing import Any

import numpy as np

from raylearn.cluster.devices import refuse_unusable_gpu, torch_device
from raylearn.cluster.machines import detection_versions
from raylearn.data.dataset import GroundTruth, Image
from raylearn.data.storage import Folder
from raylearn.detectors import build_detector, default_family
from raylearn.detectors.base import CHECKPOINT_FILE, Detections, DetectorSettings
from raylearn.errors import RaylearnError
from raylearn.plugins import versions_of
from raylearn.progress import steps
from raylearn.scoring.fetching import Fetches
from raylearn.scoring.reading import ReadImage, batches, read_ahead, read_image
from raylearn.work.jobs import refuse_other_versions
from raylearn.work.resources import WorkResources
from raylearn.work.store import Artifact, artifact_key

_BATCH_SIZE = 16
_MEASURES = "faster-coco-eval"


@dataclass(frozen=True)
class Evaluation:
    """Mean average precision in [0, 1].

    Args:
        map50_95: mean over classes and over the overlaps .50, .55, ..., .95.
        map50: mean over classes at the overlap .50.
        class_ap: average precision over the same overlaps per class; None for a class without test boxes.
    """

    map50_95: float
    map50: float
    class_ap: tuple[float | None, ...]


def mean_average_precision(
    detections: Sequence[Detections], truth: Sequence[GroundTruth], class_names: Sequence[str], max_detections: int
) -> Evaluation:
    """COCO mAP by faster-coco-eval, each detection counted for its predicted class.

    Args:
        detections: per image.
        truth: per image, in the same order.
        class_names: of which only the number counts.
        max_detections: per image, the most confident.

    Raises:
        RaylearnError: no image has a box, so there is nothing to measure.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    if not sum(map(len, truth)):
        raise RaylearnError("the held-out split has no boxes, so mAP is not defined: name another dataset.test")
    ground_truth = COCO(_coco_ground_truth(truth, class_names))
    rows = _coco_detections(detections)
    if not rows:
        present = np.bincount(np.concatenate([image.class_ids for image in truth]), minlength=len(class_names)) > 0
        return Evaluation(0.0, 0.0, tuple(0.0 if there else None for there in present))
    measured = COCOeval_faster(ground_truth, ground_truth.loadRes(rows), "bbox", print_function=lambda *_: None)
    measured.params.maxDets = [1, 10, max_detections]
    measured.evaluate()
    measured.accumulate()
    # (overlaps, recalls, classes) for all object sizes and the largest number of detections; -1 where undefined
    precision = measured.eval["precision"][:, :, :, 0, -1]
    class_ap = [_defined_mean(precision[:, :, k]) for k in range(len(class_names))]
    return Evaluation(_defined_mean(precision) or 0.0, _defined_mean(precision[0]) or 0.0, tuple(class_ap))


def _defined_mean(precision: np.ndarray) -> float | None:
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else None


def _coco_ground_truth(truth: Sequence[GroundTruth], class_names: Sequence[str]) -> dict[str, Any]:
    annotations = [
        {
            "id": 0,
            "image_id": index,
            "category_id": int(class_id),
            "bbox": _xywh(box),
            "area": float((box[2] - box[0]) * (box[3] - box[1])),
            "iscrowd": 0,
        }
        for index, image in enumerate(truth)
        for box, class_id in zip(image.boxes, image.class_ids, strict=True)
    ]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    return {
        "info": {},
        "images": [{"id": index} for index in range(len(truth))],
        "categories": [{"id": k, "name": name} for k, name in enumerate(class_names)],
        "annotations": annotations,
    }


def _coco_detections(detections: Sequence[Detections]) -> list[dict[str, Any]]:
    return [
        {"image_id": index, "category_id": int(class_id), "bbox": _xywh(box), "score": float(confidence)}
        for index, found in enumerate(detections)
        for box, class_id, confidence in zip(found.boxes, found.class_ids, found.confidences, strict=True)
    ]


def _xywh(box: np.ndarray) -> list[float]:
    left, top, right, bottom = map(float, box)
    return [left, top, right - left, bottom - top]


@dataclass(frozen=True)
class EvaluationJob:
    """Measures a trained model.

    Args:
        training: made the checkpoint.
        model: the detector's name.
        settings: what decides the detections.
        class_names: of the data set.
        images: the held-out split.
        truth: its ground truth.
        fingerprint: of the held-out split; stands for images and truth in the key.
        family: of the detector.
    """

    training: Artifact
    model: str
    settings: DetectorSettings
    class_names: tuple[str, ...]
    images: tuple[Image, ...]
    truth: Mapping[str, GroundTruth]
    fingerprint: str
    family: str = field(default_factory=default_family)

    kind = "evaluation"

    @cached_property
    def key(self) -> str:
        return artifact_key(
            kind=self.kind,
            recipe=1,  # raise it when the code comes to measure otherwise
            training=self.training.key,
            checkpoint=self.training.files.get(CHECKPOINT_FILE),
            settings=self.settings.facts,
            test=self.fingerprint,
            versions={**detection_versions(self.family), **versions_of((_MEASURES,))},
        )

    def run(self, folder: Folder, resources: WorkResources) -> dict[str, Any]:  # noqa: ARG002  its result is its facts
        """Raises ClusterError on a node whose versions are not those that the key was made of."""
        refuse_other_versions(replace(self), self, [*detection_versions(self.family), _MEASURES])
        refuse_unusable_gpu(resources.gpus)
        device = torch_device(resources.gpus)
        detector = build_detector(
            self.model, self.settings, device=device, num_threads=resources.cpus, family=self.family
        )
        with self.training.on_disk() as training:
            detector.load(training / CHECKPOINT_FILE)
        found: list[Detections] = []
        steps("image", 0, len(self.images))
        # A GPU would wait for images that are read one after the other.
        with ThreadPoolExecutor(resources.cpus) as threads, closing(self._read(threads)) as images:
            for _, canvases, sizes in batches(images, _BATCH_SIZE):  # squares: batches in order
                found += detector.predict(canvases, sizes)
                steps("image", len(found), len(self.images))
        truth = [self.truth[image.image_id] for image in self.images]
        return asdict(mean_average_precision(found, truth, self.class_names, self.settings.max_detections))

    def _read(self, threads: Executor) -> Generator[ReadImage, None, None]:
        """The held-out images in order. Raises RaylearnError for one that cannot be read."""
        uris, hashes = [image.uri for image in self.images], [image.content_hash for image in self.images]
        read = partial(read_image, settings=self.settings)
        with closing(Fetches()) as fetches, closing(fetches.ahead(uris, repeat(None, len(uris)))) as sources:
            for image in read_ahead(sources, hashes, read, threads, _BATCH_SIZE):
                if image.error:
                    raise RaylearnError(f"a held-out image cannot be read: {image.error}")
                yield image
