"""Sections of benchmarks/gpu.py: what a GPU finds and how fast, from files on a disk to a ledger."""

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np

from benchmarks.gpu_materials import SETTINGS, SIDE, SIZE, Bench, loaded, seconds_of
from raylearn.cluster.resources import num_local_cpus
from raylearn.detectors.base import Engine
from raylearn.scoring.reading import read_image

_PART_SIZE = 256


def same_ledger(bench: Bench) -> None:
    """What a GPU finds in fp32, against what a CPU finds."""
    from benchmarks.fidelity import detect
    from raylearn.data.dataset import Image

    images = [Image(path, path, 1024, 768, "") for path in bench.photographs[: 8 if bench.small else 32]]
    wanted = detect(images, bench.checkpoint, SETTINGS, Engine(), "cpu")
    rows = []
    for name, precision, decode in (
        ("fp32", "fp32", "full"),
        (bench.precision, bench.precision, "full"),
        ("fp32, decoded on the device", "fp32", "gpu"),
    ):
        found = detect(
            images, bench.checkpoint, replace(SETTINGS, decode=decode), Engine("torch", precision), bench.device
        )
        pairs = [_paired(one, other) for one, other in zip(wanted, found, strict=True)]
        boxes, scores = (np.concatenate([pair[i] for pair in pairs]) for i in (0, 1))
        rows.append(
            {
                "setting": name,
                "boxes on the CPU": sum(map(len, wanted)),
                "here": sum(map(len, found)),
                "matched": len(boxes),
                "largest box difference px": float(boxes.max(initial=0)),
                "largest score difference": float(scores.max(initial=0)),
            }
        )
    bench.show("against a CPU in fp32", rows)


def stages(bench: Bench) -> None:
    """Where an image's time goes, each part alone and by batch size."""
    import torch

    from raylearn.data.images import decode, plain_jpeg_size, read_bytes
    from raylearn.detectors import build_detector
    from raylearn.detectors.device_canvases import device_canvases

    files = bench.photographs
    one = files[:32]
    datas = [read_bytes(path) for path in one]
    rows = [
        {"part": "read", "batch": 1, "ms per image": seconds_of(lambda: [read_bytes(path) for path in one]) / 32 * 1e3},
        {
            "part": "header",
            "batch": 1,
            "ms per image": seconds_of(lambda: [plain_jpeg_size(d) for d in datas]) / 32 * 1e3,
        },
        {
            "part": "decode on a core",
            "batch": 1,
            "ms per image": seconds_of(lambda: [decode(d) for d in datas]) / 32 * 1e3,
        },
    ]
    detector: Any = build_detector("", SETTINGS, device=bench.device, engine=Engine("torch", bench.precision))
    detector.load(bench.checkpoint)
    for batch_size in (4,) if bench.small else (32, 64, 128, 256, 512):
        jpegs = [read_bytes(path) for path in files[:batch_size]]
        sizes = np.array([SIZE] * len(jpegs))
        shapes = [tuple(size) for size in sizes.tolist()]
        canvases, _ = device_canvases(jpegs, shapes, (SIDE, SIDE), bench.device)
        with torch.inference_mode():
            in_memory = canvases.cpu().numpy()
            parts: dict[str, Callable[[], Any]] = {
                "decode and letterbox on the device": partial(
                    device_canvases, jpegs, shapes, (SIDE, SIDE), bench.device
                ),
                "network and box decoding": partial(detector._run, canvases),
                "predict, from canvases on the device": partial(detector.predict, canvases, sizes),
                "predict, from canvases in memory": partial(detector.predict, in_memory, sizes),
            }
            for name, run in parts.items():
                ms = seconds_of(run, bench) / len(jpegs) * 1e3
                rows.append({"part": name, "batch": batch_size, "ms per image": ms})
    bench.show("where an image's time goes", rows)


