import re
from dataclasses import replace

import matplotlib
import pytest

from raylearn.reporting.figures import (
    CSS_COLOURS,
    FEW_ARMS,
    PANELS,
    arm_styles,
    panel_svg,
    strip_svg,
    swatch_svg,
)
from raylearn.reporting.summary import ArmKey, Round, Spread, Summary, summarise

GRID = [
    ArmKey("uncertainty", uncertainty, aggregation, weighting, "background", 10)
    for uncertainty in ("least_confidence", "margin", "margin_squared", "entropy")
    for aggregation in ("sum", "max", "mean")
    for weighting in ("none", "inverse_frequency", "inverse_sqrt")
]
CONTROLS = [ArmKey("random", query_size=10), ArmKey("box_count", query_size=10), ArmKey("full_data")]


def summary_of(*keys: ArmKey, value: float | None = 0.3) -> Summary:
    return summarise(
        Round(f"{key}", key, 0, i, 10 + 10 * i, 20 + 25 * i, value, value)
        for key in keys
        for i in range(1 if key.strategy == "full_data" else 3)
    )


SIZES = [replace(key, query_size=size) for key in GRID for size in (10, 20, 40)]


@pytest.mark.parametrize(
    "keys",
    [GRID[:3] + CONTROLS, GRID[:8], GRID + CONTROLS, SIZES + CONTROLS],
    ids=["few", "just too many", "many", "many of three sizes"],
)
def test_no_two_arms_look_alike(keys: list[ArmKey]) -> None:
    styles = arm_styles(summary_of(*keys).arms)
    assert len(styles) == len(set(styles.values())) == len(keys)


def test_few_arms_differ_in_colour_and_in_marker() -> None:
    styles = arm_styles(summary_of(*GRID[: FEW_ARMS - 1]).arms).values()
    assert len({style.colour for style in styles}) == len({style.marker for style in styles}) == FEW_ARMS - 1


def test_style_does_not_depend_on_the_results() -> None:
    assert arm_styles(summary_of(*GRID).arms) == arm_styles(reversed(summary_of(*GRID).arms))


def test_same_summary_gives_the_same_svg_whatever_matplotlib_was_told_before() -> None:
    summary = summary_of(GRID[0], *CONTROLS)
    before = panel_svg(summary, PANELS[0], "p0")
    with matplotlib.rc_context({"lines.linewidth": 9, "axes.grid": True, "svg.hashsalt": None}):
        assert panel_svg(summary, PANELS[0], "p0") == before
        assert matplotlib.rcParams["lines.linewidth"] == 9


def test_ids_of_two_panels_never_meet_and_every_reference_has_its_id() -> None:
    summary = summary_of(*GRID[:2], *CONTROLS)
    first, second = (panel_svg(summary, PANELS[0], prefix) for prefix in ("p0", "p1"))
    ids = re.findall(r'\bid="([^"]+)"', first)
    assert len(ids) == len(set(ids))
    assert not set(ids) & set(re.findall(r'\bid="([^"]+)"', second))
    references = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', first))
    assert references
    assert {one or other for one, other in references} <= set(ids)


def test_colours_of_a_panel_come_from_the_page() -> None:
    svg = panel_svg(summary_of(*GRID[:7], *CONTROLS), PANELS[0], "p0")
    assert not re.findall(r"#[0-9a-fA-F]{3,8}\b(?=[;\"])", svg.replace('href="#', ""))
    assert "currentColor" in svg
    assert "<style" not in svg


def test_text_stays_text_in_a_generic_font() -> None:
    svg = panel_svg(summary_of(GRID[0], *CONTROLS), PANELS[0], "p0")
    assert ">labelled images</text>" in svg
    assert ">all data (upper bound) 0.30</text>" in svg
    assert "DejaVu" not in svg


@pytest.mark.parametrize("keys", [[], CONTROLS[2:], CONTROLS[:1]], ids=["nothing", "only all data", "one arm"])
@pytest.mark.parametrize("value", [0.3, 0.0, None])
@pytest.mark.filterwarnings("error")
def test_runs_with_little_in_them_are_drawn(keys: list[ArmKey], value: float | None) -> None:
    assert panel_svg(summary_of(*keys, value=value), PANELS[1], "p0").startswith("<svg")


def test_every_swatch_has_a_colour_of_the_page() -> None:
    for style in arm_styles(summary_of(*GRID, *CONTROLS).arms).values():
        assert CSS_COLOURS[style.colour] in swatch_svg(style)


def test_strip_puts_every_seed_between_the_ends() -> None:
    svg = strip_svg(Spread((0.2, 0.4)), 0.2, 0.4, reference=Spread((0.3,)))
    assert re.findall(r'cx="([\d.]+)"', svg) == ["4.0", "96.0"]
    assert 'class="reference" d="M50.0' in svg
    assert "50.0" in strip_svg(Spread((0.2,)), 0.2, 0.2)


def test_controls_can_be_told_apart() -> None:
    controls = [ArmKey(name, query_size=size) for name in ("random", "box_count", "oracle") for size in (10, 20)]
    styles = arm_styles(summary_of(*controls, *GRID[:2]).arms)
    assert len(set(styles.values())) == len(controls) + 2


@pytest.mark.parametrize("values", [(0.5, 0.502, 0.51), (0.5, 0.5003, 0.5006), (0.1, 0.4, 0.9), (0.002, 0.003, 0.004)])
def test_no_two_ticks_of_a_metric_read_the_same(values: tuple[float, ...]) -> None:
    rounds = [Round("t", GRID[0], 0, i, 10 + 10 * i, 20 + 25 * i, value, value) for i, value in enumerate(values)]
    ticks = re.findall(r">(\d\.\d+)</text>", panel_svg(summarise(rounds), PANELS[0], "p0"))
    assert len(ticks) >= 3
    assert len(set(ticks)) == len(ticks)
