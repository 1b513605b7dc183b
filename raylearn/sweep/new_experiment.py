"""A first experiment file for a data set: commented, filled in from what the data set holds, and fit to run."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from raylearn.config import Experiment
from raylearn.config_files import from_content
from raylearn.data.dataset import Dataset
from raylearn.data.formats import examine_dataset
from raylearn.data.reef import ReefSettings, plan_reef
from raylearn.data.storage import reason_of
from raylearn.errors import ConfigError, DatasetError
from raylearn.sweep.trial import Bench

_LARGEST_SIDE = 640  # pixels: what detectors of COCO are trained at
_LARGEST_QUERY = 100  # images; of a pool of a thousand or more
_ROUNDS = 4
_MOST_CLASSES = 20  # that a comment names

_TEMPLATE = """\
# Which images are worth annotating? Check it: raylearn check {file}   Run it: raylearn run {file}
# Every key, with its default and meaning: raylearn schema
name: {name:<21} # also the run's folder: runs/NAME
question: Does labelling the images the detector is most uncertain about beat labelling at random?

# {num_pool} images may be labelled, {num_test} are held out; {sizes}.
# {classes}
dataset:
{dataset}

detector:
  model: yolov5n            # the smallest; yolov5s, yolov8n, yolo11n, ... or another detector.family
  image_size: {image_size:<13} # pixels, a multiple of 32; on a CPU 192 or 128 is many times faster
  # initial_weights: yolov5nu.pt   # a checkpoint that you have; with it few images teach far more

training:
  epochs: 50                # passes over the labelled images; fewer will do from good initial weights
  batch_size: 8
  # For small sets: small steps often, and no mosaic, which wants more epochs than this.
  options: {{optimizer: AdamW, lr0: 0.001, warmup_epochs: 0.5, cls: 1.0, nbs: 8, mosaic: 0.0}}

initial_size: {initial:<13} # images labelled for round 0, class-balanced
budget: {budget:<19} # images labelled after those: {initial} + {budget} of {num_pool}

arms:
  uncertainty: [entropy]    # least_confidence, margin, margin_squared
  aggregation: [sum, max]   # mean
  query_size: [{query}]{pad}# images labelled per round, so {rounds} rounds
  controls: [random, full_data]   # what any arm has to beat, and the upper bound; box_count

seeds: [0, 1, 2]            # of fewer than three the report gives estimates and no verdicts
"""


def write_experiment(file: Path, format: str | None, path: Path | None) -> Dataset:
    """Writes an experiment file, after a look at all of the data set; returns what was found.

    Args:
        file: that is written; nothing may be there.
        format: of the data set, such as "yolo"; None takes the reef, which is generated.
        path: of the data set's folder (or data.yaml); not for the reef.

    Raises:
        ConfigError: something is there already, or cannot be written.
        DatasetError: the data set has problems, all of which are in the error, or too few images.
    """
    if file.exists() or file.is_symlink():
        raise ConfigError(f"{file} is there already: name another file, or remove it")
    if (path is None) != (format in (None, "reef")):
        raise ConfigError("--format and --path belong together, as in --format yolo --path /data/mine: give both")
    dataset, num_left_out = (plan_reef(ReefSettings()), 0) if path is None else _examined(path, str(format))
    text = experiment_text(file, dataset, str(format or "reef"), path, num_left_out)
    experiment = from_content(yaml.safe_load(text), Experiment, str(file))
    Bench.of(experiment, dataset)
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError as error:
        raise ConfigError(f"{file} is there already: name another file, or remove it") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be written: {reason_of(error)}") from error
    return dataset


def _examined(path: Path, format: str) -> tuple[Dataset, int]:
    """The data set, and how many boxes that cannot be right are left out of it: the file will say so."""
    dataset, problems = examine_dataset(path, format)
    num_bad = len(problems)
    if problems and all(problem.kind == "box" for problem in problems):
        dataset, problems = examine_dataset(path, format, bad_boxes="drop")
    if dataset is None:
        raise DatasetError(f"{path}: {len(problems)} problems", [str(problem) for problem in problems])
    return dataset, num_bad


def _dataset_section(format: str, path: Path | None, num_left_out: int) -> str:
    if path is None:
        return "  format: reef              # drawn underwater scenes, generated on the spot"
    section = f"  format: {format}\n  path: {json.dumps(str(path), ensure_ascii=False)}"
    if num_left_out:
        section += f"\n  bad_boxes: drop           # {num_left_out} that cannot be right; `raylearn check` lists them"
    return section


def experiment_text(file: Path, dataset: Dataset, format: str, path: Path | None, num_left_out: int = 0) -> str:
    """The file's text, where so many boxes are left out; raises DatasetError for a pool of fewer than two images."""
    num_pool = len(dataset.pool)
    if num_pool < 2:
        raise DatasetError(f"{dataset.name} has {num_pool} images in the pool: at least two are needed")
    query = max(1, min(_LARGEST_QUERY, num_pool // 10))
    rounds = min(_ROUNDS, num_pool // query - 1)
    longer = [max(image.width, image.height) for image in (*dataset.pool, *dataset.test)]
    return _TEMPLATE.format(
        file=" ".join(str(file).split()),
        name=_name(path, format),
        num_pool=num_pool,
        num_test=len(dataset.test),
        sizes=_sizes(dataset),
        classes=_classes(dataset),
        dataset=_dataset_section(format, path, num_left_out),
        image_size=min(_LARGEST_SIDE, max(32, -(-int(np.median(longer)) // 32) * 32)),
        initial=query,
        budget=query * rounds,
        query=query,
        pad=" " * (12 - len(str(query))),
        rounds=rounds + 1,
    )


def _name(path: Path | None, format: str) -> str:
    """Of the folder, as far as a run can be named so."""
    if path is None:
        return format
    folder = path if path.suffix not in (".yaml", ".yml", ".json") else path.parent
    found = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip("-._") or format
    return found if isinstance(yaml.safe_load(found), str) else f'"{found}"'  # 2024, or on


def _sizes(dataset: Dataset) -> str:
    sizes = {(image.width, image.height) for image in (*dataset.pool, *dataset.test)}
    if len(sizes) == 1:
        return "all of {}x{} pixels".format(*next(iter(sizes)))
    sides = sorted(max(size) for size in sizes)
    return f"their longer sides are {sides[0]} to {sides[-1]} pixels"


def _classes(dataset: Dataset) -> str:
    """The classes in a comment, with their boxes in the pool where these are known."""
    names = [name if name.isprintable() else json.dumps(name) for name in dataset.class_names]
    truth = [dataset.truth[image.image_id] for image in dataset.pool if image.image_id in dataset.truth]
    if truth:
        ids = np.concatenate([own.class_ids for own in truth]).astype(int)
        counts: Sequence[int] = np.bincount(ids, minlength=len(names)).tolist()
        names = [f"{name} ({count:,})" for name, count in zip(names, counts, strict=True)]
    others = f" and {len(names) - _MOST_CLASSES} more" if len(names) > _MOST_CLASSES else ""
    boxes = " (boxes in the pool)" if truth else ""
    return f"Classes{boxes}: {', '.join(names[:_MOST_CLASSES])}{others}"
