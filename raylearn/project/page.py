"""The page of a project, from what its folder holds: at any time from `init` on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from raylearn import __version__
from raylearn.detectors.base import Detections
from raylearn.handoff.exchange import Record
from raylearn.handoff.query_files import read_query
from raylearn.learning.collectors import QueriedImage
from raylearn.learning.ledger_query import detections_of
from raylearn.learning.pictures import waiting_query
from raylearn.project.folder import ProjectFolder
from raylearn.project.steps import Cycle, Standing, doubts
from raylearn.reporting.costs import Paid
from raylearn.reporting.gallery import Gallery, gallery_of, read_gallery
from raylearn.reporting.pool_map import read_map
from raylearn.reporting.project_page import ProjectState, render_project
from raylearn.reporting.summary import round_of, summarise
from raylearn.reporting.template import write_at_once
from raylearn.strategies import Context, Query, Random
from raylearn.sweep.results import result_row
from raylearn.sweep.run_folder import GALLERY_FILE, MAP_FILE
from raylearn.sweep.trial import Scored

PAGE = "report.html"


def write_page(cycle: Cycle) -> Path:
    """Writes report.html into a project's folder; it is replaced whole.

    Raises:
        InputError, StorageError: a file of the project is damaged, or the page cannot be written.
    """
    standing, folder, dataset = cycle.standing(), cycle.folder, cycle.bench.dataset
    rows = [result_row(cycle.trial, done, dataset.num_classes, reused=False) for done in standing.rounds]
    images = _asked(folder, standing.index) if standing.next == "import" else []
    seen, scored = _seen(cycle, standing, images)
    gallery = read_gallery(folder.path / GALLERY_FILE) or Gallery((), ())
    if images:
        gallery = gallery.and_also(_waiting(cycle, standing, images, seen))
    state = ProjectState(
        name=folder.settings.name,
        strategy=cycle.trial.arm.strategy.label,
        step=standing.next,
        advice=cycle.advice(standing),
        round=standing.index,
        query_size=folder.settings.query.size,
        num_pool=len(standing.pool.images),
        num_test=len(dataset.test),
        num_labelled=len(standing.pool.labelled),
        num_boxes=standing.pool.num_boxes,
        class_names=dataset.class_names,
        class_counts=standing.pool.class_counts(dataset.num_classes).tolist(),
        test_counts=_test_counts(cycle),
        asked=_paid(cycle, standing, images),
        doubts=_doubts(images, scored, seen),
        boxes_are_known=scored is not None or not standing.rounds or not cycle.trial.arm.strategy.needs_pass,
    )
    page = render_project(
        state,
        summarise(round_of(row) for row in rows),
        gallery,
        read_map(folder.path / MAP_FILE),
        folder.settings.model_dump(mode="json"),
        {"folder": str(folder.path), "fingerprint of the data": dataset.fingerprint, "raylearn": __version__},
    )
    return write_at_once(folder.path / PAGE, page)


def _asked(folder: ProjectFolder, index: int) -> list[QueriedImage]:
    """What was handed out for a round, with what is known of each image; nothing where nothing was handed out."""
    file = folder.query_folder(index) / "query.parquet"
    if file.is_file():
        return read_query(file)
    if not folder.handout(index).exists():
        return []
    sent = Record.read(folder.handout(index)).images
    return [QueriedImage(image.rank, image.image_id, image.uri, image.score, 0, {}) for image in sent]


def _seen(
    cycle: Cycle, standing: Standing, images: list[QueriedImage]
) -> tuple[Mapping[str, tuple[tuple[int, int], Detections]], Scored | None]:
    """What the detector saw in the images that wait, as far as it is still in the store, and in which pass."""
    if not images or not standing.rounds:
        return {}, None
    scored = cycle.scored(standing.rounds[-1].model, standing.pool, standing.index)
    if scored is None:
        return {}, None
    return detections_of(scored.unlabelled.folder, [image.image_id for image in images]), scored


def _waiting(
    cycle: Cycle,
    standing: Standing,
    images: list[QueriedImage],
    seen: Mapping[str, tuple[tuple[int, int], Detections]],
) -> Gallery:
    strategy = cycle.trial.arm.strategy if standing.rounds else Random()  # as in Cycle
    content = waiting_query(
        images,
        {image.image_id: image for image in standing.pool.images},
        {image_id: found for image_id, (_, found) in seen.items()},
        strategy,
        Context(cycle.trial.seed, standing.pool.class_counts(cycle.bench.dataset.num_classes)),
        standing.index,
    )
    return gallery_of(content, "waiting")


def _doubts(
    images: list[QueriedImage], scored: Scored | None, seen: Mapping[str, tuple[tuple[int, int], Detections]]
) -> list[str]:
    if scored is None:
        return []
    query = Query(tuple(image.image_id for image in images), tuple(image.score for image in images))
    return doubts(query, scored, seen)


def _test_counts(cycle: Cycle) -> list[int]:
    dataset = cycle.bench.dataset
    counts = np.zeros(dataset.num_classes, np.int64)
    for image in dataset.test:
        counts += np.bincount(dataset.truth[image.image_id].class_ids, minlength=dataset.num_classes)
    return [int(count) for count in counts]


def _paid(cycle: Cycle, standing: Standing, waiting: list[QueriedImage]) -> dict[int, Paid]:
    """Round -> what its query was expected to cost, and what it did; None where nobody knows."""
    labels: list[Mapping[str, Any]] = [*cycle.labels, {}] if waiting else [*cycle.labels]
    paid = {}
    for index, labelled in enumerate(labels):
        images = waiting if waiting and index == standing.index else _asked(cycle.folder, index)
        known = [image.reason.boxes for image in images]
        predicted = sum(boxes for boxes in known if boxes is not None) if images and None not in known else None
        boxes = sum(map(len, labelled.values())) if labelled else None
        paid[index] = Paid(len(images) or len(labelled), predicted, boxes)
    return paid
