"""The page of a project: what to do next, what was paid and what came of it, and the query that waits for labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from markupsafe import Markup

from raylearn.reporting import figures
from raylearn.reporting.answer import is_all_zero
from raylearn.reporting.costs import Paid
from raylearn.reporting.gallery import AskedQuery, Gallery
from raylearn.reporting.pool_map import PoolMap
from raylearn.reporting.secrets import without_secrets
from raylearn.reporting.summary import Summary, class_balance
from raylearn.reporting.template import environment
from raylearn.strategies import BASELINE
from raylearn.wording import counted

_PANELS = tuple(panel for panel in figures.PANELS if panel.metric == "map50_95")


@dataclass(frozen=True)
class ProjectState:
    """How far a project is.

    Args:
        strategy: how it chooses, in words.
        step: that is next; None where all is done.
        advice: the same as a command, between backticks.
        round: that is asked for or labelled next.
        query_size: images of a query.
        num_pool, num_test: images that may be labelled, and that are held out.
        num_labelled, num_boxes: images and boxes that are labelled now.
        class_names, class_counts, test_counts: boxes of each class that are labelled now, and held out.
        asked: round -> images of its query, boxes that were predicted in them, and boxes that were drawn.
        doubts: what the ranking of the query that waits does not mean.
        boxes_are_known: whether what the detector saw in the images that wait is still in the store.
    """

    name: str
    strategy: str
    step: str | None
    advice: str
    round: int
    query_size: int
    num_pool: int
    num_test: int
    num_labelled: int
    num_boxes: int
    class_names: Sequence[str]
    class_counts: Sequence[int]
    test_counts: Sequence[int]
    asked: Mapping[int, Paid]
    doubts: Sequence[str] = ()
    boxes_are_known: bool = True

    @property
    def waiting(self) -> Paid | None:
        """What waits for labels."""
        return self.asked.get(self.round) if self.step == "import" else None


def render_project(
    state: ProjectState,
    summary: Summary,
    gallery: Gallery,
    pool_map: PoolMap | None,
    settings: Any,
    record: Mapping[str, Any],
) -> str:
    """The page as text; the same input gives the same text.

    Args:
        summary: of the rounds that are trained, of no arm or one.
        gallery: of queries that are labelled, and of the one that waits.
        settings: of the project file.
        record: what else is told at the end.
    """
    styles = figures.arm_styles(summary.arms)
    arm = summary.arms[0] if summary.arms else None
    return (
        environment()
        .get_template("project.html.jinja")
        .render(
            title=state.name,
            state=state,
            opening=_opening(state),
            so_far=_so_far(state, summary),
            summary=summary,
            arm=arm,
            baseline=BASELINE,
            swatches={arm.key: Markup(figures.swatch_svg(styles[arm.key])) for arm in summary.arms},
            panels=[Markup(figures.panel_svg(summary, panel, f"p{i}")) for i, panel in enumerate(_PANELS)],
            balance=class_balance(state.class_counts),
            waiting=next((query for query in gallery.queries if query.waits), None),
            labelled=[query for query in reversed(gallery.queries) if not query.waits],
            gallery=gallery,
            num_lost=_num_lost(gallery.queries),
            pool_map=pool_map,
            class_names=list(state.class_names),
            settings=yaml.safe_dump(without_secrets(settings), sort_keys=False, allow_unicode=True, width=100),
            record=without_secrets(record),
        )
    )


def _opening(state: ProjectState) -> str:
    """What is next, in a sentence."""
    if state.step is None:
        return "All is done: every image is labelled, and the detector is trained on all of them."
    if state.step == "train":
        return f"Next: train on the {counted(state.num_labelled, 'image')} that are labelled."
    if state.step == "query":
        how = f"by {state.strategy}" if state.num_labelled else "by chance, as no detector has learned anything yet"
        left = min(state.query_size, state.num_pool - state.num_labelled)
        return f"Next: choose {counted(left, 'image')} to label, {how}."
    waiting = state.waiting
    if waiting is None:
        return "Next: label what was handed out."
    boxes = f", about {counted(round(waiting.predicted), 'box', 'boxes')}" if waiting.predicted else ""
    return f"Next: label {counted(round(waiting.num_images), 'image')}{boxes}."


def _so_far(state: ProjectState, summary: Summary) -> list[str]:
    """What came of the labels, and how sure that is, in sentences."""
    measured = [(point, point.map50_95) for point in summary.arms[0].curve] if summary.arms else []
    known = [(point, found.mean) for point, found in measured if found]
    if not known:
        return ["No detector has been measured yet."]
    if is_all_zero(summary):
        return [
            "mAP50-95 is 0 in every round: the detector finds nothing on the held-out images yet; train longer, or "
            "begin from initial_weights."
        ]
    last, value = known[-1]
    learned = f"{counted(round(last.num_images), 'image')} with {counted(round(last.num_boxes), 'box', 'boxes')}"
    sentences = [
        f"The detector of round {last.round}, trained on {learned}, has mAP50-95 {value:.3f} on "
        f"{counted(state.num_test, 'held-out image')}."
    ]
    if len(known) > 1:
        before, then = known[-2]
        images, boxes = round(last.num_images - before.num_images), round(last.num_boxes - before.num_boxes)
        change = f"{value - then:+.3f}".replace("-", "\u2212")
        paid = f"{counted(images, 'image')} with {counted(boxes, 'box', 'boxes')}"
        sentences.append(f"The last {paid} changed it by {change}.")
    return sentences


def _num_lost(queries: Sequence[AskedQuery]) -> int:
    return len({image.image_id for query in queries for image in query.images if image.picture.lost})
