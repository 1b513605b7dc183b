"""A pool and a ledger in an object store that fails in all the ways they do."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raylearn.data.storage import Folder
from raylearn.scoring.ledger import finished_parts
from tests.faults.conftest import PART_SIZE, content_of, failed, run_score, score_command, succeeded
from tests.faults.object_store import BUCKET, SECRET, ObjectStore, object_store, used_here

POOL = f"s3://{BUCKET}/images"
NUM_IMAGES = 48  # of the pool; a store in Python is slow


@pytest.fixture(scope="module")
def store(pool: Path) -> Iterator[ObjectStore]:
    with object_store() as running:
        for key in _keys(pool):
            running.put(f"images/{key}", (pool / key).read_bytes())
        yield running


@pytest.fixture(autouse=True)
def no_faults(store: ObjectStore) -> Iterator[None]:
    """Each test plants its own."""
    with used_here(store):
        yield


def _keys(pool: Path) -> list[str]:
    return sorted(str(path.relative_to(pool)) for path in pool.rglob("*.jpg"))[:NUM_IMAGES]


def _undisturbed_content(undisturbed: Path, pool: Path) -> list[dict[str, Any]]:
    """The rows of the images in the store."""
    kept = set(_keys(pool))
    return [row for row in content_of(undisturbed) if row["image_id"] in kept]


def test_passing_faults_are_waited_out_and_a_missing_object_is_that_images_error(
    store: ObjectStore, pool: Path, trained: Path, undisturbed: Path
) -> None:
    keys = _keys(pool)
    store.asked.clear()
    store.faults |= {
        keys[3]: lambda count: 500 if count < 2 else None,
        keys[10]: lambda count: 503 if count < 3 else None,
        keys[20]: lambda count: "reset" if count < 2 else None,
        keys[30]: lambda count: "slow" if count < 2 else None,
        keys[40]: lambda _: 404,
    }
    done = run_score(POOL, trained, f"s3://{BUCKET}/faulty", **store.environment)
    printed = succeeded(done)
    assert f"{NUM_IMAGES} images, 1 error (1 missing)" in printed
    ours, theirs = content_of(f"s3://{BUCKET}/faulty"), _undisturbed_content(undisturbed, pool)
    assert [row["image_id"] for row in ours] == [row["image_id"] for row in theirs]
    for one, other in zip(ours, theirs, strict=True):
        if one["image_id"] == keys[40]:
            assert (one["status"], one["error_kind"], one["boxes"]) == ("error", "missing", [])
        else:
            assert one == other
    assert store.asked[f"/{BUCKET}/images/{keys[10]}"] > 3
    assert store.asked[f"/{BUCKET}/images/{keys[40]}"] < 5
    written = b"".join(
        store.client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in store.objects("faulty/")
    )
    assert SECRET.encode() not in written
    assert SECRET not in done.stdout + done.stderr


def test_a_bucket_that_may_not_be_listed_is_told_and_not_taken_for_an_empty_pool(
    store: ObjectStore, trained: Path, tmp_path: Path
) -> None:
    store.faults[f"/{BUCKET}"] = lambda _: 403
    message = failed(run_score(POOL, trained, tmp_path / "ledger", **store.environment), 1)
    assert POOL in message
    assert "ACCESS_DENIED" in message


@pytest.mark.long
def test_a_run_that_is_killed_and_then_refused_an_image_goes_on_and_writes_no_part_again(
    store: ObjectStore, pool: Path, trained: Path, undisturbed: Path
) -> None:
    out = f"s3://{BUCKET}/killed"
    driver = subprocess.Popen(score_command(POOL, trained, out), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    try:
        while len(finished_parts(Folder(out))) < 3:
            assert driver.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        driver.kill()
        driver.wait()
    time.sleep(2)  # for what the dead driver's actors still had in hand
    killed = _parts_of_killed(store)
    store.client.delete_object(Bucket=BUCKET, Key="killed/.lock")  # or its hold would be waited out for a minute

    missing = set(range(NUM_IMAGES // PART_SIZE)) - set(finished_parts(Folder(out)))
    key = _keys(pool)[PART_SIZE * min(missing)]
    store.asked.clear()
    store.faults[key] = lambda _: 403
    start = time.monotonic()
    message = failed(run_score(POOL, trained, out, **store.environment), 1)
    assert time.monotonic() - start < 100
    assert key in message
    assert "ACCESS_DENIED" in message
    assert store.asked[f"/{BUCKET}/images/{key}"] <= 6  # a HEAD by every actor that was given the part, and no more
    store.faults.clear()
    written = _parts_of_killed(store)
    assert killed.items() <= written.items()
    assert len(written) < NUM_IMAGES // PART_SIZE - 1  # it did not go on with what it could have scored

    succeeded(run_score(POOL, trained, out, **store.environment))
    assert written.items() <= _parts_of_killed(store).items()
    assert content_of(out) == _undisturbed_content(undisturbed, pool)


def _parts_of_killed(store: ObjectStore) -> dict[str, Any]:
    return {name: told for name, told in store.objects("killed/").items() if "part-" in name}
