"""The pictures of a page: each once, names as text, and what is no gallery refused by name."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylearn.errors import RunFolderError
from raylearn.reporting.gallery import GALLERY_FILE, read_gallery
from raylearn.reporting.page import write_report
from tests.unit.test_report_page import HOSTILE, Elements, run_folder

SEEN = [[8.0, 8.0, 40.0, 40.0, 1, 0.51, 0.93], [1.0, 2.0, 3.0, 4.0, 7, 0.4, 0.2]]


def jpeg() -> str:
    written = io.BytesIO()
    PIL.Image.new("RGB", (64, 48), (200, 90, 30)).save(written, format="JPEG")
    return base64.b64encode(written.getvalue()).decode()


def gallery(**changes: Any) -> dict[str, Any]:
    """Two arms that asked for the same hostile names."""
    picture = {"width": 64, "height": 48, "jpeg": jpeg(), "truth": [[8.0, 8.0, 41.5, 40.0, 0]]}
    images = [{"image_id": name, "score": 1.25, "num_detections": 9, "detections": SEEN} for name in HOSTILE]
    queries = [
        {"trial": "uncertainty-s0", "round": 1, "scored": True, "images": images},
        {"trial": "random-s0", "round": 1, "scored": False, "images": [{**images[0], "detections": []}]},
    ]
    return {"images": dict.fromkeys(HOSTILE, picture), "queries": queries, **changes}


@pytest.fixture
def page(tmp_path: Path) -> str:
    folder = run_folder(tmp_path)
    (folder / GALLERY_FILE).write_text(json.dumps(gallery()))
    return write_report(folder).read_text(encoding="utf-8")


def test_every_picture_is_in_the_page_once(page: str) -> None:
    assert len(re.findall(r"url\(data:image/jpeg;base64,[A-Za-z0-9+/=]+\)", page)) == len(HOSTILE)
    assert page.count('<svg class="picture') == len(HOSTILE) + 1


def test_names_are_text_and_nothing_of_them_runs(page: str) -> None:
    seen = Elements(page)
    for name in HOSTILE:
        assert seen.text.count(name) >= 2
    assert {tag for tag, _ in seen.elements} & {"script", "img", "iframe", "object", "embed", "link", "base"} == set()
    assert [name for _, attributes in seen.elements for name in attributes if name.startswith("on")] == []
    assert set(re.findall(r"url\((.{15})", page)) <= {"data:image/jpeg"} | set(re.findall(r"url\((#.{14})", page))


def test_it_is_said_why_an_image_was_asked_for(page: str) -> None:
    text = Elements(page).text
    assert "score 1.25, 9 detections" in text
    assert f"{HOSTILE[1]}, confidence 0.51, counts 0.93" in text
    assert "class 7, confidence 0.40, counts 0.20" in text
    assert f"label: {HOSTILE[0]}" in text
    assert "labelled: 1 box" in text
    assert "by chance" in text


def test_the_nearest_labelled_image_and_the_boxes_that_were_expected_are_told(tmp_path: Path) -> None:
    content = gallery()
    content["queries"][0]["images"][0] |= {"nearest": HOSTILE[3], "distance": 0.1234, "predicted_boxes": 4.26}
    folder = run_folder(tmp_path)
    (folder / GALLERY_FILE).write_text(json.dumps(content))
    page = write_report(folder).read_text(encoding="utf-8")
    seen = Elements(page)
    assert f"nearest labelled: {HOSTILE[3]}distance 0.123" in seen.text
    assert "predicted 4.3 boxes, labelled: 1 box" in seen.text
    assert "0 is the same, 1 the opposite" in seen.text
    assert page.count('<svg class="picture') == len(HOSTILE) + 2
    assert len(re.findall(r"url\(data:image/jpeg", page)) == len(HOSTILE)
    assert {tag for tag, _ in seen.elements} & {"script", "img", "iframe", "object", "embed", "link", "base"} == set()


def test_an_image_that_could_not_be_read_is_called_that(tmp_path: Path) -> None:
    content = gallery()
    content["images"][HOSTILE[2]] = {**content["images"][HOSTILE[2]], "lost": "cannot be read (missing)"}
    folder = run_folder(tmp_path)
    (folder / GALLERY_FILE).write_text(json.dumps(content))
    text = Elements(write_report(folder).read_text(encoding="utf-8")).text
    assert text.count("cannot be read (missing): shown as a grey area") == 1


def test_a_gallery_of_before_tells_nothing_of_nearest_images(page: str) -> None:
    assert "nearest labelled" not in page
    assert re.search(r"predicted [0-9]", page) is None


def test_a_run_without_pictures_has_a_page_all_the_same(tmp_path: Path) -> None:
    assert read_gallery(tmp_path / GALLERY_FILE) is None
    assert "What was asked for" not in write_report(run_folder(tmp_path)).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"images": {}}',
        json.dumps(gallery(images={})).encode(),
        json.dumps(
            gallery(images={HOSTILE[0]: {"width": 1, "height": 1, "jpeg": "x); } body {", "truth": []}})
        ).encode(),
        json.dumps(gallery()).replace('"score"', '"nearest": "nobody", "score"').encode(),
        json.dumps(gallery()).replace('"score"', '"distance": "far", "score"').encode(),
        json.dumps(gallery()).replace('"score"', '"predicted_boxes": Infinity, "score"').encode(),
        json.dumps(gallery(queries=[{"trial": "t", "round": "x", "scored": True, "images": []}])).encode(),
        json.dumps(gallery(queries=[{"trial": "t", "round": float("inf"), "scored": True, "images": []}])).encode(),
    ],
)
def test_what_is_no_gallery_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / GALLERY_FILE).write_bytes(content)
    with pytest.raises(RunFolderError, match=r"gallery\.json cannot be read"):
        read_gallery(tmp_path / GALLERY_FILE)


@given(jpeg=st.text(max_size=30))
def test_only_base64_comes_into_the_style_sheet(jpeg: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("gallery") / GALLERY_FILE
    path.write_text(json.dumps({"images": {"a": {"width": 1, "height": 1, "jpeg": jpeg, "truth": []}}, "queries": []}))
    try:
        found = read_gallery(path)
    except RunFolderError:
        return
    assert found is not None
    assert re.fullmatch(r"[A-Za-z0-9+/=]*", found.pictures[0].jpeg)
