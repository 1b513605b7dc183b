"""What each faster setting does to the results: mAP, the ranking of the images, and the top of the query.

The reference is torch in fp32 on squares, decoded in full. mAP50-95 is of the held-out split at confidence .001; image
scores are of all images at confidence .05, entropy with each aggregation: Spearman's correlation with the reference,
and the share of the top tenth that both have. A setting that moves mAP by more than .003, or whose sums correlate
below .99 or share less than .95 of the top tenth, is no default.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import annotated
from benchmarks.tables import show
from raylearn.data.dataset import Image
from raylearn.detectors import build_detector
from raylearn.detectors.base import Detections, DetectorSettings, Engine
from raylearn.learning.evaluation import mean_average_precision
from raylearn.measures.sampling import top_n
from raylearn.scoring.reading import gathered, groups, read_image
from raylearn.strategies import Context, Uncertainty

REFERENCE = "torch fp32 square"
AGGREGATIONS = ("sum", "max", "mean")


class Found:
    """Detections of many images, as the query sees them."""

    def __init__(self, detections: Sequence[Detections]) -> None:
        self.offsets = np.concatenate([[0], np.cumsum([len(found) for found in detections])]).astype(np.int64)
        self.class_scores = np.concatenate([found.class_scores for found in detections])


def detect(
    images: Sequence[Image], checkpoint: Path, settings: DetectorSettings, engine: Engine, device: str
) -> list[Detections]:
    """Detections of each image, in order."""
    detector = build_detector("", settings, device=device, engine=engine)
    detector.load(checkpoint)
    found: dict[int, Detections] = {}
    read = (read_image(image.uri, "", settings) for image in images)
    for positions, group in groups(read, 8):
        canvases, failed = gathered(group, device)
        if failed:
            raise next(iter(failed.values()))
        sizes = np.array([image.size for image in group])
        found |= dict(zip(positions, detector.predict(canvases, sizes), strict=True))
    return [found[position] for position in range(len(images))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    annotated.add_arguments(parser)
    parser.add_argument("--checkpoint", type=Path, required=True, help="of a detector that has learned the data set")
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, default=Path("runs/bench/fidelity.json"))
    options = parser.parse_args()
    dataset = annotated.read(options)
    images = sorted(dataset.images(), key=lambda image: image.image_id)
    names = [image.image_id for image in images]
    square = DetectorSettings(options.image_size, confidence=0.001, iou=0.7, max_detections=300)
    rectangle = replace(square, canvas="rectangle")
    reduced = replace(square, canvas="rectangle", decode="reduced")
    variants = {
        REFERENCE: (square, Engine()),
        "torch fp32 rectangle": (rectangle, Engine()),
        "torch fp32 rectangle reduced": (reduced, Engine()),
        "torch bf16 square": (square, Engine("torch", "bf16")),
        "openvino fp32 square": (square, Engine("openvino", "fp32")),
        "openvino fp32 rectangle": (rectangle, Engine("openvino", "fp32")),
        "openvino fp16 square": (square, Engine("openvino", "fp16")),
        "openvino bf16 square": (square, Engine("openvino", "bf16")),
    }
    if options.device != "cpu":
        variants = {name: variant for name, variant in variants.items() if "torch" in name}
        variants["torch fp16 square"] = (square, Engine("torch", "fp16"))
        variants["torch fp16 rectangle"] = (rectangle, Engine("torch", "fp16"))
        decoded = replace(square, decode="gpu")
        variants["torch fp32 square, decoded on the GPU"] = (decoded, Engine())
        variants["torch fp16 square, decoded on the GPU"] = (decoded, Engine("torch", "fp16"))
    rows: list[dict[str, Any]] = []
    reference: dict[str, np.ndarray] = {}
    for name, (settings, engine) in variants.items():
        print(name, flush=True)
        tested = detect(dataset.test, options.checkpoint, settings, engine, options.device)
        truth = [dataset.truth[image.image_id] for image in dataset.test]
        measured = mean_average_precision(tested, truth, dataset.class_names, settings.max_detections)
        query_settings = replace(settings, confidence=0.05, max_detections=100)
        context = Context(0, np.zeros(dataset.num_classes))
        scored = Found(detect(images, options.checkpoint, query_settings, engine, options.device))
        scores = {how: Uncertainty(aggregation=how).image_scores(scored, context) for how in AGGREGATIONS}
        reference = reference or scores
        row: dict[str, Any] = {"setting": name, "mAP50-95": f"{measured.map50_95:.4f}"}
        row["boxes"] = len(scored.class_scores)
        for how in AGGREGATIONS:
            row[f"rho {how}"] = f"{spearman(reference[how], scores[how]):.4f}"
            row[f"top {how}"] = f"{overlap(names, reference[how], scores[how]):.3f}"
        rows.append(row)
    show(f"{dataset.name}, {len(dataset.test)} and {len(images)} images", rows, options.json)


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rank correlation."""
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic)


def overlap(names: Sequence[str], one: np.ndarray, other: np.ndarray) -> float:
    """The share of the top tenth that two rankings have in common."""
    size = max(1, len(names) // 10)
    return len({*top_n(names, one, size, 0)} & {*top_n(names, other, size, 0)}) / size


if __name__ == "__main__":
    main()
