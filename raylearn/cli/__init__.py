"""The commands: each one call into a room below, with errors in one line and an exit code that says whose they are."""

import signal
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from raylearn import __version__, signs
from raylearn.errors import RaylearnError

# Typer has no public name for the base of its usage errors, and brings a click of its own or not, by version.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(
    help="Active learning for object detection on Ray: which images are worth annotating, and which way of choosing "
    "them is best?\n\nBegin with: raylearn run quickstart, or for your own data: raylearn init --help",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},  # which contexts below inherit
)
_COMMANDS = {
    "run": ("sweeps.run", "Run an experiment: every arm of its grid with every seed, then write tables and a report."),
    "init": ("sweeps.init", "Write a commented experiment file that runs, filled in from a data set."),
    "score": (
        "ledgers.score",
        "Score a pool of images of any size with a detector, into a ledger that answers every query.",
    ),
    "query": ("ledgers.query", "Choose the images of a finished ledger that are most worth annotating, best first."),
    "cascade": (
        "cascade.cascade",
        "Choose the images of a pool that are most worth annotating without scoring all of them exactly.",
    ),
    "compare": (
        "ledgers.compare",
        "Show from one ledger how much the queries of all arms overlap: does the choice of method matter here?",
    ),
    "dedup": (
        "ledgers.dedup",
        "List the groups of near-duplicates in a finished ledger, by what the detector saw in the images.",
    ),
    "report": (
        "sweeps.report",
        "Write the report of a run again, put two runs side by side, or join runs of other seeds.",
    ),
    "export": (
        "sweeps.export",
        "Write what a trial had labelled by a round as a data set of its own, with images, labels and provenance.",
    ),
    "check": (
        "sweeps.check",
        "Check an experiment and its data set, list every problem with file and line, and run nothing.",
    ),
    "doctor": (
        "sweeps.doctor",
        "Say what is wrong with this machine or a cluster before a sweep does: Ray, GPUs, versions, storage, memory.",
    ),
    "schema": (
        "sweeps.schema",
        "Print every key of an experiment file, as annotated YAML: its default, meaning and allowed values.",
    ),
    "labels": ("people.labels_app", "Labels from an annotation tool."),
    "project": (
        "people.project_app",
        "Label a pool of images with people, round by round: query, import, train, and again.",
    ),
}
"""Name -> where in this room it is, and the first paragraph of its help, for which it is not to be imported."""


def command_named(name: str) -> Any:
    """The command, or group of commands, of this name; its module is imported here."""
    module, _, attribute = _COMMANDS[name][0].partition(".")
    found = getattr(import_module(f"{__name__}.{module}"), attribute)
    if isinstance(found, typer.Typer):
        group = typer.main.get_group(found)
        for command in group.commands.values():  # otherwise their summaries are cut to what is left of a line
            command.short_help = " ".join((command.help or "").split("\n\n")[0].split())
        return group
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name)(found)
    return typer.main.get_command(alone)


class _Late(TyperCommand):
    """Stands for a command until it is asked for: the program's own help is there before numpy is imported."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return command_named(str(self.name)).make_context(info_name, args, parent, **extra)


for _name, (_, _help) in _COMMANDS.items():
    app.command(_name, cls=_Late, help=_help, short_help=_help)(lambda: None)


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
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(args=given or ["--help"], prog_name="raylearn", standalone_mode=False)
    except RaylearnError as error:
        _fail(str(error), error.exit_code)
    except _UsageError as error:
        message = error.format_message()  # type: ignore[attr-defined]  # of click's errors
        advice = _as_overrides(getattr(error, "option_name", ""), given) or "see raylearn --help"
        _fail(f"{message.removesuffix('.')} ({advice})", 2)
    except OSError as error:
        _fail(f"{error.filename or 'input or output'}: {error.strerror or error}", 1)
    except KeyboardInterrupt:  # one that came while Ray was being left
        _fail(_INTERRUPTED, 130)
    except typer.Abort as error:
        _fail(f"input ended too early: {error.__cause__ or 'nothing is left to read'}", 1)
    finally:
        signs.end()
    if code == 130:  # what Typer makes of a KeyboardInterrupt; Abort is what it makes of an EOFError
        _fail(_INTERRUPTED, 130)
    sys.exit(code if isinstance(code, int) else 0)


def _as_overrides(option: str, given: list[str]) -> str:
    """For `run --epochs 3`: what to type instead, where keys of an experiment file end so; else ""."""
    if not option.startswith("--") or given[:1] not in (["run"], ["check"]):
        return ""
    from raylearn.config import Experiment
    from raylearn.config_schema import keys_of

    name = option.removeprefix("--").replace("-", "_")
    found = [key for key in keys_of(Experiment) if key.rpartition(".")[2] == name]
    if not found:
        return ""
    after = [*given, ""][given.index(option) + 1] if option in given else ""
    value = next((word.partition("=")[2] for word in given if word.startswith(f"{option}=")), after)
    value = "..." if not value or value.startswith("-") else value
    return "keys of the experiment file are given as " + " or ".join(f"{key}={value}" for key in found)


def _fail(message: str, code: int) -> None:
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(code)
