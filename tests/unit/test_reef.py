import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image as PillowImage

from raylearn.data import reef, reef_scenes
from raylearn.data.dataset import Dataset
from raylearn.data.reef import SPECIES, ReefSettings, deal, generate_reef, plan_reef, plan_split, read_reef
from raylearn.data.reef_scenes import OVERSAMPLING, Sprite, draw_clip, tight_box, visible
from raylearn.errors import ConfigError, DatasetError

SMALL = ReefSettings(num_pool=36, num_test=12, width=128, height=96)
TINY = ReefSettings(num_pool=6, num_test=3, width=96, height=72)
SHARES = (0.45, 0.25, 0.14, 0.09, 0.05, 0.02)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reef")


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return read_reef(SMALL, folder)


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def pixels(path: str) -> np.ndarray:
    with PillowImage.open(path) as image:
        return np.asarray(image).astype(np.float64)


def test_two_generations_are_equal_to_the_byte(folder: Path, dataset: Dataset, tmp_path: Path) -> None:
    assert dataset.name == "reef"
    first, second = contents(generate_reef(SMALL, folder)), contents(generate_reef(SMALL, tmp_path))
    assert len(first) == 2 * (36 + 12) + 3
    assert first == second


@pytest.mark.parametrize(
    "name",
    ["checksums.txt", "clips.csv", "images/pool/clip0001_frame00.jpg", "labels/test/clip0001_frame00.txt"],
)
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"\xff" * 9)])
def test_a_damaged_reef_is_refused_by_name_and_drawn_again_once_removed(tmp_path, name, damage) -> None:
    whole = read_reef(TINY, tmp_path)
    (root,) = tmp_path.iterdir()
    damage(root / name)
    with pytest.raises(DatasetError, match=rf"is not as it was drawn, or gone: remove {root}, ") as caught:
        read_reef(TINY, tmp_path)
    assert name in str(caught.value) or name == "checksums.txt"
    shutil.rmtree(root)
    assert read_reef(TINY, tmp_path) == whole


def test_a_planned_reef_has_the_frames_clips_and_classes_of_the_drawn_one(dataset: Dataset) -> None:
    planned = plan_reef(SMALL)
    assert planned.class_names == dataset.class_names
    for split in ("pool", "test"):
        for ours, drawn in zip(getattr(planned, split), getattr(dataset, split), strict=True):
            assert ours == replace(drawn, uri=ours.uri, content_hash=ours.content_hash)


def test_another_seed_gives_another_reef(tmp_path: Path) -> None:
    one = read_reef(TINY, tmp_path)
    other = read_reef(ReefSettings(8, 6, 3, 96, 72), tmp_path)
    assert {image.content_hash for image in one.images()}.isdisjoint(image.content_hash for image in other.images())


def test_every_setting_and_the_version_name_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reef, "_write", lambda _, root: root.mkdir())
    variants = [ReefSettings(**{name: value + 1}) for name, value in vars(ReefSettings()).items()]
    names = {generate_reef(settings, tmp_path).name for settings in [ReefSettings(), *variants]}
    monkeypatch.setattr(reef, "VERSION", reef.VERSION + 1)
    names.add(generate_reef(ReefSettings(), tmp_path).name)
    assert len(names) == 8


def test_the_test_split_does_not_change_with_the_size_of_the_pool(tmp_path: Path) -> None:
    small, larger = (read_reef(ReefSettings(7, num_pool, 3, 96, 72), tmp_path) for num_pool in (6, 9))
    assert [image.content_hash for image in larger.test] == [image.content_hash for image in small.test]


def test_global_random_state_is_neither_read_nor_moved(tmp_path: Path) -> None:
    fingerprints = set()
    for seed in (1, 2):
        np.random.seed(seed)
        before = np.random.get_state()[1].copy()
        fingerprints.add(read_reef(TINY, tmp_path / str(seed)).fingerprint)
        assert np.array_equal(np.random.get_state()[1], before)
    assert len(fingerprints) == 1


def test_species_come_in_their_long_tailed_shares() -> None:
    boxes, frames_by_crowding = np.zeros(6), Counter()
    for clip in plan_split(ReefSettings(num_pool=4000), "pool"):
        boxes += clip.num_frames * np.bincount(clip.class_ids, minlength=6)
        frames_by_crowding[len(clip.class_ids)] += clip.num_frames
    assert np.allclose(boxes / boxes.sum(), SHARES, atol=0.015)
    assert 0.09 < frames_by_crowding[0] / 4000 < 0.14
    assert set(frames_by_crowding) == set(range(9))
    assert 2.4 < boxes.sum() / 4000 < 3.2


