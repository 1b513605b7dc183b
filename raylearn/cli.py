"""The commands: each one call into a room below, with errors in one line and an exit code that says whose they are."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import Progress

from raylearn import __version__
from raylearn.config import Aggregation, Experiment, Probabilities, Uncertainty, Weighting, load_experiment
from raylearn.data.storage import Folder
from raylearn.errors import DatasetError, LabelsError, QueryError, RaylearnError, RunFailedError
from raylearn.handoff.exchange import Tool

# Typer has no public name for the base of its usage errors, and brings a click of its own or not, by version.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(
    help="Active learning for object detection on Ray: which images are worth annotating, and which way of choosing "
    "them is best?\n\nBegin with: raylearn run experiments/quickstart.yaml",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

_File = Annotated[Path, typer.Argument(help="The experiment file (YAML); `raylearn schema` lists every key.")]
_Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Replace values of the file, as in training.epochs=20 seeds=[0,1]."),
]
_Address = Annotated[
    str | None,
    typer.Option(help="A Ray cluster, as in auto or 10.0.0.1:6379. Default: RAY_ADDRESS, or a private Ray here."),
]

_LedgerArgument = Annotated[
    str, typer.Argument(metavar="LEDGER", help="The folder or address that `raylearn score` wrote to.")
]
_ClassCounts = Annotated[
    Path | None,
    typer.Option(help='Boxes labelled so far: a data set, or a JSON file such as {"crab": 12, "fish": 340}.'),
]
_Probabilities = Annotated[Probabilities, typer.Option(help="How class scores are read as probabilities.")]
_WeightCap = Annotated[float | None, typer.Option(min=0, help="Upper limit of a class weight.")]
_Exclude = Annotated[
    list[Path] | None,
    typer.Option(help="Image ids to leave out, such as those labelled: .txt, or .csv or .parquet with image_id."),
]
_Seed = Annotated[int, typer.Option(min=0, help="Orders images of equal score.")]


@app.command()
def run(
    file: _File,
    overrides: _Overrides = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="Folder of the run, or an address such as s3://bucket/prefix; the same again goes on. "
            "Default: runs/<name>."
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="Folder or address of finished work, for several experiments to share. Default: in the run's folder."
        ),
    ] = None,
    address: _Address = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say how much work it is, what is shared and how long it takes.")
    ] = False,
) -> None:
    """Run an experiment: every arm of its grid with every seed, then write tables and a report.

    What is finished is kept: the same command again goes on where it stopped, and trains nothing twice.

    Example: raylearn run experiments/quickstart.yaml training.epochs=10 --out runs/short
    """
    from raylearn.report.page import write_report
    from raylearn.sweep.run_folder import on_disk
    from raylearn.sweep.runner import plan_experiment, run_experiment

    experiment = load_experiment(file, overrides or ())
    folder = Folder(out or f"runs/{experiment.name}")
    stored = Folder(store) if store else None
    if plan:
        plan_experiment(experiment, folder, Console(), stored)
        return
    command = shlex.join(["raylearn", *sys.argv[1:]])
    console = Console()
    outcome = run_experiment(experiment, folder, store_folder=stored, address=address, command=command, console=console)
    with on_disk(folder) as files:
        write_report(files)
    typer.echo(
        f"trainings: {outcome.trainings_wanted} wanted, {outcome.trainings_made} made now, "
        f"{outcome.trainings_reused} reused"
    )
    typer.echo(f"results: {folder.address_of('results.parquet')}\nreport:  {folder.address_of('report.html')}")
    if outcome.failed:
        for name, cause in outcome.failed.items():
            typer.echo(f"failed: {name}: {cause}", err=True)
        raise RunFailedError(f"{len(outcome.failed)} trials failed; the same command tries them again")


@app.command()
def score(
    pool: Annotated[
        str,
        typer.Argument(
            metavar="POOL",
            help="A folder, a glob in quotes, a list (.txt, .csv, .parquet), or a prefix such as s3://bucket/images.",
        ),
    ],
    checkpoint: Annotated[Path, typer.Option(help="The detector: a .pt of raylearn's or Ultralytics'.")],
    out: Annotated[str, typer.Option(help="Folder of the ledger, or an address; the same folder again goes on.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Score so many images at most.")] = None,
    shuffle_seed: Annotated[
        int | None, typer.Option(min=0, help="Put the images in a random order first; with --limit, a random sample.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Read local files anywhere below this folder. Default: only below POOL's own.")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=32, max=8192, help="Longer side images are scaled to. Default: the checkpoint's, or 640."),
    ] = None,
    confidence: Annotated[float, typer.Option(min=0, max=1, help="Detections below it are not kept.")] = 0.05,
    iou: Annotated[float, typer.Option(min=0, max=1, help="Overlap above which the weaker of two boxes goes.")] = 0.7,
    max_detections: Annotated[int, typer.Option(min=1, help="Most confident boxes kept per image.")] = 100,
    canvas: Annotated[
        Literal["square", "rectangle"],
        typer.Option(
            help="Pad to a square, as in training; or to a rectangle: a quarter less work for 4:3 images, but other "
            "scores (docs/scoring.md)."
        ),
    ] = "square",
    decode: Annotated[
        Literal["full", "reduced"],
        typer.Option(help="reduced decodes JPEGs of at least twice the image size at 1/2, 1/4 or 1/8."),
    ] = "full",
    backend: Annotated[
        Literal["auto", "torch", "openvino"],
        typer.Option(help="auto: openvino for large pools on CPUs where it is installed, else torch."),
    ] = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "fp16", "bf16"], typer.Option(help="auto: fp16 on GPUs, fp32 on CPUs.")
    ] = "auto",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per call of the model. Default: 64 on a GPU, 4 on a CPU.")
    ] = None,
    actors: Annotated[
        int | None, typer.Option(min=1, help="Detector processes. Default: one per GPU, or one per CPU.")
    ] = None,
    gpus_per_actor: Annotated[
        float | None,
        typer.Option(min=0, help="GPUs of one; 0.5 is two on a GPU, 0 is CPUs. Default: 1 if there are."),
    ] = None,
    part_size: Annotated[
        int | None, typer.Option(min=1, help="Images kept, or after a crash repeated, together. Default: 64 to 2048.")
    ] = None,
    address: _Address = None,
) -> None:
    """Score a pool of images of any size with a detector, into a ledger that answers every query.

    The pool is listed and frozen first. Interrupted at any point, the same command goes on with what is missing; a
    changed pool, checkpoint or setting is refused. Images that cannot be read are rows with an error.

    Example: raylearn score photos/ --checkpoint best.pt --out ledgers/photos
    """
    from raylearn.scoring.pool_scoring import ScoreRequest, score_pool

    if image_size is not None and image_size % 32:
        raise QueryError(f"--image-size {image_size} is no multiple of 32: try {image_size // 32 * 32 + 32}")
    request = ScoreRequest(
        pool=pool,
        checkpoint=checkpoint,
        image_size=image_size,
        confidence=confidence,
        iou=iou,
        max_detections=max_detections,
        canvas=canvas,
        decode=decode,
        root=root,
        limit=limit,
        shuffle_seed=shuffle_seed,
        backend=backend,
        precision=precision,
        batch_size=batch_size,
        num_actors=actors,
        gpus_per_actor=gpus_per_actor,
        part_size=part_size,
    )
    score_pool(request, out, address=address, console=Console())


@app.command()
def query(
    ledger: _LedgerArgument,
    size: Annotated[int, typer.Option(min=1, help="How many images to ask for.")],
    out: Annotated[Path, typer.Option(help="Folder for query.parquet, query.csv and query.txt.")],
    strategy: Annotated[
        Literal["uncertainty", "random", "box_count"],
        typer.Option(help="By uncertainty, or one of the controls: by chance, or by number of detections."),
    ] = "uncertainty",
    uncertainty: Annotated[Uncertainty | None, typer.Option(help="Of one detection. Default: entropy.")] = None,
    aggregation: Annotated[Aggregation | None, typer.Option(help="Of an image's detections. Default: sum.")] = None,
    weighting: Annotated[
        Weighting | None,
        typer.Option(help="Factor of a detection by its predicted class; needs --class-counts. Default: none."),
    ] = None,
    probabilities: Annotated[
        Probabilities | None, typer.Option(help="How class scores are read as probabilities. Default: background.")
    ] = None,
    class_counts: _ClassCounts = None,
    weight_cap: _WeightCap = None,
    exclude: _Exclude = None,
    seed: _Seed = 0,
    tool: Annotated[
        Tool | None, typer.Option("--format", help="Also a folder OUT/FORMAT that this annotation tool opens.")
    ] = None,
    images: Annotated[
        Literal["copy", "uri"] | None,
        typer.Option(help="With --format: copy the images, or leave them where they are. Default: as the tool needs."),
    ] = None,
    boxes_above: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="With --format: pre-annotate detections from this confidence on; 0.25."),
    ] = None,
) -> None:
    """Choose the images of a finished ledger that are most worth annotating, best first.

    Example: raylearn query ledgers/photos --size 200 --aggregation max --out queries/first
    """
    from raylearn.config import Arm
    from raylearn.handoff.export import export_query
    from raylearn.handoff.query_files import write_query
    from raylearn.learning.ledger_query import class_names, detections_of, query_ledger
    from raylearn.scoring.ledger import read_facts

    axes = {
        "uncertainty": uncertainty,
        "aggregation": aggregation,
        "weighting": weighting,
        "probabilities": probabilities,
    }
    named = [f"--{name} {value}" for name, value in axes.items() if value not in (None, "none")]
    if strategy == "uncertainty":
        arm = Arm(
            strategy,
            uncertainty or "entropy",
            aggregation or "sum",
            weighting or "none",
            probabilities or "background",
            size,
        )
    elif named:
        raise QueryError(f"{named[0]} has no meaning with --strategy {strategy}: leave it out")
    else:
        arm = Arm(strategy, query_size=size)
    if weight_cap is not None and arm.weighting in (None, "none"):
        raise QueryError("--weight-cap has no meaning without a weighting: give --weighting too, or leave it out")
    given = _given(class_counts, exclude)
    if tool is None and (images, boxes_above) != (None, None):
        raise QueryError("--images and --boxes-above have no meaning without --format: give it too, or leave them out")
    with _ledger_progress() as progress:
        found = query_ledger(Folder(ledger), arm, size, seed=seed, weight_cap=weight_cap, progress=progress, **given)
    paths = write_query(found.images, out)
    left_out = f", {found.num_errors:,} could not be read" if found.num_errors else ""
    left_out += f", {found.num_excluded:,} of {len(given['exclude']):,} excluded ids found" if exclude else ""
    typer.echo(f"{size:,} of {found.num_candidates:,} images{left_out}")
    typer.echo("query:   " + "  ".join(str(path) for path in paths))
    if tool:
        copies = None if images is None else images == "copy"
        confidence = 0.25 if boxes_above is None else boxes_above
        seen = detections_of(Folder(ledger), [image.image_id for image in found.images])
        names = class_names(read_facts(Folder(ledger)), Folder(ledger))
        folder = export_query(found.images, seen, names, tool, out / tool, copies=copies, confidence=confidence)
        typer.echo(f"handout: {folder}")


labels_app = typer.Typer(help="Labels from an annotation tool.", rich_markup_mode=None)
app.add_typer(labels_app, name="labels")


@labels_app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="What the tool exported: its file, or its folder.")],
    tool: Annotated[Tool, typer.Option("--format", help="Of which tool.")],
    handout: Annotated[Path, typer.Option(help="The folder that `raylearn query --format` wrote.")],
    out: Annotated[Path, typer.Option(help="The COCO file to write; its file names are image ids.")],
    missing: Annotated[
        Literal["refuse", "skip", "background"],
        typer.Option(help="Images without labels: an error, left unlabelled, or images that show nothing."),
    ] = "refuse",
) -> None:
    """Bring labels back from an annotation tool: checked against what was handed out, whole or not at all.

    Images that were not asked for, are missing or have changed, unknown classes and impossible boxes are all listed.

    Example: raylearn labels import export.xml --format cvat --handout queries/first/cvat --out labels/first.json
    """
    from raylearn.handoff.exchange import Record
    from raylearn.handoff.labels import import_labels, write_labels

    record = Record.read(handout)
    with _problems_listed():
        found = import_labels(path, tool, record, missing)
    write_labels(found, record, out)
    boxes = sum(len(truth) for truth in found.truth.values())
    repeated = f", {found.repeated} boxes that stood twice taken once" if found.repeated else ""
    without = f", {len(found.missing)} without labels ({missing})" if found.missing else ""
    typer.echo(f"{len(found.truth)} images with {boxes} boxes{without}{repeated}\nlabels:  {out}")


project_app = typer.Typer(
    help="Label a pool of images with people, round by round: query, import, train, and again.", rich_markup_mode=None
)
app.add_typer(project_app, name="project")
_Project = Annotated[Path, typer.Argument(metavar="PROJECT", help="The folder of the project.")]


@contextmanager
def _project(path: Path) -> Iterator[Any]:
    """The cycle of a project, held while it is worked on."""
    from raylearn.project.folder import ProjectFolder
    from raylearn.project.steps import Cycle
    from raylearn.scoring.lock import locked

    folder = ProjectFolder.open(path)
    with locked(folder.path):
        yield Cycle(folder)


@project_app.command("init")
def init(
    project: _Project,
    file: Annotated[Path, typer.Argument(help="The project file (YAML); `raylearn schema --project` lists its keys.")],
    overrides: _Overrides = None,
) -> None:
    """Begin a project: freeze its pool, and take over what is labelled already.

    Example: raylearn project init blood blood.yaml query.size=50
    """
    from raylearn.config import load_file
    from raylearn.project.folder import ProjectFolder
    from raylearn.project.settings import Project
    from raylearn.project.steps import Cycle

    settings = load_file(file, Project, overrides or ())
    folder = ProjectFolder.create(project, settings, tell=typer.echo)
    _tell_project(Cycle(folder))


@project_app.command()
def status(project: _Project) -> None:
    """Show rounds, budget, classes and the curve on the held-out images, and what to do next."""
    with _project(project) as cycle:
        _tell_project(cycle)


@project_app.command("query")
def project_query(project: _Project, address: _Address = None) -> None:
    """Choose the images of the next round and hand them out to the annotation tool; again, it says where they are."""
    with _project(project) as cycle:
        standing, handout = cycle.query(address)
        typer.echo(f"round {standing.index}: {handout}\n{cycle.advice(standing)}")


@project_app.command("import")
def project_import(
    project: _Project,
    path: Annotated[Path, typer.Argument(metavar="EXPORT", help="What the tool exported: its file, or its folder.")],
    tool: Annotated[Tool | None, typer.Option("--format", help="Of which tool. Default: the project's.")] = None,
    missing: Annotated[
        Literal["refuse", "skip", "background"],
        typer.Option(help="Images without labels: an error, left unlabelled, or images that show nothing."),
    ] = "refuse",
) -> None:
    """Take the labels of the query that was handed out: checked, whole or not at all."""
    with _project(project) as cycle, _problems_listed():
        found, index = cycle.take_in(path, tool, missing)
        boxes = sum(len(truth) for truth in found.truth.values())
        typer.echo(f"round {index}: {len(found.truth)} images with {boxes} boxes\n{cycle.advice(cycle.fresh())}")


@project_app.command("train")
def project_train(project: _Project, address: _Address = None) -> None:
    """Train the detector on all that is labelled, and measure it on the held-out images; again, it does nothing."""
    with _project(project) as cycle:
        cycle.train(address)
        _tell_project(cycle)


@project_app.command()
def undo(project: _Project) -> None:
    """Take the last import back, and the query that followed it; both are kept in the project's undone/."""
    with _project(project) as cycle:
        typer.echo(cycle.folder.undo())
        typer.echo(cycle.advice(cycle.fresh()))


