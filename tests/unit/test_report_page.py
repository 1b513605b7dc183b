import base64
import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylearn.errors import RunFolderError
from raylearn.reporting.page import INPUTS, write_comparison, write_report
from raylearn.reporting.secrets import without_secrets
from raylearn.reporting.template import seconds_text

HOSTILE = [
    "<script>alert('1')</script>",
    '"><img src=http://evil.example/x onerror=alert(2)>',
    "javascript:alert(3)",
    "</pre></style></svg><script src=//evil.example></script>",
    "{{ 7 * 7 }}",
    "\u202egnp.exe",
]
EXPERIMENT = {"name": "from the file", "question": "Which one?", "note": HOSTILE[3], "storage": {"token": "canary-1"}}
RUN = {
    "name": HOSTILE[0],
    "question": HOSTILE[1],
    "command": f"raylearn run a.yaml store.secret_key=canary-2 {HOSTILE[0]}",
    "started": "2025-05-04T09:12:33+00:00",
    "seconds": 7589.2,
    "raylearn": "0.1.0",
    "versions": {"torch": "2.10.0", HOSTILE[0]: HOSTILE[1]},
    "machine": "a laptop",
    "address": "ray://user:canary-3@head:10001",
    "dataset": {
        "name": HOSTILE[2],
        "fingerprint": "f00d",
        "num_pool": 1234,
        "num_test": 56,
        "class_names": HOSTILE,
        "notes": ["a.xml: box 3 has zero area", HOSTILE[0]],
    },
    "trainings": {"wanted": 11, "different": 8, "shared": 3},
    "failed": [{"trial": HOSTILE[0], "cause": f"{HOSTILE[1]} password: canary-4"}],
}


def result(strategy: str, seed: int, index: int, value: float | None) -> dict[str, object]:
    queried = strategy == "uncertainty"
    return {
        "trial": f"{strategy}-s{seed}",
        "strategy": strategy,
        "uncertainty": "entropy" if queried else None,
        "aggregation": "sum" if queried else None,
        "weighting": "none" if queried else None,
        "probabilities": "background" if queried else None,
        "query_size": None if strategy == "full_data" else 10,
        "seed": seed,
        "round": index,
        "num_images": 90 if strategy == "full_data" else 10 + 10 * index,
        "num_boxes": 30 + 25 * index,
        "map50_95": value,
        "map50": value,
        "class_ap": [0.25, None, 0.1, 0.2, 0.3, 0.4],
        "class_counts": [60, 20, 10, 6, 4, 0],
        "labelled_ids_hash": "ab",
        "checkpoint": "c.pt",
        "reused": index == 0,
        "train_seconds": 61.0,
        "score_seconds": None,
        "share_without_detections": None if index == 0 else 0.375,
    }


RESULTS = [
    *(result("uncertainty", seed, i, 0.1 + 0.1 * i + 0.02 * seed) for seed in (0, 1) for i in (0, 1, 2)),
    *(result("random", seed, i, 0.1 + 0.05 * i) for seed in (0, 1) for i in (0, 1, 2)),
    result("full_data", 0, 0, 0.5),
]
QUERIES = [
    {"trial": "uncertainty-s0", "round": 0, "rank": rank, "image_id": image_id, "score": 9.0 - rank}
    for rank, image_id in enumerate([*HOSTILE, "last.jpg"])
]


def run_folder(folder: Path, results: list[dict[str, object]] = RESULTS, run: object = RUN) -> Path:
    folder.mkdir(exist_ok=True)
    schema = pa.Table.from_pylist(RESULTS).schema
    pq.write_table(pa.Table.from_pylist(results, schema=schema), folder / "results.parquet")
    pq.write_table(pa.Table.from_pylist(QUERIES), folder / "queries.parquet")
    (folder / "experiment.yaml").write_text(json.dumps(EXPERIMENT), encoding="utf-8")
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    return folder


