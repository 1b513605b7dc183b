"""Reading a bucket that answers late: how fast one actor reads it, and how often it asks.

A real S3 protocol (moto) stands behind a proxy that waits before each answer (benchmarks/slow_store.py). The detector
costs nothing. The limits beside it: threads that do no more than GET, of the same proxy; the same objects read by
raylearn and not decoded; and the same objects decoded from memory.
"""

import argparse
import http.client
import io
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import numpy as np
from PIL import Image

from benchmarks.slow_store import BUCKET, ENVIRONMENT, SlowStore, slow_store
from benchmarks.stand_ins import Costless
from benchmarks.tables import show
from raylearn.data import s3
from raylearn.data.images import decode, read_bytes
from raylearn.data.storage import Folder, forget_buckets
from raylearn.detectors.base import DetectorSettings
from raylearn.detectors.letterbox import letterbox
from raylearn.scoring.listing import list_pool
from raylearn.scoring.manifest import Manifest
from raylearn.scoring.plan import ScoringPlan
from raylearn.scoring.reading import read_image
from raylearn.scoring.score_part import Part, ScorePart

POOL = f"s3://{BUCKET}/images"
DOLLARS_PER_REQUEST = 0.4e-6  # S3 Standard, us-east-1: GET and HEAD alike; a PUT or LIST costs 5e-6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=1000, help="of the bucket")
    parser.add_argument("--kilobytes", type=int, default=200, help="of each object")
    parser.add_argument("--photographs", action="store_true", help="1024 x 768 pixels to decode; default: 64 x 48")
    parser.add_argument("--repeat", type=int, default=3, help="how often a pass reads each object")
    parser.add_argument("--delay", type=float, default=0.1, help="seconds before each answer")
    parser.add_argument("--requests", type=int, nargs="*", default=[64, 128, 256], help="at once, of the actor")
    parser.add_argument("--pyarrow-alone", action="store_true", help="as where botocore is not installed")
    parser.add_argument("--threads", type=int, default=2, help="that decode")
    parser.add_argument("--parts-at-once", type=int, default=1, help="3 on a GPU")
    parser.add_argument("--limits", type=int, default=256, help="threads of the limits; 0 leaves them out")
    parser.add_argument("--json", type=Path, default=Path("runs/bench/buckets.json"))
    options = parser.parse_args()
    if options.pyarrow_alone:
        s3.find_spec = lambda _: None  # type: ignore[assignment]
    with slow_store(options.delay) as store, _used_here(store):
        files = _fill(store, options)
        settings = DetectorSettings(640 if options.photographs else 64, 0.05, 0.7, 300)
        store.counts()
        manifest, _ = list_pool(POOL)
        print(f"listing {len(manifest)} objects: {store.counts()}")
        columns = manifest.table.columns
        ids = [f"{k}-{name}" for k in range(options.repeat) for name in columns[0].to_pylist()]
        manifest = Manifest.of_columns([ids, *(c.to_pylist() * options.repeat for c in columns[1:])], 2048)
        uris = manifest.table["uri"].to_pylist()
        _threaded(read_bytes, uris[: options.objects], 16)  # moto is asked once for each
        # as pyarrow asks for all of it
        headers = {"Range": f"bytes=0-{len(files[0]) - 1}"} if options.pyarrow_alone else {}
        measured = partial(_measured, store, len(uris))
        rows = []
        if options.limits:
            name = f"limit: {options.limits} threads, "
            rows.append(measured(name + "GET only", lambda: _bare(store, uris, headers, options.limits)))
            rows.append(measured(name + "raylearn's read_bytes", lambda: _threaded(read_bytes, uris, options.limits)))
            data = [files[i % len(files)] for i in range(len(uris))]
            decoding = f"limit: {options.threads} threads, decode and letterbox"
            rows.append(measured(decoding, lambda: _threaded(partial(_canvas, settings), data, options.threads)))
        for requests in options.requests:
            name = f"one actor, {requests} requests at once" if requests else "one actor, read where decoded"
            rows.append(measured(name, lambda requests=requests: _score(manifest, settings, requests, options)))
    show(f"objects of {options.kilobytes} KB, {options.delay * 1e3:g} ms before each answer", rows, options.json)


