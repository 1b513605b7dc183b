"""The page in a real browser: nothing runs, nothing is asked for, and what it is for can be seen."""

import json
from pathlib import Path
from typing import Any

import pytest

from raylearn.reporting.gallery import GALLERY_FILE
from raylearn.reporting.page import write_report
from raylearn.reporting.pool_map import MAP_FILE
from tests.browser.chromium import Page, look_at, program
from tests.unit.test_pool_map import content as pool_map
from tests.unit.test_report_gallery import gallery
from tests.unit.test_report_page import HOSTILE, run_folder

pytestmark = pytest.mark.skipif(program() is None, reason="no Chromium: install Debian's package chromium")

SEEN = """JSON.stringify([...document.querySelectorAll(SELECTOR)].map(element => {
    const box = element.getBoundingClientRect();
    return [box.left, box.right, box.width, box.height, getComputedStyle(element).visibility];
}))"""


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = run_folder(tmp_path_factory.mktemp("run"))
    content = gallery()
    for query in content["queries"]:
        query["images"] = [{**image, "nearest": HOSTILE[2], "distance": 0.25} for image in query["images"]]
    (folder / GALLERY_FILE).write_text(json.dumps(content))
    (folder / MAP_FILE).write_text(json.dumps(pool_map()))
    return write_report(folder)


async def boxes(page: Page, selector: str) -> list[Any]:
    found: list[Any] = json.loads(await page.evaluate(SEEN.replace("SELECTOR", json.dumps(selector))))
    return found


def quiet(page: Page, path: Path) -> None:
    assert page.messages == []
    assert [url for url in page.requests if not url.startswith("data:")] == [path.as_uri()]


@pytest.mark.parametrize("width", [1280, 390])
def test_curves_and_pictures_are_seen_and_nothing_sticks_out(width: int, finished: tuple[Path, str]) -> None:
    path = finished[0] / "report.html"

    async def look(page: Page) -> None:
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        curves, pictures = await boxes(page, "svg.curve"), await boxes(page, "details[open] svg.picture")
        assert len(curves) == 4
        assert len(pictures) >= 4
        for left, right, wide, high, visibility in curves + pictures:
            assert 0 <= left < right <= width
            assert wide >= 100
            assert high >= 70
            assert visibility == "visible"

    page, _ = look_at(path, width, look)
    quiet(page, path)


@pytest.mark.parametrize("width", [1280, 390])
def test_maps_and_nearest_images_are_seen_and_nothing_sticks_out(width: int, hostile_page: Path) -> None:
    async def look(page: Page) -> None:
        maps, nearest = await boxes(page, ".maps svg.map"), await boxes(page, "details[open] .nearest svg")
        assert len(maps) == 2
        assert len(nearest) == len(HOSTILE)
        for least, found in ((120, maps), (40, nearest)):
            for left, right, wide, high, visibility in found:
                assert 0 <= left < right <= width
                assert wide >= least
                assert high >= 0.5 * least
                assert visibility == "visible"
        # the dots of all maps are drawn once, and can be seen in each
        for left, right, wide, high, _ in await boxes(page, ".maps use.left"):
            assert wide > 100
            assert high > 100
            assert 0 <= left < right <= width
        assert await page.evaluate("document.querySelector('.defs').getBoundingClientRect().width") == 0

    page, _ = look_at(hostile_page, width, look)
    quiet(page, hostile_page)


def test_hostile_names_run_nothing_and_are_shown(hostile_page: Path) -> None:
    async def look(page: Page) -> str:
        text: str = await page.evaluate("document.body.textContent")
        return text

    page, text = look_at(hostile_page, 1280, look)
    quiet(page, hostile_page)
    for name in HOSTILE:
        assert name in text


def test_arms_budgets_and_boxes_can_be_hidden(hostile_page: Path) -> None:
    async def look(page: Page) -> None:
        async def shown(selector: str) -> int:
            return sum(width > 0 for _, _, width, _, _ in await boxes(page, selector))

        for control, selector in (
            ("over-images", ".panel.boxes"),
            ("over-boxes", ".panel.images"),
            ("show-0", "svg.curve .arm-0"),
            ("show-seen", "details[open] rect.seen"),
            ("show-truth", "details[open] rect.true"),
        ):
            assert await shown(selector), control
            await page.evaluate(f"document.getElementById('{control}').click()")
            assert not await shown(selector), control
            await page.evaluate("document.getElementById('over-both').click()")

    page, _ = look_at(hostile_page, 1280, look)
    quiet(page, hostile_page)


def test_a_point_of_a_curve_tells_its_numbers(hostile_page: Path) -> None:
    async def look(page: Page) -> Any:
        return await page.evaluate("document.querySelector('.values circle title').textContent")

    _, title = look_at(hostile_page, 1280, look)
    assert "round 0: 10 images, 30 boxes, mAP50-95" in title


@pytest.mark.parametrize("width", [1280, 390])
def test_an_image_of_the_gallery_can_be_enlarged(width: int, hostile_page: Path) -> None:
    async def look(page: Page) -> None:
        await page.evaluate("document.querySelector('details[open] .gallery figure').scrollIntoView()")
        [(_, _, before, _, _), *_] = await boxes(page, "details[open] .gallery figure > svg")
        await page.evaluate("document.querySelector('details[open] .gallery figure').focus()")
        [(left, right, after, _, _), *_] = await boxes(page, "details[open] .gallery figure")
        assert 0 <= left < right <= width
        assert after > 1.5 * before
        await page.evaluate("document.activeElement.blur()")
        assert (await boxes(page, "details[open] .gallery figure > svg"))[0][2] == before

    look_at(hostile_page, width, look)


def test_every_link_of_the_contents_leads_to_a_heading(hostile_page: Path) -> None:
    async def look(page: Page) -> None:
        lost = await page.evaluate(
            "[...document.querySelectorAll('nav a')].filter(a => !document.querySelector('h2' + a.hash)).length"
        )
        links = await page.evaluate("document.querySelectorAll('nav a').length")
        headings = await page.evaluate("document.querySelectorAll('h2').length")
        assert lost == 0
        assert 6 <= links <= headings

    look_at(hostile_page, 1280, look)
