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
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.stand_ins import Costless, Waiting, read_nothing
from benchmarks.tables import show

BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--gpus", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--json", type=Path, default=Path("runs/bench/scale.json"))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        kind, number = options.one
        print(json.dumps((score_rows if kind == "rows" else keep_busy)(int(number))))
        return
    if options.rows:
        rows = [_alone("rows", number) for number in options.rows]
        for row in rows:
            row["x first"] = row["us per image"] / rows[0]["us per image"]
        show("a detector that costs nothing", rows, options.json)
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
    from raylearn.scoring.pipeline import ScoringPlan, deal_out, finish
    from raylearn.scoring.updating import Listings

    with tempfile.TemporaryDirectory(prefix="raylearn-bench-") as name, ray_session(None):
        pool = Path(name, "pool.txt")
        pool.write_text("".join(f"s3://bucket/camera-{i % 50:02d}/{i:09d}.jpg\n" for i in range(number)))
        peak = _WorkerMemory()
        start = time.perf_counter()
        Path(name, "listing").mkdir()
        frozen, _ = freeze_pool(str(pool), Path(name, "listing"))
        folder = Folder.at(Path(name, "ledger"))
        frozen.put_into(folder)
        listings = Listings(((0, frozen.num_images, frozen.part_size),), frozen.hash())
        listed = time.perf_counter() - start
        plan = ScoringPlan("", None, batch_size=BATCH, num_actors=num_local_cpus(), requests=0)  # type: ignore[arg-type]
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


def keep_busy(number: int) -> dict[str, Any]:
    """How busy so many stand-in GPUs are kept, from the first batch of the last one to start to its first idle end."""
    import ray

    from raylearn.data.storage import Folder
    from raylearn.scoring.manifest import Manifest
    from raylearn.scoring.pipeline import ScoringPlan, deal_out

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
        plan = ScoringPlan("", None, batch_size=BATCH, num_actors=number, gpus_per_actor=1)  # type: ignore[arg-type]
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


if __name__ == "__main__":
    main()
