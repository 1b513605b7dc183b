"""How fast a pool is scored, against Ultralytics, Ray's own recipe, and the limits that the machine sets.

Every contender runs in a process of its own, all of them in turn, as often as --rounds says; medians are shown. `img/s`
counts from the first image to the last; `with start` is the whole process over the same images.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.contenders import contenders
from benchmarks.tables import show

NUM_IMAGES = 638


def make_images(source: Path, folder: Path, count: int) -> None:
    """JPEGs of 1024 px from the images below `source`, mirrored where there are not enough."""
    import cv2

    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        sys.exit(f"no images below {source}: give --images or --source")
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image = cv2.imread(str(files[number % len(files)]))
        scale = 1024 / max(image.shape[:2])
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        if number // len(files) % 2:
            image = image[:, ::-1]
        cv2.imwrite(str(folder / f"{number:05d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 90])


def untrained(path: Path) -> Path:
    """A checkpoint of YOLOv5n with random weights: as much work as a trained one, but for the few boxes it finds."""
    import torch

    from raylearn.detectors.families.ultralytics.detector import build_model

    torch.manual_seed(0)
    state = build_model("yolov5n", 3).state_dict()
    torch.save(
        {"format": "raylearn-yolo-1", "model": "yolov5n", "class_names": ["a", "b", "c"], "state_dict": state}, path
    )
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of JPEGs; default: made from --source")
    parser.add_argument("--source", type=Path, default=Path("../shared/data/bccd_voc"), help="where to make them from")
    parser.add_argument("--checkpoint", type=Path, help="default: an untrained YOLOv5n")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("runs/bench/scoring.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="raylearn-bench-") as name:
        work = Path(name)
        images = options.images or work / "images"
        if options.images is None:
            make_images(options.source, images, NUM_IMAGES)
        checkpoint = options.checkpoint or untrained(work / "untrained.pt")
        steady: dict[str, list[float]] = {name: [] for name in contenders(work)}
        whole: dict[str, list[float]] = {name: [] for name in steady}
        for _ in range(options.rounds):
            for contender in steady:
                ledger = work / "ledger"
                shutil.rmtree(ledger, ignore_errors=True)
                start = time.perf_counter()
                done = subprocess.run(
                    [sys.executable, "-m", "benchmarks.contenders", contender, images, checkpoint, ledger],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                seconds = time.perf_counter() - start
                if done.returncode:
                    sys.exit(f"{contender} failed:\n{done.stderr}")
                told = json.loads(done.stdout.splitlines()[-1])
                steady[contender].append(told["num_images"] / told["seconds"])
                whole[contender].append(len(list(images.iterdir())) / seconds)
                print(f"{contender}: {steady[contender][-1]:.1f} img/s", file=sys.stderr)
    median = {name: statistics.median(values) for name, values in steady.items()}
    predict = median["YOLO.predict(folder)"]
    rows = []
    for contender, values in steady.items():
        bare = "limit" in contender
        limit = next((m for n, m in median.items() if n == f"limit: {contender.split()[-1]} model + decode"), None)
        rows.append(
            {
                "contender": contender,
                "img/s": median[contender],
                "lowest": min(values),
                "highest": max(values),
                "x predict": median[contender] / predict,
                "x recipe": median[contender] / median["Ray Data recipe"],
                "of model + decode": median[contender] / limit if limit else "",
                "img/s with start": "" if bare else statistics.median(whole[contender]),
            }
        )
    show("scoring 640 px on this machine", rows, options.json, rounds=options.rounds, steady=steady)


if __name__ == "__main__":
    main()
