"""The embedded data set "reef": seeded clips of a drawn reef, to run, test and compare without a download.

Six species with a long tail, empty frames, clutter that is no animal, near-duplicate frames of fixed cameras, and no
clip in two splits.
"""

import csv
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from uuid import uuid4

import numpy as np

from raylearn.data import reef_scenes, reef_species
from raylearn.data.dataset import Dataset, GroundTruth, Image
from raylearn.data.images import content_hash
from raylearn.errors import ConfigError, DatasetError

VERSION = 1  # raise it with every change of what is drawn: it is part of the folder's name
SPECIES = tuple(species.name for species in reef_species.SPECIES)
SPLITS = ("pool", "test")
CROWDING = (0.12, 0.20, 0.20, 0.18, 0.12, 0.08, 0.05, 0.03, 0.02)  # share of the clips that 0, 1, .. 8 animals pass
MIN_SIDE = 64  # pixels: in a smaller frame most animals are too small to be annotated
JPEG_QUALITY = 90
CHECKSUMS_FILE = "checksums.txt"


@dataclass(frozen=True)
class ReefSettings:
    """Which reef.

    Args:
        seed: another seed, another reef.
        num_pool, num_test: frames in each split; one split does not change with the size of the other.
        width, height: pixels of a frame.
        frames_per_clip: mean; a clip has between half and one and a half times as many.

    Raises:
        ConfigError: a number that cannot be drawn.
    """

    seed: int = 7
    num_pool: int = 320
    num_test: int = 120
    width: int = 192
    height: int = 144
    frames_per_clip: int = 4

    def __post_init__(self) -> None:
        least = {"seed": 0, "width": MIN_SIDE, "height": MIN_SIDE}
        for field in fields(self):
            number, minimum = getattr(self, field.name), least.get(field.name, 1)
            if isinstance(number, bool) or not isinstance(number, int):
                raise ConfigError(f"reef: {field.name} is {number!r}, but must be a whole number")
            if number < minimum:
                raise ConfigError(f"reef: {field.name} is {number}, but must be at least {minimum}")


@dataclass(frozen=True)
class Clip:
    """What one camera is going to see: the species of each animal that passes, in how many frames."""

    clip_id: str
    class_ids: tuple[int, ...]
    num_frames: int

    @property
    def frame_ids(self) -> list[str]:
        """The image ids of its frames."""
        return [f"{self.clip_id}_frame{index:02d}.jpg" for index in range(self.num_frames)]


def deal(shares: Sequence[float], size: int, rng: np.random.Generator) -> np.ndarray:
    """Draws `size` positions of `shares` as from a shuffled deck, so that even a small draw keeps to the shares.

    Args:
        shares: positive, summing to 1.

    Returns:
        (size,) int64; each position as often as its share says, by the largest remainder.
    """
    exact = np.asarray(shares) * size
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: size - counts.sum()]] += 1
    return rng.permutation(np.repeat(np.arange(len(counts)), counts))


