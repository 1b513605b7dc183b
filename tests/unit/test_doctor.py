"""What the doctor makes of what nodes tell."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raylearn.cluster.doctor import Node, examine, judge

HERE = {"python": "3.11.9", "torch": "2.14.1"}
HEALTHY = Node("gpu-1", 16, 1, 1, HERE, 200.0, 8.0, "")


def told(*nodes: Node) -> list[tuple[str, str]]:
    return [(finding.level, finding.text) for finding in judge(HERE, nodes) if finding.level != "ok"]


def test_healthy_nodes_have_a_line_each_and_nothing_else() -> None:
    nodes = [HEALTHY, replace(HEALTHY, host="cpu-1", gpus=0, cuda_gpus=0)]
    assert [finding.text for finding in judge(HERE, nodes)] == [
        "gpu-1: 16 CPUs, 1 GPUs, 200 GB free",
        "cpu-1: 16 CPUs, 200 GB free",
    ]


@pytest.mark.parametrize(
    ("ill", "level", "said"),
    [
        ({"versions": {**HERE, "torch": "2.13.0"}}, "problem", "gpu-1: torch is 2.13.0, here 2.14.1"),
        ({"versions": {"python": "3.11.9"}}, "problem", "gpu-1: torch is missing, here 2.14.1"),
        ({"versions": {**HERE, "openvino": "2025.3"}}, "problem", "gpu-1: openvino is 2025.3, here missing"),
        ({"cuda_gpus": 0}, "problem", "gpu-1: Ray offers 1 GPUs, torch sees 0"),
        ({"storage": "runs is not the driver's"}, "problem", "gpu-1: runs is not the driver's"),
        ({"disk_gb": 1.5}, "warning", "gpu-1: only 1.5 GB are free"),
        ({"shm_gb": 0.064}, "warning", "gpu-1: /dev/shm has 0.06 GB"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_is_wrong_with_one_node_is_said_of_it_alone(ill: dict[str, Any], level: str, said: str) -> None:
    (found,) = told(HEALTHY, replace(HEALTHY, **ill), HEALTHY)
    assert found[0] == level
    assert found[1].startswith(said)


def test_a_cluster_without_cpus_for_work_is_a_problem() -> None:
    assert told(replace(HEALTHY, cpus=0, gpus=0, cuda_gpus=0))[0][0] == "problem"
    assert not told(replace(HEALTHY, cpus=0))


def test_a_storage_that_cannot_be_written_is_told_before_ray_is_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (found,) = examine(None, str(tmp_path / "file"))
    assert found.level == "problem"
    assert str(tmp_path / "file") in found.text


def test_an_address_without_authentication_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert [finding.level for finding in examine("10.0.0.1:6379", str(tmp_path / "file"))] == ["warning", "problem"]
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert [finding.level for finding in examine("10.0.0.1:6379", str(tmp_path / "file"))] == ["problem"]
