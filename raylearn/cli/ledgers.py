"""score, query, compare: a pool of images, and what is worth annotating in it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from raylearn.cli.arguments import Address
from raylearn.cli.status import begin
from raylearn.config import Aggregation, Probabilities, Uncertainty, Weighting
from raylearn.data.storage import Folder, redacted
from raylearn.errors import QueryError
from raylearn.handoff.exchange import Tool

_LedgerArgument = Annotated[
    str, typer.Argument(metavar="LEDGER", help="The folder or address that `raylearn score` wrote to.")
]
_ClassCounts = Annotated[
    Path | None,
    typer.Option(help='Boxes labelled so far: a data set, or a JSON file such as {"crab": 12, "fish": 340}.'),
]
_Probabilities = Annotated[Probabilities, typer.Option(help="How class scores are read as probabilities.")]
_WeightCap = Annotated[float | None, typer.Option(min=0, help="Upper limit of a class weight.")]
_Exclude = Annotated[
    list[Path] | None,
    typer.Option(help="Image ids to leave out, such as those labelled: .txt, or .csv or .parquet with image_id."),
]
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
    root: Annotated[
        Path | None, typer.Option(help="Read local files anywhere below this folder. Default: only below POOL's own.")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=32, max=8192, help="Longer side images are scaled to. Default: the checkpoint's, or 640."),
    ] = None,
    confidence: Annotated[float, typer.Option(min=0, max=1, help="Detections below it are not kept.")] = 0.05,
    iou: Annotated[float, typer.Option(min=0, max=1, help="Overlap above which the weaker of two boxes goes.")] = 0.7,
    max_detections: Annotated[int, typer.Option(min=1, help="Most confident boxes kept per image.")] = 100,
    canvas: Annotated[
        Literal["square", "rectangle"],
        typer.Option(
            help="Pad to a square, as in training; or to a rectangle: a quarter less work for 4:3 images, but other "
            "scores (docs/scoring.md)."
        ),
    ] = "square",
    decode: Annotated[
        Literal["full", "reduced"],
        typer.Option(help="reduced decodes JPEGs of at least twice the image size at 1/2, 1/4 or 1/8."),
    ] = "full",
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
    actors: Annotated[
        int | None, typer.Option(min=1, help="Detector processes. Default: one per GPU, or one per CPU.")
    ] = None,
    gpus_per_actor: Annotated[
        float | None,
        typer.Option(min=0, help="GPUs of one; 0.5 is two on a GPU, 0 is CPUs. Default: 1 if there are."),
    ] = None,
    part_size: Annotated[
        int | None, typer.Option(min=1, help="Images kept, or after a crash repeated, together. Default: 64 to 2048.")
    ] = None,
    address: Address = None,
) -> None:
    """Score a pool of images of any size with a detector, into a ledger that answers every query.

    The pool is listed and frozen first. Interrupted at any point, the same command goes on with what is missing; a
    changed pool, checkpoint or setting is refused. Images that cannot be read are rows with an error.

    Example: raylearn score photos/ --checkpoint best.pt --out ledgers/photos
    """
    begin(f"reading {redacted(pool)}")
    from rich.console import Console

    from raylearn.scoring.pool_scoring import ScoreRequest, score_pool

    if image_size is not None and image_size % 32:
        raise QueryError(f"--image-size {image_size} is no multiple of 32: try {image_size // 32 * 32 + 32}")
    request = ScoreRequest(
        pool=pool,
        checkpoint=checkpoint,
        image_size=image_size,
        confidence=confidence,
        iou=iou,
        max_detections=max_detections,
        canvas=canvas,
        decode=decode,
        root=root,
        limit=limit,
        shuffle_seed=shuffle_seed,
        backend=backend,
        precision=precision,
        batch_size=batch_size,
        num_actors=actors,
        gpus_per_actor=gpus_per_actor,
        part_size=part_size,
    )
    score_pool(request, out, address=address, console=Console())


def query(
    ledger: _LedgerArgument,
    size: Annotated[int, typer.Option(min=1, help="How many images to ask for.")],
    out: Annotated[Path, typer.Option(help="Folder for query.parquet, query.csv and query.txt.")],
    strategy: Annotated[
        Literal["uncertainty", "random", "box_count"],
        typer.Option(help="By uncertainty, or one of the controls: by chance, or by number of detections."),
    ] = "uncertainty",
    uncertainty: Annotated[Uncertainty | None, typer.Option(help="Of one detection. Default: entropy.")] = None,
    aggregation: Annotated[Aggregation | None, typer.Option(help="Of an image's detections. Default: sum.")] = None,
    weighting: Annotated[
        Weighting | None,
        typer.Option(help="Factor of a detection by its predicted class; needs --class-counts. Default: none."),
    ] = None,
    probabilities: Annotated[
        Probabilities | None, typer.Option(help="How class scores are read as probabilities. Default: background.")
    ] = None,
    class_counts: _ClassCounts = None,
    weight_cap: _WeightCap = None,
    exclude: _Exclude = None,
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
) -> None:
    """Choose the images of a finished ledger that are most worth annotating, best first.

    Example: raylearn query ledgers/photos --size 200 --aggregation max --out queries/first
    """
    begin(f"reading {redacted(ledger)}")
    from raylearn.config import Arm
    from raylearn.handoff.export import check_handout, export_query
    from raylearn.handoff.query_files import write_query
    from raylearn.learning.ledger_query import class_names, detections_of, query_ledger
    from raylearn.scoring.ledger import read_facts

    axes = {
        "uncertainty": uncertainty,
        "aggregation": aggregation,
        "weighting": weighting,
        "probabilities": probabilities,
    }
    named = [f"--{name} {value}" for name, value in axes.items() if value not in (None, "none")]
    if strategy == "uncertainty":
        arm = Arm(
            strategy,
            uncertainty or "entropy",
            aggregation or "sum",
            weighting or "none",
            probabilities or "background",
            size,
        )
    elif named:
        raise QueryError(f"{named[0]} has no meaning with --strategy {strategy}: leave it out")
    else:
        arm = Arm(strategy, query_size=size)
    if weight_cap is not None and arm.weighting in (None, "none"):
        raise QueryError("--weight-cap has no meaning without a weighting: give --weighting too, or leave it out")
    given = _given(class_counts, exclude)
    if tool is None and (images, boxes_above) != (None, None):
        raise QueryError("--images and --boxes-above have no meaning without --format: give it too, or leave them out")
    copies = None if images is None else images == "copy"
    if tool:
        check_handout(tool, out / tool, copies)
    with _ledger_progress() as progress:
        found = query_ledger(Folder(ledger), arm, size, seed=seed, weight_cap=weight_cap, progress=progress, **given)
    paths = write_query(found.images, out)
    left_out = f", {found.num_errors:,} could not be read" if found.num_errors else ""
    left_out += f", {found.num_excluded:,} of {len(given['exclude']):,} excluded ids found" if exclude else ""
    typer.echo(f"{size:,} of {found.num_candidates:,} images{left_out}")
    typer.echo("query:   " + "  ".join(str(path) for path in paths))
    if tool:
        confidence = 0.25 if boxes_above is None else boxes_above
        seen = detections_of(Folder(ledger), [image.image_id for image in found.images])
        names = class_names(read_facts(Folder(ledger)), Folder(ledger))
        folder = export_query(found.images, seen, names, tool, out / tool, copies=copies, confidence=confidence)
        typer.echo(f"handout: {folder}")


def compare(
    ledger: _LedgerArgument,
    size: Annotated[
        int | None, typer.Option(min=1, help="Images of each query. Default: a tenth of the ledger, at most 10,000.")
    ] = None,
    probabilities: _Probabilities = "background",
    class_counts: _ClassCounts = None,
    weight_cap: _WeightCap = None,
    exclude: _Exclude = None,
    seed: _Seed = 0,
    out: Annotated[Path | None, typer.Option(help="A CSV file for the whole table.")] = None,
) -> None:
    """Show from one ledger how much the queries of all arms overlap: does the choice of method matter here?

    Every uncertainty and aggregation, and both controls; with --class-counts every weighting too.

    Example: raylearn compare ledgers/photos --size 200
    """
    begin(f"reading {redacted(ledger)}")
    from raylearn.handoff.comparison import show_comparison
    from raylearn.learning.ledger_query import all_arms, compare_arms
    from raylearn.scoring.ledger import read_facts

    folder = Folder(ledger)
    if weight_cap is not None and class_counts is None:
        raise QueryError("--weight-cap has no meaning without weightings: give --class-counts too, or leave it out")
    given = _given(class_counts, exclude)
    if size is None:
        facts = read_facts(folder)
        candidates = facts["num_images"] - facts.get("num_errors", 0) - len(given["exclude"])
        size = max(1, min(10_000, candidates // 10))
    arms = all_arms(size, probabilities, weighted=class_counts is not None)
    with _ledger_progress() as progress:
        overlaps = compare_arms(folder, arms, size, seed=seed, weight_cap=weight_cap, progress=progress, **given)
    typer.echo(show_comparison(arms, overlaps, size, out))


def _given(class_counts: Path | None, exclude: list[Path] | None) -> dict[str, Any]:
    from raylearn.data.class_counts import read_class_counts
    from raylearn.handoff.query_files import read_image_ids

    return {
        "class_counts": read_class_counts(class_counts) if class_counts else None,
        "exclude": sorted({image_id for path in exclude or () for image_id in read_image_ids(path)}),
    }


@contextmanager
def _ledger_progress() -> Iterator[Callable[[int, int], None]]:
    """A bar over the parts of a ledger, on a terminal only: a query of a million images takes seconds."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("reading the ledger", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
