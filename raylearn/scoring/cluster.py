"""Ray as raylearn uses it: a private one on this machine, or the cluster that was named."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from raylearn.errors import ClusterError

TRIAL_RESOURCE = "raylearn_trial"
"""A resource that the head node may offer (1 per trial, say 100000), so that waiting trials cost no CPU."""


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Starts a private Ray, or joins the cluster at `address`, and leaves it at the end.

    The private one offers a CPU more than the machine has: heavy work is kept to the real ones, and decoding always
    finds the spare one, so that a scoring pass cannot wait for a CPU that its own actors hold.

    Raises:
        ClusterError: no cluster answers at the address.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the coming default; unset, Ray warns of it
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # otherwise Tune prints a banner even when told to be silent
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # otherwise Tune answers Ctrl+C as if the trials had failed
    import ray

    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            ray.init(
                address="local",
                num_cpus=num_local_cpus() + 1,
                resources={TRIAL_RESOURCE: 100_000},
                include_dashboard=False,
                **quiet,
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = f"the Ray cluster at {address}" if address else "a private Ray on this machine"
        raise ClusterError(f"cannot reach {where}: {(str(error).splitlines() or [type(error).__name__])[0]}") from error
    try:
        yield
    finally:
        ray.shutdown()


def num_local_cpus() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0))


def num_gpus() -> float:
    """GPUs of the cluster as Ray reports them."""
    import ray

    return float(ray.cluster_resources().get("GPU", 0))


def heavy_cpu_slots(num_trials: int) -> int:
    """How many CPUs heavy work may hold at once: all but the one that decoding needs, less what trials hold.

    Raises:
        ClusterError: there is no CPU beside that one.
    """
    import ray

    resources = ray.cluster_resources()
    free = resources.get("CPU", 0) - 1
    if TRIAL_RESOURCE not in resources:
        free -= num_trials * TRIAL_CPUS
    if free < 1:
        raise ClusterError(
            f"Ray has {resources.get('CPU', 0):g} CPUs, and more are needed beside the one for decoding: add some"
        )
    return int(free)


TRIAL_CPUS = 0.001
"""What a trial asks for where the cluster does not offer TRIAL_RESOURCE; Tune refuses a trial without resources."""


def trial_resources() -> dict[str, float]:
    """What one Tune trial asks for."""
    import ray

    return {"cpu": 0, TRIAL_RESOURCE: 1} if TRIAL_RESOURCE in ray.cluster_resources() else {"cpu": TRIAL_CPUS}


def torch_device(num_gpus: float) -> str:
    """The device of a Ray task that asked for this many GPUs: the one Ray gave it, else the CPU."""
    import torch

    return "cuda:0" if num_gpus and torch.cuda.is_available() else "cpu"