@contextmanager
def _used_here(store: SlowStore) -> Iterator[None]:
    os.environ.update({**ENVIRONMENT, "AWS_ENDPOINT_URL": store.address})
    forget_buckets()
    yield


def _fill(store: SlowStore, options: argparse.Namespace) -> list[bytes]:
    """Puts the objects, past the proxy; their bytes."""
    client = boto3.client("s3", endpoint_url=store.behind)
    client.create_bucket(Bucket=BUCKET)
    size = (1024, 768) if options.photographs else (64, 48)
    picture = _jpeg(size)
    files = [_padded(picture, number, options.kilobytes * 1000) for number in range(options.objects)]
    with ThreadPoolExecutor(4) as threads:
        names = [f"images/{number:05d}.jpg" for number in range(options.objects)]
        list(threads.map(lambda name, data: client.put_object(Bucket=BUCKET, Key=name, Body=data), names, files))
    return files


def _jpeg(size: tuple[int, int]) -> bytes:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    coarse.save(file, "JPEG", quality=90)
    return file.getvalue()


def _padded(picture: bytes, number: int, size: int) -> bytes:
    """The JPEG with comments that bring it to `size` bytes, another for each number."""
    padding = b""
    while (left := size - len(picture) - len(padding)) > 4:
        text = (b"%08d" % number * 8192)[: min(left - 4, 65_533)]
        padding += b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text
    return picture[:2] + padding + picture[2:]


def _measured(store: SlowStore, num_images: int, name: str, work: Callable[[], None]) -> dict[str, Any]:
    store.counts()
    start, cpu = time.perf_counter(), time.process_time()
    work()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    counts = store.counts()
    of_images = counts.get("HEAD", 0) + counts.get("GET", 0)
    return {
        "what": name,
        "img/s": num_images / seconds,
        "CPU ms/image": 1e3 * cpu / num_images,
        "most at once": counts.get("most in flight", 0),
        "requests/image": of_images / num_images,
        "$ per million": 1e6 * DOLLARS_PER_REQUEST * of_images / num_images,
    }


def _bare(store: SlowStore, uris: list[str], headers: dict[str, str], num_threads: int) -> None:
    own = threading.local()

    def get(uri: str) -> int:
        if not hasattr(own, "connection"):
            own.connection = http.client.HTTPConnection(store.address.removeprefix("http://"))
        own.connection.request("GET", "/" + uri.removeprefix("s3://"), headers=headers)
        return len(own.connection.getresponse().read())

    _threaded(get, uris, num_threads)


def _canvas(settings: DetectorSettings, data: bytes) -> None:
    letterbox(decode(data), settings.image_size)


def _threaded(work: Callable[[Any], object], items: list[Any], num_threads: int) -> None:
    with ThreadPoolExecutor(num_threads) as threads:
        for _ in threads.map(work, items):
            pass


def _score(manifest: Manifest, settings: DetectorSettings, requests: int, options: argparse.Namespace) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="raylearn-bench-") as name,
        ThreadPoolExecutor(options.parts_at_once) as at_once,
    ):
        folder = Folder.at(name)
        manifest.write(folder)
        read = partial(read_image, settings=settings)
        plan = ScoringPlan("", settings, batch_size=64, requests=requests, num_threads=options.threads)
        scorer = ScorePart(Costless, read, folder, "bench", plan)
        numbers = [{"number": np.array([number])} for number in range(manifest.num_parts)]
        for done in at_once.map(scorer, numbers):
            if not isinstance(done["part"][0], Part) or done["part"][0].counts.num_errors:
                raise SystemExit(f"a part failed: {done}")
        scorer.close()


if __name__ == "__main__":
    main()
