"""All about a GPU in one script of some six minutes: what is found, how fast, where an image's time goes, trainings.

    python -m benchmarks.gpu --json runs/bench/gpu.json         on a machine with a GPU
    python -m benchmarks.gpu --device cpu --small               a dry run

It makes its own photographs (1024 x 768 JPEGs of some 190 KB) and its own checkpoints, needs no data set, and no Ray
where there is none: then the processes that Ray would start are started here. Each table is printed and written as soon
as it is there; a section that fails is named and the next one goes on. --only names sections.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np

from benchmarks.tables import text_table
from raylearn.cluster.resources import num_local_cpus
from raylearn.detectors.base import DetectorSettings, Engine
from raylearn.scoring.reading import read_image

SIDE, CLASSES = 640, 10
CANDIDATES = 50  # boxes of an image that pass the threshold and go into suppression
SETTINGS = DetectorSettings(SIDE, confidence=0.05, iou=0.7, max_detections=100)
PART_SIZE = 256
_SEED = 17


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


# --- what is measured


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
    torch.manual_seed(_SEED)
    bench.show(
        "photographs",
        [{"number": len(sizes), "pixels": "1024 x 768", "mean KB": statistics.mean(sizes) / 1000, **candidates}],
    )


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
        {"part": "read", "batch": 1, "ms per image": _seconds(lambda: [read_bytes(path) for path in one]) / 32 * 1e3},
        {
            "part": "header",
            "batch": 1,
            "ms per image": _seconds(lambda: [plain_jpeg_size(d) for d in datas]) / 32 * 1e3,
        },
        {
            "part": "decode on a core",
            "batch": 1,
            "ms per image": _seconds(lambda: [decode(d) for d in datas]) / 32 * 1e3,
        },
    ]
    detector: Any = build_detector("", SETTINGS, device=bench.device, engine=Engine("torch", bench.precision))
    detector.load(bench.checkpoint)
    for batch_size in (4,) if bench.small else (32, 64, 128, 256, 512):
        jpegs = [read_bytes(path) for path in files[:batch_size]]
        sizes = np.array([(1024, 768)] * len(jpegs))
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
                ms = _seconds(run, bench) / len(jpegs) * 1e3
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
        shapes = [(1024, 768)] * 64
        seconds = _seconds(partial(device_canvases, jpegs, shapes, (SIDE, SIDE), bench.device), bench)
        add("limit: decode and letterbox on the GPU", 64 / seconds)
    with torch.inference_mode():
        detector = _loaded(bench, SETTINGS)
        canvases = torch.zeros((bench.batch_size, SIDE, SIDE, 3), dtype=torch.uint8, device=bench.device).random_()
        add("limit: bare model", bench.batch_size / _seconds(partial(detector._run, canvases), bench))
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

    from raylearn.scoring.pool_scoring import ScoreRequest, score_pool

    pool = bench.work / "pool.txt"
    repeats = 1 if bench.small else 24
    for number in range(repeats):  # copies by link, as an image may not be listed twice
        for path in bench.photographs:
            link = bench.work / "many" / f"{number:03d}-{Path(path).name}"
            link.parent.mkdir(exist_ok=True)
            os.link(path, link)
    pool = bench.work / "many"
    share, decode = (0.25, "gpu") if bench.on_gpu else (0, "full")
    request = ScoreRequest(str(pool), bench.checkpoint, gpus_per_actor=share, decode=decode)
    start = time.perf_counter()
    counts = score_pool(request, str(bench.work / "ledger"), address=None, console=Console(file=sys.stdout))
    seconds = time.perf_counter() - start
    bench.show(
        "raylearn score on Ray", [{"images": counts.num_images, "s with start": seconds, "errors": counts.num_errors}]
    )


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
            ("raylearn, 14 workers, fp16", 14, {"amp": "fp16"} if bench.on_gpu else {}),
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


SECTIONS = (machine, materials, same_ledger, stages, rates, with_ray, trainings, precisions)


# --- how


def _photograph(folder: Path, number: int) -> int:
    """Draws and writes a JPEG with detail at all scales, as a photograph has; gives its bytes."""
    import cv2

    cv2.setNumThreads(1)
    rng = np.random.default_rng((_SEED, number))
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
    """Writes a YOLOv5n whose random head passes the threshold at `CANDIDATES` anchors of an image, on average."""
    import torch

    from raylearn.detectors.checkpoints import write_checkpoint
    from raylearn.detectors.families.ultralytics import FORMAT
    from raylearn.detectors.families.ultralytics.detector import build_model

    torch.manual_seed(_SEED)
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
            float(np.log(0.05 / 0.95)) - torch.quantile(best.flatten().float(), 1 - CANDIDATES / best.shape[1]).item()
        )
        for branch in head.cv3:
            branch[-1].bias += shift
        counts = (model(pixels)[0][:, 4:].amax(1) > SETTINGS.confidence).sum(1).tolist()
    names = tuple(f"class {number}" for number in range(CLASSES))
    write_checkpoint(bench.checkpoint, FORMAT, "yolov5n", names, SIDE, model.state_dict())
    return {"candidates, least": min(counts), "mean": statistics.mean(counts), "most": max(counts)}


def _loaded(bench: Bench, settings: DetectorSettings) -> Any:
    from raylearn.detectors import build_detector

    detector = build_detector("", settings, device=bench.device, engine=Engine("torch", bench.precision), num_threads=1)
    detector.load(bench.checkpoint)
    return detector


def _paired(one: Any, other: Any) -> tuple[np.ndarray, np.ndarray]:
    """Of boxes that one and the other have (their nearest within 2 px), how far boxes and scores are apart at most."""
    if not len(one) or not len(other):
        return np.empty(0), np.empty(0)
    apart = np.abs(one.boxes[:, None] - other.boxes[None]).max(2)
    nearest = apart.argmin(1)
    near = np.flatnonzero(apart[np.arange(len(one)), nearest] < 2)
    scores = np.abs(one.class_scores[near] - other.class_scores[nearest[near]]).max(1)
    return apart[near, nearest[near]], scores


def _seconds(run: Callable[[], Any], bench: Bench | None = None) -> float:
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
    from raylearn.scoring.manifest import MANIFEST_FILE, Manifest
    from raylearn.scoring.pipeline import PARTS_ON_GPU, ScorePart

    cv2.setNumThreads(1)
    bench = Bench(device, small, Path(work), {}, Path())
    settings = replace(SETTINGS, decode=decode)
    files = bench.photographs * (20 if small else 200)
    part_size = 16 if small else PART_SIZE
    with tempfile.TemporaryDirectory(dir=work) as name:
        folder = Folder.at(name)
        nothing = [""] * len(files)
        manifest = Manifest.of_columns([[f"{i:07d}" for i in range(len(files))], files, nothing, nothing], part_size)
        folder.add(MANIFEST_FILE, manifest.to_buffer())
        score = ScorePart(
            lambda: _loaded(bench, settings),
            partial(read_image, settings=settings),
            folder,
            manifest.hash,
            bench.batch_size,
            threads,
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
    yield busy
    over.set()
    watcher.join()


def _reef(bench: Bench) -> Any:
    from raylearn.data.reef import ReefSettings, read_reef

    num_pool, num_test = (24, 12) if bench.small else (240, 200)
    return read_reef(ReefSettings(num_pool=num_pool, num_test=num_test, width=320, height=240), bench.work)


def _photographed(bench: Bench, num: int) -> Any:
    """The photographs as a data set, with boxes that mean nothing: the work of a training is the same."""
    from raylearn.data.dataset import Dataset, GroundTruth, Image
    from raylearn.data.images import content_hash, read_bytes

    rng = np.random.default_rng(_SEED)
    images, truth = [], {}
    for path in bench.photographs[: num + 1]:
        name = Path(path).name
        images.append(Image(name, path, 1024, 768, content_hash(read_bytes(path))))
        corners, sides = rng.uniform(0, 600, (8, 2)), rng.uniform(30, 160, (8, 2))
        truth[name] = GroundTruth(np.hstack([corners, corners + sides]), rng.integers(0, CLASSES, 8))
    names = tuple(f"class {number}" for number in range(CLASSES))
    return Dataset("photographs", names, tuple(images[:num]), tuple(images[num:]), truth)


_OPTIONS = {"optimizer": "AdamW", "lr0": 0.001, "warmup_epochs": 0.5, "cls": 1.0, "nbs": 16}
_BATCH = 16


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
    import yaml
    from ultralytics import YOLO

    from raylearn.detectors.base import TrainingSet
    from raylearn.detectors.families.ultralytics.training import write_data_yaml

    with tempfile.TemporaryDirectory() as name:
        data = write_data_yaml(TrainingSet(dataset.class_names, dataset.pool, dataset.truth), Path(name))
        assert yaml.safe_load(data.read_text())["train"]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0", choices=("cuda:0", "cpu"))
    parser.add_argument("--small", action="store_true", help="tiny sizes, at which nothing is measured")
    parser.add_argument("--only", nargs="*", help="sections: " + ", ".join(section.__name__ for section in SECTIONS))
    parser.add_argument("--json", type=Path, default=Path("runs/bench/gpu.json"))
    parser.add_argument("--work", type=Path, help="a folder that keeps photographs and checkpoint for another call")
    options = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory(prefix="raylearn-gpu-", ignore_cleanup_errors=True) as name:
        bench = Bench(options.device, options.small, options.work or Path(name), {}, options.json)
        for section in SECTIONS:
            needed = section in (machine, materials)
            if options.only and section.__name__ not in options.only and not needed:
                continue
            start = time.perf_counter()
            try:
                section(bench)
            except Exception:
                traceback.print_exc()
                failed.append(section.__name__)
            print(f"--- {section.__name__}: {time.perf_counter() - start:.1f} s", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
