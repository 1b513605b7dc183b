"""What each actor gets of a cluster's CPUs; and a cluster that is not there."""

import math
import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylearn.errors import ClusterError
from raylearn.scoring.cluster import cpus_for_each, ray_session


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
