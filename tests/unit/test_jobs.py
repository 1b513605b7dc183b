"""How heavy work is counted."""

import asyncio

import pytest

from raylearn.errors import ClusterError
from raylearn.work.resources import WorkResources
from raylearn.work.workshop import _Slots


def test_slots_are_never_overdrawn_and_a_large_request_is_not_overtaken() -> None:
    slots = _Slots(3)
    in_use, most, order = 0, 0, []

    async def work(name: str, count: int) -> None:
        nonlocal in_use, most
        async with slots.hold(count):
            order.append(name)
            in_use += count
            most = max(most, in_use)
            await asyncio.sleep(0.002)
            in_use -= count

    async def all_work() -> None:
        async with asyncio.TaskGroup() as group:
            for name, count in (("a", 2), ("large", 3), *((f"small{n}", 1) for n in range(9))):
                group.create_task(work(name, count))

    asyncio.run(all_work())
    assert most == 3
    assert order[:2] == ["a", "large"]
    assert len(order) == 11


@pytest.mark.parametrize("asked", [{"cpus": 3, "scoring_actors": 1}, {"cpus": 1, "scoring_actors": 3}])
def test_more_cpus_than_can_ever_be_had_are_refused(asked: dict[str, int]) -> None:
    with pytest.raises(ClusterError, match="only 2 CPUs"):
        WorkResources(**asked, gpus=0, cpu_slots=2)
