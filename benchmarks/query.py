"""A query over a large ledger: raylearn against DuckDB and against a plain loop, on the same files.

The ledger has --images images with 5 detections of 10 classes each, in the mean, and is written first. Every contender
runs in a process of its own, in turn; the query is entropy, background probabilities, sum.
"""

import argparse
import json
import math
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import show

NUM_CLASSES, SIZE, SEED = 10, 1000, 0


def write_ledger(folder: Path, num_images: int) -> None:
    """A finished ledger of made-up detections."""
    from raylearn.data.storage import Folder
    from raylearn.detectors.base import Detections
    from raylearn.scoring import ledger
    from raylearn.scoring.manifest import MAX_PART_SIZE

    target, rng = Folder.at(folder), np.random.default_rng(0)
    num_parts = -(-num_images // MAX_PART_SIZE)
    for part in range(num_parts):
        start = part * MAX_PART_SIZE
        count = min(MAX_PART_SIZE, num_images - start)
        counts = rng.poisson(5, count)
        scores = (rng.random((counts.sum(), NUM_CLASSES)) ** 4).astype(np.float32)
        boxes = rng.random((counts.sum(), 4)).astype(np.float32) * 100
        ends = np.cumsum(counts)[:-1]
        found = list(map(Detections, np.split(boxes, ends), np.split(scores, ends)))
        ids = [f"camera-{(start + i) % 50:02d}/{start + i:09d}.jpg" for i in range(count)]
        columns: dict[str, Any] = {"image_id": ids, "uri": [f"s3://bucket/{name}" for name in ids]}
        columns |= {"width": [640] * count, "height": [480] * count}
        columns |= {"status": ["ok"] * count, "error_kind": [""] * count, "error": [""] * count}
        ledger.add_part(target, part, "bench", ledger.rows(columns, found, NUM_CLASSES))
    names = [f"class {k}" for k in range(NUM_CLASSES)]
    ledger.write_facts(target, {"num_parts": num_parts, "num_images": num_images, "class_names": names})


def by_raylearn(folder: Path) -> list[tuple[str, float]]:
    from raylearn.data.storage import Folder
    from raylearn.learning.ledger_query import query_ledger
    from raylearn.strategies import Uncertainty

    found = query_ledger(Folder(str(folder)), Uncertainty("entropy", "sum", "none", "background"), SIZE, seed=SEED)
    return [(image.image_id, image.score) for image in found.images]


def by_duckdb(folder: Path) -> list[tuple[str, float]]:
    """The same arithmetic in SQL, over all files at once."""
    import duckdb

    sql = f"""
        with detections as (
            select image_id, unnest(class_scores)::double[] as s from read_parquet('{folder}/part-*.parquet')
            where status = 'ok'
        ), vectors as (
            select image_id, s, list_sum(s) as total from detections
        ), probabilities as (
            select image_id,
                list_transform(list_append(s, greatest(0, 1 - total)), lambda x: x / greatest(1, total)) as p
            from vectors
        )
        select image_id, sum(-list_sum(list_transform(p, lambda x: case when x > 0 then x * ln(x) else 0 end)))
            / ln({NUM_CLASSES + 1}) as score
        from probabilities group by image_id order by score desc limit {SIZE}
    """
    return [(str(name), float(score)) for name, score in duckdb.sql(sql).fetchall()]


def by_loop(folder: Path) -> list[tuple[str, float]]:
    """One detection after the other, in plain Python."""
    import pyarrow.parquet as pq

    scored = []
    for file in sorted(folder.glob("part-*.parquet")):
        table = pq.read_table(file, columns=["image_id", "status", "class_scores"])
        columns = (table[name].to_pylist() for name in table.column_names)
        for image_id, status, detections in zip(*columns, strict=True):
            if status == "ok":
                scored.append((image_id, sum(map(_entropy, detections))))
    scored.sort(key=lambda entry: -entry[1])
    return scored[:SIZE]


def _entropy(scores: list[float]) -> float:
    total = sum(scores)
    vector = [value / max(1.0, total) for value in [*scores, max(0.0, 1.0 - total)]]
    return -sum(value * math.log(value) for value in vector if value > 0) / math.log(len(vector))


CONTENDERS = {"raylearn": by_raylearn, "DuckDB": by_duckdb, "plain loop": by_loop}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("runs/bench/query.json"))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        start = time.perf_counter()
        chosen = CONTENDERS[options.one[0]](Path(options.one[1]))
        seconds = time.perf_counter() - start
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(json.dumps({"seconds": seconds, "peak MB": memory, "chosen": chosen}))
        return
    folder = Path(tempfile.mkdtemp(prefix="raylearn-bench-"))
    try:
        write_ledger(folder, options.images)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
        for _ in range(options.rounds):
            for name, done in runs.items():
                command = [sys.executable, "-m", "benchmarks.query", "--one", name, str(folder)]
                told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
                done.append(json.loads(told.splitlines()[-1]))
                print(f"{name}: {done[-1]['seconds']:.2f} s", file=sys.stderr)
        shown = ["plain loop", "DuckDB", "raylearn"]
        rows = [_row(name, runs) for name in shown]
        show(f"a query of {SIZE:,} from {options.images:,} images", rows, options.json, rounds=options.rounds)
    finally:
        shutil.rmtree(folder)


def _row(name: str, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    seconds = statistics.median(run["seconds"] for run in runs[name])
    ours, theirs = runs["raylearn"][0]["chosen"], runs[name][0]["chosen"]
    return {
        "contender": name,
        "seconds": seconds,
        "x raylearn": seconds / statistics.median(run["seconds"] for run in runs["raylearn"]),
        "peak MB": max(run["peak MB"] for run in runs[name]),
        "same images in the same order": [image for image, _ in ours] == [image for image, _ in theirs],
        "largest difference of scores": f"{max(abs(a - b) for (_, a), (_, b) in zip(ours, theirs, strict=True)):.1e}",
    }


if __name__ == "__main__":
    main()
