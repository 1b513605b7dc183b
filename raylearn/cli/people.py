"""labels and project: what people labelled, and labelling round by round."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from raylearn.cli.arguments import Address, Overrides, ProgressStyle
from raylearn.cli.status import begin
from raylearn.errors import LabelsError, RaylearnError
from raylearn.handoff.exchange import Tool
from raylearn.progress import doing
from raylearn.signs import Style
from raylearn.wording import counted

labels_app = typer.Typer(help="Labels from an annotation tool.", add_completion=False, rich_markup_mode=None)
project_app = typer.Typer(
    help="Label a pool of images with people, round by round: query, import, train, and again.",
    add_completion=False,
    rich_markup_mode=None,
)
_Project = Annotated[Path, typer.Argument(metavar="PROJECT", help="The folder of the project.")]
_Missing = Annotated[
    Literal["refuse", "skip", "background"],
    typer.Option(help="Images without labels: an error, left unlabelled, or images that show nothing."),
]


@labels_app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="What the tool exported: a file, folder or zip.")],
    tool: Annotated[Tool, typer.Option("--format", help="Of which tool.")],
    handout: Annotated[Path, typer.Option(help="The folder that `raylearn query --format` wrote.")],
    out: Annotated[Path, typer.Option(help="The COCO file to write; its file names are image ids.")],
    missing: _Missing = "refuse",
) -> None:
    """Bring labels back from an annotation tool: checked against what was handed out, whole or not at all.

    Images that were not asked for, are missing or have changed, unknown classes and impossible boxes are all listed.

    Example: raylearn labels import export.xml --format cvat --handout queries/first/cvat --out labels/first.json
    """
    begin(f"reading {path}")
    from raylearn.handoff.exchange import Record
    from raylearn.handoff.labels import import_labels, write_labels

    record = Record.read(handout)
    with _problems_listed():
        found = import_labels(path, tool, record, missing)
    write_labels(found, record, out)
    repeated = f", {found.repeated} boxes that stood twice taken once" if found.repeated else ""
    without = f", {len(found.missing)} without labels ({missing})" if found.missing else ""
    _tell_notes(found.notes)
    typer.echo(f"{_labels(found)}{without}{repeated}\nlabels:  {out}")


def _labels(found: Any) -> str:
    boxes = sum(len(truth) for truth in found.truth.values())
    return f"{counted(len(found.truth), 'image')} with {counted(boxes, 'box', 'boxes')}"


@contextmanager
def _project(path: Path, style: Style = "auto") -> Iterator[Any]:
    """The cycle of a project, held while it is worked on."""
    begin(f"opening {path}", style)
    from raylearn.data.lock import locked
    from raylearn.project.folder import ProjectFolder
    from raylearn.project.steps import Cycle

    folder = ProjectFolder.open(path)
    with locked(folder.path):
        yield Cycle(folder)


@project_app.command("init")
def init(
    project: _Project,
    file: Annotated[Path, typer.Argument(help="The project file (YAML); `raylearn schema --project` lists its keys.")],
    overrides: Overrides = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Read local images of the pool anywhere below this folder; the same as root=DIR."),
    ] = None,
) -> None:
    """Begin a project: freeze its pool, and take over what is labelled already.

    Example: raylearn project init blood blood.yaml query.size=50
    """
    begin(f"reading {file}")
    from raylearn.config_files import load_file
    from raylearn.project.folder import ProjectFolder
    from raylearn.project.settings import Project
    from raylearn.project.steps import Cycle

    settings = load_file(file, Project, overrides or (), {} if root is None else {"root": str(root)})
    folder = ProjectFolder.create(project, settings, tell=typer.echo)
    _tell_project(Cycle(folder))


@project_app.command()
def status(project: _Project) -> None:
    """Show rounds, budget, classes and the curve on the held-out images, and what is next; also while others work."""
    begin(f"opening {project}")
    from raylearn.project.folder import ProjectFolder
    from raylearn.project.steps import Cycle

    _tell_project(Cycle(ProjectFolder.open(project)))


@project_app.command("query")
def project_query(
    project: _Project,
    leave_out_unreadable: Annotated[
        bool,
        typer.Option(
            "--leave-out-unreadable",
            help="Ask for no image that cannot be read any more. Default: an error, as a disk may only be missing.",
        ),
    ] = False,
    address: Address = None,
    progress: ProgressStyle = "auto",
) -> None:
    """Choose the images of the next round and hand them out to the annotation tool; again, it says where they are."""
    with _project(project, progress) as cycle:
        standing, handout = cycle.query(address, leave_out_unreadable, lambda doubt: typer.echo(f"warning: {doubt}"))
        typer.echo(f"round {standing.index}: {handout}\n{cycle.advice(standing)}")
        _tell_page(cycle)


@project_app.command("import")
def project_import(
    project: _Project,
    path: Annotated[Path, typer.Argument(metavar="EXPORT", help="What the tool exported: a file, folder or zip.")],
    tool: Annotated[Tool | None, typer.Option("--format", help="Of which tool. Default: the project's.")] = None,
    missing: _Missing = "refuse",
) -> None:
    """Take the labels of the query that was handed out: checked, whole or not at all."""
    with _project(project) as cycle, _problems_listed():
        found, index = cycle.take_in(path, tool, missing)
        _tell_notes(found.notes)
        typer.echo(f"round {index}: {_labels(found)}\n{cycle.advice(cycle.fresh())}")
        _tell_page(cycle)


@project_app.command("train")
def project_train(
    project: _Project,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Train nothing: measure this checkpoint, trained elsewhere on what is labelled."),
    ] = None,
    address: Address = None,
    progress: ProgressStyle = "auto",
) -> None:
    """Train the detector on all that is labelled, and measure it on the held-out images; again, it does nothing."""
    with _project(project, progress) as cycle:
        cycle.write_results(cycle.train(address, checkpoint))
        _tell_project(cycle)
        _tell_page(cycle)


@project_app.command()
def undo(project: _Project) -> None:
    """Take the last import back, and the query that followed it; both are kept in the project's undone/."""
    with _project(project) as cycle:
        typer.echo(cycle.folder.undo())
        standing = cycle.fresh()
        cycle.write_results(standing)
        typer.echo(cycle.advice(standing))
        _tell_page(cycle)


def _tell_project(cycle: Any) -> None:
    from raylearn.project.status import status_lines

    standing = cycle.standing()
    for line in status_lines(cycle, standing):
        typer.echo(line)


def _tell_page(before: Any) -> None:
    """Writes the page anew after a step, which is done whether it can be written or not."""
    from raylearn.project.page import write_page
    from raylearn.project.steps import Cycle

    try:
        with doing("writing the page"):
            page = write_page(Cycle(before.folder))
    except RaylearnError as error:
        typer.echo(f"warning: the page could not be written anew: {error}")
    else:
        typer.echo(f"page: {page}")


def _tell_notes(notes: Sequence[str]) -> None:
    for note in notes:
        typer.echo(f"note: {' '.join(note.split())}")


@contextmanager
def _problems_listed() -> Iterator[None]:
    """All that is wrong with labels, a line each, before the error that says so."""
    try:
        yield
    except LabelsError as error:
        for problem in error.problems:
            typer.echo(" ".join(problem.split()))
        raise
