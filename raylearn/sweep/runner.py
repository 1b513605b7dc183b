"""Runs an experiment: what the store lacks is made on Ray, and what it has is written down."""

import json
import logging
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

import raylearn
from raylearn.config import Experiment, dump_file, load_experiment
from raylearn.data.dataset import Dataset
from raylearn.data.formats import read_dataset
from raylearn.data.reef import ReefSettings, read_reef
from raylearn.data.shared_images import with_images_in
from raylearn.data.storage import Folder, open_file_system
from raylearn.detectors import check_detector
from raylearn.errors import ClusterError, ConfigError, RaylearnError, RunFailedError, RunFolderError
from raylearn.learning.jobs import WORKSHOP_ENVIRONMENT, Job, WorkResources, Workshop
from raylearn.learning.store import Artifact, Store
from raylearn.scoring.cluster import (
    a_node_has,
    cause_line,
    heavy_cpu_slots,
    num_cluster_cpus,
    num_gpus,
    num_local_cpus,
    ray_session,
    room_for_trials,
    trial_resources,
)
from raylearn.scoring.lock import held
from raylearn.sweep.gallery import write_gallery
from raylearn.sweep.grid import Trial, num_rounds, trials
from raylearn.sweep.plan import SweepPlan, plan_sweep
from raylearn.sweep.results import dataset_facts, write_tables
from raylearn.sweep.run_folder import EXPERIMENT_FILE, GALLERY_FILE, RUN_FILE, on_disk
from raylearn.sweep.tracking import refuse_missing_trackers, tracker_callbacks
from raylearn.sweep.trial import Bench, TrialRound, run_trial

# What decides no result, so that a run may be gone on with under another.
_FREE = ("question", "resources", "tracking", "scoring.batch_size")


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Args:
        trainings_wanted: rounds of all trials.
        trainings_made: how many trainings were done this time.
        trainings_reused: rounds in the tables whose training was shared, or found in the store.
        failed: trial name -> cause.
    """

    trainings_wanted: int
    trainings_made: int
    trainings_reused: int
    failed: Mapping[str, str]


def open_dataset(experiment: Experiment, folder: Path) -> Dataset:
    """Reads the experiment's data set; the embedded one is generated below `folder` first."""
    section = experiment.dataset
    if section.format == "reef":
        return read_reef(ReefSettings(**section.reef.model_dump()), folder)
    assert section.path is not None  # the model sees to it
    return read_dataset(section.path, section.format, **section.reading)


def run_experiment(
    experiment: Experiment,
    run_folder: Folder,
    *,
    store_folder: Folder | None = None,
    address: str | None,
    command: str,
    console: Console,
) -> Outcome:
    """Runs what is not yet in the store, then writes results.parquet, queries.parquet and run.json.

    Args:
        experiment: what to run.
        run_folder: for the tables, on a disk or at an address; the same again goes on.
        store_folder: what was made by other experiments too; by default `store` in the run folder. At an address, the
            images are put into it too, so that no node needs the driver's disk.
        address: of a Ray cluster; None is RAY_ADDRESS, or a private Ray.
        command: as it was typed.
        console: for progress.

    Raises:
        InputError: the experiment cannot be run as it is written, or a folder is not free for it.
        RunFailedError: no trial came to its end.
    """
    started = datetime.now(UTC)
    refuse_missing_trackers(experiment)
    address = address or os.environ.get("RAY_ADDRESS")
    run_folder = Folder.at(run_folder.address)
    store_folder = Folder.at((store_folder or run_folder.below("store")).address)
    if store_folder == run_folder:
        raise RunFolderError(f"--store and --out are both {run_folder}: give the store a folder of its own")
    store = Store.at(store_folder)
    with held(run_folder), held(store_folder), on_disk(run_folder) as files:
        _refuse_another(files, experiment)
        dataset = open_dataset(experiment, files / "data")
        _refuse_another_dataset(files, dataset)
        if store_folder.path is None:
            dataset = with_images_in(dataset, store_folder.below("images"))
        for note in dataset.notes:
            console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
        bench = Bench.of(experiment, dataset)
        if store_folder.path is None and bench.initial_weights:
            bench = replace(bench, initial_weights=bench.initial_weights.put_into(store_folder.below("weights")))
        store.clear_unfinished()
        wanted = trials(experiment)
        rounds = {trial: done for trial in wanted if (done := _replay(trial, bench, store)) is not None}
        missing = [trial for trial in wanted if trial not in rounds]
        console.print(_plan_line(experiment, dataset, wanted, missing), highlight=False, markup=False, soft_wrap=True)
        if missing:
            check_detector(
                experiment.detector.model, experiment.training.arguments, experiment.detector.initial_weights
            )
        # not before: an experiment that is refused must not hold the folder against its corrected form
        for folder in (Folder.at(files), run_folder):  # at an address the files follow at the end, after a kill never
            folder.replace(EXPERIMENT_FILE, dump_file(experiment).encode())
        trained = 0
        failed: dict[str, str] = {}
        if missing:
            with ray_session(address):
                trained, failed = run_trials(missing, bench, store, run_folder, console, address)
        rounds |= {trial: done for trial in missing if (done := _replay(trial, bench, store)) is not None}
        finished = {trial: rounds[trial] for trial in wanted if trial in rounds}
        for trial in wanted:
            if trial not in finished and trial.name not in failed:
                failed[trial.name] = "ended without a result"
        if not finished:
            raise RunFailedError(f"all {len(wanted)} trials failed; {wanted[0].name}: {failed[wanted[0].name]}")
        facts = next(iter(finished.values()))[0].model.facts
        if "tensors_matched" in facts:
            matched, total = facts["tensors_matched"], facts["tensors_total"]
            console.print(f"initial weights: {matched} of the model's {total} tensors were taken from them")
        rows = write_tables(finished, dataset.num_classes, files)
        if missing or not (files / GALLERY_FILE).exists():
            write_gallery(finished, bench, files / GALLERY_FILE)
        if missing or _earlier_fingerprint(files) is None:  # a run that only looked did not make these results
            record = _run_facts(experiment, dataset, rows, failed, started, command, address)
            Folder.at(files).replace(RUN_FILE, json.dumps(record, indent=1).encode())
    return Outcome(
        sum(num_rounds(experiment, trial.arm) for trial in wanted), trained, max(0, len(rows) - trained), failed
    )


