"""The same blood cells as VOC and as YOLO, as published."""

from pathlib import Path

import numpy as np
import pytest

from raylearn.data.dataset import Dataset
from raylearn.data.formats import read_dataset
from raylearn.errors import DatasetError


@pytest.fixture(scope="module")
def data() -> Path:
    folder = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    if not (folder / "bccd_voc").is_dir() or not (folder / "bccd_yolo").is_dir():
        pytest.skip(f"no bccd_voc and bccd_yolo in {folder}")
    return folder


@pytest.fixture(scope="module")
def voc(data: Path) -> Dataset:
    return read_dataset(data / "bccd_voc", "voc", bad_boxes="drop")


@pytest.fixture(scope="module")
def yolo(data: Path) -> Dataset:
    return read_dataset(data / "bccd_yolo", "yolo")


def class_counts(dataset: Dataset) -> dict[str, int]:
    counts = sum(np.bincount(truth.class_ids, minlength=dataset.num_classes) for truth in dataset.truth.values())
    return dict(zip(dataset.class_names, np.asarray(counts).tolist(), strict=True))


def test_zero_area_boxes_are_refused_by_name(data: Path) -> None:
    with pytest.raises(DatasetError, match=r"BloodImage_00338\.xml:158: .* zero area.*\(1 more problem: "):
        read_dataset(data / "bccd_voc", "voc")


def test_dropping_them_notes_both_and_keeps_the_rest(voc: Dataset) -> None:
    assert [note.split(": ")[0].rpartition("/")[2] for note in voc.notes] == [
        "BloodImage_00338.xml:158",
        "BloodImage_00343.xml:50",
    ]
    assert (len(voc.pool), len(voc.test)) == (292, 72)
    assert class_counts(voc) == {"Platelets": 361, "RBC": 4155 - 2, "WBC": 372}


def test_yolo_copy_has_the_same_boxes_at_half_size(voc: Dataset, yolo: Dataset) -> None:
    assert (len(yolo.pool), len(yolo.test), yolo.notes) == (283, 81, ())
    assert class_counts(yolo) == class_counts(voc)
    shift = np.array([1, 1, 0, 0])
    copies = {Path(image_id).name: truth for image_id, truth in yolo.truth.items()}
    for image_id, truth in voc.truth.items():
        copy = copies[Path(image_id).name]
        for class_id, corners in zip(copy.class_ids, copy.boxes * 2, strict=True):
            same_class = truth.boxes[truth.class_ids == voc.class_names.index(yolo.class_names[class_id])]
            # The copy was made without the shift of VOC's 1-based corners, so xmin and ymin differ by that pixel.
            assert np.abs(same_class + shift - corners).max(axis=1).min() < 0.01
