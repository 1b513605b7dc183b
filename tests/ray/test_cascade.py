"""A query by a cascade on a private Ray: what it chose has the scores of a whole pass, and a kill repeats nothing."""

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

import raylearn
from raylearn.api_results import ScoredPool
from raylearn.cli import main
from raylearn.data.dataset import Dataset
from raylearn.learning import cascade
from raylearn.measures import missed
from raylearn.scoring.ledger import FACTS_FILE

SIZE, SAMPLE, MAX_MISS = 14, 24, 0.95
SETTINGS: dict[str, Any] = {"confidence": 0.02, "num_actors": 1, "root": "/"}
PROGRAM = f"""
import sys
from raylearn.cli import main
from raylearn.learning import cascade
cascade.SMALLEST_SAMPLE = {SAMPLE}
main(sys.argv[1:])
"""


@pytest.fixture(autouse=True)
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Constants for pools of thousands, made small: hundreds of images would be all of this one."""
    monkeypatch.setattr(cascade, "SMALLEST_SAMPLE", SAMPLE)
    monkeypatch.setattr(missed, "_IN_BIN", 10)
    monkeypatch.setattr(missed, "WORTH", 0.8)


@pytest.fixture(scope="module")
def desk(reef: Dataset, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of 104 frames and one that cannot be read, and a detector that sees nearly the same at half the size."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "best.pt").symlink_to(trained)
    (folder / "torn.jpg").write_bytes(b"no image")
    lines = [*(image.uri for image in reef.images()), str(folder / "torn.jpg")]
    (folder / "pool.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def whole(desk: Path) -> ScoredPool:
    """The ledger of a whole pass by the exact setting."""
    return raylearn.score(desk / "pool.txt", desk / "best.pt", desk / "whole", **SETTINGS)


def command(desk: Path, out: Path) -> list[str]:
    named = f"--max-miss {MAX_MISS} --confidence 0.02 --actors 1 --root / --out {out}"
    return f"cascade {desk / 'pool.txt'} --checkpoint {desk / 'best.pt'} --size {SIZE} {named}".split()


def ended(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0)


def scores_of(folder: ScoredPool, size: int) -> dict[str, float]:
    query = raylearn.query(folder, size)
    return dict(zip(query.image_ids, query.scores.tolist(), strict=True))


def parts(out: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in out.glob("*/part-*.parquet")}


def test_a_cascade_that_was_killed_between_its_passes_goes_on_to_the_scores_of_a_whole_pass(
    desk: Path, whole: ScoredPool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    driver = subprocess.Popen([sys.executable, "-c", PROGRAM, *command(desk, tmp_path)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 200
        while not (tmp_path / "fast" / FACTS_FILE).exists():
            assert driver.poll() is None, "the cascade ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        family = psutil.Process(driver.pid).children(recursive=True)
    finally:
        driver.kill()
        driver.wait()
    for process in family:
        with suppress(psutil.Error):
            process.kill()
    assert not (tmp_path / "query.parquet").exists()
    killed = parts(tmp_path)
    assert len(killed) >= 2
    assert ended(command(desk, tmp_path)) == 0
    assert "finished already" in capsys.readouterr().out
    assert killed.items() <= parts(tmp_path).items()
    record = json.loads((tmp_path / "cascade.json").read_text())
    assert record["won"]
    assert (record["num_images"], record["fast"]["image_size"], record["fast"]["canvas"]) == (104, 64, "rectangle")
    assert record["num_exact"] <= 84
    assert record["missed"]["high"] <= MAX_MISS
    exact = scores_of(whole, 104)
    chosen = pq.read_table(tmp_path / "query.parquet").to_pylist()
    assert len(chosen) == SIZE
    for row in chosen:
        assert row["score"] == pytest.approx(exact[row["image_id"]], abs=1e-4)
    assert [row["score"] for row in chosen] == sorted((row["score"] for row in chosen), reverse=True)
    among = scores_of(raylearn.open_ledger(record["ledger"]), record["num_exact"])
    np.testing.assert_allclose([exact[name] for name in among], list(among.values()), atol=1e-4)
    assert chosen[-1]["score"] >= sorted(among.values())[-SIZE]


def test_a_cascade_that_cannot_win_says_so_and_is_a_whole_pass(
    desk: Path, whole: ScoredPool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = raylearn.cascade(desk / "pool.txt", desk / "best.pt", 40, tmp_path, progress=True, **SETTINGS)
    assert "a cascade cannot win: a query of 40 and its sample of 24 are too many of 105 images" in (
        capsys.readouterr().out
    )
    assert not (tmp_path / "fast").exists()
    assert found.query.image_ids == raylearn.query(whole, 40).image_ids
    assert "nothing of the exact top is missed" in str(found)
