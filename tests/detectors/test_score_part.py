"""What an actor does with batches that do not fit, and with images that only turn out to be broken on the GPU."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from raylearn.data.storage import Folder
from raylearn.detectors.base import Detections, DetectorSettings
from raylearn.errors import RaylearnError, StorageError
from raylearn.scoring import patience
from raylearn.scoring.ledger import open_part
from raylearn.scoring.manifest import Manifest
from raylearn.scoring.plan import ScoringPlan
from raylearn.scoring.reading import read_image
from raylearn.scoring.score_part import Part, ScorePart
from tests.detectors.test_device_canvases import photograph

SETTINGS = DetectorSettings(64, 0.05, 0.7, 100, decode="gpu")


class Small:
    """A detector on a GPU with room for so many images; its one box says how bright the image is."""

    class_names = ("bright",)

    def __init__(self, room: int, full_at: tuple[int, ...] = ()) -> None:
        self._room, self._full_at = room, full_at  # at these calls somebody else has the memory
        self.batches: list[int] = []

    def predict(self, canvases: torch.Tensor, sizes: np.ndarray) -> list[Detections]:  # noqa: ARG002
        self.batches.append(len(canvases))
        if len(canvases) > self._room or len(self.batches) in self._full_at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        means = [float(canvas.float().mean()) for canvas in canvases]
        return [Detections(np.full((1, 4), mean, np.float32), np.ones((1, 1), np.float32)) for mean in means]


def scored(detector: Small, files: list[Path], folder: Folder, batch_size: int) -> list[Part]:
    names, paths = [file.name for file in files], [str(file) for file in files]
    manifest = Manifest.of_columns([names, paths, [""] * len(files), [""] * len(files)], 10)
    manifest.write(folder)
    read = partial(read_image, settings=SETTINGS)
    plan = ScoringPlan("", SETTINGS, batch_size=batch_size, requests=0)
    score = ScorePart(lambda: detector, read, folder, manifest.hash, plan)
    parts = []
    for number in range(manifest.num_parts):
        (part,) = score({"number": np.array([number])})["part"]
        if not isinstance(part, Part):
            raise part
        parts.append(part)
    return parts


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number:02d}.jpg" for number in range(20)]
    for number, path in enumerate(paths):
        path.write_bytes(photograph(80, 60, seed=number))
    return paths


def test_a_batch_that_does_not_fit_is_halved_and_stays_so(files: list[Path], tmp_path: Path) -> None:
    roomy, small = Small(100), Small(3)
    scored(roomy, files, Folder.at(tmp_path / "roomy"), 8)
    parts = scored(small, files, Folder.at(tmp_path / "small"), 8)
    assert roomy.batches == [8, 2, 8, 2]
    assert small.batches == [8, 4, 2, 2, 2, 2, 2, *[2] * 5]
    assert [part.batch_size for part in parts] == [2, 2]


def test_a_few_that_do_not_fit_for_others_do_not_make_later_batches_smaller(files: list[Path], tmp_path: Path) -> None:
    crowded = Small(100, full_at=(2,))
    parts = scored(crowded, files, Folder.at(tmp_path / "crowded"), 8)
    assert crowded.batches == [8, 2, 1, 1, 8, 2]  # the two that end the first part met somebody else's memory
    assert [part.batch_size for part in parts] == [8, 8]


def test_one_image_is_tried_again_as_others_may_have_given_memory_back(files: list[Path], tmp_path: Path) -> None:
    crowded = Small(100, full_at=(1,))
    scored(crowded, files[:1], Folder.at(tmp_path / "crowded"), 8)
    assert crowded.batches == [1, 1]


def test_halving_changes_no_box(files: list[Path], tmp_path: Path) -> None:
    for name, room in (("roomy", 100), ("small", 3)):
        scored(Small(room), files, Folder.at(tmp_path / name), 8)
    boxes = [[open_part(Folder(str(tmp_path / n)), p).read(["boxes"]) for p in (0, 1)] for n in ("roomy", "small")]
    assert boxes[0] == boxes[1]
    assert boxes[0][0]["boxes"][0].as_py() != boxes[0][0]["boxes"][1].as_py()


def test_one_image_that_does_not_fit_ends_the_part_with_advice(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RaylearnError, match=r"part 0 .*: OutOfMemoryError: .* give it more of a GPU"):
        scored(Small(0), files, Folder.at(tmp_path / "ledger"), 8)


def test_what_turns_out_to_be_broken_on_the_gpu_is_a_row_with_its_error(files: list[Path], tmp_path: Path) -> None:
    whole = files[3].read_bytes()
    files[3].write_bytes(whole[:200] + whole[whole.index(b"\xff\xda") :][:14] + b"\xff\xd9")
    (part, _) = scored(Small(100), files, Folder.at(tmp_path / "ledger"), 8)
    assert part.counts.errors == {"broken": 1}
    assert part.counts.num_detections == 9


def test_parts_that_begin_at_once_load_one_detector_where_the_store_was_away_before(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.0)
    tries: list[int] = []

    def opened() -> Small:
        tries.append(1)
        if len(tries) == 1:
            raise StorageError("the store is away", may_pass=True)
        time.sleep(0.02)  # as long as the others need to come
        return Small(100)

    names, paths = [file.name for file in files], [str(file) for file in files]
    manifest = Manifest.of_columns([names, paths, [""] * len(files), [""] * len(files)], 10)
    folder = Folder.at(tmp_path / "ledger")
    manifest.write(folder)
    plan = ScoringPlan("", SETTINGS, batch_size=8, requests=0)
    score = ScorePart(opened, partial(read_image, settings=SETTINGS), folder, manifest.hash, plan)
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda number: score({"number": np.array([number])})["part"][0], range(2)))
    assert [part.number for part in found if isinstance(part, Part)] == [0, 1]
    assert len(tries) == 2
