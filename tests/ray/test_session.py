"""A private Ray leaves its process as it found it, so that it can join a cluster of any kind afterwards."""

import os
from collections.abc import Iterator

import pytest

from raylearn.cluster.session import ray_session


@pytest.mark.timeout(180)
def test_cluster_without_tokens_can_be_joined_after_a_private_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        with ray_session(None):
            assert os.environ["RAY_AUTH_MODE"] == "token"
        assert "RAY_AUTH_MODE" not in os.environ
        with ray_session(cluster.address):
            # each result is sent by the worker, which shows no token, while the task is still running
            stream = ray.remote(_two).options(num_returns="streaming").remote()
            assert [ray.get(result, timeout=60) for result in stream] == [1, 2]
    finally:
        cluster.shutdown()


def _two() -> Iterator[int]:
    yield 1
    yield 2
