"""Strategies that weigh images against each other, over a large ledger: raylearn, plain loops and lightly-mundig.

The ledger has --images images with 5 boxes of 10 classes, and embeddings of a pool of clips: a fiftieth of the images
are exact copies. It is made once and kept in --folder. 1,000 images of it are labelled. Every contender runs in a
process of its own, in turn. The loops hold everything in memory and look at every image for every pick; their picks
must be raylearn's. lightly-mundig, of the Python that --peer names, is given the images that `diverse` shortlists.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import show

NUM_CLASSES, NUM_BOXES, SIZE, NUM_LABELLED, SEED = 10, 5, 1000, 1000, 0
NUM_DEDUP, DISTANCE = 100_000, 0.02
_CLIP, _COPIES = 20, 50


def write_ledger(folder: Path, num_images: int) -> None:
    """A finished ledger of made-up detections and embeddings; every fiftieth image is a copy of the one before it."""
    from raylearn.data.storage import Folder
    from raylearn.detectors.base import BOX_EMBEDDING, IMAGE_EMBEDDING, Detections
    from raylearn.scoring import ledger
    from raylearn.scoring.manifest import MAX_PART_SIZE

    target, rng = Folder.at(folder), np.random.default_rng(0)
    kinds = rng.normal(size=(500, BOX_EMBEDDING)).astype(np.float32)
    num_parts = -(-num_images // MAX_PART_SIZE)
    for part in range(num_parts):
        start = part * MAX_PART_SIZE
        count = min(MAX_PART_SIZE, num_images - start)
        clips = rng.normal(size=(-(-count // _CLIP), IMAGE_EMBEDDING)).astype(np.float32)
        noise = rng.normal(size=(count, IMAGE_EMBEDDING)).astype(np.float32)
        of_images = (clips[np.arange(count) // _CLIP] + 0.1 * noise).astype(np.float16)
        noise = rng.normal(size=(count, NUM_BOXES, BOX_EMBEDDING)).astype(np.float32)
        of_boxes = (kinds[rng.integers(len(kinds), size=(count, NUM_BOXES))] + 0.5 * noise).astype(np.float16)
        scores = (rng.random((count, NUM_BOXES, NUM_CLASSES)) ** 4).astype(np.float32)
        boxes = rng.random((count, NUM_BOXES, 4)).astype(np.float32) * 100
        copies = np.arange(_COPIES, count, _COPIES)
        for column in (of_images, of_boxes, scores, boxes):
            column[copies] = column[copies - 1]
        found = list(map(Detections, boxes, scores, of_boxes, of_images))
        ids = [f"camera-{(start + i) % 50:02d}/{start + i:09d}.jpg" for i in range(count)]
        columns: dict[str, Any] = {"image_id": ids, "uri": [f"s3://bucket/{name}" for name in ids]}
        columns |= {"width": [640] * count, "height": [480] * count}
        columns |= {"status": ["ok"] * count, "error_kind": [""] * count, "error": [""] * count}
        ledger.add_part(target, part, "bench", ledger.rows(columns, found, NUM_CLASSES, True))
    names, settings = [f"class {k}" for k in range(NUM_CLASSES)], {"embeddings": True}
    facts = {"num_parts": num_parts, "num_images": num_images, "class_names": names, "settings": settings}
    ledger.write_facts(target, facts)


def labelled_ids(num_images: int) -> list[str]:
    drawn = np.random.default_rng(1).choice(num_images, NUM_LABELLED, replace=False)
    return [f"camera-{i % 50:02d}/{i:09d}.jpg" for i in drawn.tolist()]


COUNTS = {f"class {k}": 500 + 50 * k for k in range(NUM_CLASSES)}
Answer = list[str]


def by_raylearn(strategy: str, folder: Path, num_images: int) -> Answer:
    from raylearn.data.storage import Folder
    from raylearn.learning.ledger_query import query_ledger
    from raylearn.strategies import make_strategy

    known = labelled_ids(num_images)
    found = query_ledger(
        Folder(str(folder)), make_strategy(strategy), SIZE, seed=SEED, class_counts=COUNTS, labelled=known
    )
    return [image.image_id for image in found.images]


def dedup(folder: Path, num_images: int) -> Answer:
    from raylearn.data.storage import Folder
    from raylearn.learning.near_duplicates import near_duplicates_of

    found = near_duplicates_of(Folder(str(folder)), DISTANCE)
    assert found.num_images == num_images
    return [" ".join(group) for group in found.groups]


def _in_memory(folder: Path, num_images: int) -> tuple[Any, Any]:
    """The candidates, and the context that they are asked about in."""
    from raylearn.data.storage import Folder
    from raylearn.scoring.ledger import Ledger
    from raylearn.strategies import Context
    from raylearn.strategies.base import Labelled

    ledger = Ledger.read(Folder(str(folder)))
    labelled = np.isin(ledger.image_ids.astype(str), labelled_ids(num_images))
    seen = ledger.candidates.take(np.flatnonzero(labelled))
    rest = ledger.candidates.take(np.flatnonzero(~labelled))
    return rest, Context(SEED, np.array(list(COUNTS.values())), Labelled(seen, None))


def _shortlist(folder: Path, num_images: int) -> tuple[Any, Any, np.ndarray]:
    from raylearn.measures.sampling import tie_order
    from raylearn.strategies import make_strategy

    candidates, context = _in_memory(folder, num_images)
    strategy: Any = make_strategy("diverse")
    scores = strategy.image_scores(candidates, context)
    order = np.lexsort((tie_order(candidates.image_ids, SEED), -scores))[: strategy.shortlist_size(SIZE)]
    return candidates.take(order), context, scores[order]


def diverse_by_loop(folder: Path, num_images: int) -> Answer:
    from raylearn.measures.novelty import nearest_squares, unit_distances, unit_vectors

    candidates, context, scores = _shortlist(folder, num_images)
    boxes = unit_vectors(candidates.box_embeddings).reshape(len(scores), NUM_BOXES, -1)
    flat = boxes.reshape(-1, boxes.shape[2])
    squares = nearest_squares(flat, unit_vectors(context.labelled.seen.box_embeddings))
    picks: list[int] = []
    while len(picks) < SIZE:
        values = scores * unit_distances(squares).reshape(len(scores), NUM_BOXES).mean(axis=1)
        values[picks] = -1
        picks.append(int(values.argmax()))
        squares = np.minimum(squares, nearest_squares(flat, boxes[picks[-1]]))
    return [str(candidates.image_ids[i]) for i in picks]


def coverage_by_loop(folder: Path, num_images: int) -> Answer:
    from raylearn.measures.sampling import by_tie_order
    from raylearn.strategies import make_strategy

    candidates, context = _in_memory(folder, num_images)
    strategy: Any = make_strategy("coverage")
    order = by_tie_order(candidates.image_ids, SEED)
    summaries = strategy.summaries(candidates, context)[order]
    # without true boxes of the labelled images, the boxes of an image are the sum of its confidences
    masses, costs = summaries[:, :-1], 1 + summaries[:, -1].astype(np.float64)
    held = 1.0 + context.class_counts
    picks: list[int] = []
    while len(picks) < SIZE:
        gains = (np.log1p(masses / held).sum(axis=1) / costs).astype(np.float32)
        gains[picks] = -1
        picks.append(int(gains.argmax()))
        held = held + masses[picks[-1]]
    return [str(candidates.image_ids[order[i]]) for i in picks]


PEER = """
import json, resource, sys, time
import numpy as np
from lightly_mundig import Selection
known, size, per_image, boxes, scores = *map(int, sys.argv[1:4]), np.load(sys.argv[4]), np.load(sys.argv[5])
start, count = time.perf_counter(), len(scores)
selection = Selection()
own = [list(range(i * per_image, (i + 1) * per_image)) for i in range(count)]
selection.add_subpart_diversifying_strategy(boxes.tolist(), own, 1.0)
selection.add_weighting_strategy(scores.tolist(), 1.0)
found = selection.run_selection(list(range(known)), count, known + size)
seconds, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
# not ru_maxrss, which begins with that of the process that started this one
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"seconds": seconds, "CPU seconds": used.ru_utime + used.ru_stime, "peak MB": peak / 1e3,
                  "found": [i - known for i in found if i >= known]}))
