"""Arguments that commands of several modules take."""

from pathlib import Path
from typing import Annotated, TypedDict

import typer

from raylearn.errors import QueryError
from raylearn.measures.axes import Probabilities, Uncertainty
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

Root = Annotated[
    Path | None, typer.Option(help="Read local files anywhere below this folder. Default: only below POOL's own.")
]
Confidence = Annotated[float, typer.Option(min=0, max=1, help="Detections below it are not kept.")]
Iou = Annotated[float, typer.Option(min=0, max=1, help="Overlap above which the weaker of two boxes goes.")]
MaxDetections = Annotated[int, typer.Option(min=1, help="Most confident boxes kept per image.")]
Actors = Annotated[
    str | None,
    typer.Option(
        metavar="N | MIN:MAX",
        help="Detector processes. 1:100 begins with one, and has up to 100 as an autoscaling cluster grows. Default: "
        "as many as the GPUs have room for, or one per CPU.",
    ),
]
Requests = Annotated[
    int | None,
    typer.Option(min=1, max=256, help="Objects of a bucket that an actor asks for at once. Default: 256."),
]
OfDetection = Annotated[Uncertainty | None, typer.Option(help="Of one detection. Default: entropy.")]
ReadAs = Annotated[
    Probabilities | None, typer.Option(help="How class scores are read as probabilities. Default: background.")
]
Exclude = Annotated[
    list[Path] | None,
    typer.Option(help="Image ids to leave out, such as those labelled: .txt, or .csv or .parquet with image_id."),
]
Html = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Also a page: the images in order of rank, and why each one was chosen."),
]
Force = Annotated[bool, typer.Option("--force", help="Write over another query in OUT, or another FILE.")]


class NumberOfActors(TypedDict):
    """What `--actors` means to a request."""

    num_actors: int | None
    max_actors: int | None


def number_of_actors(actors: str | None) -> NumberOfActors:
    """QueryError for a text that is neither a number nor two."""
    fewest, colon, most = (actors or "").partition(":")
    numbers = [fewest, most] if colon else [fewest]
    if actors is not None and not all(number.isdecimal() for number in numbers):
        raise QueryError(f"--actors {actors!r} is not a number: give one such as 4, or two such as 1:100")
    return {"num_actors": int(fewest) if fewest else None, "max_actors": int(most) if most else None}
