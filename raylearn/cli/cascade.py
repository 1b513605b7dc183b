"""cascade: a pool of images, and what is worth annotating in it, without a whole pass."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from raylearn.cli.arguments import (
    Actors,
    Address,
    Confidence,
    Exclude,
    Force,
    Html,
    Iou,
    MaxDetections,
    OfDetection,
    ProgressStyle,
    ReadAs,
    Requests,
    Root,
    number_of_actors,
)
from raylearn.cli.ledgers import strategy_of
from raylearn.cli.status import begin
from raylearn.data.storage import redacted
from raylearn.measures.axes import Aggregation, Weighting
from raylearn.strategies import DEFAULT


def cascade(
    pool: Annotated[str, typer.Argument(metavar="POOL", help="A folder, glob, list or prefix, as of raylearn score.")],
    checkpoint: Annotated[Path, typer.Option(help="The detector, as of raylearn score.")],
    size: Annotated[int, typer.Option(min=1, help="How many images to ask for.")],
    out: Annotated[Path, typer.Option(help="Folder for query.parquet, query.csv, query.txt and cascade.json.")],
    work: Annotated[
        str | None,
        typer.Option(
            help="Folder of the ledgers, or an address; the same folder again goes on, and other queries of the pool "
            "share its fast pass. Default: OUT."
        ),
    ] = None,
    max_miss: Annotated[
        float,
        typer.Option(
            min=0, max=0.99, help="Score more images exactly until at most this share of the exact top may be missed."
        ),
    ] = 0.02,
    strategy: Annotated[
        str, typer.Option(help="uncertainty, box_count, or another that gives each image a number.")
    ] = DEFAULT,
    uncertainty: OfDetection = None,
    aggregation: Annotated[Aggregation | None, typer.Option(help="Of an image's detections. Default: sum.")] = None,
    weighting: Annotated[
        Weighting | None,
        typer.Option(help="Factor of a detection by its predicted class; needs --class-counts. Default: none."),
    ] = None,
    probabilities: ReadAs = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="An option of the strategy, as of raylearn query.")
    ] = None,
    class_counts: Annotated[
        Path | None, typer.Option(help="Boxes labelled so far: a data set, or a JSON file, as of raylearn query.")
    ] = None,
    exclude: Exclude = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the sample, and orders images of equal score.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Look at so many images of the pool at most.")] = None,
    shuffle_seed: Annotated[
        int | None, typer.Option(min=0, help="With --limit: at a random sample of the pool.")
    ] = None,
    root: Root = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=32, max=8192, help="Of the exact setting; half of it is fast. Default: the checkpoint's."),
    ] = None,
    confidence: Confidence = 0.05,
    iou: Iou = 0.7,
    max_detections: MaxDetections = 100,
    decode: Annotated[
        Literal["full", "reduced", "gpu"], typer.Option(help="How JPEGs are decoded, as of raylearn score.")
    ] = "full",
    backend: Annotated[
        Literal["auto", "torch", "openvino"], typer.Option(help="As of raylearn score, for a pool of this size.")
    ] = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "fp16", "bf16"],
        typer.Option(help="auto: as of raylearn score, and bf16 for the fast setting where the CPU computes in it."),
    ] = "auto",
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per call of the model.")] = None,
    actors: Actors = None,
    gpus_per_actor: Annotated[
        float | None, typer.Option(min=0, help="GPUs of one, as of raylearn score; 0 is CPUs.")
    ] = None,
    requests: Requests = None,
    html: Html = None,
    force: Force = False,
    address: Address = None,
    progress: ProgressStyle = "auto",
) -> None:
    """Choose the images of a pool that are most worth annotating without scoring all of them exactly.

    All images are scored by a fast setting: half the image size, rectangles, bf16 where the CPU computes in it. Then a
    random 1 % (at least 400) and twice as many of the best as are asked for are scored exactly. The answer has exact
    scores. It is told what share of the exact top may be missing, and while that is above --max-miss, more of the best
    are scored. Where half the pool would be, the cascade cannot win: it says so, and scores everything.

    Worth it for large pools and queries of a few percent. To ask several things of one pool, `raylearn score` it once.
    The ledger WORK/exact-... takes any `raylearn query`, such as one with --format for an annotation tool.

    Example: raylearn cascade photos/ --checkpoint best.pt --size 200 --out queries/first --work ledgers/photos
    """
    begin(f"reading {redacted(pool)}", progress)
    from raylearn import api

    chosen = strategy_of(
        strategy,
        option,
        uncertainty=uncertainty,
        aggregation=aggregation,
        weighting=weighting,
        probabilities=probabilities,
    )
    found = api.cascade(
        pool,
        checkpoint,
        size,
        work or out,
        max_miss=max_miss,
        strategy=chosen,
        class_counts=class_counts,
        exclude=exclude or (),
        seed=seed,
        address=address,
        progress=True,
        limit=limit,
        shuffle_seed=shuffle_seed,
        root=root,
        image_size=image_size,
        confidence=confidence,
        iou=iou,
        max_detections=max_detections,
        decode=decode,
        backend=backend,
        precision=precision,
        batch_size=batch_size,
        **number_of_actors(actors),
        gpus_per_actor=gpus_per_actor,
        requests=requests,
    )
    paths = found.write(out, html=html, force=force)
    typer.echo(str(found))
    for doubt in found.query.doubts:
        typer.echo(f"warning: {doubt}")
    typer.echo(f"ledger:  {found.facts.exact}\nquery:   " + "  ".join(str(path) for path in paths))