def rates(bench: Bench) -> None:
    """Images per second from files on a disk, against YOLO.predict and the limits."""
    import torch

    rows = []

    def add(name: str, rate: float, busy: float | None = None) -> None:
        rows.append({"contender": name, "img/s": rate, "GPU busy": "" if busy is None else f"{busy:.2f}"})
        bench.show("images per second", rows)

    cores = num_local_cpus()
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        decoded = pool.starmap(_decode_for, [(bench.photographs, 0.5 if bench.small else 3.0)] * cores, chunksize=1)
    add(f"limit: decode and letterbox on {cores} cores", sum(decoded))
    if bench.on_gpu:
        from raylearn.data.images import read_bytes
        from raylearn.detectors.device_canvases import device_canvases

        jpegs = [read_bytes(path) for path in bench.photographs[:64]]
        shapes = [SIZE] * 64
        seconds = seconds_of(partial(device_canvases, jpegs, shapes, (SIDE, SIDE), bench.device), bench)
        add("limit: decode and letterbox on the GPU", 64 / seconds)
    with torch.inference_mode():
        detector = loaded(bench, SETTINGS)
        canvases = torch.zeros((bench.batch_size, SIDE, SIDE, 3), dtype=torch.uint8, device=bench.device).random_()
        add("limit: bare model", bench.batch_size / seconds_of(partial(detector._run, canvases), bench))
        del detector, canvases  # their memory is for the contenders
    add("YOLO.predict(folder, half, batch 64)", _yolo_predict(bench))
    for decode, several in (("gpu", (4, 1, 2, 8)), ("full", (4, 1))):
        for actors in several[:1] if bench.small else several:
            with _utilisation(bench) as busy:
                rate = _by_processes(bench, decode, actors, busy)
            busy_share = statistics.mean(busy) if busy else None
            add(f"raylearn, decode {decode}, {actors} actors on the GPU", rate, busy_share)


def with_ray(bench: Bench) -> None:
    """The command itself, where Ray is."""
    try:
        import ray  # noqa: F401
    except ImportError:
        print("no Ray here: the command is not run", flush=True)
        return
    from rich.console import Console

    from raylearn.scoring.pool_scoring import score_pool
    from raylearn.scoring.request import ScoreRequest

    pool = Path(tempfile.mkdtemp(dir=bench.work))
    for number in range(1 if bench.small else 24):  # copies by link, as an image may not be listed twice
        for path in bench.photographs:
            os.link(path, pool / f"{number:03d}-{Path(path).name}")
    share, decode = (0.25, "gpu") if bench.on_gpu else (0, "full")
    request = ScoreRequest(str(pool), bench.checkpoint, gpus_per_actor=share, decode=decode)
    start = time.perf_counter()
    counts = score_pool(request, f"{pool}-ledger", address=None, console=Console(file=sys.stdout))
    seconds = time.perf_counter() - start
    bench.show(
        "raylearn score on Ray", [{"images": counts.num_images, "s with start": seconds, "errors": counts.num_errors}]
    )


def _paired(one: Any, other: Any) -> tuple[np.ndarray, np.ndarray]:
    """Of boxes that one and the other have (their nearest within 2 px), how far boxes and scores are apart at most."""
    if not len(one) or not len(other):
        return np.empty(0), np.empty(0)
    apart = np.abs(one.boxes[:, None] - other.boxes[None]).max(2)
    nearest = apart.argmin(1)
    near = np.flatnonzero(apart[np.arange(len(one)), nearest] < 2)
    scores = np.abs(one.class_scores[near] - other.class_scores[nearest[near]]).max(1)
    return apart[near, nearest[near]], scores


def _decode_for(files: Sequence[str], seconds: float) -> float:
    import cv2

    cv2.setNumThreads(1)
    shift, count = os.getpid() * 37, 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        read_image(files[(count + shift) % len(files)], "", SETTINGS)
        count += 1
    return count / (time.perf_counter() - start)


