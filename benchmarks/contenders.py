"""One contender of benchmarks/scoring.py, run in a process of its own: `python -m benchmarks.contenders NAME ...`.

Prints one line of JSON: how many images, and the seconds from the first to the last of them, without start-up.
"""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np

IMAGE_SIZE, CONFIDENCE, IOU, MAX_DETECTIONS = 640, 0.05, 0.7, 100
_LIMIT_SECONDS = 12.0


def predict_folder(folder: Path, checkpoint: Path) -> tuple[int, float]:
    """Ultralytics as its documentation uses it: YOLO.predict(folder)."""
    model = _ultralytics(checkpoint)
    results = model.predict(str(folder), stream=True, **_SETTINGS)
    next(results)
    start, count = time.perf_counter(), 0
    for _ in results:
        count += 1
    return count, time.perf_counter() - start


def ray_data_recipe(folder: Path, checkpoint: Path) -> tuple[int, float]:
    """Batch inference as Ray's documentation has it: read_images, then map_batches over an actor with the model."""
    import ray

    class Predictor:
        def __init__(self) -> None:
            self.model = _ultralytics(checkpoint)

        def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
            found = self.model.predict([image[..., ::-1] for image in batch["image"]], **_SETTINGS)
            return {"num_detections": [len(result.boxes) for result in found], "time": [time.time()] * len(found)}

    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    images = ray.data.read_images(str(folder), mode="RGB")
    scored = images.map_batches(Predictor, batch_size=16, compute=ray.data.ActorPoolStrategy(size=1))
    times = sorted(row["time"] for row in scored.iter_rows())
    first = times[0]  # the end of the first batch, from which on the others are counted
    return sum(moment > first for moment in times), times[-1] - first


def limit(folder: Path, checkpoint: Path, *, backend: str, decode: bool) -> tuple[int, float]:
    """The bare model, on a tensor that is ready or with its JPEG decoded first: a process per CPU, as raylearn has."""
    context = multiprocessing.get_context("spawn")
    count = len(os.sched_getaffinity(0))
    together = context.Barrier(count)
    with context.Pool(count, initializer=_remember, initargs=(together,)) as pool:
        done = pool.starmap(_bare, [(folder, checkpoint, backend, decode)] * count, chunksize=1)
    return sum(images for images, _ in done), max(seconds for _, seconds in done)


def raylearn(folder: Path, checkpoint: Path, *, backend: str, out: Path) -> tuple[int, float]:
    """raylearn's own pass, all of it: manifest, Ray, actors, decoding, model, suppression, ledger."""
    from rich.console import Console

    from raylearn.scoring import pool_scoring
    from raylearn.scoring.request import ScoreRequest

    request = ScoreRequest(str(folder), checkpoint, IMAGE_SIZE, CONFIDENCE, IOU, MAX_DETECTIONS, backend=backend)
    parts: list[Any] = []
    score_parts = pool_scoring.score_parts

    def watched(*arguments: Any) -> Generator[Any, None, None]:
        for part in score_parts(*arguments):
            parts.append(part)
            yield part

    pool_scoring.score_parts = watched
    counts = pool_scoring.score_pool(request, str(out), address=None, console=Console(file=sys.stderr))
    # The rates of the actors added up, each over the parts it began when all of them had started.
    workers = {part.worker for part in parts}
    all_started = max(min(part.started for part in parts if part.worker == worker) for worker in workers)
    rate = 0.0
    for worker in workers:
        own = [part for part in parts if part.worker == worker and part.started >= all_started]
        seconds = max(part.finished for part in own) - min(part.started for part in own)
        rate += sum(part.counts.num_images for part in own) / seconds
    return counts.num_images, counts.num_images / rate


_SETTINGS: dict[str, Any] = {
    "imgsz": IMAGE_SIZE,
    "conf": CONFIDENCE,
    "iou": IOU,
    "max_det": MAX_DETECTIONS,
    "verbose": False,
}
_barrier: Any = None


def _remember(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _bare(folder: Path, checkpoint: Path, backend: str, decode: bool) -> tuple[int, float]:
    import cv2
    import torch

    from raylearn.detectors.base import Engine
    from raylearn.detectors.families.ultralytics.detector import open_model
    from raylearn.detectors.families.ultralytics.engines import start_engine
    from raylearn.detectors.letterbox import letterbox

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    files = sorted(folder.iterdir())[:64]
    jpegs = [np.frombuffer(file.read_bytes(), np.uint8) for file in files]

    def canvas(jpeg: np.ndarray) -> np.ndarray:
        return letterbox(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), IMAGE_SIZE)

    ready = np.stack([canvas(jpeg) for jpeg in jpegs[:4]])
    with torch.inference_mode():
        model = open_model(checkpoint)[0].eval().fuse(verbose=False)
        run = start_engine(model, Engine(backend), torch.device("cpu"), 1)
        for _ in range(3):
            run(ready)
        _barrier.wait()
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < _LIMIT_SECONDS:
            if decode:
                ready = np.stack([canvas(jpegs[(count + i) % len(jpegs)]) for i in range(4)])
            run(ready)
            count += 4
    return count, time.perf_counter() - start


def _ultralytics(checkpoint: Path) -> Any:
    """The same weights as Ultralytics' own YOLO object, with its own way of choosing threads."""
    from raylearn.detectors.families.ultralytics.detector import open_model

    network, facts = open_model(checkpoint)
    from ultralytics import YOLO

    model = YOLO("yolov5n.yaml", task="detect")
    model.model = network
    model.model.names = dict(enumerate(facts.class_names))
    model.model.pt_path = "none.pt"
    return model


def contenders(out: Path) -> dict[str, Callable[[Path, Path], tuple[int, float]]]:
    from functools import partial

    return {
        "YOLO.predict(folder)": predict_folder,
        "Ray Data recipe": ray_data_recipe,
        "limit: torch model": partial(limit, backend="torch", decode=False),
        "limit: torch model + decode": partial(limit, backend="torch", decode=True),
        "raylearn torch": partial(raylearn, backend="torch", out=out),
        "limit: openvino model": partial(limit, backend="openvino", decode=False),
        "limit: openvino model + decode": partial(limit, backend="openvino", decode=True),
        "raylearn openvino": partial(raylearn, backend="openvino", out=out),
    }


if __name__ == "__main__":
    _, name, images, weights, ledger = sys.argv
    num_images, seconds = contenders(Path(ledger))[name](Path(images), Path(weights))
    print(json.dumps({"num_images": num_images, "seconds": seconds}))
