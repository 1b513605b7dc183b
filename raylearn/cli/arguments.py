"""Arguments that commands of several modules take."""

from typing import Annotated

import typer

from raylearn.signs import Style

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Replace values of the file, as in training.epochs=20 seeds=[0,1]."),
]
Address = Annotated[
    str | None,
    typer.Option(help="A Ray cluster, as in auto or 10.0.0.1:6379. Default: RAY_ADDRESS, or a private Ray here."),
]
ProgressStyle = Annotated[
    Style,
    typer.Option(
        "--progress",
        help="What is being done, on stderr: auto is a line that changes on a terminal, else as plain; plain is a line "
        "at least every 5 s; json is an object a line, for programs.",
    ),
]
