"""What raylearn itself costs: pools of a detector that costs nothing, and how busy it keeps GPUs that are stood in for.

Each row is a process of its own with a Ray of its own. Microseconds per image are of the whole pass, from the list of
addresses to the finished ledger, without the start of Ray; the start is shown beside it.
"""

import argparse
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.stand_ins import Costless, StandInStore, Waiting, read_nothing
from benchmarks.tables import show
from raylearn.detectors.base import DetectorSettings

BATCH = 64
SETTINGS = DetectorSettings(640, confidence=0.05, iou=0.7, max_detections=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--commands", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--listings", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--gpus", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--json", type=Path, default=Path("runs/bench/scale.json"))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        kind, number = options.one
        print(json.dumps(_KINDS[kind](int(number))))
        return
    if options.rows:
        rows = [_alone("rows", number) for number in options.rows]
        for row in rows:
            row["x first"] = row["us per image"] / rows[0]["us per image"]
        show("a detector that costs nothing", rows, options.json)
    if options.commands:
        commands = [_alone("commands", number) for number in options.commands]
        show("the whole command, and what it takes again", commands, options.json.with_stem("scale-commands"))
    if options.listings:
        listings = [_alone("listings", number) for number in options.listings]
        show("a stand-in store listed, and its parts dealt out", listings, options.json.with_stem("scale-listings"))
    if options.gpus:
        busy = [_alone("gpus", number) for number in options.gpus]
        show("GPUs stood in for: 50 ms per batch of 64", busy, options.json.with_stem(options.json.stem + "-busy"))


