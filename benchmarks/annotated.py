"""The annotated data set that a benchmark trains or measures on."""

import argparse
from pathlib import Path

from raylearn.data.dataset import Dataset
from raylearn.data.formats import read_dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", type=Path, default=Path("../shared/data/bccd_voc"))
    parser.add_argument("--format", default="voc")
    parser.add_argument("--pool", nargs="*", default=["trainval"])
    parser.add_argument("--test", nargs="*", default=["test"])


def read(options: argparse.Namespace) -> Dataset:
    return read_dataset(options.dataset, options.format, pool=options.pool, test=options.test, bad_boxes="drop")
