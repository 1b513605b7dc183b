"""What the sections of benchmarks/gpu.py share: photographs, a detector that finds something there, tables, clocks."""

import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import text_table
from raylearn.cluster.resources import num_local_cpus
from raylearn.detectors.base import DetectorSettings, Engine
from raylearn.scoring.reading import read_image

SIDE, CLASSES = 640, 10
SIZE = (1024, 768)  # of a photograph
SETTINGS = DetectorSettings(SIDE, confidence=0.05, iou=0.7, max_detections=100)
SEED = 17
_CANDIDATES = 50  # boxes of an image that pass the threshold and go into suppression


@dataclass(frozen=True)
class Bench:
    """What the sections share.

    Args:
        device: "cuda:0" or "cpu".
        small: a dry run, with sizes at which nothing is measured.
        work: a folder for photographs, checkpoints and ledgers.
        tables: title -> rows, of what is done.
        file: where the tables are written.
    """

    device: str
    small: bool
    work: Path
    tables: dict[str, Any]
    file: Path

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def precision(self) -> str:
        return "fp16" if self.on_gpu else "fp32"

    @property
    def batch_size(self) -> int:
        return 64 if self.on_gpu else 4

    @property
    def checkpoint(self) -> Path:
        return self.work / "candidates.pt"

    @property
    def photographs(self) -> list[str]:
        return sorted(str(path) for path in (self.work / "photographs").iterdir())

    def show(self, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
        print(f"\n{title}\n{text_table(rows)}", flush=True)
        self.tables[title] = list(rows)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(self.tables, indent=1))


def machine(bench: Bench) -> None:
    """Cards, versions, cores."""
    import cv2
    import torch
    import torchvision

    name = torch.cuda.get_device_name(0) if bench.on_gpu else "none"
    facts = {"GPU": name, "cores": num_local_cpus(), "python": sys.version.split()[0], "torch": torch.__version__}
    bench.show("machine", [{**facts, "torchvision": torchvision.__version__, "opencv": cv2.__version__}])


def materials(bench: Bench) -> None:
    """Photographs, and a detector of random weights that finds some fifty candidates in each."""
    import torch

    folder = bench.work / "photographs"
    if bench.checkpoint.exists():
        return
    folder.mkdir(parents=True)
    numbers = range(64 if bench.small else 1024)
    with multiprocessing.get_context("fork").Pool(num_local_cpus()) as pool:
        sizes = pool.starmap(_photograph, [(folder, number) for number in numbers], chunksize=8)
    candidates = _checkpoint_with_candidates(bench)
    torch.manual_seed(SEED)
    bench.show(
        "photographs",
        [{"number": len(sizes), "pixels": "1024 x 768", "mean KB": statistics.mean(sizes) / 1000, **candidates}],
    )


def _photograph(folder: Path, number: int) -> int:
    """Draws and writes a JPEG with detail at all scales, as a photograph has; gives its bytes."""
    import cv2

    cv2.setNumThreads(1)
    rng = np.random.default_rng((SEED, number))
    image = np.full((768, 1024, 3), 120, np.float32)
    for cells, strength in ((8, 60), (16, 40), (32, 25), (64, 18), (128, 12), (256, 8), (512, 5), (1024, 3)):
        grey = rng.standard_normal((cells * 3 // 4, cells, 1)) + 0.4 * rng.standard_normal((cells * 3 // 4, cells, 3))
        image += cv2.resize(grey.astype(np.float32) * strength, (1024, 768), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        centre, axes = rng.integers(0, (1024, 768)).tolist(), rng.integers(10, 100, 2).tolist()
        cv2.ellipse(image, centre, axes, 0, 0, 360, rng.uniform(0, 255, 3).tolist(), -1)
    path = folder / f"{number:05d}.jpg"
    cv2.imwrite(str(path), image.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 92])
    return path.stat().st_size


def _checkpoint_with_candidates(bench: Bench) -> dict[str, Any]:
    """Writes a YOLOv5n whose random head passes the threshold at `_CANDIDATES` anchors of an image, on average."""
    import torch

    from raylearn.detectors.checkpoints import write_checkpoint
    from raylearn.detectors.families.ultralytics import FORMAT
    from raylearn.detectors.families.ultralytics.detector import build_model

    torch.manual_seed(SEED)
    model = build_model("yolov5n", CLASSES)
    canvases = [read_image(path, "", SETTINGS).canvas for path in bench.photographs[:4]]
    pixels = torch.from_numpy(np.stack([canvas for canvas in canvases if canvas is not None])).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0  # one pass normalises, or nothing of the image would arrive at the head
        model.train()(pixels)
        head = model.eval().model[-1]
        best = torch.logit(model(pixels)[0][:, 4:].amax(1).double().clamp(1e-12, 1 - 1e-12))
        shift = (
            float(np.log(0.05 / 0.95)) - torch.quantile(best.flatten().float(), 1 - _CANDIDATES / best.shape[1]).item()
        )
        for branch in head.cv3:
            branch[-1].bias += shift
        counts = (model(pixels)[0][:, 4:].amax(1) > SETTINGS.confidence).sum(1).tolist()
    names = tuple(f"class {number}" for number in range(CLASSES))
    write_checkpoint(bench.checkpoint, FORMAT, "yolov5n", names, SIDE, model.state_dict())
    return {"candidates, least": min(counts), "mean": statistics.mean(counts), "most": max(counts)}


def loaded(bench: Bench, settings: DetectorSettings) -> Any:
    from raylearn.detectors import build_detector

    detector = build_detector("", settings, device=bench.device, engine=Engine("torch", bench.precision), num_threads=1)
    detector.load(bench.checkpoint)
    return detector


def seconds_of(run: Callable[[], Any], bench: Bench | None = None) -> float:
    """Median seconds of a call, after two to warm up."""
    import torch

    wait = torch.cuda.synchronize if bench is not None and bench.on_gpu else lambda: None
    times = []
    for number in range(2 if bench is not None and bench.small else 8):
        wait()
        start = time.perf_counter()
        run()
        wait()
        if number >= 2 or (bench is not None and bench.small):
            times.append(time.perf_counter() - start)
    return statistics.median(times)
