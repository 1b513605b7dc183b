"""The cluster files, offline: what Ray's validator looks at, and what it misses. Each rule is seen to fail once."""

import copy
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from raylearn.cluster.resources import TRIAL_RESOURCE

ROOT = Path(__file__).parents[2]
AWS, ON_PREMISE, RAYJOB = (
    yaml.safe_load((ROOT / name).read_text())
    for name in ("cluster.yaml", "cluster/on-premise.yaml", "cluster/rayjob.yaml")
)
RAY = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]  # type: ignore[index]


def problems_of_any(config: dict[str, Any]) -> Iterator[str]:
    """Of a file for `ray up`."""
    head, worker = " ".join(config["head_start_ray_commands"]), " ".join(config["worker_start_ray_commands"])
    if "--dashboard-host=127.0.0.1" not in head:
        yield "the dashboard is open"
    if not all("RAY_AUTH_MODE=token" in command for command in (head, worker)):
        yield "a node starts without token authentication"
    if not any(target.endswith("/.ray/auth_token") for target in config["file_mounts"]):
        yield "the token does not reach the nodes"
    setup = " ".join(config["setup_commands"])
    if "chmod 600 ~/.ray/auth_token" not in setup:
        yield "others on the node can read the token"
    if "-c ~/raylearn/constraints.txt" not in setup:
        yield "versions are not pinned"
    if re.search(r"https?://\S+\.whl", setup):
        yield "a wheel of unknown version is installed"
    if "token" in str({key: value for key, value in config.items() if key in ("provider", "auth")}):
        yield "a secret stands in the file"
    head_type = config.get("available_node_types", {}).get(config.get("head_node_type"), {}).get("resources", {})
    if head_type.get("CPU") != 0 and "--num-cpus=0" not in head:
        yield "work runs on the head"
    if TRIAL_RESOURCE not in head_type and TRIAL_RESOURCE not in head:
        yield "waiting trials take CPUs"


def problems_of_aws(config: dict[str, Any]) -> Iterator[str]:
    """Beside those of any file."""
    provider, types = config["provider"], config["available_node_types"]
    if provider.get("cache_stopped_nodes") is not False:
        yield "stopped machines are kept"
    group = provider.get("security_group", {})
    if not group.get("GroupName"):
        yield "no security group of its own"
    for rule in group.get("IpPermissions", []):
        if (rule.get("FromPort"), rule.get("ToPort")) != (22, 22):
            yield "another port than ssh is open"
        else:
            yield "a rule for ssh pretends to restrict what Ray opens to every address"
    if "boto3" not in " ".join(config.get("head_setup_commands", [])):
        yield "the head cannot start workers"
    for name, kind in types.items():
        node = kind["node_config"]
        if "ubuntu-22.04" not in node.get("ImageId", ""):
            yield f"{name} has the image that is Ray's default, which torch cannot run on"
        if "InstanceMarketOptions" in node:
            yield f"{name} is a spot machine without anybody having chosen it"
        if node.get("MetadataOptions", {}).get("HttpTokens") != "required":
            yield f"{name} gives its role's keys to whoever can make it fetch an address"
        if not all(device["Ebs"].get("Encrypted") for device in node["BlockDeviceMappings"]):
            yield f"{name} has a disk that is not encrypted"
        if name != config["head_node_type"] and kind.get("min_workers") != 0:
            yield f"{name} costs while nothing runs"


def problems_of_rayjob(config: dict[str, Any]) -> Iterator[str]:
    """Of a RayJob."""
    spec = config["spec"]
    cluster = spec["rayClusterSpec"]
    if not spec.get("shutdownAfterJobFinishes") or not spec.get("ttlSecondsAfterFinished"):
        yield "the cluster stays when the job is done"
    if cluster.get("authOptions") != {"mode": "token"}:
        yield "no token authentication"
    if cluster.get("rayVersion") != RAY:
        yield f"rayVersion is not {RAY}"
    head = cluster["headGroupSpec"]
    if head["rayStartParams"].get("num-cpus") != "0":
        yield "work runs on the head"
    if head["rayStartParams"].get("dashboard-host", "0.0.0.0") != "0.0.0.0":
        yield "the pod that submits the job cannot reach the head"
    if "run /shared/" not in spec["entrypoint"]:
        yield "the experiment file is not in the image"
    if TRIAL_RESOURCE not in head["rayStartParams"].get("resources", ""):
        yield "waiting trials take CPUs"
    for group in (head, *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        if pod.get("hostNetwork"):
            yield "a pod is on the host's network"
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in pod["containers"]:
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            if volumes.get(mounts.get("/dev/shm"), {}).get("emptyDir", {}).get("medium") != "Memory":
                yield "Ray's objects go to disk"
            if "persistentVolumeClaim" not in volumes.get(mounts.get("/shared"), {}):
                yield "the run folder is not shared"
            if container["image"].endswith(":latest") or ":" not in container["image"]:
                yield "the image is not pinned"
            if container["resources"].get("requests") != container["resources"].get("limits"):
                yield "a pod can be evicted for what others need"
    for group in cluster["workerGroupSpecs"]:
        if "nvidia.com/gpu" not in group["template"]["spec"]["containers"][0]["resources"]["limits"]:
            yield "workers have no GPU"
        if group.get("minReplicas") != 0:
            yield "workers cost while nothing runs"


@pytest.mark.parametrize("config", [AWS, ON_PREMISE], ids=["aws", "on premise"])
def test_rays_own_validator_takes_the_file(config: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(config)))


