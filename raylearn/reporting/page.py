"""The page of a run: one html file that needs nothing else, for a browser, a telephone or paper."""

import base64
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from markupsafe import Markup

from raylearn.errors import RunFolderError, nearest
from raylearn.measures.outcomes import OUTCOMES
from raylearn.reporting import figures
from raylearn.reporting.answer import answer, arm_lines, is_all_zero
from raylearn.reporting.costs import Cost, Paid, paid_by_round, read_paid
from raylearn.reporting.gallery import GALLERY_FILE, Gallery, read_gallery
from raylearn.reporting.overlap import overlaps, read_asked
from raylearn.reporting.pool_map import MAP_FILE, PoolMap, read_map
from raylearn.reporting.secrets import without_secrets
from raylearn.reporting.statistics import ArmStatistics, Primary, compare
from raylearn.reporting.summary import (
    Summary,
    caution,
    finite,
    one_line,
    read_rounds,
    summarise,
)
from raylearn.reporting.summary_file import SUMMARY_FILE, summary_text
from raylearn.reporting.template import environment, write_at_once
from raylearn.strategies import BASELINE

INPUTS = ("results.parquet", "queries.parquet", "experiment.yaml", "run.json")
TOP_OF_QUERY = 5
RUN_KEYS = ("name", "question", "command", "started", "finished", "seconds", "raylearn", "machine", "address")
DATASET_KEYS = ("name", "fingerprint", "num_pool", "num_test")
TRAINING_KEYS = ("wanted", "different", "shared")

Queries = Mapping[tuple[str, int], list[tuple[str, float | None]]]
"""Trial and round -> the first images of that query and their scores."""


def write_report(run_folder: Path) -> Path:
    """Writes report.html and summary.csv from what a run left in its folder.

    Args:
        run_folder: holds results.parquet, queries.parquet, experiment.yaml and run.json.

    Returns:
        The page. It is replaced whole: whoever reads it meanwhile sees the old one or the new one.

    Raises:
        RunFolderError: one of the four is missing or cannot be read.
    """
    _refuse_missing(run_folder)
    experiment = _read_experiment(run_folder / "experiment.yaml")
    rounds = read_rounds(run_folder / "results.parquet", _pays_boxes(experiment))
    primary = _primary(experiment, run_folder)
    compared = compare(rounds, primary)
    page = render(
        summarise(rounds),
        compared,
        primary,
        _read_queries(run_folder / "queries.parquet"),
        experiment,
        _read_run(run_folder / "run.json"),
        read_gallery(run_folder / GALLERY_FILE),
        read_asked(run_folder / "queries.parquet"),
        read_map(run_folder / MAP_FILE),
        _cost(experiment, run_folder),
        read_paid(run_folder / "queries.parquet"),
    )
    write_at_once(run_folder / SUMMARY_FILE, summary_text(compared))
    return write_at_once(run_folder / "report.html", page)


def answer_lines(run_folder: Path) -> list[str]:
    """The answer of a run and its table of arms, for a terminal: what its page says first.

    Raises:
        RunFolderError: see `write_report`.
    """
    experiment = _read_experiment(run_folder / "experiment.yaml")
    rounds = read_rounds(run_folder / "results.parquet", _pays_boxes(experiment))
    summary, primary = summarise(rounds), _primary(experiment, run_folder)
    return [*answer(summary, compare(rounds, primary), primary), "", *arm_lines(summary)]


def write_comparison(run_folder: Path, other: Path) -> Path:
    """Writes comparison.html: two runs side by side, on equal axes.

    Args:
        run_folder: of the first run; the page is written into it.
        other: of the second.

    Raises:
        RunFolderError: one of them lacks a file, or has one that cannot be read.
    """
    runs = [_side(folder) for folder in (run_folder, other)]
    styles = figures.arm_styles(arm for run in runs for arm in run["summary"].arms)  # an arm is drawn alike in both
    for number, panel in enumerate(figures.PANELS):
        limits = figures.mean_ap_limits((run["summary"] for run in runs), panel)
        for side, run in enumerate(runs):
            drawn = figures.panel_svg(run["summary"], panel, f"s{side}p{number}", limits, styles)
            run["panels"].append((panel.unit, Markup(drawn)))
    for run in runs:
        run["swatches"] = {arm.key: Markup(figures.swatch_svg(styles[arm.key])) for arm in run["summary"].arms}
    flat = [dict(_flat(run["experiment"])) for run in runs]
    page = (
        environment()
        .get_template("comparison.html.jinja")
        .render(
            title=f"{runs[0]['title']} and {runs[1]['title']}",
            runs=runs,
            differing=[
                (key, *(side.get(key, "\u2013") for side in flat))
                for key in sorted(flat[0].keys() | flat[1].keys())
                if flat[0].get(key) != flat[1].get(key)
            ],
            summary=runs[0]["summary"],
            gallery=None,
            pool_map=None,
            same_data=runs[0]["fingerprint"] == runs[1]["fingerprint"],
        )
    )
    return write_at_once(run_folder / "comparison.html", page)


