"""Two nodes with a GPU each, as Ray sees it: torch on this machine has none, and the work runs on CPUs all the same."""

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from raylearn.config import Experiment
from raylearn.data.storage import Folder
from raylearn.sweep.grid import num_rounds, trials
from raylearn.sweep.runner import run_experiment
from tests.small_sweep import CONTENT


@pytest.mark.timeout(280)
def test_two_nodes_with_one_gpu_each_run_to_the_end(tmp_path: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 1})
    try:
        cluster.add_node(num_cpus=2, num_gpus=1)
        experiment = Experiment.model_validate(
            {**CONTENT, "arms": {"uncertainty": ["entropy"], "query_size": [4], "controls": ["random", "box_count"]}}
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
