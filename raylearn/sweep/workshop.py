"""The workshop on Ray: what its work may take of the cluster, and how it is asked."""

from typing import Any

from raylearn.config import Experiment
from raylearn.errors import ClusterError, RaylearnError
from raylearn.learning.jobs import WORKSHOP_ENVIRONMENT, Job, WorkResources, Workshop
from raylearn.learning.store import Artifact, Store
from raylearn.scoring.cluster import a_node_has, heavy_cpu_slots, num_gpus


def work_resources(experiment: Experiment, address: str | None) -> WorkResources:
    """What the experiment asks for, with defaults from what Ray reports.

    Raises:
        ClusterError: this machine can never give it; a cluster may still get a machine that can.
    """
    section = experiment.resources
    gpus = num_gpus()
    per_task = gpus_per_task(experiment, gpus)
    if per_task > gpus and address is None:
        raise ClusterError(
            f"resources.gpus_per_task {per_task:g} is asked for, but this machine has {gpus:g}: lower it"
        )
    resources = WorkResources(
        cpus=section.training_cpus,
        gpus=per_task,
        scoring_actors=section.scoring_actors or (max(1, int(gpus)) if per_task else 1),
        cpu_slots=None if per_task else heavy_cpu_slots(),
    )
    if address is None and not a_node_has(resources.cpus, resources.gpus):
        raise ClusterError(f"{no_machine_has(resources)}: lower them")
    return resources


def gpus_per_task(experiment: Experiment, gpus: float) -> float:
    """GPUs of one training or actor, which may be a part of one; `gpus` are what Ray reports."""
    asked = experiment.resources.gpus_per_task
    return min(gpus, 1.0) if asked is None else asked


def no_machine_has(resources: WorkResources) -> str:
    """The beginning of a line that says what cannot be had."""
    return (
        f"resources.training_cpus {resources.cpus} and gpus_per_task {resources.gpus:g} are asked for, but no machine "
        "has both"
    )


def open_workshop(store: Store, resources: WorkResources) -> Any:
    """The workshop as an actor.

    It needs no memory but the store's: one that dies with its process or node begins anew, and is asked again.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    options = {"num_cpus": 0, "max_concurrency": 10_000, "max_restarts": -1, "max_task_retries": -1}
    environment = {"env_vars": WORKSHOP_ENVIRONMENT}
    # beside the driver: what it has started ends with it, and it would keep any other machine from being given back
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    made = ray.remote(Workshop).options(scheduling_strategy=here, runtime_env=environment, **options)
    return made.remote(store, resources)


def ask_workshop(workshop: Any, job: Job, made_by: str) -> tuple[Artifact, bool]:
    """What `Workshop.make` gives.

    Raises:
        RaylearnError: what failed by itself, and would fail again.
        RayTaskError: what Ray met, such as a machine that went.
    """
    import ray

    try:
        artifact, started = ray.get(workshop.make.remote(job, made_by))
    except ray.exceptions.RayTaskError as error:
        own = _own_cause(error)
        if own is None:
            raise
        raise own from error
    return artifact, started


def _own_cause(error: BaseException) -> RaylearnError | None:
    """The error of raylearn's that a chain of Ray's wraps."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, RaylearnError) and not hasattr(inner, "cause"):
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    return None
