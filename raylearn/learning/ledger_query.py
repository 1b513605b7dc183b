"""Queries from a finished ledger, read part by part, so that it may be larger than memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from threadpoolctl import threadpool_limits

from raylearn.data.dataset import Image
from raylearn.data.storage import Folder
from raylearn.detectors.base import Detections
from raylearn.errors import LedgerError, QueryError, TooFewError
from raylearn.learning.collectors import Collector, LedgerPart, QueriedImage, collector_of
from raylearn.learning.ledger_answer import GroupOf, LedgerQuery, Totals, groups_in, marked
from raylearn.measures.aggregation import AGGREGATIONS
from raylearn.measures.uncertainty import UNCERTAINTIES
from raylearn.measures.weighting import WEIGHTINGS
from raylearn.scoring import embedding_columns
from raylearn.scoring.ledger import flat, map_parts, offsets_of, parts_of, read_facts
from raylearn.strategies import (
    Candidates,
    Context,
    ImageScoring,
    Labelled,
    Strategy,
    Uncertainty,
    built_in_controls,
    make_strategy,
)
from raylearn.strategies.reasons import reasons

_COLUMNS = ("image_id", "uri", "status", "class_scores")


def query_ledger(
    folder: Folder,
    strategy: Strategy,
    size: int,
    *,
    seed: int,
    class_counts: Mapping[str, int] | None = None,
    exclude: Sequence[str] = (),
    labelled: Sequence[str] = (),
    group_of: GroupOf | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> LedgerQuery:
    """The `size` images that a strategy wants most.

    Args:
        folder: of a finished ledger.
        strategy: how images are chosen.
        size: how many.
        seed: decides what chance decides, the order of images of equal score included.
        class_counts: boxes per class in the currently labelled images, by name; some strategies need it.
        exclude: ids that are not wanted.
        labelled: ids that are labelled already, which are not asked for either: of those that are in the ledger, a
            strategy that needs labelled embeddings keeps its distance.
        group_of: gives the group of each image, for a limit per group.
        progress: told how many parts are done, of how many.

    Raises:
        LedgerError: no finished ledger, or a damaged one.
        QueryError: more images than there are, or class counts that are missing or of other classes.
    """
    with threadpool_limits(1, "blas"):  # parts are read in threads already, and BLAS's would wait for each other
        (best,), totals, names, seen = _best_of_each(
            folder, [strategy], size, seed, class_counts, exclude, progress, labelled, group_of
        )
        images = _with_reasons(best.images(names), folder, labelled, seen)
        tie = best.tie
    return LedgerQuery(
        marked(images, tie) if strategy.needs_pass else images,
        totals.candidates,
        totals.errors,
        totals.excluded,
        totals.without_detections,
        tie,
        groups_in(images, group_of),
        strategy.needs_pass,
        isinstance(strategy, ImageScoring),
    )


def query_ledger_for_boxes(
    folder: Folder, strategy: Strategy, boxes: int, *, candidates: int, **arguments: Any
) -> LedgerQuery:
    """The images that a strategy wants most and that together have so many boxes, by what the detector sees.

    Args:
        folder, strategy: see `query_ledger`.
        boxes: predicted ones, at least 1; the last image may bring more than were left.
        candidates: images that can be asked for at least.
        arguments: see `query_ledger`.

    Raises:
        LedgerError, QueryError: see `query_ledger`; or all images have fewer boxes than that.
    """
    if boxes < 1:
        raise QueryError(f"a query of {boxes} boxes: ask for one at least")
    size, most = min(candidates, boxes), None
    while True:
        try:
            found = query_ledger(folder, strategy, size, **arguments)
        except TooFewError as error:  # what groups give may still have as many boxes
            if not error.found:
                raise
            size = most = error.found
            continue
        spent = np.cumsum([image.reason.boxes or 0.0 for image in found.images])
        if spent[-1] >= boxes:
            paid = int(np.searchsorted(spent, boxes)) + 1
            return found.first(paid, arguments.get("group_of"))
        if size in (found.num_candidates, most):
            within = f" within groups of at most {strategy.max_per_group}" if most else ""
            raise QueryError(
                f"a query of {boxes:,} boxes, but {size:,} images{within} have {spent[-1]:,.0f} by what the "
                f"detector sees: ask for fewer{', or raise max_per_group' if most else ''}"
            )
        size = min(found.num_candidates, 4 * size)


def compare_strategies(
    folder: Folder,
    strategies: Sequence[Strategy],
    size: int,
    *,
    seed: int,
    class_counts: Mapping[str, int] | None = None,
    exclude: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[np.ndarray, Totals]:
    """How much the queries of several strategies have in common, from one reading of the ledger; see `query_ledger`.

    Returns:
        (A, A) float64 in [0, 1]: the share of images that two queries have in common; 1 on the diagonal. And what was
        read for it.
    """
    with threadpool_limits(1, "blas"):
        bests, totals, *_ = _best_of_each(folder, strategies, size, seed, class_counts, exclude, progress)
        chosen = [best.ids() for best in bests]
    return np.array([[len(one & other) / size for other in chosen] for one in chosen]), totals


def _best_of_each(
    folder: Folder,
    strategies: Sequence[Strategy],
    size: int,
    seed: int,
    class_counts: Mapping[str, int] | None,
    exclude: Sequence[str],
    progress: Callable[[int, int], None],
    labelled: Sequence[str] = (),
    group_of: GroupOf | None = None,
) -> tuple[list[Collector], Totals, list[str], Labelled | None]:
    """What each strategy chooses, from one reading; what was read; class names; labelled images, if any needs them."""
    if size < 1:
        raise QueryError(f"a query of {size} images: ask for one at least")
    facts = read_facts(folder)
    names = class_names(facts, folder)
    for strategy in strategies:
        _refuse_unmet_needs(strategy, facts, folder)
        strategy.refuse_classes(len(names))
        counts_by_class(class_counts, names, strategy)
    seen = None
    if labelled and any(strategy.needs_labelled for strategy in strategies):
        seen = _labelled_images(folder, facts, labelled)
    bests = [
        collector_of(strategy, size, Context(seed, counts_by_class(class_counts, names, strategy), seen))
        for strategy in strategies
    ]
    totals = Totals()
    columns = (
        *_COLUMNS,
        *(embedding_columns.NAMES if any(strategy.needs_embeddings for strategy in strategies) else ()),
    )
    look = partial(_look_at_part, bests=bests, left_out=_strings([*exclude, *labelled]), group_of=group_of)
    for done, (part, looks, part_totals) in enumerate(map_parts(folder, facts, columns, look), start=1):
        for best, own in zip(bests, looks, strict=True):
            best.add(part, own)
        totals += part_totals
        progress(done, len(parts_of(facts)))
    _check_size(size, totals)
    return bests, totals, names, seen


def scores_of(
    folder: Folder,
    strategy: ImageScoring,
    *,
    seed: int,
    class_counts: Mapping[str, int] | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[list[str], np.ndarray]:
    """Ids and (N,) scores of all readable images of a ledger, in its order; see `query_ledger`."""
    facts = read_facts(folder)
    names = class_names(facts, folder)
    _refuse_unmet_needs(strategy, facts, folder)
    strategy.refuse_classes(len(names))
    best = collector_of(strategy, 1, Context(seed, counts_by_class(class_counts, names, strategy)))
    columns = _columns(strategy.needs_embeddings)
    look = partial(_look_at_part, bests=[best], left_out=_strings([]), group_of=None)
    ids, scores = [], [np.empty(0)]
    with threadpool_limits(1, "blas"):
        for done, (part, (own,), _) in enumerate(map_parts(folder, facts, columns, look), start=1):
            ids += part.image_ids.to_pylist()
            scores.append(own)
            progress(done, len(parts_of(facts)))
    return ids, np.concatenate(scores)


def _labelled_images(folder: Folder, facts: Mapping[str, Any], image_ids: Sequence[str]) -> Labelled | None:
    """What the ledger holds of labelled images; None where it has none of them."""
    seen = _images(folder, facts, image_ids, True)
    return None if seen is None else Labelled(seen, None)


def _images(folder: Folder, facts: Mapping[str, Any], image_ids: Sequence[str], embeddings: bool) -> Candidates | None:
    """These images as the ledger has them, in order of their ids; None where it has none of them."""
    wanted = _strings(image_ids)
    columns = _columns(embeddings)

    def look(table: pa.Table) -> LedgerPart:
        return _part_of(table.filter(pc.and_(pc.equal(table["status"], "ok"), pc.is_in(table["image_id"], wanted))))

    parts = [part for part in map_parts(folder, facts, columns, look) if len(part)]
    if not parts:
        return None
    found = LedgerPart.joined(parts).candidates
    return found.take(np.argsort(np.array(found.image_ids, object)))


def _with_reasons(
    images: tuple[QueriedImage, ...], folder: Folder, labelled: Sequence[str], seen: Labelled | None
) -> tuple[QueriedImage, ...]:
    """The same, each with what is known of it beside its score; `seen` where the labelled images were read already."""
    facts = read_facts(folder)
    kept = bool(facts.get("settings", {}).get("embeddings"))
    if seen is None and kept and labelled:
        seen = _labelled_images(folder, facts, labelled)
    chosen = _images(folder, facts, [image.image_id for image in images], kept and seen is not None)
    if chosen is None:
        return images
    context = Context(0, np.zeros(0, np.int64), seen)
    known = reasons([image.image_id for image in images], chosen, context)
    return tuple(replace(image, reason=reason) for image, reason in zip(images, known, strict=True))


def _columns(embeddings: bool) -> tuple[str, ...]:
    return (*_COLUMNS, *embedding_columns.NAMES) if embeddings else _COLUMNS


def _part_of(table: pa.Table) -> LedgerPart:
    class_scores = table["class_scores"]
    return LedgerPart(
        table["image_id"],
        table["uri"],
        offsets_of(class_scores),
        flat(class_scores),
        **embedding_columns.embeddings_of(table),
    )


def _refuse_unmet_needs(strategy: Strategy, facts: Mapping[str, Any], folder: Folder) -> None:
    """Raises QueryError where a strategy needs what a ledger does not hold."""
    if strategy.simulation_only:
        raise QueryError(f"strategy {strategy.name} looks at labels that nobody has made yet: for simulations only")
    if strategy.needs_embeddings and not facts.get("settings", {}).get("embeddings"):
        raise QueryError(
            f"strategy {strategy.name} needs {strategy.needs}, which {folder} does not hold: score with --embeddings"
        )


def detections_of(folder: Folder, image_ids: Sequence[str]) -> dict[str, tuple[tuple[int, int], Detections]]:
    """Image id -> (width, height) and detections of images of a finished ledger.

    Raises:
        LedgerError: no finished ledger, a damaged one, or one that lacks an image.
    """
    return {image_id: ((i.width, i.height), found) for image_id, (i, found) in files_of(folder, image_ids).items()}


def files_of(folder: Folder, image_ids: Sequence[str]) -> dict[str, tuple[Image, Detections]]:
    """Image id -> its file, whose hash no ledger knows, and detections of images of a finished ledger.

    Raises:
        LedgerError: no finished ledger, a damaged one, or one that lacks an image.
    """
    facts = read_facts(folder)
    wanted = _strings(image_ids)

    def look(table: pa.Table) -> dict[str, tuple[Image, Detections]]:
        kept = table.filter(pc.is_in(table["image_id"], wanted))
        offsets = offsets_of(kept["class_scores"])
        boxes, scores = flat(kept["boxes"]), flat(kept["class_scores"])
        rows = zip(*(kept[name].to_pylist() for name in ("image_id", "uri", "width", "height")), strict=True)
        return {
            image_id: (Image(image_id, uri, width, height, ""), Detections(boxes[start:end], scores[start:end]))
            for (image_id, uri, width, height), start, end in zip(rows, offsets[:-1], offsets[1:], strict=True)
        }

    columns = ("image_id", "uri", "width", "height", "boxes", "class_scores")
    found = {image_id: seen for part in map_parts(folder, facts, columns, look) for image_id, seen in part.items()}
    missing = sorted(set(image_ids) - found.keys())
    if missing:
        raise LedgerError(f"{folder} has no image {missing[0]!r}")
    return found


def all_choices(probabilities: str, weighted: bool, weight_cap: float | None = None) -> list[Strategy]:
    """Every uncertainty with every aggregation and, if `weighted`, weighting; then the controls of any ledger."""
    weightings = WEIGHTINGS if weighted else WEIGHTINGS[:1]
    grid = product(UNCERTAINTIES, AGGREGATIONS, weightings)
    chosen = [Uncertainty(*axes, probabilities, weight_cap if axes[-1] != WEIGHTINGS[0] else None) for axes in grid]
    beside = (make_strategy(name) for name in built_in_controls())
    served = (control for control in beside if not (control.needs_embeddings or control.simulation_only))
    return [*chosen, *(control for control in served if control.asks)]


def class_names(facts: Mapping[str, Any], folder: Folder) -> list[str]:
    """Of a ledger, in the order of class ids.

    Raises:
        LedgerError: it does not say; ledgers inside a run's store belong to their run.
    """
    names = facts.get("class_names")
    if not isinstance(names, list):
        raise LedgerError(f"{folder} does not name its classes: query a ledger that `raylearn score` made")
    return names


def counts_by_class(class_counts: Mapping[str, int] | None, names: Sequence[str], strategy: Strategy) -> np.ndarray:
    """(K,) boxes per class in the order of the ledger's classes.

    Raises:
        QueryError: the strategy needs counts and there are none, or their classes are not the ledger's.
    """
    if class_counts is None:
        if strategy.needs_class_counts:
            raise QueryError(
                f"{strategy.label} needs the boxes labelled so far: give --class-counts, a data set or JSON"
            )
        return np.zeros(len(names), dtype=np.int64)
    unknown = [name for name in class_counts if name not in names]
    missing = [name for name in names if name not in class_counts]
    if unknown or missing:
        wrong = f"{unknown[0]!r} is no class of the ledger" if unknown else f"{missing[0]!r} has no count"
        raise QueryError(f"class counts: {wrong}; its classes are {', '.join(names)}")
    return np.array([class_counts[name] for name in names], dtype=np.int64)


def _strings(values: Sequence[str]) -> pa.Array:
    return pa.array(sorted(set(values)), pa.string())


def _look_at_part(
    table: pa.Table, bests: Sequence[Collector], left_out: pa.Array, group_of: GroupOf | None
) -> tuple[LedgerPart, list[np.ndarray], Totals]:
    """A part of a ledger without what cannot be asked for, and what each collector makes of it, in a thread."""
    readable = table.filter(pc.equal(table["status"], "ok"))
    kept = readable.filter(pc.invert(pc.is_in(readable["image_id"], left_out))) if len(left_out) else readable
    part = _part_of(kept)
    totals = Totals(
        candidates=kept.num_rows,
        errors=table.num_rows - readable.num_rows,
        excluded=readable.num_rows - kept.num_rows,
        without_detections=int(np.count_nonzero(np.diff(part.offsets) == 0)),
    )
    if group_of is not None:
        part = replace(part, groups=np.array([group_of(name) for name in kept["image_id"].to_pylist()], object))
    return part, [best.look(part) for best in bests], totals


def _check_size(size: int, totals: Totals) -> None:
    if size > totals.candidates:
        raise QueryError(
            f"a query of {size:,} images, but the ledger has {totals.candidates:,} that can be asked for "
            f"({totals.errors:,} could not be read, {totals.excluded:,} are excluded): lower --size"
        )
