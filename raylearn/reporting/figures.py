"""The figures of a report: learning curves as SVG that reads on light and on dark, the same bytes every time."""

import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from matplotlib.ticker import FormatStrFormatter, MaxNLocator

from raylearn.reporting.costs import Cost
from raylearn.reporting.summary import Arm, ArmKey, Point, Spread, Summary
from raylearn.strategies import BASELINE, UPPER_BOUND, is_control

FEW_ARMS = 8
"""Up to here every arm has a colour of its own and a band; above, colours and markers name the axes of the grid."""
NUM_HEAVIER = 3
"""Among more arms than that, so many of each query size are drawn heavier than the rest: those that ended highest."""

INK, MUTED, GRID, PAPER = "#1b1f24", "#6a737d", "#e1e4e8", "#ffffff"
# Okabe and Ito's palette for all kinds of colour vision, the pale ones last; their black is what random is drawn in
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*", "p", ">", "h")
DASHES: tuple[tuple[float, ...], ...] = (
    *((), (6, 1.6), (1.2, 1.4), (8, 1.6, 1.2, 1.6), (3, 1.2), (10, 3)),
    *((6, 1.6, 1.2, 1.6, 1.2, 1.6), (1.2, 3.5), (3, 3.5), (12, 2, 3, 2), (6, 1.6, 6, 4), (3, 1.2, 3, 4)),
)
CONTROL_DASHES: tuple[tuple[float, ...], ...] = ((4, 2.2), (1.2, 1.4), (7, 1.6, 1.2, 1.6), (9, 3), (2.4, 3))

# a page that is light or dark sets these; a figure saved for itself keeps the colours above
CSS_COLOURS = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    **{colour: f"var(--series-{i})" for i, colour in enumerate(PALETTE)},
}
MARKER_SIZE = 5.5
SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "raylearn",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.width": 0.7,
    "ytick.major.size": 0,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
}


@dataclass(frozen=True)
class Style:
    """How an arm is drawn, in curves and in the legend."""

    colour: str
    marker: str
    dashes: tuple[float, ...]
    width: float = 1.6


@dataclass(frozen=True)
class Panel:
    """One set of axes: a mAP over a budget.

    Args:
        metric: map50_95 or map50.
        budget: num_images, num_boxes or hours.
        cost: what the hours are made of.
    """

    metric: str
    budget: str
    cost: Cost | None = None

    @property
    def title(self) -> str:
        metric = {"map50_95": "mAP50-95", "map50": "mAP50"}[self.metric]
        return f"{metric} over {self.axis}"

    @property
    def axis(self) -> str:
        return "hours of labelling" if self.cost else f"labelled {self.unit}"

    @property
    def unit(self) -> str:
        return {"num_images": "images", "num_boxes": "boxes", "hours": "hours"}[self.budget]

    def x(self, point: Point) -> float:
        if self.cost:
            return self.cost.hours(point.num_images, point.num_boxes)
        return point.num_images if self.budget == "num_images" else point.num_boxes

    def y(self, point: Point) -> Spread | None:
        return point.map50_95 if self.metric == "map50_95" else point.map50


PANELS = tuple(Panel(metric, budget) for metric in ("map50_95", "map50") for budget in ("num_images", "num_boxes"))


def panels(cost: Cost | None) -> tuple[Panel, ...]:
    """PANELS and, where labelling has a cost, those over hours."""
    return (*PANELS, *(Panel(metric, "hours", cost) for metric in ("map50_95", "map50") if cost))


def arm_styles(arms: Iterable[Arm]) -> dict[ArmKey, Style]:
    """A style for every arm, decided by the grid and never by the results.

    Up to `FEW_ARMS` each arm has its own colour and marker. Above, colour is the uncertainty, or the
    strategy where it is another, marker the aggregation (and probabilities), dashes the weighting (and query size).
    """
    arms = list(arms)
    keys = sorted({arm.key for arm in arms}, key=repr)
    sizes = _numbered(key.query_size for key in keys)
    queries = [key for key in keys if not is_control(key.strategy)]
    others = _numbered((key.strategy, key.options) for key in keys if key not in queries and key.strategy != BASELINE)
    styles = {
        key: _control_style(key, sizes[key.query_size], others.get((key.strategy, key.options), 0))
        for key in keys
        if key not in queries
    }
    if are_few(arms):
        return styles | {key: Style(PALETTE[i], MARKERS[i + 1], ()) for i, key in enumerate(queries)}
    colours = _numbered(_colour_of(key) for key in queries)
    markers = _numbered((key.aggregation, key.probabilities) for key in queries)
    dashes = _numbered((key.query_size, _weighting(key)) for key in queries)
    return styles | {
        key: Style(
            PALETTE[colours[_colour_of(key)] % len(PALETTE)],
            MARKERS[markers[key.aggregation, key.probabilities] % len(MARKERS)],
            DASHES[dashes[key.query_size, _weighting(key)] % len(DASHES)],
            1.1,
        )
        for key in queries
    }