def test_species_drawn_keep_to_the_shares_planned(dataset: Dataset) -> None:
    planned, drawn = np.zeros(6), np.zeros(6)
    for split in reef.SPLITS:
        for clip in plan_split(SMALL, split):
            planned += clip.num_frames * np.bincount(clip.class_ids, minlength=6)
    for truth in dataset.truth.values():
        drawn += np.bincount(truth.class_ids, minlength=6)
    assert (drawn <= planned).all()
    assert drawn.sum() > 0.75 * planned.sum()


@pytest.mark.parametrize("seed", range(8))
def test_no_species_is_missing_from_a_default_split(seed: int) -> None:
    for split in reef.SPLITS:
        shown = {class_id for clip in plan_split(ReefSettings(seed=seed), split) for class_id in clip.class_ids}
        assert shown == set(range(6))


@pytest.mark.parametrize("size", [0, 1, 7, 100])
def test_a_deal_keeps_to_its_shares(size: int) -> None:
    dealt = deal(SHARES, size, np.random.default_rng(3))
    assert len(dealt) == size
    assert (np.abs(np.bincount(dealt, minlength=6) - np.array(SHARES) * size) < 1).all()


@pytest.mark.parametrize("mean", [1, 2, 3, 4, 9])
def test_clips_vary_around_their_mean_and_fill_the_split_exactly(mean: int) -> None:
    lengths = [clip.num_frames for clip in plan_split(ReefSettings(num_pool=2000, frames_per_clip=mean), "pool")]
    assert sum(lengths) == 2000
    assert abs(np.mean(lengths) - mean) < 0.2
    assert max(lengths) <= 1.5 * mean
    assert (len(set(lengths)) > 1) == (mean > 1)


def test_no_clip_stands_in_two_splits(dataset: Dataset) -> None:
    assert (len(dataset.pool), len(dataset.test)) == (36, 12)
    pool, test = ({image.clip_id for image in split} for split in (dataset.pool, dataset.test))
    assert all(pool)
    assert all(test)
    assert pool.isdisjoint(test)
    assert len(pool) < 36


def test_frames_of_a_clip_are_more_alike_than_frames_of_two(dataset: Dataset) -> None:
    frames = {image: pixels(image.uri) for image in dataset.pool}
    within, between = [], []
    for one in frames:
        for other in frames:
            if one.image_id < other.image_id:
                apart = np.abs(frames[one] - frames[other]).mean()
                (within if one.clip_id == other.clip_id else between).append(apart)
    assert max(within) < min(between)
    assert min(within) > 0


def test_an_empty_frame_has_an_empty_label_file(folder: Path, dataset: Dataset) -> None:
    root = generate_reef(SMALL, folder)
    empty = [image_id for image_id, truth in dataset.truth.items() if not len(truth)]
    assert empty
    for image_id in empty:
        assert (root / "labels" / image_id).with_suffix(".txt").read_bytes() == b""
    num_labels = len(list((root / "labels").rglob("*.txt")))
    assert num_labels == len(dataset.truth) == 48


def test_boxes_lie_in_the_frame_and_have_an_area(dataset: Dataset) -> None:
    boxes = np.concatenate([truth.boxes for truth in dataset.truth.values()])
    assert boxes.dtype == np.float32
    assert (boxes >= 0).all()
    assert (boxes <= (128, 96, 128, 96)).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 3).all()


def test_labels_read_are_the_boxes_drawn(dataset: Dataset) -> None:
    for split in reef.SPLITS:
        for image_id, clip_id, frame in reef.draw_split(SMALL, split):
            truth = dataset.truth[image_id]
            assert np.allclose(truth.boxes, frame.boxes, atol=1e-3)
            assert np.array_equal(truth.class_ids, frame.class_ids)
            assert image_id.startswith(f"{clip_id}_frame")


def test_images_are_what_the_data_set_says(folder: Path, dataset: Dataset) -> None:
    root = generate_reef(SMALL, folder)
    for image in dataset.images():
        path = Path(image.uri)
        assert path.is_absolute()
        assert path.samefile(root / "images" / image.image_id)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == image.content_hash
        assert pixels(image.uri).shape == (image.height, image.width, 3) == (96, 128, 3)


def test_data_yaml_is_what_ultralytics_reads(folder: Path) -> None:
    config = yaml.safe_load((generate_reef(SMALL, folder) / "data.yaml").read_text())
    assert config == {"train": "images/pool", "val": "images/test", "names": dict(enumerate(SPECIES))}


