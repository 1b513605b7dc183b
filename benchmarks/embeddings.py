"""What embeddings cost: the same pool scored with and without them, in turn, in one process.

A pass is the parts of the pool but the first, read, decoded, detected and written. Each round is one pass with and one
without, the other way round every second time. Shown are the ratios of each round's two passes, of
wall and of CPU time (other work on the machine moves the first more), and how much larger the parts of the ledger are.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.scoring import make_images, untrained
from benchmarks.tables import show
from raylearn.data.storage import Folder
from raylearn.detectors.base import DetectorSettings, Engine
from raylearn.scoring.listing import list_pool
from raylearn.scoring.manifest import Manifest
from raylearn.scoring.pipeline import score_parts_here
from raylearn.scoring.plan import ScoringPlan

_PART_SIZE = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of JPEGs; default: made from --source")
    parser.add_argument("--source", type=Path, default=Path("../shared/data/bccd_voc"), help="where to make them from")
    parser.add_argument("--num-images", type=int, default=128)
    parser.add_argument("--checkpoint", type=Path, help="default: an untrained YOLOv5n")
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--confidence", type=float, default=0.05)
    parser.add_argument("--max-detections", type=int, default=100)
    parser.add_argument("--engines", nargs="+", default=["torch fp32", "torch bf16", "openvino fp32"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path("runs/bench/embeddings.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.images is None:
            make_images(options.source, folder / "images", options.num_images)
        pool = options.images or folder / "images"
        checkpoint = options.checkpoint or untrained(folder / "untrained.pt")
        manifest, _ = list_pool(str(pool), limit=options.num_images, part_size=_PART_SIZE)
        settings = DetectorSettings(options.image_size, options.confidence, 0.7, options.max_detections)
        rows = [
            measure(engine, ScoringPlan(str(checkpoint), settings, Engine(*engine.split())), manifest, folder, options)
            for engine in options.engines
        ]
    show(f"{len(manifest)} images at {options.image_size} px, {options.rounds} rounds", rows, options.json)


def measure(
    engine: str, plan: ScoringPlan, manifest: Manifest, folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """One row: the cost of embeddings with one engine."""
    plans = {asked: replace(plan, settings=replace(plan.settings, embeddings=asked)) for asked in (False, True)}
    seconds: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    made: dict[bool, tuple[int, int]] = {}
    for index in range(options.rounds):
        for asked in (False, True) if index % 2 == 0 else (True, False):
            out = Folder.at(folder / f"{engine}-{index}-{asked}")
            manifest.write(out)
            wall, cpu, counts = score(plans[asked], manifest, out)
            print(f"{engine}, round {index}, embeddings {asked}: {wall:.2f} s, CPU {cpu:.2f} s", flush=True)
            seconds[asked].append((wall, cpu))
            made[asked] = sum(size for part, size in out.sizes().items() if part.startswith("part-")), counts
    wall, cpu = (
        statistics.median(one[which] / other[which] for one, other in zip(seconds[True], seconds[False], strict=True))
        for which in (0, 1)
    )
    timed = len(manifest) - _PART_SIZE
    (plain, num_boxes), (larger, _) = made[False], made[True]
    return {
        "engine": engine,
        "img/s without": timed / statistics.median(wall for wall, _ in seconds[False]),
        "img/s with": timed / statistics.median(wall for wall, _ in seconds[True]),
        "wall ratio": f"{wall:.3f}",
        "CPU ratio": f"{cpu:.3f}",
        "boxes": num_boxes,
        "bytes per box without": plain / num_boxes if num_boxes else 0.0,
        "more per box": (larger - plain) / num_boxes if num_boxes else 0.0,
        "more per image": (larger - plain) / len(manifest),
    }


def score(plan: ScoringPlan, manifest: Manifest, out: Folder) -> tuple[float, float, int]:
    """Wall and CPU seconds of all parts but the first, before which the detector is loaded; boxes of all."""
    finished = score_parts_here(range(manifest.num_parts), plan, out, manifest.hash)
    boxes = next(finished).counts.num_detections
    wall, cpu = time.perf_counter(), time.process_time()
    boxes += sum(part.counts.num_detections for part in finished)
    return time.perf_counter() - wall, time.process_time() - cpu, boxes


if __name__ == "__main__":
    main()