class Elements(HTMLParser):
    """Every element with its attributes, and the text between them, as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(run_folder(tmp_path_factory.mktemp("run"))).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def seen(text: str) -> Elements:
    return Elements(text)


def test_same_run_gives_the_same_bytes_and_leaves_nothing_beside(tmp_path: Path, text: str) -> None:
    folder = run_folder(tmp_path, results=RESULTS[::-1])
    assert write_report(folder) == folder / "report.html"
    assert (folder / "report.html").read_text(encoding="utf-8") == text
    assert sorted(path.name for path in folder.iterdir()) == sorted([*INPUTS, "report.html", "summary.csv"])


def test_page_holds_no_script_and_no_handler(seen: Elements) -> None:
    assert {tag for tag, _ in seen.elements} & {"script", "img", "iframe", "object", "embed", "link", "base"} == set()
    assert [name for _, attributes in seen.elements for name in attributes if name.startswith("on")] == []


def test_page_refers_to_nothing_outside_itself(text: str, seen: Elements) -> None:
    for _, attributes in seen.elements:
        assert "src" not in attributes
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:text/csv;base64,"))
        assert all(target.startswith("#") for target in re.findall(r"url\((.)", attributes.get("style") or ""))
    style = re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL)
    assert len(style) == 1
    assert "url(" not in style[0]
    assert "@import" not in style[0]
    assert "url(" not in re.sub(r"url\(#", "", text)


def test_policy_forbids_everything_but_inline_style_and_stands_before_it(seen: Elements) -> None:
    tags = [tag for tag, _ in seen.elements]
    position, policy = next(
        (i, attributes["content"])
        for i, (_, attributes) in enumerate(seen.elements)
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert "script-src" not in policy
    assert position < tags.index("style")


def test_ids_are_unique_on_the_page(seen: Elements) -> None:
    ids = [attributes["id"] for _, attributes in seen.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_hostile_names_are_shown_as_text(seen: Elements) -> None:
    for name in HOSTILE:
        assert name in seen.text


def test_secrets_are_not_shown(text: str) -> None:
    assert "canary" not in text
    assert text.count("***") >= 4


def test_page_shows_the_question_the_answer_and_the_record(seen: Elements) -> None:
    shown = seen.text.replace("\u00a0", " ")
    assert "entropy · sum ended highest: mAP50-95 0.310 ± 0.014 with 30 images, random 0.200 ± 0.000" in shown
    assert "2 seeds: ± is the spread between them, which a comparison seed by seed leaves out." in shown
    assert "+0.110 ± 0.014" in shown
    assert "8 min 08 s" in shown  # eight trainings of 61 s; those of round 0 were reused
    assert "38 %" in shown  # of the scored images showed nothing to the model
    for fact in ("1234", "f00d", "2 h 06 min", "a laptop", "box 3 has zero area", "1 trial failed", "2.10.0"):
        assert fact in shown
    assert shown.index("ended highest") < shown.index("minus random") < shown.index("mAP50-95 over labelled images")
    assert shown.index("Round by round") < shown.index("Class balance") < shown.index("What was run on what")


def test_only_the_first_images_of_a_query_are_shown(seen: Elements) -> None:
    assert HOSTILE[4] + " (5)" in seen.text
    assert " (4)" not in seen.text
    assert "last.jpg" not in seen.text


def test_class_shares_are_percent_of_the_labelled_boxes(text: str) -> None:
    assert '<td class="share-6">60.0</td><td class="share-2">20.0</td><td class="share-1">10.0</td>' in text


@pytest.mark.parametrize(
    ("results", "run"),
    [
        ([], {}),
        (
            RESULTS[-1:],
            {
                "dataset": None,
                "trainings": [],
                "versions": "none",
                "failed": [{}, "x"],
                "joined": [{"seeds": 3}, 1],
                "seconds": "long",
            },
        ),
        ([result("random", 0, 0, None)], {"dataset": {"class_names": ["one"]}, "seconds": None}),
        ([result("uncertainty", 0, i, float("nan")) for i in (0, 1)], {"name": "\ud800"}),
    ],
    ids=["nothing", "only all data", "one round without mAP", "NaN"],
)
@pytest.mark.filterwarnings("error")
def test_partial_run_shows_what_is_there(tmp_path: Path, results: list[dict[str, object]], run: object) -> None:
    text = write_report(run_folder(tmp_path, results, run)).read_text(encoding="utf-8")
    assert "What was run on what" in text
    assert "None" not in text


@pytest.mark.parametrize("name", INPUTS)
def test_missing_input_says_what_to_run(tmp_path: Path, name: str) -> None:
    (run_folder(tmp_path) / name).unlink()
    with pytest.raises(RunFolderError, match=rf"^no {name} in .*: run 'raylearn run .* --out .*' first$") as caught:
        write_report(tmp_path)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[}", b"a: [1\nb: 2"])
def test_unreadable_input_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (run_folder(tmp_path) / name).write_bytes(content)
    with pytest.raises(RunFolderError, match="cannot be read") as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_experiment_that_yaml_cannot_read_is_refused(tmp_path: Path) -> None:
    (run_folder(tmp_path) / "experiment.yaml").write_text("a: !!int ''\n")
    with pytest.raises(RunFolderError, match=r"experiment\.yaml cannot be read"):
        write_report(tmp_path)


def test_run_json_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"run\.json cannot be read"):
        write_report(run_folder(tmp_path, run=[1]))


def test_a_count_that_is_no_number_is_not_counted_with(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, run={**RUN, "dataset": {**RUN["dataset"], "num_pool": "many"}})
    (folder / "experiment.yaml").write_text(json.dumps({**EXPERIMENT, "initial_size": "few"}))
    asked = [{**row, "trial": trial} for trial in ("uncertainty-s0", "random-s0") for row in QUERIES]
    pq.write_table(pa.Table.from_pylist(asked), folder / "queries.parquet")
    assert "many" in write_report(folder).read_text(encoding="utf-8")


def test_queries_without_a_column_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"trial": ["t"], "rank": [0]}), run_folder(tmp_path) / "queries.parquet")
    with pytest.raises(RunFolderError, match=r"queries\.parquet cannot be read"):
        write_report(tmp_path)


def test_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_folder(tmp_path)
    (folder / "report.html").write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(RunFolderError, match="No space left"):
        write_report(folder)
    assert (folder / "report.html").read_text() == "old"
    assert sorted(path.name for path in folder.iterdir()) == sorted([*INPUTS, "report.html"])


@pytest.mark.parametrize(
    "value",
    [
        {"aws_secret_access_key": "canary"},
        {"a": [{"hf_token": "canary"}]},
        {"credentials": {"user": "canary"}},
        "s3://key:canary@bucket/pool",
        "https://host/pool?api_key=canary&x=1",
        "raylearn run a.yaml --api-token canary",
        "store.secret='canary and more'",
        '{"password": "canary"}',
    ],
)
def test_secret_is_hidden_wherever_it_stands(value: object) -> None:
    assert "canary" not in str(without_secrets(value))


def test_ordinary_settings_stay_as_they_are() -> None:
    settings = {"epochs": 30, "uri": "s3://bucket/pool", "classes": ["a@b", "key"], "token": None, "keys": "a=b"}
    assert without_secrets(settings) == settings


def test_seconds_are_written_for_people() -> None:
    assert [seconds_text(value) for value in (1.26, 42, 185, 7620, None, float("nan"), "x")] == [
        "1.3 s",
        "42 s",
        "3 min 05 s",
        "2 h 07 min",
        "\u2013",
        "\u2013",
        "\u2013",
    ]


def test_the_page_says_what_is_evidence_and_what_coming_near_all_data_cost(text: str) -> None:
    told = Elements(text).text.replace("\u00a0", " ")
    assert "No verdict yet: a verdict needs 3 seeds, and this run has 2 seeds." in told
    assert "query of 10, 2 seeds: estimates without a verdict: entropy · sum (+0.060)." in told
    assert "With 80 % probability" not in told
    assert "All of this is about this data set" in told
    # seed 0 and 1 lead by 0, .05 and .1, and .02 more, over equal ranges: t with one degree of freedom
    assert re.search(r"entropy · sum\+0\.060 \(\u22120\.067 to \+0\.187\)\s*too few seeds", told)
    verdicts, estimates = told.split("Other outcomes and controls: estimates, without a verdict")
    # of the last round .1 and .12: an estimate with its interval, and no verdict in its table
    assert "+0.110 (\u22120.017 to +0.237)" in estimates
    assert "too few seeds" in verdicts
    assert "too few seeds" not in estimates
    # all data has 0.5 with seed 0 only, and no arm comes to 0.45
    assert "not reached (0 of 1)" in told


def test_the_summary_says_the_same_to_other_programs(tmp_path: Path) -> None:
    write_report(run_folder(tmp_path / "run"))
    with (tmp_path / "run" / "summary.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    (last,) = (row for row in rows if (row["arm"], row["outcome"]) == ("entropy · sum", "last mAP50-95"))
    assert (last["seeds"], last["mean"], last["control"]) == ("2", "0.31", "random")
    assert (last["difference"], last["p"], last["verdict"], last["detectable"]) == ("0.11", "", "", "")
    assert float(last["low"]) == pytest.approx(0.11 - 12.706 * 0.01, abs=1e-4)
    (decides,) = (row for row in rows if (row["arm"], row["outcome"]) == ("entropy · sum", "area over boxes"))
    assert (decides["verdict"], decides["control"]) == ("too few seeds", "random")
    assert (decides["p"], decides["detectable"]) == ("", "")
    assert sum(row["verdict"] != "" for row in rows) == 1
    assert {row["query_unit"] for row in rows if row["query_size"]} == {"images"}
    (cost,) = (row for row in rows if (row["arm"], row["outcome"]) == ("random", "images to 90 %"))
    assert (cost["seeds"], cost["mean"]) == ("0 of 1", "")


def test_the_page_holds_the_summary_as_a_file_to_save(tmp_path: Path) -> None:
    page = write_report(run_folder(tmp_path))
    links = [a for tag, a in Elements(page.read_text(encoding="utf-8")).elements if tag == "a" and "download" in a]
    (link,) = links
    assert link["download"] == "summary.csv"
    content = base64.b64decode(str(link["href"]).removeprefix("data:text/csv;base64,")).decode()
    assert content == (tmp_path / "summary.csv").read_text(encoding="utf-8")


def with_primary(folder: Path, **primary: object) -> Path:
    (run_folder(folder) / "experiment.yaml").write_text(json.dumps({**EXPERIMENT, "primary": primary}))
    return folder


def test_the_experiment_says_what_decides(tmp_path: Path) -> None:
    page = write_report(with_primary(tmp_path, outcome="last mAP50-95", control="random"))
    told = Elements(page.read_text(encoding="utf-8")).text.replace("\u00a0", " ")
    assert "Last mAP50-95 against random, query of 10, 2 seeds: estimates without a verdict: entropy · sum (" in told
    assert "last mAP50-95 minus random\u2019s" in told


def test_a_control_that_is_not_among_the_arms_leaves_no_verdict_and_says_why(tmp_path: Path) -> None:
    page = write_report(with_primary(tmp_path, control="box_count"))
    told = Elements(page.read_text(encoding="utf-8")).text.replace("\u00a0", " ")
    assert "No verdicts: box_count, the control that decides in this experiment, is not among the arms." in told
    assert "no evidence" not in told
    assert "no evidence" not in (tmp_path / "summary.csv").read_text()


@pytest.mark.parametrize("outcome", ["area over boxs", ["area over boxes"], None])
def test_an_outcome_that_nobody_knows_is_refused(tmp_path: Path, outcome: object) -> None:
    with pytest.raises(RunFolderError, match=r"experiment\.yaml: primary\.outcome: unknown value .*: (did you|known)"):
        write_report(with_primary(tmp_path, outcome=outcome))


def test_two_runs_stand_side_by_side_with_what_differs_and_equal_axes(tmp_path: Path) -> None:
    one, other = (run_folder(tmp_path / name) for name in ("one", "other"))
    text = (other / "experiment.yaml").read_text().replace("Which one?", "Which other?")
    (other / "experiment.yaml").write_text(text)
    page = write_comparison(one, other)
    assert page == one / "comparison.html"
    seen = Elements(page.read_text(encoding="utf-8"))
    assert seen.text.count("ended highest") == 2
    assert seen.text.count("Area over boxes against random") == 2
    assert "Which other?" in seen.text
    assert "canary" not in seen.text
    for name in HOSTILE[:2]:
        assert name in seen.text
    assert {tag for tag, _ in seen.elements} & {"script", "img", "iframe", "object", "embed", "link", "base"} == set()
    ids = [attributes["id"] for _, attributes in seen.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    curves = [attributes["viewbox"] for _, attributes in seen.elements if attributes.get("class") == "curve"]
    assert len(curves) == 8
    assert len(set(curves)) == 1


def test_a_comparison_with_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=rf"^no results.parquet in {tmp_path / 'none'}"):
        write_comparison(run_folder(tmp_path), tmp_path / "none")


def test_arms_have_their_colour_and_marker_of_the_curves_beside_every_verdict(text: str) -> None:
    swatch = r'<svg class="swatch".*?</svg>'
    legend = dict(re.findall(rf'class="show" id="[^"]*" checked> <span class="arm">({swatch})<span>(.*?)</span>', text))
    verdicts = re.findall(
        rf'<th scope="row"><span class="arm">({swatch})<span>(.*?)</span>', text.split('id="verdicts"')[1]
    )
    assert len(legend) == 2
    assert {drawn: label for drawn, label in verdicts if label in legend.values()} == legend


def test_an_all_zero_run_has_no_verdicts_and_reached_nothing(tmp_path: Path) -> None:
    zero = [{**row, "map50_95": 0.0, "map50": 0.0} for row in RESULTS]
    shown = Elements(write_report(run_folder(tmp_path, zero)).read_text(encoding="utf-8")).text
    assert "Nothing can be compared: mAP50-95 is 0 in every round of every arm" in shown
    assert "What can be said" not in shown
