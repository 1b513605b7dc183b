"""What a command says before its work, and shows while it works."""

import typer

from raylearn import signs


def begin(what: str, style: signs.Style = "auto") -> None:
    """Says what a command begins with, before it imports what takes a second; on stderr, since results go to stdout.

    From then on there are signs of life, until `raylearn.cli.main` ends.
    """
    words = " ".join(what.split())
    signs.begin(words, style)
    typer.echo(f"{words} ...", err=True)
