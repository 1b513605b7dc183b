"""The commands: each one call into a room below, with errors in one line and an exit code that says whose they are."""

import json
import shlex
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from raylearn import __version__
from raylearn.config import Experiment, load_experiment
from raylearn.errors import DatasetError, RaylearnError, RunFailedError

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


@app.command()
def run(
    file: _File,
    overrides: _Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; the same folder again goes on. Default: runs/<name>.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="A Ray cluster, as in auto or 10.0.0.1:6379. Default: RAY_ADDRESS, or a private Ray here."),
    ] = None,
) -> None:
    """Run an experiment: every arm of its grid with every seed, then write tables and a report.

    What is finished is kept: the same command again goes on where it stopped, and trains nothing twice.

    Example: raylearn run experiments/quickstart.yaml training.epochs=10 --out runs/short
    """
    from raylearn.report.page import write_report
    from raylearn.sweep.runner import run_experiment

    experiment = load_experiment(file, overrides or ())
    folder = out or Path("runs") / experiment.name
    command = shlex.join(["raylearn", *sys.argv[1:]])
    console = Console()
    outcome = run_experiment(experiment, folder, address=address, command=command, console=console)
    page = write_report(folder)
    typer.echo(
        f"trainings: {outcome.trainings_wanted} wanted, {outcome.trainings_made} made now, "
        f"{outcome.trainings_reused} reused"
    )
    typer.echo(f"results: {folder / 'results.parquet'}\nreport:  {page}")
    if outcome.failed:
        for name, cause in outcome.failed.items():
            typer.echo(f"failed: {name}: {cause}", err=True)
        raise RunFailedError(f"{len(outcome.failed)} trials failed; the same command tries them again")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, such as runs/quickstart.")],
) -> None:
    """Write the report of a run again, from its results.parquet and queries.parquet."""
    from raylearn.report.page import write_report

    typer.echo(f"report:  {write_report(folder)}")


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
def schema() -> None:
    """Print the JSON schema of experiment files: every key, its type, default and meaning."""
    typer.echo(json.dumps(Experiment.model_json_schema(), indent=2))


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
    except typer.Abort as error:
        _fail(f"input ended too early: {error.__cause__ or 'nothing is left to read'}", 1)
    if code == 130:  # what Typer makes of a KeyboardInterrupt; Abort is what it makes of an EOFError
        _fail("interrupted; the same command goes on from here", 130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(code)
