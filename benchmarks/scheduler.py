"""How busy a sweep keeps what it waits for: 16 trials on 2 GPUs that only Ray believes in, with stand-in trainings.

A stand-in training holds a GPU and sleeps, as do its measurement and its scoring pass, which holds no GPU; all else is
the real sweep: Tune, the workshop, the store, queries. Busy is the time that trainings and measurements held GPUs, over
all GPUs from the first start to the last end. Real GPUs of one machine take a new process for each piece of work, whose
start, some seconds, is not in it.
"""

import argparse
import io
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import show
from raylearn.cluster.devices import PRETEND_GPUS
from raylearn.cluster.resources import TRIAL_RESOURCE
from raylearn.config import Experiment
from raylearn.data.pool import Pool
from raylearn.data.reef import ReefSettings, read_reef
from raylearn.data.storage import Folder
from raylearn.detectors.base import Detections
from raylearn.scoring import ledger
from raylearn.sweep.grid import trials
from raylearn.sweep.trial import Bench
from raylearn.work.resources import WorkResources
from raylearn.work.store import Artifact, DiskStore, artifact_key

MEASURED = {"map50": 0.5, "map50_95": 0.3, "class_ap": [], "device": "stand-in"}


@dataclass(frozen=True)
class StandIn:
    """Work that takes its time and does nothing else."""

    kind: str
    key: str
    seconds: float
    image_ids: tuple[str, ...] = ()
    num_images: int = 0

    def run(self, folder: Folder, resources: WorkResources) -> Mapping[str, Any]:  # noqa: ARG002  a Job's signature
        began = time.time()
        time.sleep(self.seconds)
        if self.kind == "ledger":
            self._write(folder)
        return {**MEASURED, "num_images": self.num_images, "began": began, "ended": time.time()}

    def _write(self, folder: Folder) -> None:
        rng, count = np.random.default_rng(int(self.key[:8], 16)), len(self.image_ids)
        scores = [rng.random((rng.integers(1, 6), 6), dtype=np.float32) for _ in range(count)]
        found = [Detections(np.tile(np.float32([0, 0, 1, 1]), (len(rows), 1)), rows) for rows in scores]
        columns: dict[str, Any] = {"image_id": list(self.image_ids), "uri": list(self.image_ids)}
        columns |= {"width": [1] * count, "height": [1] * count}
        columns |= {"status": ["ok"] * count, "error_kind": [""] * count, "error": [""] * count}
        ledger.add_part(folder, 0, self.key, ledger.rows(columns, found, 6))
        ledger.write_facts(folder, {"num_parts": 1, "num_images": count})


@dataclass(frozen=True)
class StandInBench(Bench):
    """A bench whose work only takes time."""

    seconds: float = 2.0

    def training(self, pool: Pool, seed: int) -> Any:
        key = artifact_key(seed=seed, labelled=sorted(pool.labelled))
        return StandIn("training", key, self.seconds, num_images=len(pool.labelled))

    def evaluation(self, model: Artifact) -> Any:
        return StandIn("evaluation", model.key, self.seconds / 10)

    def scoring(self, model: Artifact, pool: Pool, seed: int, round_index: int) -> Any:  # noqa: ARG002
        ids = tuple(sorted(image.image_id for image in pool.unlabelled_images))
        return StandIn("ledger", model.key, self.seconds / 5, ids)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one stand-in training")
    parser.add_argument("--json", type=Path, default=Path("runs/bench/scheduler.json"))
    options = parser.parse_args()
    content = {
        "name": "scheduler",
        "dataset": {"format": "reef"},
        "initial_size": 8,
        "budget": 16,
        "arms": {"uncertainty": ["entropy", "margin", "least_confidence"], "query_size": [4], "controls": ["random"]},
        "seeds": [0, 1, 2, 3],
    }
    experiment = Experiment.model_validate(content)
    with tempfile.TemporaryDirectory(prefix="raylearn-bench-") as name:
        folder = Path(name)
        dataset = read_reef(ReefSettings(num_pool=60, num_test=4), folder / "data")
        bench = StandInBench(experiment, dataset, None, options.seconds)
        wanted = trials(experiment)
        seconds, failed = _run(wanted, bench, folder, options.gpus)
        store = DiskStore(folder / "store")
        held = [_span(path) for kind in ("training", "evaluation") for path in sorted((store.root / kind).iterdir())]
        num_trainings = len(list((store.root / "training").iterdir()))
    assert not failed, failed
    span = max(end for _, end in held) - min(start for start, _ in held)
    row = {
        "trials": len(wanted),
        "GPUs": options.gpus,
        "trainings": num_trainings,
        "seconds of one": options.seconds,
        "seconds in all": seconds,
        "busy %": 100 * sum(end - start for start, end in held) / (span * options.gpus),
    }
    show("how busy a sweep keeps its GPUs", [row], options.json)


def _run(wanted: list[Any], bench: Bench, folder: Path, gpus: int) -> tuple[float, Mapping[str, str]]:
    import ray
    from rich.console import Console

    from raylearn.sweep.tune_trials import run_trials

    os.environ[PRETEND_GPUS] = "1"
    ray.init(
        address="local",
        num_gpus=gpus,
        resources={TRIAL_RESOURCE: 100_000},
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.getcwd()}},
    )
    start = time.perf_counter()
    try:
        _, failed = run_trials(
            wanted, bench, DiskStore(folder / "store"), Folder.at(folder), Console(file=io.StringIO()), None
        )
    finally:
        ray.shutdown()
    return time.perf_counter() - start, failed


def _span(folder: Path) -> tuple[float, float]:
    artifact = DiskStore(folder.parent.parent).find(folder.parent.name, folder.name)
    assert artifact is not None
    return artifact.facts["began"], artifact.facts["ended"]


if __name__ == "__main__":
    main()
