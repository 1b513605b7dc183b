"""Clusters of two nodes, on this machine. Of GPUs, where Ray sees some, torch finds none: the work runs on CPUs."""

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from raylearn.cluster.devices import PRETEND_GPUS
from raylearn.config import Experiment
from raylearn.data.storage import Folder
from raylearn.sweep.grid import num_rounds, trials
from raylearn.sweep.runner import run_experiment
from tests.small_sweep import CONTENT


@pytest.mark.timeout(280)
@pytest.mark.parametrize(
    "node",
    [
        pytest.param({"num_cpus": 2, "num_gpus": 1}, id="a GPU each"),
        pytest.param({"num_cpus": 1}, id="a CPU each", marks=pytest.mark.long),
    ],
)
def test_two_nodes_run_more_trials_than_they_have_room_for(
    node: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv(PRETEND_GPUS, "1")
    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        cluster.add_node(**node)
        experiment = Experiment.model_validate(
            {**CONTENT, "arms": {"uncertainty": ["entropy"], "query_size": [8], "controls": ["random", "box_count"]}}
        )
        outcome = run_experiment(
            experiment,
            Folder.at(tmp_path),
            address=cluster.address,
            command="test",
            console=Console(file=io.StringIO()),
        )
        assert not outcome.failed
    finally:
        ray.shutdown()
        cluster.shutdown()
    rows = pq.read_table(tmp_path / "results.parquet").num_rows
    assert rows == sum(num_rounds(experiment, trial.arm) for trial in trials(experiment))