def plan_split(settings: ReefSettings, split: str) -> list[Clip]:
    """The clips of a split; together they have exactly the frames that were asked for."""
    num_frames = settings.num_pool if split == "pool" else settings.num_test
    rng = _generator(settings, split, 0)
    mean = settings.frames_per_clip
    lengths: list[int] = []
    left = num_frames
    while left > 0:
        lengths.append(min(left, int(rng.integers((mean + 1) // 2, 3 * mean // 2, endpoint=True))))
        left -= lengths[-1]
    crowding = deal(CROWDING, len(lengths), rng)
    animals = iter(deal([species.share for species in reef_species.SPECIES], int(crowding.sum()), rng).tolist())
    return [
        Clip(f"{split}/clip{number:04d}", tuple(islice(animals, num_animals)), length)
        for number, (length, num_animals) in enumerate(zip(lengths, crowding.tolist(), strict=True), start=1)
    ]


def draw_split(settings: ReefSettings, split: str) -> Iterator[tuple[str, str, reef_scenes.Frame]]:
    """Image id, clip id and picture of every frame of a split."""
    size = (settings.width, settings.height)
    for number, clip in enumerate(plan_split(settings, split), start=1):
        rng = _generator(settings, split, number)
        frames = reef_scenes.draw_clip(clip.class_ids, clip.num_frames, size, rng)
        for frame_id, frame in zip(clip.frame_ids, frames, strict=True):
            yield frame_id, clip.clip_id, frame


def plan_reef(settings: ReefSettings) -> Dataset:
    """What is known of a reef before it is drawn: its frames and clips, but no bytes and no boxes.

    It is for a look at sizes and classes: the content hash of an image is that of its name, and no truth has a box.
    """
    frame = (settings.width, settings.height)
    pool, test = (
        tuple(
            Image(frame_id, frame_id, *frame, content_hash(frame_id.encode()), clip.clip_id)
            for clip in plan_split(settings, split)
            for frame_id in clip.frame_ids
        )
        for split in SPLITS
    )
    nothing = GroundTruth(np.empty((0, 4)), np.empty(0))
    return Dataset("reef", SPECIES, pool, test, {image.image_id: nothing for image in test})


def _generator(settings: ReefSettings, split: str, clip_number: int) -> np.random.Generator:
    # clips count from 1: number 0 draws the plan of the split
    return np.random.default_rng(np.random.SeedSequence([settings.seed, VERSION, SPLITS.index(split), clip_number]))


def generate_reef(settings: ReefSettings, folder: Path) -> Path:
    """Writes the data set below `folder`, once, in the layout of YOLO.

    It is written to a temporary sibling that is renamed at the end: the folder returned is whole or absent. With the
    same Pillow and numpy, the same settings give the same bytes.

    Returns:
        `folder`/reef-<hash of settings and version>, with images/, labels/, data.yaml, clips.csv, and a line of
        sha256sum's for each of them in checksums.txt. If it exists already, it is left as it is.
    """
    identity = json.dumps({"version": VERSION, **asdict(settings)}, sort_keys=True)
    target = folder / f"reef-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    if target.is_dir():
        return target
    temporary = folder / f".{target.name}.{uuid4().hex}"
    try:
        _write(settings, temporary)
        try:
            temporary.rename(target)
        except OSError:
            # another process was faster, and has written the same bytes
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _write(settings: ReefSettings, root: Path) -> None:
    clips = []
    for split in SPLITS:
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for image_id, clip_id, frame in draw_split(settings, split):
            frame.image.save(root / "images" / image_id, quality=JPEG_QUALITY)
            _label_path(root, image_id).write_text(_label_rows(frame, settings))
            clips.append(f"{image_id},{clip_id}\n")
    (root / "clips.csv").write_text("image,clip_id\n" + "".join(clips))
    names = "".join(f"  {class_id}: {name}\n" for class_id, name in enumerate(SPECIES))
    (root / "data.yaml").write_text(f"train: images/pool\nval: images/test\nnames:\n{names}")
    (root / CHECKSUMS_FILE).write_text(_checksums(root))


def _checksums(root: Path) -> str:
    files = [path for pattern in ("*.csv", "*.yaml", "images/*/*.jpg", "labels/*/*.txt") for path in root.glob(pattern)]
    return "".join(f"{content_hash(path.read_bytes())}  {path.relative_to(root)}\n" for path in sorted(files))


def _refuse_damage(root: Path) -> None:
    """Raises DatasetError unless the folder holds what was drawn."""
    try:
        drawn = (root / CHECKSUMS_FILE).read_text(errors="replace")
    except OSError:
        drawn = ""
    changed = set(drawn.splitlines()) ^ set(_checksums(root).splitlines())
    if changed:
        name = min(line.split("  ")[-1] for line in changed)
        raise DatasetError(f"{root / name} is not as it was drawn, or gone: remove {root}, and it is drawn again")


def _label_path(root: Path, image_id: str) -> Path:
    return (root / "labels" / image_id).with_suffix(".txt")


def _label_rows(frame: reef_scenes.Frame, settings: ReefSettings) -> str:
    left, top, right, bottom = (frame.boxes / np.tile((settings.width, settings.height), 2)).T
    rows = zip(frame.class_ids, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top, strict=True)
    return "".join(f"{class_id} {x:.7f} {y:.7f} {width:.7f} {height:.7f}\n" for class_id, x, y, width, height in rows)


def read_reef(settings: ReefSettings, folder: Path) -> Dataset:
    """The reef as a data set; generates it below `folder` if it is not there.

    Raises:
        DatasetError: a file of it is damaged or gone.
    """
    root = generate_reef(settings, folder).resolve()
    _refuse_damage(root)
    images: dict[str, list[Image]] = {split: [] for split in SPLITS}
    truth = {}
    with (root / "clips.csv").open(newline="") as clips:
        for row in csv.DictReader(clips):
            image_id, path = row["image"], root / "images" / row["image"]
            digest = content_hash(path.read_bytes())
            image = Image(image_id, str(path), settings.width, settings.height, digest, row["clip_id"])
            images[image_id.split("/")[0]].append(image)
            truth[image_id] = _read_labels(_label_path(root, image_id), settings)
    return Dataset("reef", SPECIES, tuple(images["pool"]), tuple(images["test"]), truth)


def _read_labels(path: Path, settings: ReefSettings) -> GroundTruth:
    rows = np.array([line.split() for line in path.read_text().splitlines()], dtype=np.float64).reshape(-1, 5)
    frame = np.array((settings.width, settings.height))
    centres, halves = rows[:, 1:3] * frame, rows[:, 3:5] * frame / 2
    # clipped: the decimals of a label may round to a hair outside the frame
    boxes = np.hstack([np.clip(centres - halves, 0, frame), np.clip(centres + halves, 0, frame)])
    return GroundTruth(boxes, rows[:, 0])
