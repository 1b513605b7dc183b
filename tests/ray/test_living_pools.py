"""A pool that lives, scored by a real detector: what was listed is scored, and `--update` lists it again."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from rich.console import Console

from raylearn.data.dataset import Dataset
from raylearn.data.storage import Folder
from raylearn.detectors.checkpoints import write_checkpoint
from raylearn.errors import LedgerError
from raylearn.learning.ledger_query import query_ledger
from raylearn.scoring import listed_pool
from raylearn.scoring.ledger import map_parts, read_facts, schema
from raylearn.scoring.pool_scoring import score_pool
from raylearn.scoring.request import ScoreRequest
from raylearn.strategies import Uncertainty


class Desk:
    """A folder of four frames, a detector that has learned nothing but finds something everywhere, and a ledger."""

    def __init__(self, reef: Dataset, place: Path) -> None:
        from raylearn.detectors.families.ultralytics.detector import build_model

        self.place, self.pool, self.frames = place, place / "pool", [Path(image.uri) for image in reef.pool[:6]]
        self.pool.mkdir()
        for name, frame in zip("abcd", self.frames, strict=False):
            shutil.copyfile(frame, self.pool / f"{name}.jpg")
        torch.manual_seed(0)
        self.checkpoint = place / "checkpoint.pt"
        weights = build_model("yolov5n", reef.num_classes).state_dict()
        write_checkpoint(self.checkpoint, "raylearn-yolo-1", "yolov5n", reef.class_names, 64, weights)

    def change(self) -> None:
        """One frame comes, one is another one now, one goes."""
        shutil.copyfile(self.frames[4], self.pool / "e.jpg")
        shutil.copyfile(self.frames[5], self.pool / "b.jpg")
        (self.pool / "c.jpg").unlink()

    def score(self, capsys: pytest.CaptureFixture[str], out: str = "ledger", update: bool = False) -> str:
        request = ScoreRequest(str(self.pool), self.checkpoint, confidence=0, max_detections=20, update=update)
        score_pool(request, str(self.place / out), address=None, console=Console(width=400))
        return capsys.readouterr().out

    def rows(self, out: str = "ledger") -> list[dict[str, object]]:
        folder = Folder(str(self.place / out))
        facts = read_facts(folder)
        names = schema(len(facts["class_names"])).names
        return list(pa.concat_tables(map_parts(folder, facts, names, lambda t: t)).sort_by("image_id").to_pylist())


@pytest.fixture
def desk(reef: Dataset, tmp_path: Path) -> Desk:
    return Desk(reef, tmp_path)


def test_an_update_scores_what_is_new_or_changed_to_the_ledger_of_a_new_pass(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.score(capsys)
    before = (desk.place / "ledger" / "part-00000.parquet").read_bytes()
    desk.change()
    said = desk.score(capsys, update=True)
    assert "1 added (the first 'e.jpg'), 1 removed (the first 'c.jpg'), 1 changed (the first 'b.jpg')" in said
    assert "scored 2 images in" in said
    assert "4 images, no errors" in said
    assert (desk.place / "ledger" / "part-00000.parquet").read_bytes() == before
    desk.score(capsys, out="new")
    assert [row["image_id"] for row in desk.rows()] == ["a.jpg", "b.jpg", "d.jpg", "e.jpg"]
    assert desk.rows() == desk.rows("new")
    folders = (Folder(str(desk.place / name)) for name in ("ledger", "new"))
    found, anew = (query_ledger(folder, Uncertainty(), 4, seed=0) for folder in folders)
    assert found.images == anew.images
    assert "finished already: 4 images" in desk.score(capsys)
    assert "nothing changed since it was listed" in desk.score(capsys, update=True)


def test_a_pass_goes_by_its_list_and_lists_nothing(
    desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.score(capsys)
    rows = desk.rows()
    desk.change()

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the pool was listed")

    monkeypatch.setattr(listed_pool, "freeze_pool", forbidden)
    said = desk.score(capsys)
    assert "4 images, as it was listed before; --update lists it again" in said
    assert "finished already: 4 images" in said
    (desk.place / "ledger" / "ledger.json").unlink()
    (desk.place / "ledger" / "part-00000.parquet").unlink()
    assert "4 images, 1 error (1 missing)" in desk.score(capsys)
    now = desk.rows()
    assert [row["status"] for row in now] == ["ok", "ok", "error", "ok"]
    assert (now[0], now[3]) == (rows[0], rows[3])


def test_a_pass_whose_pool_was_emptied_goes_on_by_an_update(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.score(capsys)
    for name in ("ledger.json", "part-00000.parquet"):
        (desk.place / "ledger" / name).unlink()
    for path in desk.pool.iterdir():
        path.unlink()
    shutil.copyfile(desk.frames[0], desk.pool / "new.jpg")
    desk.score(capsys, update=True)
    assert [row["image_id"] for row in desk.rows()] == ["new.jpg"]


def test_an_update_tries_images_again_that_could_not_be_opened(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.score(capsys)
    for name in ("ledger.json", "part-00000.parquet"):
        (desk.place / "ledger" / name).unlink()
    away = (desk.pool / "c.jpg").rename(desk.place / "away.jpg")
    assert "1 error (1 missing)" in desk.score(capsys)
    away.rename(desk.pool / "c.jpg")  # as it was listed
    said = desk.score(capsys, update=True)
    assert "1 changed (the first 'c.jpg')" in said
    assert "4 images, no errors" in said
    assert "nothing changed" in desk.score(capsys, update=True)


def test_another_pool_is_refused_with_the_difference_and_one_that_was_moved_goes_on(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.score(capsys)
    kept, desk.pool = desk.pool, desk.place / "elsewhere"
    shutil.copytree(kept, desk.pool)
    assert "finished already" in desk.score(capsys)
    with pytest.raises(LedgerError, match=r"is of the pool .*/pool: an update lists the same pool again"):
        desk.score(capsys, update=True)
    (desk.pool / "d.jpg").unlink()
    (desk.place / "ledger" / "pool.json").write_text(json.dumps({"pool": "of another"}))
    with pytest.raises(LedgerError, match=r"1 removed \(the first 'd\.jpg'\); give another folder .* or --update"):
        desk.score(capsys)


def test_a_pass_of_an_earlier_raylearn_is_compared_with_its_pool(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.score(capsys)
    (desk.place / "ledger" / "pool.json").unlink()  # which it did not write
    assert "finished already" in desk.score(capsys)
    desk.change()
    (desk.place / "ledger" / "pool.json").unlink(missing_ok=True)
    with pytest.raises(LedgerError, match="1 added"):
        desk.score(capsys)
