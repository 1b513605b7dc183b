"""A storage that one actor cannot read for a while, on a real Ray: the part is done later, the pass goes on."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from raylearn.data.storage import Folder
from raylearn.detectors.base import Detections, DetectorSettings
from raylearn.errors import StorageError
from raylearn.scoring.fetching import Source
from raylearn.scoring.ledger import NOTHING
from raylearn.scoring.manifest import Manifest
from raylearn.scoring.pipeline import deal_out
from raylearn.scoring.plan import ScoringPlan
from raylearn.scoring.reading import ReadImage

pytestmark = pytest.mark.usefixtures("local_ray")
PLAN = ScoringPlan("", DetectorSettings(64, 0.05, 0.7, 100), num_actors=2, requests=0)


class Nothing:
    """Finds nothing in any image."""

    class_names = ("crab",)

    def predict(self, canvases: np.ndarray, sizes: np.ndarray) -> list[Detections]:  # noqa: ARG002
        return [Detections(np.empty((0, 4), np.float32), np.empty((0, 1), np.float32))] * len(canvases)


def _read(source: Source, _: str, marks: Path, may_pass: bool) -> ReadImage:
    """Image 5 cannot be read the first time."""
    if source == "5" and not (marks / "asked").exists():
        (marks / "asked").touch()
        raise StorageError("the store is away", may_pass)
    return ReadImage(np.zeros((1, 1, 3), np.uint8), (64, 48))


def _scored(tmp_path: Path, may_pass: bool) -> list[int]:
    marks, folder = tmp_path / "marks", Folder.at(tmp_path / "ledger")
    marks.mkdir()
    ids = [str(number) for number in range(8)]
    manifest = Manifest.of_columns([ids, ids, [""] * 8, [""] * 8], part_size=2)
    manifest.write(folder)
    read = partial(_read, marks=marks, may_pass=may_pass)
    counts, numbers = NOTHING, []
    for part in deal_out(range(manifest.num_parts), Nothing, read, PLAN, folder, "key"):
        counts += part.counts
        numbers.append(part.number)
    assert (counts.num_images, counts.num_errors) == (8, 0)
    return numbers


def test_a_part_whose_store_is_away_is_dealt_out_again_after_the_others(tmp_path: Path) -> None:
    numbers = _scored(tmp_path, may_pass=True)
    assert sorted(numbers) == [0, 1, 2, 3]
    assert numbers[-1] == 2


def test_a_store_that_refuses_ends_the_pass_at_once(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="the store is away"):
        _scored(tmp_path, may_pass=False)
