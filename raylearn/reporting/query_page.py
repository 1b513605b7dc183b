"""The page of one query of a ledger: its images in order of rank, and why each was chosen."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from raylearn.learning.ledger_answer import LedgerQuery
from raylearn.reporting.gallery import gallery_of
from raylearn.reporting.secrets import without_secrets
from raylearn.reporting.template import environment
from raylearn.strategies import Strategy


def render_query(
    content: Mapping[str, Any],
    found: LedgerQuery,
    strategy: Strategy,
    class_names: Sequence[str],
    class_counts: Mapping[str, int] | None,
    record: Mapping[str, Any],
) -> str:
    """The page as text; the same input gives the same text.

    Args:
        content: of a gallery of this one query; see raylearn.learning.pictures.
        found: the query.
        strategy: that chose it.
        class_names: of the ledger.
        class_counts: boxes labelled so far, where they are known.
        record: what else is told at the end.
    """
    gallery = gallery_of(content)
    in_boxes, in_images = Counter[str](), Counter[str]()
    for image in found.images:
        in_boxes.update(image.classes)
        in_images.update(image.classes.keys())
    return (
        environment()
        .get_template("query.html.jinja")
        .render(
            title=f"Query of {len(found.images)}: {strategy.label}",
            summary=None,
            pool_map=None,
            gallery=gallery,
            query=gallery.queries[0],
            found=found,
            strategy=strategy,
            aggregation=strategy.axes.get("aggregation"),
            expected=sum(image.reason.boxes or 0 for image in found.images),
            without=sum(not image.num_detections for image in found.images),
            num_lost=sum(bool(image.picture.lost) for image in gallery.queries[0].images),
            class_names=list(class_names),
            classes=[(name, in_boxes[name], in_images[name]) for name in class_names],
            class_counts=class_counts,
            record=without_secrets(record),
        )
    )
