"""The pages of a query and of a project in a real browser: all is seen at any width, and nothing is asked for."""

from pathlib import Path

import pytest

import raylearn
from tests.browser.chromium import Page, look_at, program
from tests.browser.test_page import boxes, hostile_page, quiet  # noqa: F401
from tests.unit.test_project import make_settings, told
from tests.unit.test_query_page import SCORES, make

pytestmark = pytest.mark.skipif(program() is None, reason="no Chromium: install Debian's package chromium")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of a query, and of a project whose first query waits."""
    from raylearn.project.folder import ProjectFolder
    from raylearn.project.page import write_page
    from raylearn.project.steps import Cycle

    folder = tmp_path_factory.mktemp("query")
    ledger = make(folder, {**SCORES, "d.png": [[0.9, 0.05]]}, embeddings=True)
    found = raylearn.query(ledger, 3, labelled=["d.png"])
    cycle = Cycle(ProjectFolder.create(folder / "p", make_settings(folder / "desk"), told))
    cycle.query(None)
    return {"query": found.write(folder / "out", html=folder / "page.html")[-1], "project": write_page(cycle)}


@pytest.mark.parametrize("name", ["query", "project"])
def test_pictures_are_seen_and_nothing_sticks_out_of_a_telephone(name: str, pages: dict[str, Path]) -> None:
    async def look(page: Page) -> None:
        assert await page.evaluate("document.documentElement.scrollWidth") == 390
        pictures = await boxes(page, "svg.picture")
        assert len(pictures) == {"query": 6, "project": 2}[name]
        for left, right, wide, _, visibility in pictures:
            assert 0 <= left < right <= 390
            assert wide >= 40
            assert visibility == "visible"

    page, _ = look_at(pages[name], 390, look)
    quiet(page, pages[name])


def test_a_control_has_the_colour_of_its_curve_in_tables_too(hostile_page: Path) -> None:  # noqa: F811
    async def look(page: Page) -> None:
        colour = "getComputedStyle(document.querySelector('{} .swatch')).color"
        ink = await page.evaluate("getComputedStyle(document.body).color")
        assert await page.evaluate(colour.format("table.arms tr.control")) == ink
        assert await page.evaluate("getComputedStyle(document.querySelector('table.arms tr.control td')).color") != ink

    look_at(hostile_page, 1280, look)