def _tell_project(cycle: Any) -> None:
    from raylearn.project.status import status_lines

    standing = cycle.standing()
    cycle.write_results(standing)
    for line in status_lines(cycle, standing):
        typer.echo(line)


@contextmanager
def _problems_listed() -> Iterator[None]:
    """All that is wrong with labels, a line each, before the error that says so."""
    try:
        yield
    except LabelsError as error:
        for problem in error.problems:
            typer.echo(" ".join(problem.split()))
        raise


@app.command()
def compare(
    ledger: _LedgerArgument,
    size: Annotated[
        int | None, typer.Option(min=1, help="Images of each query. Default: a tenth of the ledger, at most 10,000.")
    ] = None,
    probabilities: _Probabilities = "background",
    class_counts: _ClassCounts = None,
    weight_cap: _WeightCap = None,
    exclude: _Exclude = None,
    seed: _Seed = 0,
    out: Annotated[Path | None, typer.Option(help="A CSV file for the whole table.")] = None,
) -> None:
    """Show from one ledger how much the queries of all arms overlap: does the choice of method matter here?

    Every uncertainty and aggregation, and both controls; with --class-counts every weighting too.

    Example: raylearn compare ledgers/photos --size 200
    """
    from raylearn.handoff.comparison import show_comparison
    from raylearn.learning.ledger_query import all_arms, compare_arms
    from raylearn.scoring.ledger import read_facts

    folder = Folder(ledger)
    if weight_cap is not None and class_counts is None:
        raise QueryError("--weight-cap has no meaning without weightings: give --class-counts too, or leave it out")
    given = _given(class_counts, exclude)
    if size is None:
        facts = read_facts(folder)
        candidates = facts["num_images"] - facts.get("num_errors", 0) - len(given["exclude"])
        size = max(1, min(10_000, candidates // 10))
    arms = all_arms(size, probabilities, weighted=class_counts is not None)
    with _ledger_progress() as progress:
        overlaps = compare_arms(folder, arms, size, seed=seed, weight_cap=weight_cap, progress=progress, **given)
    typer.echo(show_comparison(arms, overlaps, size, out))


def _given(class_counts: Path | None, exclude: list[Path] | None) -> dict[str, Any]:
    from raylearn.data.class_counts import read_class_counts
    from raylearn.handoff.query_files import read_image_ids

    return {
        "class_counts": read_class_counts(class_counts) if class_counts else None,
        "exclude": sorted({image_id for path in exclude or () for image_id in read_image_ids(path)}),
    }


@contextmanager
def _ledger_progress() -> Iterator[Callable[[int, int], None]]:
    """A bar over the parts of a ledger, on a terminal only: a query of a million images takes seconds."""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("reading the ledger", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@app.command()
def report(
    run_folder: Annotated[
        str, typer.Argument(metavar="RUN", help="The folder of a run, such as runs/quickstart, or its address.")
    ],
    compare: Annotated[
        str | None, typer.Option(metavar="OTHER", help="Another run: write RUN/comparison.html, both side by side.")
    ] = None,
) -> None:
    """Write the report of a run again, from its results.parquet and queries.parquet; or put two runs side by side."""
    from raylearn.report.page import write_comparison, write_report
    from raylearn.sweep.run_folder import on_disk

    folder = Folder(run_folder)
    with on_disk(folder) as files:
        if compare:
            with on_disk(Folder(compare)) as others:
                write_comparison(files, others)
        else:
            write_report(files)
    typer.echo(f"report:  {folder.address_of('comparison.html' if compare else 'report.html')}")


@app.command()
def check(file: _File, overrides: _Overrides = None) -> None:
    """Check an experiment and its data set, list every problem with file and line, and run nothing."""
    from raylearn.data.formats import find_problems
    from raylearn.detectors import check_detector
    from raylearn.sweep.runner import open_dataset
    from raylearn.sweep.trial import Bench

    experiment = load_experiment(file, overrides or ())
    check_detector(experiment.detector.model, experiment.training.arguments, experiment.detector.initial_weights)
    section = experiment.dataset
    problems = find_problems(section.path, section.format, **section.reading) if section.path else []
    for problem in problems:
        typer.echo(str(problem))
    if problems:
        raise DatasetError(f"{section.path}: {len(problems)} problems, listed above")
    with TemporaryDirectory() as folder:
        dataset = open_dataset(experiment, Path(folder))
    Bench.of(experiment, dataset)
    for note in dataset.notes:
        typer.echo(f"note: {note}")
    typer.echo(
        f"{file}: fine; {len(dataset.pool)} images in the pool, {len(dataset.test)} held out, classes "
        f"{', '.join(dataset.class_names)}"
    )


@app.command()
def doctor(
    storage: Annotated[
        str, typer.Argument(metavar="[STORAGE]", help="Where runs and ledgers are to go: a folder, or an address.")
    ] = "runs",
    address: _Address = None,
) -> None:
    """Say what is wrong with this machine or a cluster before a sweep does: Ray, GPUs, versions, storage, memory.

    Exit code 1 if there is a problem; warnings alone end in 0.

    Example: raylearn doctor s3://farm-runs/2026 --address auto
    """
    from raylearn.sweep.doctor import examine

    problems = 0
    for finding in examine(address or os.environ.get("RAY_ADDRESS"), storage):
        typer.echo(f"{finding.level + ':':9}{finding.text}")
        problems += finding.level == "problem"
    if problems:
        raise RaylearnError(f"{problems} problems, listed above")
    typer.echo("fine: a sweep can run here")


@app.command()
def schema(
    project: Annotated[bool, typer.Option("--project", help="Of project files, instead of experiment files.")] = False,
) -> None:
    """Print the JSON schema of experiment files: every key, its type, default and meaning."""
    from raylearn.project.settings import Project

    typer.echo(json.dumps((Project if project else Experiment).model_json_schema(), indent=2))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"raylearn {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


_INTERRUPTED = "interrupted; the same command goes on from here"


def main(arguments: list[str] | None = None) -> None:
    """The `raylearn` program: exit code 0, 1 (the work failed) or 2 (what was asked is wrong)."""
    try:
        given = sys.argv[1:] if arguments is None else arguments
        code = app(args=given or ["--help"], prog_name="raylearn", standalone_mode=False)
    except RaylearnError as error:
        _fail(str(error), error.exit_code)
    except _UsageError as error:
        message = error.format_message()  # type: ignore[attr-defined]  # of click's errors
        _fail(f"{message.removesuffix('.')} (see raylearn --help)", 2)
    except OSError as error:
        _fail(f"{error.filename or 'input or output'}: {error.strerror or error}", 1)
    except KeyboardInterrupt:  # one that came while Ray was being left
        _fail(_INTERRUPTED, 130)
    except typer.Abort as error:
        _fail(f"input ended too early: {error.__cause__ or 'nothing is left to read'}", 1)
    if code == 130:  # what Typer makes of a KeyboardInterrupt; Abort is what it makes of an EOFError
        _fail(_INTERRUPTED, 130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(code)
