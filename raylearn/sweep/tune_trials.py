"""The trials of a sweep as trials of Ray Tune: light drivers, whose work is asked of the workshop."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from raylearn.cluster.resources import (
    a_node_has,
    num_cluster_cpus,
    num_gpus,
    num_local_cpus,
    room_for_trials,
    trial_resources,
)
from raylearn.cluster.session import cause_line
from raylearn.config import Experiment
from raylearn.data.storage import Folder, open_file_system
from raylearn.errors import RaylearnError
from raylearn.progress import doing
from raylearn.sweep.grid import Trial, num_rounds
from raylearn.sweep.plan import plan_sweep
from raylearn.sweep.tracking import tracker_callbacks
from raylearn.sweep.trial import Bench, run_trial
from raylearn.work.jobs import Job
from raylearn.work.resources import gpus_per_task, no_machine_has, work_resources
from raylearn.work.store import Artifact, Store
from raylearn.work.watching import watched
from raylearn.work.workshop import ask_workshop, open_workshop


def run_trials(
    missing: Sequence[Trial], bench: Bench, store: Store, run_folder: Folder, console: Console, address: str | None
) -> tuple[int, dict[str, str]]:
    """Runs trials as Tune trials; returns how many trainings were done, and the failed trials with their causes."""
    with doing("loading Ray Tune"):
        from ray import tune

    from raylearn.sweep.progress import SweepProgress

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what failed is listed at the end, in a line each
    experiment = bench.experiment
    most = experiment.resources.max_trials_at_once or _trials_at_once(experiment, address)
    num_trials = min(most, len(missing))
    resources = work_resources(experiment, address)
    if not a_node_has(resources.cpus, resources.gpus):
        console.print(f"{no_machine_has(resources)}: waiting for one", highlight=False, markup=False, soft_wrap=True)
    workshop = open_workshop(store, resources)
    file_system, storage_path = None, str(run_folder.path)
    if run_folder.path is None:
        file_system, storage_path = open_file_system(run_folder.address)
    rounds = sum(num_rounds(experiment, trial.arm) for trial in missing)
    shared = {"by_name": {trial.name: trial for trial in missing}, "bench": bench, "workshop": workshop}
    num_trainings = plan_sweep(missing, bench, store).work["trainings"].left
    progress = SweepProgress(len(missing), rounds, num_trainings, console)
    with watched(workshop, progress.describe):
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_tune_trial, **shared), trial_resources()),
            param_space={"trial": tune.grid_search(list(shared["by_name"]))},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=num_trials,
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,  # what TensorBoard names a curve
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=storage_path,
                storage_filesystem=file_system,
                verbose=0,
                callbacks=[progress, *tracker_callbacks(experiment, run_folder.path or Path.cwd())],
                # for machines that go; what fails by itself is told, not raised
                failure_config=tune.FailureConfig(max_failures=8),
            ),
        )
        try:
            grid = tuner.fit()
        except Exception as error:  # such as a tracker that does not answer
            raise RaylearnError(
                f"Ray Tune stopped: {cause_line(error)}; the same command goes on from what is finished"
            ) from error
        trained = progress.trained
        failed = dict(progress.failed)
    for result in grid:
        if result.error and result.config:
            failed[result.config["trial"]] = cause_line(result.error)
    return trained, failed


def _trials_at_once(experiment: Experiment, address: str | None) -> int:
    """Enough for all resources to be asked for: while a trial's training runs, others wait for scores or draw queries.

    A third trial per GPU task brings GPUs from 83 to 93 % busy, a fourth nothing more (benchmarks/scheduler.py). Where
    CPUs train, two, as trials take from the same CPUs. Each is a process of some hundred megabytes. A cluster may still
    have to start the machines that are asked for.
    """
    section = experiment.resources
    gpus = num_gpus()
    per_task = gpus_per_task(experiment, gpus)
    cpus = num_cluster_cpus() if address else num_local_cpus()
    wanted = 3 * int(gpus / per_task) if per_task else 2 * (cpus // section.training_cpus)
    return min(max(16 if address else 4, wanted), room_for_trials())


def _trial_name(trial: Any) -> str:
    return str(trial.config["trial"])


def _tune_trial(config: Mapping[str, Any], by_name: Mapping[str, Trial], bench: Bench, workshop: Any) -> None:
    """A light driver: it holds no CPU and no GPU, and waits for what the workshop makes."""
    from ray import tune

    trial = by_name[config["trial"]]
    trained = 0

    def make(job: Job) -> Artifact:
        nonlocal trained
        artifact, started = ask_workshop(workshop, job, trial.name)
        trained += started and job.kind == "training"
        return artifact

    try:
        for finished in run_trial(trial, bench, make):
            tune.report(
                {
                    "trial_name": trial.name,
                    "round": finished.index,
                    "num_rounds": num_rounds(bench.experiment, trial.arm),
                    "num_images": len(finished.pool.labelled),
                    "num_boxes": finished.pool.num_boxes,
                    "map50": finished.evaluation.facts["map50"],
                    "map50_95": finished.evaluation.facts["map50_95"],
                    "trained": trained,
                    "device": finished.model.facts["device"],
                }
            )
            trained = 0
    except RaylearnError as error:
        # Told, not raised: Tune would at once try again what would only fail again, or, a disk's, cost work each time.
        tune.report({"trial_name": trial.name, "failed": str(error)})
