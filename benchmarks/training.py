"""One training of a round, against a plain `YOLO.train` on the same images, epochs, options and seed.

Every contender runs in a process of its own, all of them in turn for each seed. `seconds` is from the labelled set to
the checkpoint, without imports; mAP of both is measured by raylearn on the same held-out images. Plain means as
documented: validation after every epoch, plots and checkpoints; raylearn measures once, when the training is done.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import annotated
from benchmarks.tables import show
from raylearn.data.dataset import Dataset
from raylearn.data.pool import initial_set
from raylearn.detectors.base import DetectorSettings, TrainingSet
from raylearn.measures.sampling import random_generator

OPTIONS: dict[str, Any] = {
    "optimizer": "AdamW",
    "lr0": 0.001,
    "warmup_epochs": 0.5,
    "cls": 1.0,
    "nbs": 16,
    "mosaic": 0.0,
}
BATCH = 16


def by_raylearn(train: TrainingSet, checkpoint: Path, options: argparse.Namespace, threads: int) -> None:
    from raylearn.detectors import build_detector

    settings = DetectorSettings(options.image_size, confidence=0, iou=1, max_detections=1)
    arguments = {**OPTIONS, "epochs": options.epochs, "batch": BATCH}
    detector = build_detector("yolov5n", settings, arguments, num_threads=threads)
    detector.fit(train, initial_weights=options.weights, seed=options.seed, checkpoint=checkpoint)


def by_ultralytics(train: TrainingSet, test: TrainingSet, checkpoint: Path, options: argparse.Namespace) -> None:
    """As its documentation has it; the folder in YOLO layout is made by raylearn's own writer, and not timed apart."""
    import shutil

    import torch
    import yaml
    from ultralytics import YOLO

    from raylearn.detectors.checkpoints import load_matching
    from raylearn.detectors.families.ultralytics.detector import build_model, read_weights
    from raylearn.detectors.families.ultralytics.training import write_data_yaml

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("train", "test"):
            (folder / part).mkdir()
        data = yaml.safe_load(write_data_yaml(train, folder / "train").read_text())
        data["val"] = yaml.safe_load(write_data_yaml(test, folder / "test").read_text())["val"]
        (folder / "data.yaml").write_text(yaml.safe_dump(data))
        model = YOLO("yolov5n.yaml", verbose=False)
        if options.weights:
            torch.manual_seed(options.seed)
            started = build_model("yolov5n", len(train.class_names))
            load_matching(started, read_weights(options.weights), options.weights)
            model.load(started)
        model.train(
            data=str(folder / "data.yaml"),
            epochs=options.epochs,
            batch=BATCH,
            imgsz=options.image_size,
            seed=options.seed,
            device="cpu",
            project=name,
            name="run",
            verbose=False,
            **OPTIONS,
        )
        shutil.copyfile(folder / "run" / "weights" / "last.pt", checkpoint)


CONTENDERS: dict[str, Callable[..., None]] = {
    "plain YOLO.train": lambda train, test, path, options: by_ultralytics(train, test, path, options),
    "raylearn, 1 thread": lambda train, _, path, options: by_raylearn(train, path, options, 1),
    "raylearn, all threads": lambda train, _, path, options: by_raylearn(
        train, path, options, len(os.sched_getaffinity(0))
    ),
}


def measure(dataset: Dataset, checkpoint: Path, image_size: int) -> dict[str, float]:
    """COCO mAP of a checkpoint on the held-out split."""
    from benchmarks.fidelity import detect
    from raylearn.detectors.base import Engine
    from raylearn.learning.evaluation import mean_average_precision

    settings = DetectorSettings(image_size, confidence=0.001, iou=0.7, max_detections=300)
    found = detect(dataset.test, checkpoint, settings, Engine(), "cpu")
    truth = [dataset.truth[image.image_id] for image in dataset.test]
    result = mean_average_precision(found, truth, dataset.class_names, settings.max_detections)
    return {"map50": result.map50, "map50_95": result.map50_95}


def one(options: argparse.Namespace) -> dict[str, float]:
    """One training and its measurement, in this process."""
    dataset = annotated.read(options)
    drawn = set(initial_set(dataset, options.images, random_generator(options.seed, "benchmark")))
    images = tuple(image for image in dataset.pool if image.image_id in drawn)
    train, test = (
        TrainingSet(dataset.class_names, part, {image.image_id: dataset.truth[image.image_id] for image in part})
        for part in (images, dataset.test)
    )
    import raylearn.detectors.families.ultralytics.training  # noqa: F401  imports are not timed

    with tempfile.TemporaryDirectory() as name:
        checkpoint = Path(name) / "checkpoint.pt"
        start = time.perf_counter()
        CONTENDERS[options.one](train, test, checkpoint, options)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, **measure(dataset, checkpoint, options.image_size)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    annotated.add_arguments(parser)
    parser.add_argument("--weights", type=Path, help="what both start from; default: from scratch")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path("runs/bench/training.json"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options)))
        return
    kept = options.json.with_suffix(".runs.json")  # half an hour: what is finished is not done again
    runs = json.loads(kept.read_text()) if kept.exists() else {}
    done: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for seed in range(options.seeds):
        for name, results in done.items():
            arguments = [*sys.argv[1:], "--one", name, "--seed", str(seed)]
            key = " ".join(arguments)
            if key not in runs:
                command = [sys.executable, "-m", "benchmarks.training", *arguments]
                told = subprocess.run(command, capture_output=True, text=True)
                if told.returncode:
                    raise SystemExit(f"{name}, seed {seed}, failed:\n{told.stderr}")
                runs[key] = json.loads(told.stdout.splitlines()[-1])
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(runs, indent=1))
            results.append(runs[key])
            print(f"{name}, seed {seed}: {runs[key]['seconds']:.1f} s, mAP50 {runs[key]['map50']:.3f}", file=sys.stderr)
    plain = statistics.median(result["seconds"] for result in done["plain YOLO.train"])
    rows = [_row(name, results, plain) for name, results in done.items()]
    show(
        f"a training of {options.images} images, {options.epochs} epochs, {options.image_size} px",
        rows,
        options.json,
        seeds=options.seeds,
    )


def _row(name: str, results: list[dict[str, float]], plain: float) -> dict[str, Any]:
    seconds = [result["seconds"] for result in results]
    return {
        "contender": name,
        "seconds": statistics.median(seconds),
        "lowest": min(seconds),
        "highest": max(seconds),
        "x plain": plain / statistics.median(seconds),
        "mAP50": statistics.mean(result["map50"] for result in results),
        "sd": statistics.stdev(result["map50"] for result in results) if len(results) > 1 else 0.0,
        "mAP50-95": statistics.mean(result["map50_95"] for result in results),
    }


if __name__ == "__main__":
    main()
