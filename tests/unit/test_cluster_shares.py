"""What each actor gets of a cluster's CPUs; and a cluster that is not there."""

import math
import os
import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylearn.cluster import resources
from raylearn.cluster.devices import PRETEND_GPUS, refuse_unusable_gpu
from raylearn.cluster.resources import cpus_for_each, num_local_cpus
from raylearn.cluster.session import ray_session
from raylearn.errors import ClusterError


@pytest.mark.parametrize(
    ("num_actors", "node_cpus", "share"),
    [(1, (2,), 2), (2, (2,), 1), (4, (2,), 0.5), (3, (2,), 0.5), (2, (2, 6), 3), (2, (0, 8), 4), (1, (2, 6), 6)],
)
def test_cpus_are_shared_out_as_nodes_have_them(num_actors, node_cpus, share):
    assert cpus_for_each(num_actors, node_cpus) == share


@given(st.integers(1, 40), st.lists(st.integers(0, 16), min_size=1, max_size=5).filter(any))
def test_all_actors_find_room(num_actors, node_cpus):
    share = cpus_for_each(num_actors, node_cpus)
    assert share > 0
    assert sum(math.floor(cpus / share + 1e-9) for cpus in node_cpus) >= num_actors


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_at_which_nobody_listens_is_told_at_once(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{scheme}127.0.0.1:{server.getsockname()[1]}"
    began = time.monotonic()
    with pytest.raises(ClusterError, match=f"cannot reach the Ray cluster at {address}: "), ray_session(address):
        pass
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("quota", "most"), [("max 100000", math.inf), ("150000 100000", 1), ("50000 100000", 1), ("9900000 100000", 99)]
)
def test_a_container_has_no_more_cpus_than_its_quota(quota: str, most: float, tmp_path, monkeypatch) -> None:
    without = len(os.sched_getaffinity(0))
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(resources, "_CPU_QUOTA", tmp_path / "cpu.max")
    assert num_local_cpus() == min(without, most)


def test_a_gpu_that_torch_cannot_use_is_an_error_unless_it_is_a_pretended_one(monkeypatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refuse_unusable_gpu(0)
    with pytest.raises(ClusterError, match="but torch cannot use it"):
        refuse_unusable_gpu(1)
    monkeypatch.setenv(PRETEND_GPUS, "1")
    refuse_unusable_gpu(1)
