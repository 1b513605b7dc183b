"""One Ray that stays up between the commands of several files, as a cluster does."""

from collections.abc import Iterator

import pytest

from raylearn.cluster.resources import num_local_cpus


@pytest.fixture(scope="session")
def cluster_address() -> Iterator[str]:
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": num_local_cpus()})
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def standing_ray(cluster_address: str) -> Iterator[None]:
    """For the commands of a file: they join a Ray instead of starting one, which takes seconds each time."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_ADDRESS", cluster_address)
        yield