@pytest.mark.parametrize("class_id", range(6))
def test_a_box_is_tight_around_the_drawn_animal(class_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    black = PillowImage.new("RGB", (192 * OVERSAMPLING, 144 * OVERSAMPLING))
    monkeypatch.setattr(reef_scenes._Backdrop, "paint", lambda *_: black.copy())
    monkeypatch.setattr(reef_scenes, "_bubbles", lambda *_: None)
    monkeypatch.setattr(reef_scenes._Lens, "photograph", lambda _self, picture, _rng: picture)
    num_boxes = 0
    for seed in range(6):
        for frame in draw_clip([class_id], 2, (192, 144), np.random.default_rng(seed)):
            seen = frame.image.getbbox()
            assert len(frame.boxes) == (seen is not None)
            if seen is not None:
                num_boxes += 1
                assert frame.class_ids.tolist() == [class_id]
                assert np.abs(frame.boxes[0] - seen).max() <= 1
    assert num_boxes >= 6


def block(left: int, top: int, side: int = 40) -> Sprite:
    return Sprite(0, PillowImage.new("RGBA", (side, side), (255, 255, 255, 255)), left, top)


def test_a_box_is_tight_around_what_can_be_seen() -> None:
    near, far, cut = block(20, 20), block(40, 20), block(90, 60)
    seen = visible([near, far, cut], (120, 90))
    assert [tight_box(mask) for _, mask in seen] == [(20, 20, 60, 60), (60, 20, 80, 60), (90, 60, 120, 90)]


@pytest.mark.parametrize(
    ("hidden", "why"),
    [
        (block(20 + 12, 20), "covered by the one before it"),
        (block(120 - 12, 20), "cut by the frame"),
        (block(-200, 20), "outside the frame"),
        (block(80, 60, side=17), "too small"),
    ],
)
def test_an_animal_hardly_visible_is_not_drawn_and_hides_nothing(hidden: Sprite, why: str) -> None:
    near, behind = block(20, 20), block(hidden.left, hidden.top + 20)
    kept = visible([near, hidden], (120, 90))
    assert [sprite for sprite, _ in kept] == [near], why
    without, with_it = visible([near, behind], (120, 90)), visible([near, hidden, behind], (120, 90))
    assert [tight_box(mask) for _, mask in with_it] == [tight_box(mask) for _, mask in without]


def test_an_existing_folder_is_returned_without_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = generate_reef(TINY, tmp_path)
    before = contents(root)
    monkeypatch.setattr(reef, "_write", lambda *_: pytest.fail("written again"))
    assert generate_reef(TINY, tmp_path) == root
    assert contents(root) == before


def test_an_interrupted_generation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(settings: ReefSettings, split: str) -> Iterator[object]:
        yield from list(draw_split(settings, split))[:2]
        raise KeyboardInterrupt

    draw_split = reef.draw_split
    monkeypatch.setattr(reef, "draw_split", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate_reef(TINY, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_generation_left_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(_settings: ReefSettings, root: Path) -> None:
        (root / "images").mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(reef, "_write", killed)
        patch.setattr(reef.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            generate_reef(TINY, tmp_path)
    (leftover,) = tmp_path.iterdir()
    root = generate_reef(TINY, tmp_path)
    assert root != leftover
    assert len(contents(root)) == 2 * 9 + 3


def test_of_two_generations_at_once_the_first_to_finish_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = reef._write

    def overtaken(settings: ReefSettings, root: Path) -> None:
        write(settings, root)
        monkeypatch.setattr(reef, "_write", write)
        (generate_reef(settings, tmp_path) / "first").touch()

    monkeypatch.setattr(reef, "_write", overtaken)
    root = generate_reef(TINY, tmp_path)
    assert (root / "first").exists()
    assert list(tmp_path.iterdir()) == [root]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "seed is -1, but must be at least 0"),
        ({"num_pool": 0}, "num_pool is 0, but must be at least 1"),
        ({"num_test": -3}, "num_test is -3, but must be at least 1"),
        ({"width": 63}, "width is 63, but must be at least 64"),
        ({"height": 0}, "height is 0, but must be at least 64"),
        ({"frames_per_clip": 0}, "frames_per_clip is 0, but must be at least 1"),
        ({"num_pool": 2.5}, "num_pool is 2.5, but must be a whole number"),
        ({"seed": True}, "seed is True, but must be a whole number"),
    ],
)
def test_settings_that_cannot_be_drawn_are_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ReefSettings(**wrong)
