"""What `raylearn export` writes in YOLO form, as Ultralytics itself reads it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raylearn.data.dataset import Dataset
from raylearn.detectors.families.ultralytics.isolation import isolate_ultralytics
from raylearn.handoff.dataset_folder import write_dataset

isolate_ultralytics()

from ultralytics.data.dataset import YOLODataset  # noqa: E402
from ultralytics.data.utils import check_det_dataset  # noqa: E402


@pytest.mark.parametrize("place", ["", "images/"])
def test_ultralytics_finds_every_image_with_its_boxes(reef: Dataset, tmp_path: Path, place: str) -> None:
    """Also where ids have no folder `images`, so that labels lie beside their images."""
    pool, test = (
        tuple(replace(i, image_id=place + i.image_id) for i in split) for split in (reef.pool[:12], reef.test[:4])
    )
    truth = {place + image_id: own for image_id, own in reef.truth.items()}
    dataset = replace(reef, pool=pool, test=test, truth=truth)
    out = write_dataset(dataset, "yolo", tmp_path / "out", about={}, about_images={})
    data = check_det_dataset(str(out / "data.yaml"), autodownload=False)
    assert tuple(data["names"].values()) == reef.class_names
    for split, images in (("train", pool), ("val", test)):
        read = YOLODataset(img_path=data[split], data=data, task="detect", augment=False)
        found = {Path(label["im_file"]).relative_to(out).as_posix(): label for label in read.labels}
        assert found.keys() == {image.image_id for image in images}
        for image in images:
            own, label = truth[image.image_id], found[image.image_id]
            assert label["cls"].ravel().tolist() == own.class_ids.tolist()
            size = np.array((image.width, image.height), dtype=np.float32)
            centres = (own.boxes[:, :2] + own.boxes[:, 2:]) / 2 / size
            np.testing.assert_allclose(label["bboxes"][:, :2], centres, atol=1e-6)