def are_few(arms: Iterable[Arm]) -> bool:
    """Whether each can have a colour of its own."""
    keys = {arm.key for arm in arms}
    return len(keys) <= FEW_ARMS and sum(not is_control(key.strategy) for key in keys) <= len(PALETTE)


def panel_svg(
    summary: Summary,
    panel: Panel,
    prefix: str,
    limits: tuple[float, float] | None = None,
    styles: Mapping[ArmKey, Style] | None = None,
) -> str:
    """One panel as an `<svg>` element for a page: no id that another figure has, colours from the page's CSS.

    Args:
        prefix: of the ids.
        limits: of mAP, for panels that are to be held against each other.
        styles: likewise; by default those of the summary's own arms.
    """
    with _settings():
        height = 3.9 if limits or are_few(summary.arms) else 5.2  # of panels side by side one
        figure = Figure(figsize=(5.6, height))
        # fixed margins, in inches: axes that stand above each other on the page line up
        margins = {"left": 0.45 / 5.6, "right": 1 - 0.2 / 5.6, "bottom": 0.5 / height, "top": 1 - 0.38 / height}
        axes = figure.subplots(gridspec_kw=margins)
        _draw(axes, summary, panel, styles or arm_styles(summary.arms))
        if limits:
            axes.set_ylim(*limits)
        svg = _inline(_svg(figure), prefix, panel.title)
        return svg.removesuffix("</svg>") + "".join(_values(axes, summary, panel)) + "</svg>"


def mean_ap_limits(summaries: Iterable[Summary], panel: Panel) -> tuple[float, float]:
    """The range of mAP that shows all of them: from 0, unless curves are so high that they could not be told apart."""
    both = list(summaries)
    spreads = [panel.y(point) for summary in both for arm in summary.learning for point in arm.curve]
    bounds = [panel.y(arm.last) for summary in both for arm in summary.arms if arm.is_full_data]
    values = [value for spread in spreads if spread for value in spread.values]
    top = max([*values, *(bound.mean for bound in bounds if bound)], default=0.0)
    if not top > 0:
        return 0, 1
    lowest = min(values, default=0.0)
    bottom = lowest - 0.25 * (top - lowest) if 0.4 * top < lowest < 0.98 * top else 0.0
    return bottom, top + 0.12 * (top - bottom)


def _values(axes: Any, summary: Summary, panel: Panel) -> Iterator[str]:
    """A circle that cannot be seen over every point of a drawn panel, which tells its numbers to a pointer."""
    figure = axes.figure
    points = 72 / figure.dpi  # matplotlib's SVG counts in points, from the top
    top = figure.get_figheight() * 72
    for position, arm in enumerate(summary.arms):
        circles = ""
        for point in arm.curve:
            value = panel.y(point)
            if value is None or arm.is_full_data:
                continue
            x, y = axes.transData.transform((panel.x(point), value.mean)) * points
            spread = "" if value.sd is None else f" \u00b1 {value.sd:.3f}"
            text = (
                f"{arm.label}, round {point.round}: {point.num_images:.0f} images, {point.num_boxes:.0f} boxes, "
                f"{panel.title.split()[0]} {value.mean:.3f}{spread}"
            )
            circles += f'<circle cx="{x:.1f}" cy="{top - y:.1f}" r="7"><title>{escape(text)}</title></circle>'
        if circles:
            yield f'<g class="arm-{position} values" fill="transparent">{circles}</g>'


def swatch_svg(style: Style) -> str:
    """The line and marker of an arm, as the legend of a page shows it."""
    marker = MarkerStyle(style.marker or "None")
    outline = marker.get_path().transformed(marker.get_transform())
    polygons: Any = outline.to_polygons(closed_only=False)
    shape = "".join(
        "M" + "L".join(f"{18 + x * 6:.1f} {7 - y * 6:.1f}" for x, y in polygon) + "Z" for polygon in polygons
    )
    colour = CSS_COLOURS[style.colour]
    dashes = " ".join(f"{length * style.width:g}" for length in style.dashes) or "none"
    return (
        f'<svg class="swatch" viewBox="0 0 36 14" width="36" height="14" aria-hidden="true">'
        f'<path d="M1 7H35" fill="none" stroke="{colour}" stroke-width="{style.width:g}" stroke-dasharray="{dashes}"/>'
        f'<path d="{shape}" fill="{colour}"/></svg>'
    )


def strip_svg(spread: Spread | None, low: float, high: float, reference: Spread | None = None) -> str:
    """One row of dots: every seed's value between `low` and `high`, their mean, and the mean of `reference`."""

    def at(value: float) -> str:
        return f"{4 + 92 * (value - low) / (high - low):.1f}" if high > low else "50.0"

    marks = '<path class="rail" d="M4 8H96"/>'
    if reference is not None:
        marks += f'<path class="reference" d="M{at(reference.mean)} 1V15"/>'
    if spread is not None:
        marks += "".join(f'<circle cx="{at(value)}" cy="8" r="2.6"/>' for value in spread.values)
        marks += f'<path class="mean" d="M{at(spread.mean)} 3V13"/>'
    return f'<svg class="strip" viewBox="0 0 100 16" width="100" height="16" aria-hidden="true">{marks}</svg>'