def _side(folder: Path) -> dict[str, Any]:
    """What the comparison shows of one run."""
    _refuse_missing(folder)
    experiment = _read_experiment(folder / "experiment.yaml")
    rounds = read_rounds(folder / "results.parquet", _pays_boxes(experiment))
    summary, run = summarise(rounds), _read_run(folder / "run.json")
    primary = _primary(experiment, folder)
    return {
        "title": run.get("name") or folder.name,
        "question": run.get("question"),
        "answers": answer(summary, compare(rounds, primary), primary),
        "summary": summary,
        "experiment": experiment,
        "fingerprint": _mapping(run.get("dataset")).get("fingerprint"),
        "panels": [],
    }


def _flat(value: Any, prefix: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, str(value)


def _refuse_missing(run_folder: Path) -> None:
    for name in INPUTS:
        if not (run_folder / name).is_file():
            raise RunFolderError(f"no {name} in {run_folder}: run '{_command(run_folder)}' first")


def render(
    summary: Summary,
    compared: Sequence[ArmStatistics],
    primary: Primary,
    queries: Queries,
    experiment: Any,
    run: Mapping[str, Any],
    gallery: Gallery | None = None,
    asked: Mapping[str, set[str]] | None = None,
    pool_map: PoolMap | None = None,
    cost: Cost | None = None,
    paid: Mapping[tuple[str, int], Paid] | None = None,
) -> str:
    """The page as text; the same input gives the same text."""
    dataset = _mapping(run.get("dataset"))
    styles = figures.arm_styles(summary.arms)
    ends = [value for arm in summary.learning if arm.last.map50_95 for value in arm.last.map50_95.values]
    random_ends = {arm.key.query_size: arm.last.map50_95 for arm in summary.learning if arm.is_random}
    return (
        environment()
        .get_template("page.html.jinja")
        .render(
            title=run.get("name") or _mapping(experiment).get("name") or "raylearn run",
            question=run.get("question") or _mapping(experiment).get("question"),
            answers=answer(summary, compared, primary),
            compared=() if is_all_zero(summary) else compared,  # 90 % of nothing is reached at once
            primary=primary,
            outcomes=OUTCOMES,
            caution=caution(summary),
            summary=summary,
            baseline=BASELINE,
            few_arms=figures.are_few(summary.arms),
            any_query_size=len(summary.query_sizes) > 1,
            any_probabilities=len({arm.key.probabilities for arm in summary.arms} - {None}) > 1,
            panels=[
                (panel.unit, Markup(figures.panel_svg(summary, panel, f"p{i}")))
                for i, panel in enumerate(figures.panels(cost))
            ],
            summary_csv=Markup(base64.b64encode(summary_text(compared).encode()).decode()),
            cost=cost,
            paid=list(paid_by_round(summary.learning, paid or {})),
            gallery=gallery,
            pool_map=pool_map,
            overlaps=overlaps(
                summary.arms, asked or {}, _count(dataset, "num_pool"), _count(_mapping(experiment), "initial_size")
            ),
            swatches={
                arm.key: Markup(figures.swatch_svg(style)) for arm in summary.arms for style in [styles[arm.key]]
            },
            strips={
                arm.key: Markup(
                    figures.strip_svg(arm.last.map50_95, min(ends), max(ends), random_ends.get(arm.key.query_size))
                )
                for arm in summary.learning
                if ends
            },
            class_names=_class_names(dataset, summary.num_classes),
            queries=[(arm, arm.trials[0], _queries_of(arm.trials[0], queries)) for arm in summary.learning],
            top_of_query=TOP_OF_QUERY,
            settings=yaml.safe_dump(experiment, sort_keys=False, allow_unicode=True, width=100),
            run=_filled(RUN_KEYS, run),
            dataset=_filled(DATASET_KEYS, dataset),
            trainings=_filled(TRAINING_KEYS, run.get("trainings")),
            versions=sorted((str(name), str(version)) for name, version in _mapping(run.get("versions")).items()),
            notes=_sequence(dataset.get("notes")),
            joined=[
                {**_filled(("folder", "finished", "machine"), part), "seeds": _sequence(_mapping(part).get("seeds"))}
                for part in _sequence(run.get("joined"))
            ],
            failed=[_filled(("trial", "cause"), failure) for failure in _sequence(run.get("failed"))],
        )
    )


def _command(run_folder: Path) -> str:
    if (run_folder / "project.yaml").is_file():
        return f"raylearn project train {shlex.quote(str(run_folder))}"
    experiment = run_folder / "experiment.yaml"
    file = shlex.quote(str(experiment)) if experiment.is_file() else "EXPERIMENT.yaml"
    return f"raylearn run {file} --out {shlex.quote(str(run_folder))}"


def _read_run(path: Path) -> Mapping[str, Any]:
    try:
        run = without_secrets(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(run, dict):
        raise _unreadable(path, "it holds no mapping")
    return _mapping(run)


def _read_experiment(path: Path) -> Any:
    try:
        return without_secrets(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise _unreadable(path, error) from error


def _primary(experiment: Any, run_folder: Path) -> Primary:
    """What decides in a run; the default where its experiment.yaml is of a time that had no such section."""
    section = _mapping(_mapping(experiment).get("primary"))
    primary = Primary(**{key: section[key] for key in ("outcome", "control") if key in section})
    if primary.outcome not in OUTCOMES:
        known = nearest(str(primary.outcome), OUTCOMES)
        path = run_folder / "experiment.yaml"
        raise RunFolderError(f"{path}: primary.outcome: unknown value {primary.outcome!r}: {known}")
    return replace(primary, control=str(primary.control))


def _pays_boxes(experiment: Any) -> bool:
    return "boxes" in _mapping(_mapping(experiment).get("budget"))


def _cost(experiment: Any, run_folder: Path) -> Cost | None:
    section = _mapping(experiment).get("cost")
    try:
        return None if section is None else Cost.of(section)
    except (TypeError, ValueError) as error:
        raise RunFolderError(f"{run_folder / 'experiment.yaml'}: cost: {one_line(error)}: give seconds") from error


def _read_queries(path: Path) -> Queries:
    columns = ["trial", "round", "rank", "image_id", "score"]
    try:
        table = pq.read_table(path, columns=columns, filters=[("rank", "<=", TOP_OF_QUERY)])
        tops: dict[tuple[str, int], list[tuple[str, float | None]]] = {}
        for row in sorted(table.to_pylist(), key=lambda row: int(row["rank"])):
            top = tops.setdefault((str(row["trial"]), int(row["round"])), [])
            # ranks may start at 0 or at 1
            if len(top) < TOP_OF_QUERY:
                top.append((str(row["image_id"]), finite(row["score"])))
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    return tops


def _queries_of(trial: str, queries: Queries) -> list[tuple[int, list[tuple[str, float | None]]]]:
    return sorted((index, images) for (name, index), images in queries.items() if name == trial)


def _class_names(dataset: Mapping[str, Any], num_classes: int) -> list[str]:
    names = [str(name) for name in _sequence(dataset.get("class_names"))]
    return [names[i] if i < len(names) else f"class {i}" for i in range(num_classes)]


def _unreadable(path: Path, cause: object) -> RunFolderError:
    return RunFolderError(f"{path} cannot be read ({one_line(cause)}): run '{_command(path.parent)}' again")


def _count(section: Mapping[str, Any], key: str) -> int | None:
    value = section.get(key)
    return value if isinstance(value, int) else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _filled(keys: Iterable[str], value: Any) -> dict[str, Any]:
    """The mapping with every key: a run that was cut short, or of an older version, lacks some."""
    return {**dict.fromkeys(keys), **_mapping(value)}


def _sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
