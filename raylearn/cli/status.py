"""What a command says before its work."""

import typer


def begin(what: str) -> None:
    """Says what a command begins with, before it imports what takes a second; on stderr, since results go to stdout."""
    typer.echo(f"{' '.join(what.split())} ...", err=True)