@contextmanager
def _settings() -> Iterator[None]:
    with matplotlib.rc_context():
        # a matplotlibrc of the user's must not change the bytes
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def _weighting(key: ArmKey) -> str:
    """Sorts before all others where there is none, so that the plain arms are the solid lines."""
    return "" if key.weighting in (None, "none") else str(key.weighting)


def _colour_of(key: ArmKey) -> tuple[str | None, ...]:
    """What has a colour of its own: an uncertainty, or another strategy with its options."""
    return (key.strategy, key.uncertainty) if key.uncertainty else (key.strategy, key.options)


def _control_style(key: ArmKey, size: int, number: int) -> Style:
    """Markers by query size, and dashes by which of the controls it is."""
    if key.strategy == UPPER_BOUND:
        return Style(INK, "", (), 1.0)
    marker = MARKERS[size % len(MARKERS)]
    dashes = CONTROL_DASHES[number % len(CONTROL_DASHES)]
    return Style(INK if key.strategy == BASELINE else MUTED, marker, dashes, 2.0)


def _draw(axes: Any, summary: Summary, panel: Panel, styles: Mapping[ArmKey, Style]) -> None:
    few = are_few(summary.arms)
    highest = [arm for size in summary.query_sizes for arm in summary.contestants(size)[:NUM_HEAVIER]]
    # the highest arms and random are drawn last, on top of the others
    for order, arm in enumerate(reversed(summary.learning)):
        style = styles[arm.key]
        if not few and arm in highest:
            style = replace(style, width=2.2)
        faint = not few and arm not in highest and not arm.is_control
        x = [panel.x(point) for point in arm.curve]
        spreads = [panel.y(point) for point in arm.curve]
        above = 3 + order / 1000 + arm.is_random
        y = [spread.mean if spread else math.nan for spread in spreads]
        name = f"arm-{summary.arms.index(arm)}"
        axes.plot(x, y, zorder=above, alpha=0.5 if faint else 1, gid=f"{name}-line", **_line(style))
        if few or arm.is_random:
            low = [min(spread.values) if spread else math.nan for spread in spreads]
            high = [max(spread.values) if spread else math.nan for spread in spreads]
            axes.fill_between(x, low, high, color=style.colour, alpha=0.14, linewidth=0, zorder=2, gid=f"{name}-band")
    for arm in summary.arms:
        bound = panel.y(arm.last)
        if arm.is_full_data and bound:
            axes.axhline(bound.mean, color=INK, linewidth=styles[arm.key].width, zorder=2.5)
            label = f"{arm.label} {bound.mean:.2f}"
            axes.annotate(
                label,
                (0, bound.mean),
                (2, 4),
                ("axes fraction", "data"),
                "offset points",
                fontsize=9.5,
                zorder=6,
                bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
            )
            if not summary.learning:
                axes.plot(panel.x(arm.last), bound.mean, color=INK, marker="o")
                axes.set_xlim(0, 1.25 * panel.x(arm.last) or 1)
    axes.set_ylim(*mean_ap_limits([summary], panel))
    axes.set_title(panel.title)
    axes.set_xlabel(panel.axis)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FormatStrFormatter(f"%.{_decimals(axes.get_yticks())}f"))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=panel.cost is None, steps=[1, 2, 5, 10]))
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.margins(x=0.03)


def _decimals(ticks: Sequence[float]) -> int:
    """As many as tell neighbouring ticks apart; at least two."""
    step = min((high - low for low, high in pairwise(ticks)), default=1.0)
    return max(2, math.ceil(-math.log10(step) - 1e-9))


def _line(style: Style) -> dict[str, Any]:
    return {
        "color": style.colour,
        "linewidth": style.width,
        "linestyle": (0, style.dashes) if style.dashes else "solid",
        "marker": style.marker,
        "markersize": MARKER_SIZE if style.width > 1.5 else 4.5,
        "markeredgecolor": PAPER,
        "markeredgewidth": 0.6,
    }


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    # without these four entries the file would carry the hour it was drawn
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return out.getvalue().replace("'DejaVu Sans', sans-serif", "system-ui, sans-serif")


def _inline(svg: str, prefix: str, title: str) -> str:
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0]
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"\bxlink:href=", "href=", body)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", body)
    body = re.sub(r'\bid="[\w-]*?(arm-\d+)-(?:line|band)"', r'class="\1"', body)
    body = re.sub(r"#[0-9a-f]{6}\b", lambda match: CSS_COLOURS.get(match[0], match[0]), body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    label = escape(title, quote=True)
    return f'<svg class="curve" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{body}'.strip()


def _numbered(values: Iterable[Any]) -> dict[Any, int]:
    """A number for every different value, in the order of their text."""
    return {value: i for i, value in enumerate(sorted(set(values), key=repr))}
