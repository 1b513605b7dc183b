"""The page of a query: its images in order of rank with their reasons, over no other file."""

import re
from pathlib import Path

import PIL.Image
import pytest

import raylearn
from raylearn.data.dataset import Image
from raylearn.errors import QueryError, StorageError
from raylearn.learning import pictures
from tests.unit.hand_made import write_ledger
from tests.unit.test_cli import call, complaints
from tests.unit.test_report_page import Elements

# by entropy sum: b.png, then a.png; c.png comes last, as nothing was found in it
SCORES = {"a.png": [[0.9, 0.05]], "b.png": [[0.4, 0.3], [0.5, 0.2]], "c.png": [], "broken.png": "image is broken"}
HOSTILE = "<b onclick=alert(1)>.png"


def make(folder: Path, scores: dict[str, object] = SCORES, **facts: object) -> str:
    """A ledger in `folder`/ledger, of images in `folder`/images."""
    (folder / "images").mkdir()
    for number, name in enumerate(scores):
        PIL.Image.new("RGB", (64, 48), (40 * number, 90, 30)).save(folder / "images" / name)
    write_ledger(
        scores,  # type: ignore[arg-type]
        folder / "ledger",
        images=str(folder / "images"),
        class_names=["crab", "fish"],
        **facts,  # type: ignore[arg-type]
    )
    return str(folder / "ledger")


def test_images_stand_in_order_of_rank_each_with_its_picture_and_reasons(tmp_path: Path) -> None:
    found = raylearn.query(make(tmp_path), 2)
    page = found.page
    text = Elements(page).text.replace("\u00a0", " ")
    assert re.findall(r"(\d)\. (\w\.png)score ([\d.]+), (\d) detection", text) == [
        ("1", "b.png", f"{found.scores[0]:.3g}", "2"),
        ("2", "a.png", f"{found.scores[1]:.3g}", "1"),
    ]
    assert re.search(r"most of it: crab 0\.40 → [\d.]+; crab 0\.50 → [\d.]+", text)
    assert len(re.findall(r"url\(data:image/jpeg", page)) == 2
    assert page.count('<rect class="seen"') == 3
    assert "predicted 0.9 boxes" in text
    assert "labelled:" not in text  # nobody has
    assert "nearest labelled" not in text
    assert page == raylearn.query(found.ledger, 2).page


def test_the_nearest_labelled_image_stands_beside_an_image(tmp_path: Path) -> None:
    ledger = make(tmp_path, {**SCORES, "d.png": [[0.9, 0.05]]}, embeddings=True)
    page = raylearn.query(ledger, 1, labelled=["a.png", "d.png"]).page
    assert re.search(r"nearest labelled: [ad]\.pngdistance 0\.\d{3}", Elements(page).text)
    assert page.count('<svg class="picture') == 2


def test_images_without_detections_are_marked_and_the_doubt_is_told(tmp_path: Path) -> None:
    page = raylearn.query(make(tmp_path), 3).page
    text = Elements(page).text
    assert page.count('<figure tabindex="0" class="doubtful">') == 1
    assert re.search(r"c\.pngscore 0, 0 detectionsno detections", text)
    assert "1 of the query's 3 images have no detections; lower --confidence or train longer." in text


def test_what_chance_chose_has_no_score_for_a_reason(tmp_path: Path) -> None:
    text = Elements(raylearn.query(make(tmp_path), 2, strategy="random").page).text
    assert text.count(".pngby chance") == 2
    assert "drawn by chance: their order means nothing" in text


def test_an_image_that_is_gone_is_told_and_the_others_are_shown(tmp_path: Path, capsys) -> None:
    ledger = make(tmp_path)
    (tmp_path / "images" / "a.png").unlink()
    page = tmp_path / "page.html"
    assert call("query", ledger, "--size", "3", "--out", str(tmp_path / "out"), "--html", str(page)) == 0
    printed = capsys.readouterr()
    assert complaints(printed.err) == ""
    assert "warning: a.png cannot be read any more: grey on the page" in printed.out
    assert "page.html" in printed.out
    text = Elements(page.read_text()).text
    assert "2. a.pngcannot be read (missing): shown as a grey area" in text
    assert "1 image of those shown cannot be read any more" in text
    assert text.count("shown as a grey area") == 1


def test_hostile_names_are_text(tmp_path: Path) -> None:
    seen = Elements(raylearn.query(make(tmp_path, {HOSTILE: [[0.5, 0.2]]}), 1).page)
    assert HOSTILE in seen.text
    assert "script" not in {tag for tag, _ in seen.elements}
    assert [name for _, attributes in seen.elements for name in attributes if name.startswith("on")] == []


def test_of_a_long_query_the_first_images_are_shown_and_that_is_told(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(pictures, "MOST_IMAGES", 1)
    page = raylearn.query(make(tmp_path), 2).page
    text = Elements(page).text
    assert "The first 1 are shown here; all are in query.csv." in text
    assert page.count('<svg class="picture') == 1


def test_another_file_is_not_written_over_and_then_nothing_is(tmp_path: Path) -> None:
    ledger, page = make(tmp_path), tmp_path / "page.html"
    page.write_text("somebody's")
    found = raylearn.query(ledger, 1)
    with pytest.raises(QueryError, match=r"page\.html is another file: give another --html, or --force"):
        found.write(tmp_path / "out", html=page)
    assert page.read_text() == "somebody's"
    assert not (tmp_path / "out").exists()
    assert found.write(tmp_path / "out", html=page, force=True)[-1] == page
    assert raylearn.query(ledger, 1).write(tmp_path / "out", html=page)[-1] == page  # the same again
    with pytest.raises(QueryError, match="is of another query"):
        raylearn.query(ledger, 2).write(tmp_path / "out", html=tmp_path / "other.html")
    assert not (tmp_path / "other.html").exists()


@pytest.mark.parametrize("name", ["ledger/part-00000.parquet", "out/query.csv"])
def test_a_page_is_only_written_into_a_file_that_is_called_one(name: str, tmp_path: Path) -> None:
    ledger = make(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(QueryError, match=r"does not end in \.html"):
        raylearn.query(ledger, 1).write(tmp_path / "out", html=tmp_path / name, force=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_store_that_is_away_is_not_asked_for_every_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def read(uri: str) -> bytes:
        asked.append(uri)
        raise StorageError("no answer" if uri.startswith("away") else "refused", may_pass=uri.startswith("away"))

    monkeypatch.setattr(pictures, "read_bytes", read)
    make_picture = pictures.Pictures()

    def lost(name: str) -> str:
        return str(make_picture.of(Image(name, name, 8, 8, "hash"), None, 8)["lost"])

    assert lost("refused") == "cannot be read (storage error)"
    assert {lost(f"away{number}") for number in range(9)} == {"cannot be read (its store does not answer)"}
    assert len(asked) == 5
