"""What labelling cost: expected and paid boxes, and hours."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylearn.errors import RunFolderError
from raylearn.reporting.costs import Cost, Paid, paid_by_round, read_paid
from raylearn.reporting.figures import PANELS, panels
from raylearn.reporting.page import write_comparison, write_report
from raylearn.reporting.summary import read_rounds, summarise
from tests.unit.test_report_page import EXPERIMENT, Elements, run_folder


def query(trial: str, index: int, predicted: list[float | None], boxes: list[int | None]) -> list[dict[str, Any]]:
    return [
        {
            "trial": trial,
            "round": index,
            "rank": rank,
            "image_id": f"{rank}.jpg",
            "score": 1.0,
            "predicted_boxes": expected,
            "boxes": paid,
        }
        for rank, (expected, paid) in enumerate(zip(predicted, boxes, strict=True), start=1)
    ]


ROWS = [
    *query("uncertainty-s0", 1, [1.5, 2.0], [3, 1]),
    *query("uncertainty-s1", 1, [4.5], [8]),
    *query("uncertainty-s0", 2, [1.0], [None]),
    *query("random-s0", 1, [None, None], [2, 0]),
]


def write(folder: Path, **changes: Any) -> Path:
    run_folder(folder)
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "queries.parquet")
    (folder / "experiment.yaml").write_text(json.dumps({**EXPERIMENT, **changes}))
    return folder


def test_predicted_and_paid_boxes_are_summed_over_a_query_and_averaged_over_seeds(tmp_path: Path) -> None:
    write(tmp_path)
    paid = read_paid(tmp_path / "queries.parquet")
    assert paid["uncertainty-s0", 1] == Paid(2, 3.5, 4)
    found = dict(paid_by_round(summarise(read_rounds(tmp_path / "results.parquet")).learning, paid))
    rounds = {arm.label: dict(own) for arm, own in found.items()}
    assert rounds["entropy · sum"] == {1: Paid(1.5, 4.0, 6.0), 2: Paid(1, 1.0, None)}
    assert rounds["random"] == {1: Paid(2, None, 2.0)}


def test_the_page_shows_them_without_any_cost(tmp_path: Path) -> None:
    page = write_report(write(tmp_path)).read_text(encoding="utf-8")
    assert "<td>1</td><td>1.5</td><td>4.0</td><td>6</td></tr>" in page
    assert "hours of labelling" not in Elements(page).text


def test_queries_of_before_have_no_such_table(tmp_path: Path) -> None:
    assert read_paid(run_folder(tmp_path) / "queries.parquet") == {}
    assert "Boxes that were expected" not in write_report(tmp_path).read_text(encoding="utf-8")


def test_with_a_cost_there_is_a_panel_over_hours(tmp_path: Path) -> None:
    page = write_report(write(tmp_path, cost={"image": 60, "box": 30})).read_text(encoding="utf-8")
    seen = Elements(page)
    assert sum(attributes.get("class") == "curve" for _, attributes in seen.elements) == 6
    assert "mAP50-95 over hours of labelling" in seen.text
    assert "Hours are 60 s for each labelled image and 30 s for each box" in seen.text
    assert 'id="over-hours"' in page
    # 1.5 images and 6 boxes of a query: 90 + 180 s
    assert "<td>6</td><td>0.07</td></tr>" in page


def test_hours_are_those_of_images_and_boxes_together() -> None:
    assert Cost(10, 7).hours(18, 60) == pytest.approx((180 + 420) / 3600)
    assert panels(None) == PANELS
    (own, _) = panels(Cost(10, 7))[len(PANELS) :]
    assert (own.unit, own.title) == ("hours", "mAP50-95 over hours of labelling")


@pytest.mark.parametrize("cost", [7, {"image": 3}, {"image": "x", "box": 1}, {"image": -1, "box": 1}, [1, 2]])
def test_a_cost_that_is_none_is_refused(cost: object, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"experiment\.yaml: cost: .*: give seconds$"):
        write_report(write(tmp_path, cost=cost))


def test_a_budget_of_boxes_is_called_so_all_over_the_page(tmp_path: Path) -> None:
    write(tmp_path, budget={"boxes": 20})
    told = Elements(write_report(tmp_path).read_text(encoding="utf-8")).text.replace("\u00a0", " ")
    assert "with 80 boxes in 30 images" in told
    assert "Area over boxes against random, query of 10 boxes, 2 seeds" in told
    assert "Each round pays for as many boxes with every arm" in told
    assert "query of 10," not in told
    other = write(tmp_path / "other", budget=20)
    told = Elements(write_comparison(tmp_path, other).read_text(encoding="utf-8")).text
    assert "query of 10 boxes, 2 seeds" in told
    assert "query of 10, 2 seeds" in told
