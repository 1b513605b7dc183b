"""run, report, export, check, doctor, schema: experiments, and what they need."""

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from raylearn.cli.arguments import Address, Overrides, ProgressStyle
from raylearn.cli.status import begin
from raylearn.data.storage import redacted
from raylearn.errors import ConfigError, DatasetError, RaylearnError, RunFailedError, RunFolderError
from raylearn.handoff.dataset_forms import Format
from raylearn.wording import counted

_Run = Annotated[
    str, typer.Argument(metavar="RUN", help="The folder of a run, such as runs/quickstart, or its address.")
]
_File = Annotated[
    Path,
    typer.Argument(
        help="The experiment file (YAML), or the name of one that comes with raylearn, such as quickstart; `raylearn "
        "schema` lists every key."
    ),
]


def run(
    file: _File,
    overrides: Overrides = None,
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
    address: Address = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say how much work it is, what is shared and how long it takes.")
    ] = False,
    pilot: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="With --plan: a run whose spread between seeds says how many seeds a difference needs."
        ),
    ] = None,
    difference: Annotated[
        float | None, typer.Option(help="With --pilot: the difference of mAP that is wanted. Default: a small table.")
    ] = None,
    progress: ProgressStyle = "auto",
) -> None:
    """Run an experiment: every arm of its grid with every seed, then write tables and a report.

    What is finished is kept: the same command again goes on where it stopped, and trains nothing twice.

    Example: raylearn run quickstart training.epochs=10 --out runs/short
    """
    if pilot is not None and not plan:
        raise ConfigError("--pilot has no meaning without --plan: give both, or neither")
    if difference is not None and pilot is None:
        raise ConfigError("--difference has no meaning without --pilot: give both, or neither")
    begin(f"reading {file}", progress)
    from raylearn import api

    experiment = api.open_experiment(file, overrides or ())
    if plan:
        from raylearn.sweep.plan import plan_lines

        for line in plan_lines(experiment, api.plan(experiment, out=out, store=store)):
            typer.echo(line)
        if pilot is not None:
            for line in api.seeds_needed(experiment, pilot, None if difference is None else [difference]).lines():
                typer.echo(line)
        return
    command = shlex.join(["raylearn", *sys.argv[1:]])
    done = api.run(experiment, out=out, store=store, address=address, progress=True, command=command)
    outcome = done.outcome
    assert outcome is not None  # it was run
    typer.echo(
        f"trainings: {outcome.trainings_wanted} wanted, {outcome.trainings_made} made now, "
        f"{outcome.trainings_reused} reused"
    )
    typer.echo(f"results: {done.folder.address_of('results.parquet')}\nreport:  {done.report}")
    typer.echo(f"\n{done.answer}")
    if outcome.failed:
        for name, cause in outcome.failed.items():
            typer.echo(f"failed: {name}: {cause}", err=True)
        raise RunFailedError(f"{counted(len(outcome.failed), 'trial')} failed; the same command tries them again")


def report(
    run_folders: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="The folder of a run, such as runs/quickstart, or its address; several of other seeds are joined.",
        ),
    ],
    compare: Annotated[
        str | None, typer.Option(metavar="OTHER", help="Another run: write RUN/comparison.html, both side by side.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="With several runs: the folder, or address, of the run that they are joined into."),
    ] = None,
) -> None:
    """Write the report of a run again, put two runs side by side, or join runs of other seeds.

    Runs are joined that differ in nothing but their seeds; the joined run is a run like any other.

    Example: raylearn report runs/seeds0to4 runs/seeds5to9 --out runs/all
    """
    if (len(run_folders) > 1) != (out is not None):
        raise RunFolderError("--out names the folder that two or more runs are joined into: give both, or neither")
    if out is not None and compare is not None:
        raise RunFolderError("--compare has no meaning with --out: compare the joined run afterwards")
    begin(f"reading {', '.join(map(redacted, run_folders))}")
    from raylearn import api

    if out is None:
        typer.echo(f"report:  {api.report(run_folders[0], compare=compare)}")
    else:
        joined = api.join(run_folders, out, command=shlex.join(["raylearn", *sys.argv[1:]]))
        typer.echo(f"report:  {joined.report}")


