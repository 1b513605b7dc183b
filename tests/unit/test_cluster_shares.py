"""What each actor gets of a cluster's CPUs."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylearn.scoring.cluster import cpus_for_each


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
