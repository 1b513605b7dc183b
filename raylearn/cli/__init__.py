"""The commands: each one call into a room below, with errors in one line and an exit code that says whose they are."""

import signal
import sys
from typing import Annotated

import typer

from raylearn import __version__
from raylearn.cli.ledgers import compare, query, score
from raylearn.cli.people import labels_app, project_app
from raylearn.cli.sweeps import check, doctor, report, run, schema
from raylearn.errors import RaylearnError

# Typer has no public name for the base of its usage errors, and brings a click of its own or not, by version.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(
    help="Active learning for object detection on Ray: which images are worth annotating, and which way of choosing "
    "them is best?\n\nBegin with: raylearn run experiments/quickstart.yaml",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for _command in (run, score, query, compare, report, check, doctor, schema):
    app.command()(_command)
app.add_typer(labels_app, name="labels")
app.add_typer(project_app, name="project")


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
    """The `raylearn` program: exit code 0, 1 (the work failed), 2 (what was asked is wrong) or 130 (interrupted)."""
    if arguments is None:  # as a program, which a scheduler ends so: the same as Ctrl+C
        signal.signal(signal.SIGTERM, signal.default_int_handler)
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
