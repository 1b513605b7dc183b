"""score, query, compare, dedup: a pool of images, and what is worth annotating in it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

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
from raylearn.cli.status import begin
from raylearn.data.storage import redacted
from raylearn.errors import QueryError
from raylearn.handoff.exchange import Tool
from raylearn.measures.axes import Aggregation, Probabilities, Weighting
from raylearn.measures.near_duplicates import NEAR
from raylearn.progress import doing, steps
from raylearn.strategies import DEFAULT, Strategy
from raylearn.wording import counted

_LedgerArgument = Annotated[
    str, typer.Argument(metavar="LEDGER", help="The folder or address that `raylearn score` wrote to.")
]
_ClassCounts = Annotated[
    Path | None,
    typer.Option(help='Boxes labelled so far: a data set, or a JSON file such as {"crab": 12, "fish": 340}.'),
]
_Probabilities = Annotated[Probabilities, typer.Option(help="How class scores are read as probabilities.")]
_WeightCap = Annotated[float | None, typer.Option(min=0, help="Upper limit of a class weight.")]
_Seed = Annotated[int, typer.Option(min=0, help="Orders images of equal score.")]


def score(
    pool: Annotated[
        str,
        typer.Argument(
            metavar="POOL",
            help="A folder, a glob in quotes, a list (.txt, .csv, .parquet), or a prefix such as s3://bucket/images.",
        ),
    ],
    checkpoint: Annotated[Path, typer.Option(help="The detector: a .pt of raylearn's, or of a library that it knows.")],
    out: Annotated[str, typer.Option(help="Folder of the ledger, or an address; the same folder again goes on.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Score so many images at most.")] = None,
    shuffle_seed: Annotated[
        int | None, typer.Option(min=0, help="Put the images in a random order first; with --limit, a random sample.")
    ] = None,
    root: Root = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=32, max=8192, help="Longer side images are scaled to. Default: the checkpoint's, or 640."),
    ] = None,
    confidence: Confidence = 0.05,
    iou: Iou = 0.7,
    max_detections: MaxDetections = 100,
    canvas: Annotated[
        Literal["square", "rectangle"],
        typer.Option(
            help="Pad to a square, as in training; or to a rectangle: a quarter less work for 4:3 images, but other "
            "scores (docs/scoring.md)."
        ),
    ] = "square",
    decode: Annotated[
        Literal["full", "reduced", "gpu"],
        typer.Option(
            help="reduced decodes JPEGs of at least twice the image size at 1/2, 1/4 or 1/8. gpu uses the JPEG decoder "
            "of a data-centre GPU (A100, H100 and later), with slightly other pixels (docs/scoring.md)."
        ),
    ] = "full",
    embeddings: Annotated[
        bool,
        typer.Option(
            "--embeddings", help="Keep what the detector saw in each box and image, for strategies that need it."
        ),
    ] = False,
    backend: Annotated[
        Literal["auto", "torch", "openvino"],
        typer.Option(help="auto: openvino for large pools on CPUs where it is installed, else torch."),
    ] = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "fp16", "bf16"], typer.Option(help="auto: fp16 on GPUs, fp32 on CPUs.")
    ] = "auto",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per call of the model. Default: 64 on a GPU, 4 on a CPU.")
    ] = None,
    actors: Actors = None,
    gpus_per_actor: Annotated[
        float | None,
        typer.Option(
            min=0, help="GPUs of one; 0.5 is two on a GPU, 0 is CPUs. Default: 0.25 beside 16 CPUs, 0.5, or 1."
        ),
    ] = None,
    part_size: Annotated[
        int | None, typer.Option(min=1, help="Images kept, or after a crash repeated, together. Default: 64 to 2048.")
    ] = None,
    requests: Requests = None,
    update: Annotated[
        bool,
        typer.Option(
            "--update",
            help="List the pool of a ledger again: score what is new or changed in it, and leave out what is gone.",
        ),
    ] = False,
    address: Address = None,
    progress: ProgressStyle = "auto",
) -> None:
    """Score a pool of images of any size with a detector, into a ledger that answers every query.

    The pool is listed and frozen first. Interrupted at any point, run the same command again to resume, without
    listing again; another pool, checkpoint or setting is refused. Images that cannot be read are rows with an error.

    Example: raylearn score photos/ --checkpoint best.pt --out ledgers/photos
    """
    begin(f"reading {redacted(pool)}", progress)
    from raylearn import api

    api.score(
        pool,
        checkpoint,
        out,
        address=address,
        progress=True,
        root=root,
        limit=limit,
        shuffle_seed=shuffle_seed,
        image_size=image_size,
        confidence=confidence,
        iou=iou,
        max_detections=max_detections,
        canvas=canvas,
        decode=decode,
        embeddings=embeddings,
        backend=backend,
        precision=precision,
        batch_size=batch_size,
        **number_of_actors(actors),
        gpus_per_actor=gpus_per_actor,
        part_size=part_size,
        requests=requests,
        update=update,
    )


def query(
    ledger: _LedgerArgument,
    out: Annotated[Path, typer.Option(help="Folder for query.parquet, query.csv and query.txt.")],
    size: Annotated[int | None, typer.Option(min=1, help="How many images to ask for.")] = None,
    boxes: Annotated[
        int | None, typer.Option(min=1, help="Instead of --size: as many images as have so many predicted boxes.")
    ] = None,
    strategy: Annotated[
        str,
        typer.Option(
            help="uncertainty, or one of the controls: random (by chance), box_count (by number of detections); or one "
            "that another package adds."
        ),
    ] = DEFAULT,
    uncertainty: OfDetection = None,
    aggregation: Annotated[
        Aggregation | None, typer.Option(help="Of an image's detections. Default: sum; of diverse, mean.")
    ] = None,
    weighting: Annotated[
        Weighting | None,
        typer.Option(
            help="Factor of a detection by its predicted class; needs --class-counts. Default: none; of diverse, "
            "inverse_frequency."
        ),
    ] = None,
    probabilities: ReadAs = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="An option of the strategy, such as one of another package."),
    ] = None,
    class_counts: _ClassCounts = None,
    weight_cap: _WeightCap = None,
    exclude: Exclude = None,
    labelled: Annotated[
        list[Path] | None,
        typer.Option(help="Image ids that are labelled: left out too, and kept away from where images are compared."),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="folder|FILE",
            help="Groups for --option max_per_group=1: images' folders, or a CSV of image,group.",
        ),
    ] = None,
    seed: _Seed = 0,
    tool: Annotated[
        Tool | None, typer.Option("--format", help="Also a folder OUT/FORMAT that this annotation tool opens.")
    ] = None,
    images: Annotated[
        Literal["copy", "uri"] | None,
        typer.Option(help="With --format: copy the images, or leave them where they are. Default: as the tool needs."),
    ] = None,
    boxes_above: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="With --format: pre-annotate detections from this confidence on; 0.25."),
    ] = None,
    html: Html = None,
    force: Force = False,
) -> None:
    """Choose the images of a finished ledger that are most worth annotating, best first.

    Example: raylearn query ledgers/photos --size 200 --aggregation max --out queries/first
    """
    begin(f"reading {redacted(ledger)}")
    from raylearn import api
    from raylearn.handoff.export import check_handout

    chosen = strategy_of(
        strategy,
        option,
        uncertainty=uncertainty,
        aggregation=aggregation,
        weighting=weighting,
        probabilities=probabilities,
        weight_cap=weight_cap,
    )
    if tool is None and (images, boxes_above) != (None, None):
        raise QueryError("--images and --boxes-above have no meaning without --format: give it too, or leave them out")
    copies = None if images is None else images == "copy"
    if tool:
        check_handout(tool, out / tool, copies)
    left_out, known = api.image_ids(exclude or ()), api.image_ids(labelled or ())
    with doing("reading the ledger"):
        found = api.query(
            ledger,
            size,
            boxes=boxes,
            strategy=chosen,
            class_counts=class_counts,
            exclude=left_out,
            labelled=known,
            group_by=group_by,
            seed=seed,
            on_part=partial(steps, "part"),
        )
    told = f", {found.found.num_errors:,} could not be read" if found.found.num_errors else ""
    if exclude or labelled:
        told += f", {found.found.num_excluded:,} of {len({*left_out, *known}):,} excluded ids found"
    with doing("drawing the page" if html else "writing the query"):
        paths = found.write(out, html=html, force=force)
    expected = round(sum(image.reason.boxes or 0 for image in found.found.images))
    if found.found.num_groups is not None:
        told = f" from {counted(found.found.num_groups, 'group')}{told}"
    typer.echo(
        f"{len(found.found.images):,} of {counted(found.found.num_candidates, 'image')}{told}, "
        f"{counted(expected, 'predicted box', 'predicted boxes')}"
    )
    for doubt in found.doubts:
        typer.echo(f"warning: {doubt}")
    if html and found.unreadable:
        first, *others = found.unreadable
        more = f" and {counted(len(others), 'other')}" if others else ""
        typer.echo(f"warning: {first}{more} cannot be read any more: grey on the page")
    typer.echo("query:   " + "  ".join(str(path) for path in paths))
    if tool:
        confidence = 0.25 if boxes_above is None else boxes_above
        typer.echo(f"handout: {found.hand_out(tool, out / tool, copies=copies, boxes_above=confidence)}")


def strategy_of(name: str, named: Sequence[str] | None, **options: Any) -> Strategy:
    """A strategy by its name, its options that have a flag, of which None is not given, and KEY=VALUE of --option."""
    from raylearn import api
    from raylearn.config_files import key_values

    others = key_values(named or (), "--option", "power=2")
    twice = [option for option in others if options.get(option) is not None]
    if twice:
        raise QueryError(f"{twice[0]} is given twice: leave --option {twice[0]}=... out")
    given = {option: value for option, value in options.items() if value is not None}
    return api.choice(name, {**given, **others})


def compare(
    ledger: _LedgerArgument,
    size: Annotated[
        int | None, typer.Option(min=1, help="Images of each query. Default: a tenth of the ledger, at most 10,000.")
    ] = None,
    probabilities: _Probabilities = "background",
    class_counts: _ClassCounts = None,
    weight_cap: _WeightCap = None,
    exclude: Exclude = None,
    seed: _Seed = 0,
    out: Annotated[Path | None, typer.Option(help="A CSV file for the whole table.")] = None,
) -> None:
    """Show from one ledger how much the queries of all arms overlap: does the choice of method matter here?

    Every uncertainty and aggregation, and both controls; with --class-counts every weighting too.

    Example: raylearn compare ledgers/photos --size 200
    """
    begin(f"reading {redacted(ledger)}")
    from raylearn import api

    with doing("reading the ledger"):
        found = api.compare(
            ledger,
            size,
            probabilities=probabilities,
            class_counts=class_counts,
            weight_cap=weight_cap,
            exclude=exclude or (),
            seed=seed,
            on_part=partial(steps, "part"),
        )
    if out is not None:
        found.write(out)
    typer.echo(str(found))


def dedup(
    ledger: _LedgerArgument,
    distance: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Images at most so far apart are near-duplicates; 0 is the same (docs/scoring.md).",
        ),
    ] = NEAR,
    out: Annotated[
        Path | None, typer.Option(help="A CSV file of image,group: what `raylearn query --group-by` reads.")
    ] = None,
) -> None:
    """List the groups of near-duplicates in a finished ledger, by what the detector saw in the images.

    The ledger needs embeddings (`raylearn score --embeddings`). A query asks for one image of each group with
    --group-by FILE --option max_per_group=1.

    Example: raylearn dedup ledgers/photos --out near_duplicates.csv
    """
    begin(f"reading {redacted(ledger)}")
    from raylearn import api

    with doing("comparing images"):
        found = api.dedup(ledger, distance, on_part=partial(steps, "part"))
    if out is not None:
        found.write(out)
    typer.echo(str(found))
    if out is not None:
        typer.echo(f"groups: {out}")