"""
"""Asked as `diverse` asks: score x mean distance of the boxes to the labelled and chosen ones."""


def peer(python: str, folder: Path, num_images: int) -> dict[str, Any]:
    from raylearn.measures.novelty import unit_vectors

    candidates, context, scores = _shortlist(folder, num_images)
    seen = context.labelled.seen
    vectors = unit_vectors(np.concatenate([seen.box_embeddings, candidates.box_embeddings]))
    with tempfile.TemporaryDirectory(prefix="raylearn-bench-") as name:
        files = [f"{name}/boxes.npy", f"{name}/scores.npy"]
        np.save(files[0], vectors)
        np.save(files[1], np.concatenate([np.ones(len(seen.image_ids)), scores]))
        numbers = [str(number) for number in (len(seen.image_ids), SIZE, NUM_BOXES)]
        told: dict[str, Any] = _told([python, "-c", PEER, *numbers, *files])
    return told | {"found": [str(candidates.image_ids[i]) for i in told["found"]]}


STRATEGIES = ("uncertainty", "diverse", "coverage", "core_set")
LOOPS = {"diverse": diverse_by_loop, "coverage": coverage_by_loop}


def run_one(contender: str, name: str, folder: Path, num_images: int) -> dict[str, Any]:
    """In a process of its own, because the peak of a process is at least that of the one that started it."""
    if contender == "written":
        write_ledger(folder, num_images)
        return {}
    if name == "lightly-mundig":
        return peer(contender, folder, num_images)
    start = time.perf_counter()
    if contender == "loop":
        found = LOOPS[name](folder, num_images)
    else:
        found = dedup(folder, num_images) if name == "dedup" else by_raylearn(name, folder, num_images)
    seconds, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    told = {"seconds": seconds, "CPU seconds": used.ru_utime + used.ru_stime, "peak MB": used.ru_maxrss / 1e3}
    return told | {"found": found}


def _told(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench/choosing"), help="Of the ledgers, kept.")
    parser.add_argument("--peer", help="A Python that has lightly-mundig; without it that is left out.")
    parser.add_argument("--json", type=Path, default=Path("runs/bench/choosing.json"))
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        contender, name, folder, number = options.one
        print(json.dumps(run_one(contender, name, Path(folder), int(number))))
        return
    asked = [("raylearn", name, options.images) for name in STRATEGIES]
    asked += [("loop", name, options.images) for name in LOOPS]
    asked += [(options.peer, "lightly-mundig", options.images)] if options.peer else []
    asked.append(("raylearn", "dedup", NUM_DEDUP))
    rows: list[dict[str, Any]] = []
    found: dict[str, list[str]] = {}
    for contender, name, number in asked:
        folder = options.folder / str(number)
        alone = [sys.executable, "-m", "benchmarks.choosing", "--one"]
        if not (folder / "ledger.json").exists():
            _told([*alone, "written", "ledger", str(folder), str(number)])
        load = os.getloadavg()[0]
        told = _told([*alone, contender, name, str(folder), str(number)])
        picks = told.pop("found")
        if contender == "raylearn":
            found[name] = picks
        ours = found["diverse" if name == "lightly-mundig" else name]
        assert contender != "loop" or picks == ours, f"{name}: the loop's picks are not raylearn's"
        rows.append({"of": name, "by": "its own" if name == "lightly-mundig" else contender, "images": number, **told})
        rows[-1] |= {"in common": f"{len({*picks} & {*ours}) / len(ours):.1%}", "load before": load}
        print(rows[-1], file=sys.stderr)
    show(f"queries of {SIZE:,}, and near-duplicates", rows, options.json, num_labelled=NUM_LABELLED)


if __name__ == "__main__":
    main()
