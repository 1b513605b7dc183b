"""The pictures of a report: what was asked for, what the detector saw in it, and what the label then said."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raylearn.data.dataset import GroundTruth
from raylearn.data.storage import Folder
from raylearn.detectors.base import Detections
from raylearn.learning.pictures import Pictures, asked_image, detection_rows
from raylearn.scoring.ledger import Ledger
from raylearn.strategies import Context, Query, Reason
from raylearn.sweep.grid import Arm, Trial
from raylearn.sweep.trial import Bench, TrialRound

LONGER_SIDE, LONGER_SIDE_OF_NEAREST = (
    208,
    104,
)  # pixels of a picture on the page, which scales them to half of it on most screens
MOST_PER_QUERY = 8
MOST_BYTES = 13_000_000  # of all arms and rounds together: a page should stay under 15 MB
BYTES_PER_IMAGE = 15_000  # the picture in base64, its caption and its detections
BYTES_PER_BOX = 170  # of its labels
BYTES_PER_NEAREST = 5_000  # the labelled image that stands beside it


def write_gallery(rounds: Mapping[Trial, Sequence[TrialRound]], bench: Bench, path: Path) -> None:
    """Writes, for one trial of each arm, the first images of every query.

    A JSON file: `images`, by image id, with width, height, a small JPEG in base64 and the truth as [x1, y1, x2, y2,
    class id]; `queries`, a list of trial, round and images in order of rank, each with its score, the number of its
    detections, and of those the ones that count most as [x1, y1, x2, y2, class id, confidence, what it counts in the
    score]; and, where they are known, the id of the `nearest` labelled image, the `distance` to it, the
    `predicted_boxes` and a `note` on what the score does not tell. `num_images` of a query are all that it asked for,
    and `num_groups` the clips that they are of, null where there are none. An image that is shown as the nearest only
    is smaller and has no truth. An image that cannot be read any more is a grey area, and `lost` says so: the results
    are there without it.
    """
    shown = _one_trial_per_arm(rounds)
    asked = [done.query for trial in shown for done in rounds[trial] if done.query]
    truth = {image_id: own for trial in shown for image_id, own in rounds[trial][-1].pool.labelled.items()}
    top = most_that_fit(asked, truth)
    queries = [query for trial in shown for query in _queries(trial, rounds[trial], bench, top)]
    wanted = {image["image_id"] for query in queries for image in query["images"]}
    beside = {image["nearest"] for query in queries for image in query["images"] if "nearest" in image}
    pictures = Pictures()
    images = {
        i.image_id: pictures.of(i, truth.get(i.image_id), LONGER_SIDE)
        for i in bench.dataset.pool
        if i.image_id in wanted
    }
    images |= {
        i.image_id: pictures.of(i, None, LONGER_SIDE_OF_NEAREST)
        for i in bench.dataset.pool
        if i.image_id in beside - wanted
    }
    text = json.dumps({"images": images, "queries": queries}, separators=(",", ":"), sort_keys=True)
    Folder.at(path.parent).replace(path.name, text.encode())


def most_that_fit(queries: Sequence[Query], truth: Mapping[str, GroundTruth]) -> int:
    """How many images of each query can be shown on one page: 1 to MOST_PER_QUERY."""
    total, top = 0, 0
    while top < MOST_PER_QUERY:
        asked = [query.image_ids[top] for query in queries if top < len(query.image_ids)]
        boxes = sum(len(truth[name]) for name in asked if name in truth)
        nearest = [query.reasons[top].nearest for query in queries if top < len(query.reasons)]
        total += BYTES_PER_IMAGE * len(asked) + BYTES_PER_BOX * boxes
        total += BYTES_PER_NEAREST * sum(name is not None for name in nearest)
        if top and total > MOST_BYTES:
            break
        top += 1
    return top


def _one_trial_per_arm(rounds: Mapping[Trial, Sequence[TrialRound]]) -> list[Trial]:
    """Of the lowest seed."""
    first: dict[Arm, Trial] = {}
    for trial in sorted(rounds, key=lambda trial: trial.seed):
        first.setdefault(trial.arm, trial)
    return list(first.values())


def _queries(trial: Trial, rounds: Sequence[TrialRound], bench: Bench, top: int) -> Iterator[dict[str, Any]]:
    for before, done in itertools.pairwise(rounds):
        assert done.query is not None  # only round 0 has none
        found = Ledger.read(done.scores.unlabelled.folder) if done.scores else None
        context = Context(trial.seed, before.pool.class_counts(bench.dataset.num_classes))
        images = []
        known = done.query.reasons or (Reason(),) * len(done.query.image_ids)
        for image_id, score, reason in list(zip(done.query.image_ids, done.query.scores, known, strict=True))[:top]:
            boxes = [] if found is None else detection_rows(_seen(found, image_id), trial.arm.strategy, context)
            images.append(asked_image(image_id, score, reason, len(boxes), boxes))
        groups = bench.groups_of(done.query.image_ids)
        counts = {"num_images": len(done.query.image_ids), "num_groups": None if groups is None else len(set(groups))}
        yield {"trial": trial.name, "round": done.index, "images": images, "scored": found is not None, **counts}


def _seen(ledger: Ledger, image_id: str) -> Detections:
    position = int(np.flatnonzero(ledger.image_ids == image_id)[0])
    start, end = ledger.offsets[position], ledger.offsets[position + 1]
    return Detections(ledger.boxes[start:end], ledger.class_scores[start:end])
