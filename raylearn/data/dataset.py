"""A data set: images in two splits that never meet, and the ground truth of both."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from raylearn.errors import DatasetError


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """The annotated boxes of one image.

    Args:
        boxes: (n, 4) float32 xyxy in pixels of the upright image; n may be 0.
        class_ids: (n,) int64, indices into the data set's class names.

    Raises:
        ValueError: shapes that do not fit, or a number that is not finite.
    """

    boxes: np.ndarray
    class_ids: np.ndarray

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, dtype=np.float32).reshape(-1, 4)
        class_ids = np.asarray(self.class_ids, dtype=np.int64).reshape(-1)
        if len(boxes) != len(class_ids):
            raise ValueError(f"{len(boxes)} boxes but {len(class_ids)} class ids")
        if not np.isfinite(boxes).all():
            raise ValueError("a box coordinate is not finite")
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "class_ids", class_ids)

    def __len__(self) -> int:
        return len(self.class_ids)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, GroundTruth)
            and np.array_equal(self.boxes, other.boxes)
            and np.array_equal(self.class_ids, other.class_ids)
        )


def fractions_fault(truth: Iterable[GroundTruth]) -> str:
    """Why boxes of a form that states pixels are in fractions of their images' sizes, or "".

    Nobody draws all boxes within the first pixel, and some of them smaller than one.
    """
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(own.boxes for own in truth)])
    if not len(boxes) or boxes.max() > 1 or (boxes[:, 2:] - boxes[:, :2]).min() >= 1:
        return ""
    what = "all boxes lie" if len(boxes) > 1 else "its one box lies"
    return f"{what} within the first pixel: coordinates are to be pixels here, not fractions of an image's size"


@dataclass(frozen=True)
class Image:
    """One image of a data set; its ground truth is kept apart, so that a pool does not carry it.

    Args:
        image_id: unique in the data set; the path below its root, with forward slashes and the ending.
        uri: where the bytes are: a local path, or an address that pyarrow's file systems open.
        width, height: pixels of the upright image.
        content_hash: SHA-256 of the bytes, in hex.
        clip_id: the clip, or other group of near-duplicates, that it is of; "" for none.
    """

    image_id: str
    uri: str
    width: int
    height: int
    content_hash: str
    clip_id: str = ""


@dataclass(frozen=True)
class Dataset:
    """Images to learn from (`pool`), images to measure on (`test`), and the ground truth of both.

    Args:
        name: for people.
        class_names: position is the class id.
        pool: all that may be labelled.
        test: the held-out split; shares no image id, no content and no clip with the pool.
        truth: image id -> ground truth, of every test image, and of those of the pool whose labels are known.
        notes: what reading left out because it was told to, one line each, with the file's name.

    Raises:
        DatasetError: an image stands in both splits or twice in one, a test image has no ground truth, or a class id is
            unknown.
    """

    name: str
    class_names: tuple[str, ...]
    pool: tuple[Image, ...]
    test: tuple[Image, ...]
    truth: Mapping[str, GroundTruth]
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not self.class_names:
            raise DatasetError(f"data set {self.name!r} names no classes")
        for split, images in (("pool", self.pool), ("test", self.test)):
            if not images:
                raise DatasetError(f"data set {self.name!r} has no images in its {split} split")
        _refuse_repeats(self.images())
        _refuse_shared_content(self.pool, self.test)
        num_classes = len(self.class_names)
        for image in self.test:
            if image.image_id not in self.truth:
                raise DatasetError(f"test image {image.image_id!r} has no ground truth")
        for image in self.images():
            truth = self.truth.get(image.image_id)
            if (
                truth is not None
                and len(truth)
                and not 0 <= truth.class_ids.min() <= truth.class_ids.max() < num_classes
            ):
                raise DatasetError(f"image {image.image_id!r} has a class id outside 0..{num_classes - 1}")

    def images(self) -> Iterator[Image]:
        """Every image, the pool first."""
        yield from self.pool
        yield from self.test

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over class names, splits, image bytes and boxes; independent of paths and of file order."""
        return self._hash_of(("pool", self.pool), ("test", self.test))

    @cached_property
    def test_fingerprint(self) -> str:
        """SHA-256 of the same of the held-out split alone: all of the data set that a measurement depends on."""
        return self._hash_of(("test", self.test))

    def _hash_of(self, *splits: tuple[str, tuple[Image, ...]]) -> str:
        digest = hashlib.sha256(repr(self.class_names).encode())
        for split, images in splits:
            digest.update(split.encode())
            for image in sorted(images, key=lambda image: image.image_id):
                digest.update(repr((image.image_id, image.content_hash)).encode())
                if truth := self.truth.get(image.image_id):
                    digest.update(truth.boxes.tobytes() + truth.class_ids.tobytes())
        return digest.hexdigest()


def _refuse_repeats(images: Iterator[Image]) -> None:
    seen: set[str] = set()
    for image in images:
        if image.image_id in seen:
            raise DatasetError(f"image {image.image_id!r} stands twice in the data set: give each image one split")
        seen.add(image.image_id)


def _refuse_shared_content(pool: tuple[Image, ...], test: tuple[Image, ...]) -> None:
    by_content = {image.content_hash: image.image_id for image in pool}
    clips = {image.clip_id: image.image_id for image in pool if image.clip_id}
    for image in test:
        if image.content_hash in by_content:
            raise DatasetError(
                f"test image {image.image_id!r} has the same bytes as pool image "
                f"{by_content[image.content_hash]!r}: remove one, or the measured mAP is not honest"
            )
        if image.clip_id in clips:
            raise DatasetError(
                f"test image {image.image_id!r} is of the same clip as pool image {clips[image.clip_id]!r}: "
                "keep a clip in one split"
            )