def _yolo_predict(bench: Bench) -> float:
    from benchmarks.contenders import _ultralytics

    model = _ultralytics(bench.checkpoint)
    options = {"imgsz": SIDE, "conf": 0.05, "iou": 0.7, "max_det": 100, "verbose": False, "stream": True}
    half = {"half": True, "device": 0} if bench.on_gpu else {"device": "cpu"}
    results = model.predict(str(bench.work / "photographs"), batch=bench.batch_size, **options, **half)
    for _ in range(bench.batch_size):
        next(results)
    start = time.perf_counter()
    count = sum(1 for _ in results)
    return count / (time.perf_counter() - start) if count else 0.0


def _by_processes(bench: Bench, decode: str, actors: int, busy: list[float]) -> float:
    """Images per second of processes that score parts as Ray's actors do, from when the last of them is ready.

    Forgets how busy the GPU was before that, in `busy`.
    """
    context = multiprocessing.get_context("spawn")
    seconds = 1.0 if bench.small else 5.0
    ready = context.Barrier(actors + 1)
    counted = context.Queue()
    threads = max(2, num_local_cpus() // actors)
    arguments = (bench.device, bench.small, str(bench.work), decode, threads, seconds, ready, counted)
    processes = [context.Process(target=_score_parts, args=(*arguments, number)) for number in range(actors)]
    for process in processes:
        process.start()
    ready.wait(120)
    busy.clear()
    rates = [counted.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    return sum(rates)


def _score_parts(
    device: str,
    small: bool,
    work: str,
    decode: str,
    threads: int,
    seconds: float,
    ready: Any,
    counted: Any,
    number: int,
) -> None:
    """One actor: scores parts, several at a time, until the time is over; tells its images per second."""
    import cv2

    from raylearn.data.storage import Folder
    from raylearn.scoring.manifest import Manifest
    from raylearn.scoring.plan import PARTS_ON_GPU, ScoringPlan
    from raylearn.scoring.score_part import ScorePart

    cv2.setNumThreads(1)
    bench = Bench(device, small, Path(work), {}, Path())
    settings = replace(SETTINGS, decode=decode)
    files = bench.photographs * (20 if small else 200)
    part_size = 16 if small else _PART_SIZE
    with tempfile.TemporaryDirectory(dir=work) as name:
        folder = Folder.at(name)
        nothing = [""] * len(files)
        manifest = Manifest.of_columns([[f"{i:07d}" for i in range(len(files))], files, nothing, nothing], part_size)
        manifest.write(folder)
        score = ScorePart(
            lambda: loaded(bench, settings),
            partial(read_image, settings=settings),
            folder,
            manifest.hash,
            ScoringPlan(
                "",
                settings,
                batch_size=bench.batch_size,
                gpus_per_actor=float(bench.on_gpu),
                requests=0,
                num_threads=threads,
            ),
        )
        shift = number * 7
        _checked(score({"number": np.array([shift])}))
        ready.wait()
        start, count = time.perf_counter(), 0
        at_once = PARTS_ON_GPU if bench.on_gpu else 1
        with ThreadPoolExecutor(at_once) as pool:
            running = [pool.submit(score, {"number": np.array([shift + 1 + i])}) for i in range(at_once)]
            while True:
                part = _checked(running.pop(0).result())
                count += part.counts.num_images
                if time.perf_counter() - start > seconds:
                    break
                running.append(pool.submit(score, {"number": np.array([shift + 1 + at_once + count // part_size])}))
            elapsed = time.perf_counter() - start
        counted.put(count / elapsed)


def _checked(told: Mapping[str, Any]) -> Any:
    (part,) = told["part"]
    if isinstance(part, Exception):
        raise part
    return part


@contextmanager
def _utilisation(bench: Bench) -> Iterator[list[float]]:
    """The shares of a tenth of a second each in which the GPU computed, as its driver counts them."""
    busy: list[float] = []
    if not bench.on_gpu:
        yield busy
        return
    import torch

    over = Event()

    def watch() -> None:
        while not over.wait(0.1):
            busy.append(torch.cuda.utilization() / 100)

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield busy
    finally:
        over.set()
        watcher.join()