def test_the_files_as_they_are_have_no_problem() -> None:
    assert [*problems_of_any(AWS), *problems_of_aws(AWS)] == []
    assert list(problems_of_any(ON_PREMISE)) == []
    assert list(problems_of_rayjob(RAYJOB)) == []


def _set(*path: Any) -> Callable[[Any], None]:
    """Sets the value at a path to its last element."""

    def change(config: Any) -> None:
        *parents, last, value = path
        for key in parents:
            config = config[key]
        config[last] = value

    return change


NODE = ("available_node_types", "gpu")
BROKEN_AWS = {
    "the dashboard is open": _set("head_start_ray_commands", ["RAY_AUTH_MODE=token ray start --head"]),
    "a node starts without token authentication": _set("worker_start_ray_commands", ["ray start"]),
    "the token does not reach the nodes": _set("file_mounts", {}),
    "others on the node can read the token": _set("setup_commands", 0, "true"),
    "versions are not pinned": _set("setup_commands", ["pip install raylearn"]),
    "a wheel of unknown version is installed": _set("setup_commands", 0, "pip install https://example.com/ray.whl"),
    "work runs on the head": _set("available_node_types", "head", "resources", {TRIAL_RESOURCE: 1}),
    "waiting trials take CPUs": _set("available_node_types", "head", "resources", {"CPU": 0}),
    "stopped machines are kept": _set("provider", "cache_stopped_nodes", True),
    "no security group of its own": _set("provider", "security_group", {}),
    "another port than ssh is open": _set(
        "provider", "security_group", "IpPermissions", [{"IpProtocol": "tcp", "FromPort": 8265, "ToPort": 8265}]
    ),
    "a rule for ssh pretends to restrict what Ray opens to every address": _set(
        "provider", "security_group", "IpPermissions", [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}]
    ),
    "the head cannot start workers": _set("head_setup_commands", []),
    "gpu has the image that is Ray's default, which torch cannot run on": _set(*NODE, "node_config", "ImageId", ""),
    "gpu is a spot machine without anybody having chosen it": _set(
        *NODE, "node_config", "InstanceMarketOptions", {"MarketType": "spot"}
    ),
    "gpu gives its role's keys to whoever can make it fetch an address": _set(
        *NODE, "node_config", "MetadataOptions", {}
    ),
    "gpu has a disk that is not encrypted": _set(*NODE, "node_config", "BlockDeviceMappings", 0, "Ebs", {}),
    "gpu costs while nothing runs": _set(*NODE, "min_workers", 1),
}
CLUSTER = ("spec", "rayClusterSpec")
POD = (*CLUSTER, "workerGroupSpecs", 0, "template", "spec")
BROKEN_RAYJOB = {
    "the pod that submits the job cannot reach the head": _set(
        *CLUSTER, "headGroupSpec", "rayStartParams", "dashboard-host", "127.0.0.1"
    ),
    "the experiment file is not in the image": _set("spec", "entrypoint", "raylearn run experiments/first.yaml"),
    "the cluster stays when the job is done": _set("spec", "shutdownAfterJobFinishes", False),
    "no token authentication": _set(*CLUSTER, "authOptions", {}),
    f"rayVersion is not {RAY}": _set(*CLUSTER, "rayVersion", "2.9.0"),
    "work runs on the head": _set(*CLUSTER, "headGroupSpec", "rayStartParams", "num-cpus", "8"),
    "waiting trials take CPUs": _set(*CLUSTER, "headGroupSpec", "rayStartParams", "resources", "{}"),
    "a pod is on the host's network": _set(*POD, "hostNetwork", True),
    "Ray's objects go to disk": _set(*POD, "volumes", 1, "emptyDir", {}),
    "the run folder is not shared": _set(*POD, "volumes", 0, {"name": "shared", "emptyDir": {}}),
    "the image is not pinned": _set(*POD, "containers", 0, "image", "raylearn:latest"),
    "a pod can be evicted for what others need": _set(*POD, "containers", 0, "resources", "requests", {"cpu": "1"}),
    "workers have no GPU": _set(*POD, "containers", 0, "resources", "limits", {"cpu": "8"}),
    "workers cost while nothing runs": _set(*CLUSTER, "workerGroupSpecs", 0, "minReplicas", 1),
}


@pytest.mark.parametrize("problem", BROKEN_AWS)
def test_each_rule_for_aws_is_seen_to_fail(problem: str) -> None:
    config = copy.deepcopy(AWS)
    BROKEN_AWS[problem](config)
    assert problem in [*problems_of_any(config), *problems_of_aws(config)]


@pytest.mark.parametrize("problem", BROKEN_RAYJOB)
def test_each_rule_for_a_rayjob_is_seen_to_fail(problem: str) -> None:
    config = yaml.safe_load((ROOT / "cluster/rayjob.yaml").read_text())
    config = yaml.safe_load(yaml.dump(config, Dumper=_NoAliases))  # parts that stand twice are two
    BROKEN_RAYJOB[problem](config)
    assert problem in list(problems_of_rayjob(config))


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  PyYAML's signature
        return True


def test_the_jobs_command_is_one_that_can_be_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from raylearn import cli

    program, *words = shlex.split(RAYJOB["spec"]["entrypoint"])
    assert program == "raylearn"
    monkeypatch.chdir(ROOT)
    words = [word.replace("/shared/", "experiments/") for word in words if word not in ("--address", "auto")]
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "dataset.reef.num_pool=160", "dataset.reef.num_test=2", "--plan"])
    assert ended.value.code in (None, 0)
    assert "trials of" in capsys.readouterr().out
