"""What one piece of work may take of the cluster."""

from dataclasses import dataclass

from raylearn.cluster.resources import a_node_has, heavy_cpu_slots, num_gpus
from raylearn.config import Experiment
from raylearn.errors import ClusterError


@dataclass(frozen=True)
class WorkResources:
    """What one piece of work asks Ray for; for how fast a result comes, and no part of its key.

    Other devices or numbers of threads add floats in another order, so a result can differ in its last bits.

    Args:
        cpus: of a training or an evaluation: torch threads on a CPU, loader workers of a training beside a GPU.
        gpus: of a training, an evaluation or one scoring actor; 0 on a cluster without GPUs.
        scoring_actors: detector actors of one scoring pass.
        cpu_slots: CPUs that heavy work may hold at once; None where GPUs bound it and Ray's queue is enough.
    """

    cpus: int
    gpus: float
    scoring_actors: int
    cpu_slots: int | None

    def __post_init__(self) -> None:
        if self.cpu_slots is not None and max(self.cpus, self.scoring_actors) > self.cpu_slots:
            raise ClusterError(
                f"resources.training_cpus {self.cpus} and scoring_actors {self.scoring_actors} are asked for, but only "
                f"{self.cpu_slots} CPUs can be used at once: lower them"
            )


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
