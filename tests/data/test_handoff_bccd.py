"""Every photograph of BCCD out to every annotation tool and back: the boxes are the same."""

from pathlib import Path

import numpy as np
import pytest

from raylearn.data.dataset import Dataset
from raylearn.data.formats import read_dataset
from raylearn.detectors.base import Detections
from raylearn.handoff.exchange import Record, Tool
from raylearn.handoff.export import export_query
from raylearn.handoff.labels import import_labels
from raylearn.learning.collectors import QueriedImage
from tests.unit.test_handoff import PRECISION, TOOLS, exported_by


@pytest.fixture(scope="module")
def bccd(bccd_voc: Path) -> Dataset:
    return read_dataset(bccd_voc, "voc", pool=["trainval"], test=["test"], bad_boxes="drop")


@pytest.mark.parametrize("tool", TOOLS)
def test_what_comes_back_unchanged_is_what_went_out(tool: Tool, bccd: Dataset, tmp_path: Path) -> None:
    query, found = [], {}
    for rank, image in enumerate(bccd.pool, start=1):
        truth = bccd.truth[image.image_id]
        scores = np.full((len(truth), bccd.num_classes), 0.01, np.float32)
        scores[np.arange(len(truth)), truth.class_ids] = 0.9
        query.append(QueriedImage(rank, image.image_id, image.uri, 1 / rank, len(truth), {}))
        found[image.image_id] = ((image.width, image.height), Detections(truth.boxes, scores))
    handout = export_query(query, found, bccd.class_names, tool, tmp_path / tool)
    back = import_labels(exported_by(tool, handout), tool, Record.read(handout))
    assert list(back.truth) == [image.image_id for image in bccd.pool]
    assert sum(map(len, back.truth.values())) > 3000
    for image_id, truth in back.truth.items():
        assert truth.class_ids.tolist() == bccd.truth[image_id].class_ids.tolist()
        assert np.abs(truth.boxes - bccd.truth[image_id].boxes).max(initial=0) <= PRECISION[tool]