def export(
    run_folder: _Run,
    trial: Annotated[str, typer.Option(help="Which trial, as in results.parquet, such as random-q16-s0.")],
    round: Annotated[int, typer.Option(min=0, help="By which round; 0 has the initial set alone.")],
    format: Annotated[Format, typer.Option(help="How images and labels are to lie on the disk.")],
    out: Annotated[str, typer.Option(help="A new folder for the data set.")],
    link: Annotated[
        bool, typer.Option("--link/--copy", help="Put links to the images into it, or copies, which can be moved.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Where the data set lies now, as in dataset.path=/new/place."),
    ] = None,
) -> None:
    """Write what a trial had labelled by a round as a data set of its own, with images, labels and provenance.

    Its splits are train, the labelled images, and val, the held-out ones. It is read back and compared before it is
    there: a training on it gives the trial's own detector. Where everything is from stands in raylearn_export.json.

    Example: raylearn export runs/quickstart --trial random-q16-s0 --round 3 --format yolo --out exports/random
    """
    begin(f"reading {redacted(run_folder)}")
    from raylearn import api

    found = api.export(run_folder, trial, round, format, out, link=link, overrides=overrides or ())
    typer.echo(str(found))
    root = f", root: {found.root}" if found.root else ""
    typer.echo(f"data set: {{format: {format}, path: {found.folder}{root}}}")


def check(file: _File, overrides: Overrides = None) -> None:
    """Check an experiment and its data set, list every problem with file and line, and run nothing."""
    begin(f"checking {file}")
    from raylearn import api

    with _problems_listed():
        dataset = api.check(api.open_experiment(file, overrides or ()))
    for note in dataset.notes:
        typer.echo(f"note: {note}")
    typer.echo(
        f"{file}: fine; {counted(len(dataset.pool), 'image')} in the pool, {len(dataset.test)} held out, classes "
        f"{', '.join(dataset.class_names)}"
    )


def init(
    file: Annotated[Path, typer.Argument(help="The file to write; nothing may be there.")] = Path("experiment.yaml"),
    format: Annotated[
        Format | None, typer.Option(help="How images and labels lie on the disk. Default: the generated reef.")
    ] = None,
    path: Annotated[Path | None, typer.Option(help="The data set's folder, or its data.yaml.")] = None,
) -> None:
    """Write a commented experiment file that runs, filled in from a data set.

    All of the data set is checked first, as by `raylearn check`.

    Example: raylearn init mine.yaml --format yolo --path /data/mine
    """
    begin(f"reading {path}" if path else "writing an experiment of the reef")
    from raylearn import api

    with _problems_listed():
        dataset = api.init(file, format=format, path=path)
    for note in dataset.notes:
        typer.echo(f"note: {note}")
    typer.echo(
        f"{file}: {len(dataset.pool)} images in the pool, {len(dataset.test)} held out, classes "
        f"{', '.join(dataset.class_names)}\nnext: raylearn run {shlex.quote(str(file))}"
    )


@contextmanager
def _problems_listed() -> Iterator[None]:
    """All that is wrong with a data set, a line each, before the error that says so."""
    try:
        yield
    except DatasetError as error:
        for problem in error.problems:
            typer.echo(problem)
        raise


def doctor(
    storage: Annotated[
        str, typer.Argument(metavar="[STORAGE]", help="Where runs and ledgers are to go: a folder, or an address.")
    ] = "runs",
    address: Address = None,
) -> None:
    """Say what is wrong with this machine or a cluster before a sweep does: Ray, GPUs, versions, storage, memory.

    Exit code 1 if there is a problem; warnings alone end in 0.

    Example: raylearn doctor s3://farm-runs/2026 --address auto
    """
    address = address or os.environ.get("RAY_ADDRESS")
    begin(f"looking at the cluster {address}" if address else "looking at this machine")
    from raylearn.cluster.doctor import examine

    problems = 0
    for finding in examine(address, storage):
        typer.echo(f"{finding.level + ':':9}{finding.text}")
        problems += finding.level == "problem"
    if problems:
        raise RaylearnError(f"{counted(problems, 'problem')}, listed above")
    typer.echo("fine: a sweep can run here")


def schema(
    project: Annotated[bool, typer.Option("--project", help="Of project files, instead of experiment files.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON schema, for editors and programs.")] = False,
) -> None:
    """Print every key of an experiment file, as annotated YAML: its default, meaning and allowed values."""
    from raylearn.config import Experiment
    from raylearn.config_schema import annotated_yaml
    from raylearn.project.settings import Project

    kind = Project if project else Experiment
    typer.echo(json.dumps(kind.model_json_schema(), indent=2) if as_json else annotated_yaml(kind), nl=as_json)
