"""Sections of benchmarks/gpu.py: trainings on a GPU, their loader workers and their precision."""

import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_materials import CLASSES, SEED, SIZE, Bench
from raylearn.cluster.resources import num_local_cpus
from raylearn.detectors.base import DetectorSettings, Engine

_OPTIONS = {"optimizer": "AdamW", "lr0": 0.001, "warmup_epochs": 0.5, "cls": 1.0, "nbs": 16}
_BATCH = 16


def trainings(bench: Bench) -> None:
    """A training of 200 images against a plain YOLO.train, and what each setting of ours does."""
    rows = []
    dataset = _photographed(bench, 12 if bench.small else 200)
    epochs = 1 if bench.small else 5
    for side in (64,) if bench.small else (320, 640):
        plain = _plain_training(bench, dataset, side, epochs)
        rows.append({"training": "YOLO.train", "side": side, "s": plain, "x": 1.0})
        for name, workers, more in (
            ("raylearn, 0 workers", 0, {}),
            ("raylearn, 14 workers", 14, {}),
            ("raylearn, 14 workers, bf16", 14, {"amp": "bf16"}),
            *([("raylearn, 14 workers, fp16", 14, {"amp": "fp16"})] if bench.on_gpu else []),
        ):
            arguments = {"epochs": epochs, "imgsz": side, **more}
            start = time.perf_counter()
            _train(bench, dataset, bench.work / "trained.pt", arguments, min(workers, num_local_cpus()))
            seconds = time.perf_counter() - start
            rows.append({"training": name, "side": side, "s": seconds, "x": plain / seconds})
            bench.show(f"trainings of {len(dataset.pool)} images, {epochs} epochs, batch 16", rows)


def precisions(bench: Bench) -> None:
    """What the precision of a training does to mAP, over seeds."""
    from benchmarks.fidelity import detect
    from raylearn.learning.evaluation import mean_average_precision

    dataset = _reef(bench)
    settings = DetectorSettings(320, confidence=0.001, iou=0.7, max_detections=300)
    truth = [dataset.truth[image.image_id] for image in dataset.test]
    rows = []
    for amp in (False, "bf16", *(["fp16"] if bench.on_gpu else [])):
        found = []
        for seed in range(1 if bench.small else 3):
            checkpoint = bench.work / "precision.pt"
            arguments = {"epochs": 1 if bench.small else 30, "imgsz": 320, "amp": amp, "seed": seed}
            _train(bench, dataset, checkpoint, arguments, min(14, num_local_cpus()))
            tested = detect(dataset.test, checkpoint, settings, Engine(), bench.device)
            found.append(mean_average_precision(tested, truth, dataset.class_names, 300).map50_95)
        rows.append({"amp": str(amp), "mAP50-95": f"{statistics.mean(found):.4f}", "of seeds": str(np.round(found, 4))})
    bench.show("precision of a training: reef of 320 px", rows)


def _reef(bench: Bench) -> Any:
    from raylearn.data.reef import ReefSettings, read_reef

    num_pool, num_test = (24, 12) if bench.small else (240, 200)
    return read_reef(ReefSettings(num_pool=num_pool, num_test=num_test, width=320, height=240), bench.work)


def _photographed(bench: Bench, num: int) -> Any:
    """The photographs as a data set, with boxes that mean nothing: the work of a training is the same."""
    from raylearn.data.dataset import Dataset, GroundTruth, Image
    from raylearn.data.images import content_hash, read_bytes

    rng = np.random.default_rng(SEED)
    images, truth = [], {}
    for path in bench.photographs[: num + 1]:
        name = Path(path).name
        images.append(Image(name, path, *SIZE, content_hash(read_bytes(path))))
        corners, sides = rng.uniform(0, 600, (8, 2)), rng.uniform(30, 160, (8, 2))
        truth[name] = GroundTruth(np.hstack([corners, corners + sides]), rng.integers(0, CLASSES, 8))
    names = tuple(f"class {number}" for number in range(CLASSES))
    return Dataset("photographs", names, tuple(images[:num]), tuple(images[num:]), truth)


def _train(bench: Bench, dataset: Any, checkpoint: Path, arguments: Mapping[str, Any], workers: int = 8) -> None:
    """A training of raylearn's, of all of the pool."""
    from raylearn.detectors import build_detector
    from raylearn.detectors.base import TrainingSet

    given = {**_OPTIONS, "batch": _BATCH, **arguments}
    seed, side = given.pop("seed", 0), given.pop("imgsz")
    settings = DetectorSettings(side, confidence=0, iou=1, max_detections=1)
    detector = build_detector("yolov5n", settings, given, bench.device, num_threads=workers if bench.on_gpu else 1)
    train = TrainingSet(dataset.class_names, dataset.pool, dataset.truth)
    detector.fit(train, initial_weights=None, seed=seed, checkpoint=checkpoint)


def _plain_training(bench: Bench, dataset: Any, side: int, epochs: int) -> float:
    """Seconds of YOLO.train as its documentation has it, on the same images; mixed precision where it chooses that."""
    from ultralytics import YOLO

    from raylearn.detectors.base import TrainingSet
    from raylearn.detectors.families.ultralytics.training import write_data_yaml

    with tempfile.TemporaryDirectory() as name:
        data = write_data_yaml(TrainingSet(dataset.class_names, dataset.pool, dataset.truth), Path(name))
        start = time.perf_counter()
        YOLO("yolov5n.yaml", verbose=False).train(
            data=str(data),
            epochs=epochs,
            batch=_BATCH,
            imgsz=side,
            seed=0,
            device=0 if bench.on_gpu else "cpu",
            project=name,
            name="run",
            verbose=False,
            amp=False,  # its check of mixed precision downloads a model
            workers=8 if bench.on_gpu else 0,
            **_OPTIONS,
        )
        return time.perf_counter() - start
