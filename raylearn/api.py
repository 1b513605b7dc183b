"""What a notebook or another program calls; the commands of `raylearn` are calls into it.

Paths are `str` or `Path`, or addresses such as s3://bucket/prefix. What is wrong is raised as a `RaylearnError`.
Nothing is printed unless `progress=True`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, Unpack

from raylearn.api_results import CascadeResult, Comparison, ExportedSet, QueryResult, Run, ScoredPool
from raylearn.config import Experiment
from raylearn.config_files import from_content, load_experiment
from raylearn.data.class_counts import checked_counts, read_class_counts
from raylearn.data.dataset import Dataset
from raylearn.data.formats import read_dataset
from raylearn.data.groups import group_of
from raylearn.data.storage import Folder, redacted
from raylearn.errors import ConfigError, DatasetError, QueryError, RunFolderError, nearest
from raylearn.handoff.dataset_forms import Format
from raylearn.handoff.query_files import read_image_ids
from raylearn.learning.ledger_query import all_choices, compare_strategies, query_ledger, query_ledger_for_boxes
from raylearn.learning.near_duplicates import NearDuplicates
from raylearn.measures.near_duplicates import NEAR
from raylearn.progress import doing
from raylearn.signs import shown
from raylearn.strategies import DEFAULT, Strategy, asking, make_strategy
from raylearn.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from raylearn.reporting.power import SeedPlan
    from raylearn.sweep.plan import SweepPlan

ExperimentLike: TypeAlias = str | Path | Experiment | Mapping[str, Any]
"""An experiment file, an Experiment, or what such a file would hold."""
LedgerLike: TypeAlias = str | Path | ScoredPool
ClassCounts: TypeAlias = Mapping[str, int] | str | Path
"""Boxes labelled so far, by class name; or a data set or JSON file that says so."""
Excluded: TypeAlias = str | Path | Iterable[str | Path]
"""A file of image ids; or many: each `str` an id, each `Path` a file of ids."""


class ScoreSettings(TypedDict, total=False):
    """Settings of `score`; what is not given is as `raylearn score --help` says."""

    limit: int | None
    shuffle_seed: int | None
    root: str | Path | None
    image_size: int | None
    confidence: float
    iou: float
    max_detections: int
    canvas: Literal["square", "rectangle"]
    decode: Literal["full", "reduced", "gpu"]
    embeddings: bool
    backend: Literal["auto", "torch", "openvino"]
    precision: Literal["auto", "fp32", "fp16", "bf16"]
    batch_size: int | None
    num_actors: int | None
    max_actors: int | None
    gpus_per_actor: float | None
    part_size: int | None
    requests: int | None
    update: bool


def open_experiment(experiment: ExperimentLike, overrides: Sequence[str] = (), **settings: Any) -> Experiment:
    """An experiment, with settings replaced.

    Args:
        experiment: a file, an Experiment, or what a file would hold.
        overrides: texts such as "training.epochs=20", as on the command line.
        settings: as in `seeds=[0, 1], training={"epochs": 20}`; of a mapping each key by itself.

    Raises:
        ConfigError: it cannot be read, or a setting does not fit.
    """
    if isinstance(experiment, str | Path):
        return load_experiment(Path(experiment), overrides, settings)
    content = experiment.model_dump(mode="json") if isinstance(experiment, Experiment) else experiment
    return from_content(content, Experiment, "the experiment", overrides, settings)


def run(
    experiment: ExperimentLike,
    *,
    out: str | Path | None = None,
    store: str | Path | None = None,
    address: str | None = None,
    progress: bool = False,
    command: str = "raylearn.run",
    **settings: Any,
) -> Run:
    """Runs every arm of an experiment with every seed; what is finished is kept, and the same call again resumes.

    Args:
        experiment: see `open_experiment`, with `settings`.
        out: folder or address of the run; runs/<name> by default.
        store: folder or address of finished work, for several experiments to share; by default in the run's folder.
        address: of a Ray cluster; RAY_ADDRESS or a private Ray by default.
        progress: print a line for every round, and what is being done.
        command: how the run was started, for its record.

    Raises:
        InputError: the experiment cannot be run as it is written, or a folder is not free for it.
        RunFailedError: no trial was finished. Those that failed beside others are in `Run.outcome`.
    """
    with shown("loading libraries", progress):
        from raylearn.reporting.page import write_report
        from raylearn.sweep.run_folder import on_disk
        from raylearn.sweep.runner import run_experiment

    found = open_experiment(experiment, **settings)
    folder = _run_folder(found, out)
    with shown(f"running {found.name}", progress):
        outcome = run_experiment(
            found,
            folder,
            store_folder=Folder(str(store)) if store else None,
            address=address,
            command=command,
            console=_console(progress),
        )
        with doing("writing the report"), on_disk(folder) as files:
            write_report(files)
    return Run(folder, outcome)


def plan(
    experiment: ExperimentLike,
    *,
    out: str | Path | None = None,
    store: str | Path | None = None,
    **settings: Any,
) -> "SweepPlan":
    """How much work `run` would be, what of it is shared and how long it takes; nothing is run."""
    from raylearn.sweep.runner import plan_experiment

    found = open_experiment(experiment, **settings)
    return plan_experiment(found, _run_folder(found, out), Folder(str(store)) if store else None)


def seeds_needed(
    experiment: ExperimentLike,
    pilot: str | Path | Run,
    differences: Sequence[float] | None = None,
    **settings: Any,
) -> "SeedPlan":
    """How many seeds an experiment needs to find differences of mAP with 80 % probability; see docs/statistics.md.

    Args:
        experiment: see `open_experiment`, with `settings`; its arms and what is primary count.
        pilot: a run with its control and query sizes and at least two seeds, whose spread is used.
        differences: that are wanted; .005 to .05 by default.

    Raises:
        ConfigError: nothing in the experiment would be tested.
        RunFolderError: the pilot shows no spread.
    """
    from raylearn.reporting.power import DIFFERENCES, SeedPlan, sensitivity
    from raylearn.reporting.power import seeds_needed as needed
    from raylearn.reporting.statistics import Primary
    from raylearn.reporting.statistics import compare as compare_arms
    from raylearn.reporting.summary import read_rounds
    from raylearn.sweep.grid import arms
    from raylearn.sweep.run_folder import on_disk

    wanted = DIFFERENCES if differences is None else tuple(differences)
    if any(not 0 < difference < 1 for difference in wanted):
        raise ConfigError(f"differences of mAP lie between 0 and 1, not {', '.join(map(str, wanted))}")
    found = open_experiment(experiment, **settings)
    primary = Primary(found.primary.outcome, found.primary.control)
    asking_arms = [arm for arm in arms(found) if arm.query_size is not None]
    usable = [arm.strategy.name for arm in asking_arms if not arm.strategy.simulation_only]
    num_tested = sum(name != primary.control for name in usable)
    if not num_tested or all(arm.strategy.name != primary.control for arm in asking_arms):
        raise ConfigError(f"{found.name} tests nothing: it needs {primary.control} among arms.controls, and other arms")
    folder = _folder_of(pilot)
    with on_disk(folder) as files:
        spread = sensitivity(compare_arms(read_rounds(files / "results.parquet"), primary), found.arms.query_size)
    if spread is None:
        raise RunFolderError(
            f"{folder} shows no spread of {primary.outcome} against {primary.control}: it needs that control, an arm "
            f"with query_size {' or '.join(map(str, found.arms.query_size))}, and two seeds"
        )
    seeds = {difference: needed(spread.spread, difference, num_tested) for difference in wanted}
    return SeedPlan(primary, num_tested, len(found.seeds), spread, seeds)


def check(experiment: ExperimentLike, **settings: Any) -> Dataset:
    """Looks for everything that would stop a run: the experiment, its detector and all of its data set.

    Args:
        experiment: see `open_experiment`, with `settings`.

    Returns:
        The data set; of one that is generated a description, without its pictures. Its notes end with what a training
        takes of the initial weights.

    Raises:
        DatasetError: the data set has problems; its `problems` are all of them, with file and line.
        InputError: the experiment cannot be run.
    """
    from raylearn.data.formats import examine_dataset
    from raylearn.data.reef import ReefSettings, plan_reef
    from raylearn.detectors import weights_taken
    from raylearn.learning.training import check_detector_of
    from raylearn.sweep.trial import Bench

    found = open_experiment(experiment, **settings)
    check_detector_of(found)
    section = found.dataset
    if section.path is None:
        dataset = plan_reef(ReefSettings(**section.reef.model_dump()))
    else:
        read, problems = examine_dataset(section.path, section.format, **section.reading)
        if read is None:
            raise DatasetError(
                f"{section.path}: {counted(len(problems), 'problem')}", [str(problem) for problem in problems]
            )
        dataset = read
    Bench.of(found, dataset)
    detector = found.detector
    if detector.initial_weights is not None:
        taken = weights_taken(detector.model, dataset.num_classes, detector.initial_weights, detector.family)
        dataset = replace(dataset, notes=(*dataset.notes, taken) if taken else dataset.notes)
    return dataset


def init(file: str | Path, *, format: str | None = None, path: str | Path | None = None) -> Dataset:
    """Writes a commented experiment file that runs, filled in from a data set; over no other file.

    Args:
        file: to write.
        format, path: of the data set, as in an experiment file; by default the reef.

    Raises:
        ConfigError: the file is there already.
        DatasetError: the data set has problems; its `problems` are all of them.
    """
    from raylearn.sweep.new_experiment import write_experiment

    return write_experiment(Path(file), format, None if path is None else Path(path))


def open_run(folder: str | Path) -> Run:
    """The folder or address of a finished run.

    Raises:
        RunFolderError: there is none.
    """
    found = Run(Folder(str(folder)))
    if found.folder.read("results.parquet") is None:
        raise RunFolderError(f"{folder} has no results.parquet: it is not the folder of a finished run")
    return found


def report(run: str | Path | Run, *, compare: str | Path | Run | None = None) -> str:
    """Writes the page of a run or a project again, or one of a run with another beside it.

    Returns:
        The path or address of the page.

    Raises:
        RunFolderError: the folder of a run lacks a file, or has one that cannot be read.
    """
    from raylearn.reporting.page import write_comparison, write_report
    from raylearn.sweep.run_folder import on_disk

    folder = _folder_of(run)
    if compare is None and folder.path is not None and (folder.path / "project.yaml").is_file():
        from raylearn.project.folder import ProjectFolder
        from raylearn.project.page import write_page
        from raylearn.project.steps import Cycle

        return folder.address_of(write_page(Cycle(ProjectFolder.open(folder.path))).name)
    with on_disk(folder) as files:
        if compare is None:
            return folder.address_of(write_report(files).name)
        with on_disk(_folder_of(compare)) as others:
            return folder.address_of(write_comparison(files, others).name)


def join(runs: Sequence[str | Path | Run], out: str | Path, *, command: str = "raylearn.join") -> Run:
    """Joins runs of one experiment that differ in their seeds into one, with its page.

    Args:
        runs: two or more; settings, data set, initial weights and versions must be equal, and no seed in two of them.
        out: folder or address of the joined run; one that was joined there before is replaced.
        command: how it was asked for, for the record.

    Raises:
        RunFolderError: they do not belong together, or `out` holds something else.
    """
    from raylearn.sweep.join import join_runs

    folder = Folder(str(out))
    join_runs([_folder_of(run) for run in runs], folder, command)
    report(folder.address)
    return Run(folder)


def export(
    run: str | Path | Run,
    trial: str,
    round: int,
    format: Format,
    out: str | Path,
    *,
    link: bool = False,
    overrides: Sequence[str] = (),
    **settings: Any,
) -> ExportedSet:
    """Writes what a trial had labelled by a round, with the held-out images, as a data set of its own.

    It is read back and compared before it is there: the same images, boxes and classes, so that a training on it is
    the trial's own. In its raylearn_export.json stands where each image is from; see docs/export.md.

    Args:
        run: its folder or address.
        trial, round: as results.parquet names them.
        format: "yolo", "coco" or "voc".
        out: a new folder on a disk; made whole or not at all.
        link: put links to the images in their place, instead of copies.
        overrides, settings: where the data set lies now, as in `dataset={"path": "/new/place"}`.

    Raises:
        ExportError: no such trial or round; the data set is gone or was changed; `out` holds something; or the format
            cannot hold the set.
    """
    opened = run if isinstance(run, Run) else open_run(run)
    return opened.export(trial, round, format, out, link=link, overrides=overrides, **settings)


def score(
    pool: str | Path,
    checkpoint: str | Path,
    out: str | Path,
    *,
    address: str | None = None,
    progress: bool = False,
    **settings: Unpack[ScoreSettings],
) -> ScoredPool:
    """Scores a pool of images with a detector, into a ledger; the same call again resumes.

    Args:
        pool: a folder, a glob, a list of images (.txt, .csv, .parquet), or a prefix such as s3://bucket/images.
        checkpoint: of raylearn, or of a library whose detectors it knows.
        out: folder or address of the ledger.
        address: of a Ray cluster; RAY_ADDRESS or a private Ray by default.
        progress: print what is done.
        settings: see ScoreSettings.

    Raises:
        InputError: the pool, the checkpoint or a setting is wrong, or `out` holds another pass.
    """
    from raylearn.scoring.pool_scoring import score_pool
    from raylearn.scoring.request import ScoreRequest

    request = ScoreRequest(pool=str(pool), checkpoint=Path(checkpoint), **settings)
    with shown(f"scoring {redacted(str(pool))}", progress):
        score_pool(request, str(out), address=address, console=_console(progress))
    return open_ledger(out)


def open_ledger(ledger: str | Path) -> ScoredPool:
    """A ledger that `score` finished, at a path or an address.

    Raises:
        LedgerError: there is none.
    """
    return ScoredPool.open(Folder(str(ledger)))


def query(
    ledger: LedgerLike,
    size: int | None = None,
    *,
    boxes: int | None = None,
    strategy: str | Strategy = DEFAULT,
    class_counts: ClassCounts | None = None,
    exclude: Excluded = (),
    labelled: Excluded = (),
    group_by: str | Path | None = None,
    seed: int = 0,
    on_part: Callable[[int, int], None] = lambda _done, _total: None,
    **options: Any,
) -> QueryResult:
    """The images of a ledger that are most worth annotating.

    Args:
        ledger: see `open_ledger`.
        size: how many images.
        boxes: instead of a size: so many images as have that many boxes, by what the detector sees.
        strategy: its name, with `options` such as `aggregation="max"`; or a Strategy.
        class_counts: boxes labelled so far, which class weights need.
        exclude: images to leave out.
        labelled: images that are labelled, which are left out too; strategies that compare images keep away from those
            of them that the ledger has.
        group_by: "folder", or a CSV file of image (or stem) and group: for the option max_per_group.
        seed: orders images of equal score.
        on_part: told how many parts of the ledger are read, of how many.

    Raises:
        LedgerError: no finished ledger, or a damaged one.
        QueryError: an unknown strategy or option, or more images than there are.
    """
    opened, chosen = _opened(ledger), choice(strategy, options)
    if (size is None) == (boxes is None):
        raise QueryError("a query is of so many images, or of so many boxes: give one of the two")
    labelled_ids, left_out = image_ids(labelled), image_ids(exclude)
    arguments: dict[str, Any] = {
        "seed": _checked_seed(seed),
        "class_counts": _class_counts(class_counts),
        "exclude": left_out,
        "labelled": labelled_ids,
        "group_of": None if group_by is None else group_of(group_by),
        "progress": on_part,
    }
    if boxes is None:
        found = query_ledger(opened.folder, chosen, _checked_size(size), **arguments)
        return QueryResult(opened, found, chosen, arguments["seed"], arguments["class_counts"])
    # at least: ids that the ledger does not have leave nothing out
    least = len(opened) - opened.facts.get("num_errors", 0) - len({*labelled_ids, *left_out})
    wanted = _checked_size(boxes, "boxes")
    found = query_ledger_for_boxes(opened.folder, chosen, wanted, candidates=max(1, least), **arguments)
    return QueryResult(opened, found, chosen, arguments["seed"], arguments["class_counts"])


def cascade(
    pool: str | Path,
    checkpoint: str | Path,
    size: int,
    work: str | Path,
    *,
    max_miss: float = 0.02,
    strategy: str | Strategy = DEFAULT,
    options: Mapping[str, Any] | None = None,
    class_counts: ClassCounts | None = None,
    exclude: Excluded = (),
    seed: int = 0,
    address: str | None = None,
    progress: bool = False,
    **settings: Unpack[ScoreSettings],
) -> CascadeResult:
    """The images of a pool that are most worth annotating, without scoring all of them exactly.

    All are scored by a fast setting: half the image size, in rectangles, in bf16 where the CPU computes in it. The best
    by that, and a sample drawn by chance, are scored exactly, as many as it takes until few of the exact top can be
    missing. Where that would be half of the pool, all are. The same call again resumes.

    Args:
        pool, checkpoint, address, progress, settings: see `score`.
        size: how many images.
        work: folder or address of the ledgers, which other queries of the pool use too.
        max_miss: the most that the upper limit of the share missed may be; see `raylearn.measures.missed`.
        strategy, class_counts, exclude, seed: see `query`.
        options: of the strategy, such as `{"aggregation": "max"}`.

    Raises:
        InputError: see `score`; a strategy that weighs images against each other; or more images than there are.
    """
    from raylearn.learning.cascade import CascadeQuery
    from raylearn.learning.cascade import cascade as run_cascade
    from raylearn.scoring.request import ScoreRequest

    counts = _class_counts(class_counts)
    asked = CascadeQuery(
        choice(strategy, options or {}), _checked_size(size), max_miss, _checked_seed(seed), counts, image_ids(exclude)
    )
    request = ScoreRequest(pool=str(pool), checkpoint=Path(checkpoint), **settings)
    with shown(f"scoring {redacted(str(pool))}", progress):
        facts = run_cascade(request, Folder.at(work), asked, address=address, console=_console(progress))
        found = query(
            facts.exact.address,
            asked.size,
            strategy=asked.strategy,
            class_counts=counts,
            exclude=asked.exclude,
            seed=asked.seed,
        )
    return CascadeResult(found, facts, max_miss)


def compare(
    ledger: LedgerLike,
    size: int | None = None,
    *,
    strategies: Sequence[str | Strategy] | None = None,
    probabilities: str = "background",
    class_counts: ClassCounts | None = None,
    weight_cap: float | None = None,
    exclude: Excluded = (),
    seed: int = 0,
    on_part: Callable[[int, int], None] = lambda _done, _total: None,
) -> Comparison:
    """How much the queries of several strategies have in common: does the choice matter on this ledger?

    Args:
        ledger, class_counts, exclude, seed, on_part: see `query`.
        size: images of each query; a tenth of the ledger by default, at most 10,000.
        strategies: to compare; by default every uncertainty and aggregation, with class counts every weighting, and
            the controls.
        probabilities, weight_cap: of the default strategies.
    """
    if weight_cap is not None and class_counts is None:
        raise QueryError("weight_cap has no meaning without weightings: give class counts too, or leave it out")
    if isinstance(strategies, str) or (strategies is not None and not strategies):
        raise QueryError(f"strategies is a list of at least one name or Strategy, not {strategies!r}")
    if strategies is not None and (probabilities != "background" or weight_cap is not None):
        raise QueryError("probabilities and weight_cap are of the default strategies: set them in those you name")
    opened, left_out = _opened(ledger), image_ids(exclude)
    if size is None:
        candidates = len(opened) - opened.facts.get("num_errors", 0) - len(left_out)
        size = max(1, min(10_000, candidates // 10))
    chosen = (
        all_choices(probabilities, weighted=class_counts is not None, weight_cap=weight_cap)
        if strategies is None
        else [choice(strategy, {}) for strategy in strategies]
    )
    overlaps, totals = compare_strategies(
        opened.folder,
        chosen,
        _checked_size(size),
        seed=_checked_seed(seed),
        class_counts=_class_counts(class_counts),
        exclude=left_out,
        progress=on_part,
    )
    names = tuple(strategy.label for strategy in chosen)
    return Comparison(names, overlaps, size, totals.candidates, totals.without_detections)


def dedup(
    ledger: LedgerLike,
    distance: float = NEAR,
    *,
    on_part: Callable[[int, int], None] = lambda _done, _total: None,
) -> NearDuplicates:
    """The groups of near-duplicates in a ledger that was scored with embeddings.

    Args:
        ledger: see `open_ledger`.
        distance: between image embeddings, in [0, 1]: images at most so far apart belong together, and so do those
            that a chain of such pairs links.
        on_part: told how much is done, of how much.

    Raises:
        LedgerError: no finished ledger, a damaged one, or one without embeddings.
        QueryError: a distance that is none.
    """
    return _opened(ledger).near_duplicates(distance, on_part=on_part)


def load_dataset(
    path: str | Path,
    format: Literal["yolo", "coco", "voc"],
    *,
    pool: Sequence[str] | None = None,
    test: Sequence[str] | None = None,
    missing_labels: Literal["refuse", "background", "skip"] = "refuse",
    bad_boxes: Literal["refuse", "drop"] = "refuse",
    exif: Literal["refuse", "raw", "upright"] = "refuse",
    root: str | Path | None = None,
) -> Dataset:
    """Reads an annotated data set strictly; see docs/datasets.md.

    Args:
        path: its folder, or its data.yaml.
        format: how images and labels lie on disk.
        pool, test: split names that may be labelled, and that are held out; the format's usual ones by default.
        missing_labels: an image without a label file is an error, an empty frame, or left out.
        bad_boxes: an impossible box is an error, or left out and noted.
        exif: labels made for the size of a photograph before its EXIF orientation turns it are an error; boxes of the
            picture as it lies in the file, turned with it; or boxes of the upright one.
        root: files outside of this folder are not read; the data set's own by default.

    Raises:
        DatasetError: the first problem, and how many more there are.
    """
    policies = {"missing_labels": missing_labels, "bad_boxes": bad_boxes, "exif": exif}
    return read_dataset(Path(path), format, pool=pool, test=test, root=Path(root) if root else None, **policies)


def choice(strategy: str | Strategy, options: Mapping[str, Any]) -> Strategy:
    """A strategy by its name and options, of those that choose images.

    Raises:
        QueryError: an unknown strategy or option, or one that chooses no images.
    """
    if not isinstance(strategy, str | Strategy | type):
        raise QueryError(f"a strategy is its name or an object of a Strategy, not {strategy!r}")
    if isinstance(strategy, type):
        raise QueryError(f"{strategy.__name__} is a class: give an object, such as {strategy.__name__}()")
    if isinstance(strategy, Strategy) and options:
        raise QueryError(f"{min(options)} has no meaning beside a Strategy object: set it there")
    found = strategy if isinstance(strategy, Strategy) else make_strategy(strategy, options)
    if not found.asks:
        raise QueryError(f"strategy {found.name} chooses no images: {nearest(found.name, asking())}")
    return found


def image_ids(excluded: Excluded) -> list[str]:
    """The ids in files and texts, each once, in order."""
    entries = [Path(excluded)] if isinstance(excluded, str | Path) else list(excluded)
    strange = [entry for entry in entries if not isinstance(entry, str | Path)]
    if strange:
        raise QueryError(f"exclude holds {strange[0]!r}: give image ids as text, or paths of files of them")
    lists = (read_image_ids(entry) if isinstance(entry, Path) else [entry] for entry in entries)
    return sorted({image_id for ids in lists for image_id in ids})


def _class_counts(given: ClassCounts | None) -> Mapping[str, int] | None:
    if given is None:
        return None
    return read_class_counts(Path(given)) if isinstance(given, str | Path) else checked_counts(given, "class_counts")


def _checked_seed(seed: int) -> int:
    if not isinstance(seed, int) or seed < 0:
        raise QueryError(f"seed {seed!r} is not a whole number of 0 or more")
    return seed


def _checked_size(size: int | None, name: str = "size") -> int:
    if not isinstance(size, int) or isinstance(size, bool):
        raise QueryError(f"{name} {size!r} is not a whole number")
    return size


def _opened(ledger: LedgerLike) -> ScoredPool:
    return ledger if isinstance(ledger, ScoredPool) else open_ledger(ledger)


def _folder_of(run: str | Path | Run) -> Folder:
    return run.folder if isinstance(run, Run) else Folder(str(run))


def _run_folder(experiment: Experiment, out: str | Path | None) -> Folder:
    return Folder(str(out or f"runs/{experiment.name}"))


def _console(progress: bool) -> "Console":
    from rich.console import Console

    return Console(quiet=not progress)