def plan_experiment(
    experiment: Experiment, run_folder: Folder, console: Console, store_folder: Folder | None = None
) -> SweepPlan:
    """What `run_experiment` would do, told and not done.

    Raises:
        InputError: the experiment cannot be run as it is written, or the folder holds another.
    """
    with on_disk(run_folder) as files:
        _refuse_another(files, experiment)
    check_detector(experiment.detector.model, experiment.training.arguments, experiment.detector.initial_weights)
    with TemporaryDirectory() as folder:
        dataset = open_dataset(experiment, Path(folder))
    store = Store.at(store_folder or run_folder.below("store"))
    plan = plan_sweep(trials(experiment), Bench.of(experiment, dataset), store)
    lines = [f"{experiment.name}: {plan.num_trials} trials of {plan.num_rounds} rounds in all"]
    lines += [
        f"{kind}: {work.wanted} wanted, {work.shared} certainly shared, {work.made} in the store, "
        f"at most {work.left} left"
        for kind, work in plan.work.items()
    ]
    at_once = max(1, num_local_cpus() // experiment.resources.training_cpus)
    if plan.seconds is None:
        lines.append("time: not known before one of each was made; start the run, stop it with Ctrl+C, and ask again")
    else:
        lines.append(
            f"time: at most {_hours(plan.seconds)} one after the other, by what the finished ones took; without a GPU "
            f"{at_once} run at once here, or {_hours(plan.seconds / at_once)}; with GPUs, one on each"
        )
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return plan


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{max(1, round(seconds / 60))} min"


def _refuse_another(run_folder: Path, experiment: Experiment) -> None:
    """Refuses a folder that holds another experiment; what an earlier run of this one left is gone on with."""
    path = run_folder / EXPERIMENT_FILE
    if not path.exists():
        return
    try:
        there = load_experiment(path)
    except ConfigError as error:
        raise RunFolderError(f"{path} is of no run that can be gone on with: give another folder with --out") from error
    difference = _first_difference(there.model_dump(mode="json"), experiment.model_dump(mode="json"))
    if difference:
        raise RunFolderError(
            f"{run_folder} holds a run with {difference}: give another folder with --out, or the same settings"
        )


def _earlier_fingerprint(run_folder: Path) -> str | None:
    """The data set's in run.json, or None where there is none that can be read: it is written anew."""
    try:
        return str(json.loads((run_folder / RUN_FILE).read_bytes())["dataset"]["fingerprint"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _refuse_another_dataset(run_folder: Path, dataset: Dataset) -> None:
    """Refuses to write over results of other images or labels under the same names."""
    if _earlier_fingerprint(run_folder) not in (None, dataset.fingerprint):
        raise RunFolderError(
            f"{run_folder} holds results of other images or labels than {dataset.name} has now: give another folder "
            "with --out; what is still the same is found again with --store"
        )


def _first_difference(there: Mapping[str, Any], asked: Mapping[str, Any]) -> str | None:
    before, now = _flat(there), _flat(asked)
    for key in sorted(before.keys() | now.keys()):
        if key not in _FREE and key.split(".")[0] not in _FREE and before.get(key) != now.get(key):
            return f"{key}={before.get(key)}, not {now.get(key)}"
    return None


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in section.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat


class _NotMadeYetError(Exception):
    """The store lacks something that a trial needs."""


def _replay(trial: Trial, bench: Bench, store: Store) -> list[TrialRound] | None:
    """The trial's rounds from the store alone, or None where something is still to be made."""

    def find(job: Job) -> Artifact:
        found = store.find(job.kind, job.key)
        if found is None:
            raise _NotMadeYetError
        return found

    try:
        return list(run_trial(trial, bench, find))
    except _NotMadeYetError:
        return None


def _plan_line(experiment: Experiment, dataset: Dataset, wanted: Sequence[Trial], missing: Sequence[Trial]) -> str:
    rounds = sum(num_rounds(experiment, trial.arm) for trial in wanted)
    found = f", {len(wanted) - len(missing)} of them finished already" if len(missing) < len(wanted) else ""
    return (
        f"{experiment.name}: {len(wanted)} trials of {rounds} rounds in all{found}; {dataset.name}: "
        f"{len(dataset.pool)} images in the pool, {len(dataset.test)} held out, {dataset.num_classes} classes"
    )


def _trials_at_once(experiment: Experiment, address: str | None) -> int:
    """Enough for all resources to be asked for: while a trial's training runs, others wait for scores or draw queries.

    A third trial per GPU task brings GPUs from 83 to 93 % busy, a fourth nothing more (benchmarks/scheduler.py). Where
    CPUs train, two, as trials take from the same CPUs. Each is a process of some hundred megabytes. A cluster may still
    have to start the machines that are asked for.
    """
    section = experiment.resources
    gpus = num_gpus()
    per_task = _gpus_per_task(experiment, gpus)
    cpus = num_cluster_cpus() if address else num_local_cpus()
    wanted = 3 * int(gpus / per_task) if per_task else 2 * (cpus // section.training_cpus)
    return min(max(16 if address else 4, wanted), room_for_trials())


def _gpus_per_task(experiment: Experiment, gpus: float) -> float:
    asked = experiment.resources.gpus_per_task
    return min(gpus, 1.0) if asked is None else asked


def work_resources(experiment: Experiment, address: str | None) -> WorkResources:
    """What the experiment asks for, with defaults from what Ray reports."""
    section = experiment.resources
    gpus = num_gpus()
    per_task = _gpus_per_task(experiment, gpus)
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
        raise ClusterError(f"{_too_large(resources)}: lower them")
    return resources


def _too_large(resources: WorkResources) -> str:
    return (
        f"resources.training_cpus {resources.cpus} and gpus_per_task {resources.gpus:g} are asked for, but no machine "
        "has both"
    )


def run_trials(
    missing: Sequence[Trial], bench: Bench, store: Store, run_folder: Folder, console: Console, address: str | None
) -> tuple[int, dict[str, str]]:
    """Runs trials as Tune trials; returns how many trainings were done, and the failed trials with their causes."""
    from ray import tune

    from raylearn.sweep.progress import SweepProgress

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what failed is listed at the end, in a line each
    experiment = bench.experiment
    most = experiment.resources.max_trials_at_once or _trials_at_once(experiment, address)
    num_trials = min(most, len(missing))
    resources = work_resources(experiment, address)
    if not a_node_has(resources.cpus, resources.gpus):
        console.print(f"{_too_large(resources)}: waiting for one", highlight=False, markup=False, soft_wrap=True)
    workshop = open_workshop(store, resources)
    file_system, storage_path = None, str(run_folder.path)
    if run_folder.path is None:
        file_system, storage_path = open_file_system(run_folder.address)
    rounds = sum(num_rounds(experiment, trial.arm) for trial in missing)
    shared = {"by_name": {trial.name: trial for trial in missing}, "bench": bench, "workshop": workshop}
    with SweepProgress(len(missing), rounds, console) as progress:
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
    """What `Workshop.make` gives, or the error of raylearn's that it met."""
    import ray

    try:
        artifact, started = ray.get(workshop.make.remote(job, made_by))
    except ray.exceptions.RayTaskError as error:
        raise _own_cause(error) from error
    return artifact, started


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
        # Told, not raised: Tune would try again what would only fail again.
        tune.report({"trial_name": trial.name, "failed": str(error)})


def _run_facts(
    experiment: Experiment,
    dataset: Dataset,
    rows: Sequence[Mapping[str, Any]],
    failed: Mapping[str, str],
    started: datetime,
    command: str,
    address: str | None,
) -> dict[str, Any]:
    now = datetime.now(UTC)
    different = len({row["checkpoint"] for row in rows})  # made by this command, an earlier one or another run
    return {
        "name": experiment.name,
        "question": experiment.question,
        "command": command,
        "started": started.isoformat(timespec="seconds"),
        "finished": now.isoformat(timespec="seconds"),
        "seconds": round((now - started).total_seconds(), 1),
        "raylearn": raylearn.__version__,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("ray", "torch", "ultralytics", "numpy", "faster-coco-eval")},
        },
        "machine": f"{os.cpu_count()} CPUs, {platform.machine()}, {platform.system()}",
        "address": address or "private Ray on this machine",
        "dataset": dataset_facts(dataset),
        "trainings": {"wanted": len(rows), "different": different, "shared": len(rows) - different},
        "failed": [{"trial": trial, "cause": cause} for trial, cause in failed.items()],
    }


def _own_cause(error: BaseException) -> BaseException:
    """The error of raylearn's that a chain of Ray's wraps, or the outermost."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, RaylearnError) and not hasattr(inner, "cause"):
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    return error