def _alone(kind: str, number: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.scale", "--one", kind, str(number)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(found, file=sys.stderr)
    return found


def score_rows(number: int) -> dict[str, Any]:
    """A pool of so many rows through one costless actor per CPU."""
    from raylearn.cluster.resources import num_local_cpus
    from raylearn.cluster.session import ray_session
    from raylearn.data.storage import Folder
    from raylearn.scoring.ledger import NOTHING
    from raylearn.scoring.listing import freeze_pool
    from raylearn.scoring.pipeline import deal_out, finish
    from raylearn.scoring.plan import ScoringPlan
    from raylearn.scoring.updating import Listings

    with tempfile.TemporaryDirectory(prefix="raylearn-bench-") as name, ray_session(None):
        pool = _list_of(number, Path(name))
        peak = _WorkerMemory()
        start = time.perf_counter()
        Path(name, "listing").mkdir()
        frozen, _ = freeze_pool(str(pool), Path(name, "listing"))
        folder = Folder.at(Path(name, "ledger"))
        frozen.put_into(folder)
        listings = Listings((frozen.span,), frozen.hash())
        listed = time.perf_counter() - start
        plan = ScoringPlan("", SETTINGS, batch_size=BATCH, num_actors=num_local_cpus(), requests=0)
        counts = NOTHING
        for part in deal_out(listings.parts, Costless, read_nothing, plan, folder, "bench"):
            counts += part.counts
        finish(folder, listings, counts, {})
        seconds = time.perf_counter() - start
        return {
            "images": number,
            "us per image": 1e6 * seconds / number,
            "of it listing": 1e6 * listed / number,
            "driver peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
            "worker peak MB": peak.stop(),
        }


def _list_of(number: int, place: Path) -> Path:
    pool = place / "pool.txt"
    with pool.open("w") as file:
        file.writelines(f"s3://bucket/camera-{i % 50:02d}/{i:09d}.jpg\n" for i in range(number))
    return pool


_MAKE_CHECKPOINT = """
import sys
from pathlib import Path
from raylearn.detectors.checkpoints import write_checkpoint
from raylearn.detectors.families.ultralytics.detector import build_model
weights = build_model("yolov5n", 2).state_dict()
write_checkpoint(Path(sys.argv[1]), "raylearn-yolo-1", "yolov5n", ("crab", "fish"), 64, weights)
"""


def score_commands(number: int) -> dict[str, Any]:
    """`raylearn score` of so many rows by a costless detector: all, none missing, and every hundredth part missing."""
    from rich.console import Console

    from raylearn.data.storage import Folder
    from raylearn.scoring import pool_scoring
    from raylearn.scoring.ledger import FACTS_FILE, finished_parts, part_name
    from raylearn.scoring.pipeline import deal_out
    from raylearn.scoring.request import ScoreRequest

    first_part: list[float] = []

    def score_parts(parts: Any, plan: Any, folder: Any, key: str) -> Any:
        first_part.clear()
        for part in deal_out(parts, Costless, read_nothing, replace(plan, requests=0), folder, key):
            first_part.append(time.perf_counter())
            yield part

    pool_scoring.score_parts = score_parts  # type: ignore[assignment]
    with tempfile.TemporaryDirectory(prefix="raylearn-bench-") as name:
        checkpoint, out = Path(name, "checkpoint.pt"), Path(name, "ledger")
        subprocess.run([sys.executable, "-c", _MAKE_CHECKPOINT, str(checkpoint)], check=True)  # torch stays there
        request = ScoreRequest(str(_list_of(number, Path(name))), checkpoint)

        def seconds() -> float:
            start = time.perf_counter()
            pool_scoring.score_pool(request, str(out), address=None, console=Console(file=sys.stderr))
            return time.perf_counter() - start

        first, finished = seconds(), seconds()
        for part in finished_parts(Folder(str(out)))[::100]:
            (out / part_name(part)).unlink()
        (out / FACTS_FILE).unlink()
        start = time.perf_counter()
        seconds()
        return {
            "images": number,
            "us per image": 1e6 * first / number,
            "finished, s": finished,
            "1 % missing, s until the first part": first_part[0] - start,
            "driver peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        }


def list_and_deal(number: int) -> dict[str, Any]:
    """A store that is stood in for, folders of 10,000 objects, becomes a manifest whose parts actors are told of."""
    from pyarrow import fs

    from raylearn.cluster.session import ray_session
    from raylearn.data import storage
    from raylearn.data.storage import Folder
    from raylearn.scoring import pipeline
    from raylearn.scoring.listing import freeze_pool
    from raylearn.scoring.plan import ScoringPlan
    from raylearn.scoring.updating import Listings

    store = fs.PyFileSystem(StandInStore(number)), "bucket"
    storage._file_system = lambda *_: store
    with tempfile.TemporaryDirectory(prefix="raylearn-bench-") as name, ray_session(None):
        start = time.perf_counter()
        Path(name, "listing").mkdir()
        frozen, _ = freeze_pool("gs://bucket", Path(name, "listing"))
        listed = time.perf_counter() - start
        folder = Folder.at(Path(name, "ledger"))
        frozen.put_into(folder)
        listings = Listings((frozen.span,), frozen.hash())
        hashed = time.perf_counter() - start - listed
        plan = ScoringPlan("", SETTINGS, num_actors=2, requests=0, spans=listings.spans)
        pipeline.ScorePart = OnlyRows  # type: ignore[assignment,misc]  which is told of every part, and reads its rows
        parts = pipeline.deal_out(listings.parts, Costless, read_nothing, plan, folder, "bench")
        assert sum(part.counts.num_images for part in parts) == number
        dealt = time.perf_counter() - start - listed - hashed
        return {
            "images": number,
            "us per image, listed": 1e6 * listed / number,
            "hashed": 1e6 * hashed / number,
            "dealt out": 1e6 * dealt / number,
            "driver peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        }


class OnlyRows:
    """Takes the place of `ScorePart`: reads the rows of a part, and writes nothing."""

    def __init__(self, _open: Any, _read: Any, folder: Any, _key: str, plan: Any) -> None:
        from raylearn.scoring.manifest import ManifestFiles

        self._manifest = ManifestFiles(folder, plan.spans)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        from raylearn.scoring.ledger import PartCounts
        from raylearn.scoring.score_part import Part

        now = time.time()
        counts = [PartCounts(len(self._manifest.read(int(number))), 0, {}, 0) for number in batch["number"]]
        return {"part": [Part(int(n), c, now, now, "", 1) for n, c in zip(batch["number"], counts, strict=True)]}


def keep_busy(number: int) -> dict[str, Any]:
    """How busy so many stand-in GPUs are kept, from the first batch of the last one to start to its first idle end."""
    import ray

    from raylearn.data.storage import Folder
    from raylearn.scoring.manifest import Manifest
    from raylearn.scoring.pipeline import deal_out
    from raylearn.scoring.plan import ScoringPlan

    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    ray.init(
        address="local",
        num_cpus=2 * number,
        num_gpus=number,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    with tempfile.TemporaryDirectory(prefix="raylearn-bench-") as name:
        ids = [f"{i:09d}.jpg" for i in range(number * 20_000)]
        manifest = Manifest.of_columns([ids, ids, [""] * len(ids), [""] * len(ids)])
        folder = Folder.at(Path(name, "ledger"))
        manifest.write(folder)
        log = Path(name, "log")
        log.mkdir()
        plan = ScoringPlan("", SETTINGS, batch_size=BATCH, num_actors=number, gpus_per_actor=1)
        open_detector = partial(Waiting, str(log))
        for _ in deal_out(range(manifest.num_parts), open_detector, read_nothing, plan, folder, "bench"):
            pass
        spans: dict[str, list[tuple[float, float]]] = {}
        for file in log.iterdir():
            pairs = [tuple(map(float, line.split())) for line in file.read_text().splitlines()]
            spans.setdefault(file.name.split("-")[0], []).extend(pairs)  # type: ignore[arg-type]
    # While all work: after the last has started, and before the first runs out of parts.
    begin = max(min(start for start, _ in own) for own in spans.values())
    end = min(max(finish for _, finish in own) for own in spans.values())
    busy = sum(max(0.0, min(b, end) - max(a, begin)) for own in spans.values() for a, b in own)
    return {
        "GPUs": number,
        "busy %": 100 * busy / (len(spans) * (end - begin)),
        "img/s": BATCH * sum(begin <= b <= end for own in spans.values() for _, b in own) / (end - begin),
        "seconds": end - begin,
    }


class _WorkerMemory:
    """The largest resident size any actor of this process's Ray had."""

    def __init__(self) -> None:
        self._peak, self._ended = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        import psutil

        while not self._ended.wait(0.5):
            for process in psutil.Process(os.getpid()).children(recursive=True):
                try:
                    if "ray::" in " ".join(process.cmdline()):
                        self._peak = max(self._peak, process.memory_info().rss / 1e6)
                except psutil.Error:  # it has just ended
                    continue

    def stop(self) -> float:
        self._ended.set()
        self._thread.join()
        return self._peak


_KINDS = {"rows": score_rows, "commands": score_commands, "listings": list_and_deal, "gpus": keep_busy}

if __name__ == "__main__":
    main()
