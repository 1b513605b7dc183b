"""The scoring pass: Ray Data deals the parts of a manifest out to detector actors, which write them into a ledger."""

import logging
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from raylearn.cluster.session import cause_line
from raylearn.data.storage import Folder
from raylearn.detectors.base import Detector
from raylearn.errors import RaylearnError, StorageError
from raylearn.progress import doing, steps
from raylearn.scoring import ledger
from raylearn.scoring.ledger import NOTHING, PartCounts
from raylearn.scoring.manifest import Manifest
from raylearn.scoring.patience import until_all_are_there
from raylearn.scoring.plan import PARTS_ON_GPU, ScoringPlan, open_detector
from raylearn.scoring.reading import Reader, read_image
from raylearn.scoring.score_part import Part, ScorePart
from raylearn.scoring.updating import Listings

# A part whose actor dies is tried again so often: machines go, but an image that kills its actor would do so for ever.
_ATTEMPTS = 8


def score_manifest(manifest: Manifest, plan: ScoringPlan, facts: Mapping[str, Any], folder: Folder) -> PartCounts:
    """Scores every image of the manifest and writes the ledger into `folder`.

    With one actor there is nothing to deal out: this process scores, and no other has to start and load torch first.

    Args:
        manifest: at least one image.
        plan: how.
        facts: written into ledger.json beside the settings and the counts.
        folder: this pass's own; exists.

    Raises:
        RaylearnError: Ray lost a part, or a worker met an error.
        DivergedError: the model gives NaN.
    """
    manifest.write(folder)
    made_by = {
        **facts,
        "settings": plan.settings.facts,
        "engine": asdict(plan.engine),
        "manifest": manifest.hash,
    }
    counts = NOTHING
    score = score_parts if plan.num_actors > 1 else score_parts_here
    plan = replace(plan, spans=(manifest.span,))
    for part in score(range(manifest.num_parts), plan, folder, manifest.hash):
        counts += part.counts
        steps("image", counts.num_images, len(manifest))
    finish(folder, Listings((manifest.span,), manifest.hash), counts, made_by)
    return counts


def finish(folder: Folder, listings: Listings, counts: PartCounts, facts: Mapping[str, Any]) -> PartCounts:
    """Writes ledger.json, after a look at whether all is there.

    Args:
        folder: of the pass.
        listings: of its pool.
        counts: what its parts hold.
        facts: what made it.

    Returns:
        What stands for images of the pool.

    Raises:
        RaylearnError: a part is missing, or has other rows than the manifest.
    """
    wanted, there = listings.parts, ledger.finished_parts(folder)
    if not set(wanted) <= set(there) or counts.num_images != listings.num_rows:
        raise RaylearnError(
            f"{folder} has {len(there)} of {len(wanted)} parts, with {counts.num_images} of {listings.num_rows} "
            "rows: run it again"
        )
    counts -= ledger.count_void(folder, listings.void)
    numbers = {**asdict(counts), "num_errors": counts.num_errors}
    ledger.write_facts(folder, {**facts, **listings.facts, **numbers})
    return counts


def score_parts(parts: Sequence[int], plan: ScoringPlan, folder: Folder, key: str) -> Generator[Part, None, None]:
    """Scores parts of the manifest in `folder`, and tells of each when it is in the ledger; in no order.

    Raises:
        RaylearnError: what a worker met, or a part whose actors died again and again.
    """
    if plan.here:
        return score_parts_here(parts, plan, folder, key)
    read = partial(read_image, settings=plan.settings)
    return deal_out(parts, partial(open_detector, plan), read, plan, folder, key)


def score_parts_here(parts: Sequence[int], plan: ScoringPlan, folder: Folder, key: str) -> Generator[Part, None, None]:
    """`score_parts` in this process, which holds what one actor would ask for."""
    read = partial(read_image, settings=plan.settings)
    import cv2
    import torch

    threads = torch.get_num_threads(), cv2.getNumThreads()  # of a notebook, say, which goes on
    scorer = None
    try:
        with doing("loading the detector"):
            scorer = ScorePart(partial(open_detector, plan), read, folder, key, plan)
        yield from until_all_are_there(parts, partial(_score_each, scorer), _number_of, 1)
    finally:
        if scorer:
            scorer.close()
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def _score_each(scorer: ScorePart, parts: Sequence[int]) -> Generator[Part | StorageError, None, None]:
    for number in parts:
        (part,) = scorer({"number": np.array([number])})["part"]
        yield _or_raise(part)


def _or_raise(part: Part | RaylearnError) -> Part | StorageError:
    """What an actor gave for a part; raises an error that is no passing one."""
    if isinstance(part, Part) or (isinstance(part, StorageError) and part.may_pass):
        return part
    raise part


def _number_of(part: Part) -> int:
    return part.number


def deal_out(
    parts: Sequence[int],
    open_detector: Callable[[], Detector],
    read: Reader,
    plan: ScoringPlan,
    folder: Folder,
    key: str,
) -> Generator[Part, None, None]:
    """`score_parts` for any detector and any way of reading."""
    once = partial(_deal_out_once, plan=plan, arguments=(open_detector, read, folder, key, plan))
    return until_all_are_there(parts, once, _number_of, plan.min_actors or plan.num_actors)


def _deal_out_once(
    parts: Sequence[int], plan: ScoringPlan, arguments: tuple[Any, ...]
) -> Generator[Part | StorageError, None, None]:
    """Each part, or a StorageError that may pass in its place.

    Args:
        parts: numbers.
        plan: of the pass.
        arguments: of ScorePart.
    """
    import ray.data
    from ray.util.annotations import RayDeprecationWarning

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_consecutive_actor_init_deaths = _ATTEMPTS
    context.execution_no_progress_timeout_s = -1  # a part of large images, or a wait for a GPU, may take hours
    # an actor of a GPU with one part waiting is as busy as it gets, and below Ray's own threshold
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    at_once = PARTS_ON_GPU if plan.gpus_per_actor else 1
    numbers = ray.data.from_items([{"number": part} for part in parts], override_num_blocks=len(parts))
    with warnings.catch_warnings():
        # Ray Data's own names for what an actor is created with leave out how often a task is tried.
        warnings.simplefilter("ignore", category=RayDeprecationWarning)
        scored = numbers.map_batches(
            ScorePart,
            fn_constructor_args=arguments,
            batch_size=1,  # a part at a time; its images are batched in the actor
            compute=ray.data.ActorPoolStrategy(
                min_size=min(plan.min_actors or plan.num_actors, len(parts)),
                max_size=min(plan.num_actors, len(parts)),
                max_concurrent_calls_per_actor=at_once,
                max_tasks_in_flight_per_actor=at_once + 1,
                enable_true_multi_threading=True,
            ),
            num_cpus=plan.cpus_per_actor,
            num_gpus=plan.gpus_per_actor,
            ray_remote_args_fn=lambda: {"max_task_retries": _ATTEMPTS},
        )
    finished = None
    try:
        # Bundles and not batches, which Ray Data would read ahead in threads that nobody can wait for.
        finished = scored.iter_internal_ref_bundles()
        for bundle in finished:  # each as soon as it is there
            for block in bundle.block_refs:
                for row in ray.data.block.BlockAccessor.for_block(ray.get(block)).iter_rows(public_row_format=True):
                    yield _or_raise(row["part"])
    except ray.exceptions.RayError as error:
        raise RaylearnError(f"scoring stopped: {cause_line(error)}; run the same command again to resume") from error
    finally:
        del finished  # which ends Ray Data's thread, also where an error still holds this frame
