"""The pictures of a page, as a run left them in gallery.json; what does not fit is an error, and none is no error."""

import base64
import binascii
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylearn.errors import RunFolderError
from raylearn.reporting.summary import Arm, one_line
from raylearn.wording import counted

GALLERY_FILE = "gallery.json"
_COUNTS = ("num_images", "num_groups")


@dataclass(frozen=True)
class Box:
    """A box in pixels of its image; a label has neither confidence nor a share in the image's score."""

    x: float
    y: float
    width: float
    height: float
    class_id: int
    confidence: float | None = None
    counted: float | None = None


@dataclass(frozen=True)
class Picture:
    """An image as the page shows it: once, by the name of a CSS class, however many queries asked for it.

    Args:
        lost: why it is but a grey area; "" of one that could be read.
    """

    css: str
    width: int
    height: int
    jpeg: str
    truth: tuple[Box, ...]
    lost: str = ""


@dataclass(frozen=True)
class AskedImage:
    """An image of a query.

    Args:
        nearest, nearest_picture: the labelled image that was most like it; None where nobody knew.
        distance: in [0, 1], to that image.
        predicted_boxes: that people were expected to draw in it.
        note: what the score does not tell, such as that chance chose it.
    """

    rank: int
    image_id: str
    picture: Picture
    score: float
    num_detections: int
    detections: tuple[Box, ...]
    nearest: str | None = None
    nearest_picture: Picture | None = None
    distance: float | None = None
    predicted_boxes: float | None = None
    note: str = ""


@dataclass(frozen=True)
class AskedQuery:
    """The first images of a query.

    Args:
        scored: whether detections decided it, and not chance.
        num_images: that it asked for in all; None where a run of before did not say.
        num_groups: clips that they are of; None where nobody knows.
        waits: whether nobody has labelled them yet.
    """

    trial: str
    round: int
    scored: bool
    images: tuple[AskedImage, ...]
    num_images: int | None = None
    num_groups: int | None = None
    waits: bool = False

    @property
    def of_groups(self) -> str:
        """As in "16 images from 7 clips"; "" where the clips are not known."""
        if self.num_images is None or self.num_groups is None:
            return ""
        return f"{counted(self.num_images, 'image')} from {counted(self.num_groups, 'clip')}"


@dataclass(frozen=True)
class Gallery:
    """All queries that are shown, and each picture once."""

    pictures: tuple[Picture, ...]
    queries: tuple[AskedQuery, ...]

    def and_also(self, other: "Gallery") -> "Gallery":
        """Both, on one page."""
        return Gallery(self.pictures + other.pictures, self.queries + other.queries)

    @property
    def shows_nearest(self) -> bool:
        return any(image.nearest for query in self.queries for image in query.images)

    def arms(self, arms: Iterable[Arm]) -> Iterator[tuple[Arm, Sequence[AskedQuery]]]:
        """Arms that have queries here, with them; random last, as chance has no reasons to show."""
        for arm in sorted(arms, key=lambda arm: arm.is_random):
            own = [query for query in self.queries if query.trial in arm.trials]
            if own:
                yield arm, own


def read_gallery(path: Path) -> Gallery | None:
    """The gallery of a run, or None where it left none.

    Raises:
        RunFolderError: it cannot be read, or is not what a run writes.
    """
    if not path.is_file():
        return None
    try:
        return gallery_of(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise RunFolderError(f"{path} cannot be read ({one_line(error)}): remove it, and run again") from error


def gallery_of(content: Mapping[str, Any], css: str = "image") -> Gallery:
    """A gallery from what gallery.json holds.

    Args:
        css: how the names of its pictures begin; another for each gallery of a page.

    Raises:
        ValueError, TypeError, KeyError, AttributeError, ArithmeticError: it is something else.
    """
    pictures = {
        image_id: _picture(f"{css}-{number}", image)
        for number, (image_id, image) in enumerate(sorted(content["images"].items()))
    }
    return Gallery(tuple(pictures.values()), tuple(_query(query, pictures) for query in content["queries"]))


def _picture(css: str, image: Mapping[str, Any]) -> Picture:
    try:
        base64.b64decode(image["jpeg"], validate=True)  # it is put into a style sheet as it is
    except binascii.Error as error:
        raise ValueError(f"a picture is no base64: {error}") from error
    truth = tuple(_box(x1, y1, x2, y2, class_id) for x1, y1, x2, y2, class_id in image["truth"])
    return Picture(
        css, int(image["width"]), int(image["height"]), str(image["jpeg"]), truth, str(image.get("lost") or "")
    )


def _query(query: Mapping[str, Any], pictures: Mapping[str, Picture]) -> AskedQuery:
    images = tuple(
        AskedImage(
            rank,
            str(image["image_id"]),
            pictures[image["image_id"]],
            _number(image["score"]),
            int(image["num_detections"]),
            tuple(_box(*detection) for detection in image["detections"]),
            nearest=None if image.get("nearest") is None else str(image["nearest"]),
            nearest_picture=None if image.get("nearest") is None else pictures[image["nearest"]],
            distance=_number_or_none(image.get("distance")),
            predicted_boxes=_number_or_none(image.get("predicted_boxes")),
            note=str(image.get("note") or ""),
        )
        for rank, image in enumerate(query["images"], start=1)
    )
    num_images, num_groups = (None if query.get(name) is None else int(query[name]) for name in _COUNTS)
    scored, waits = bool(query["scored"]), bool(query.get("waits"))
    return AskedQuery(str(query["trial"]), int(query["round"]), scored, images, num_images, num_groups, waits)


def _box(x1: float, y1: float, x2: float, y2: float, class_id: int, confidence: Any = None, counted: Any = None) -> Box:
    left, top = _number(x1), _number(y1)
    return Box(
        left,
        top,
        round(_number(x2) - left, 1),
        round(_number(y2) - top, 1),
        int(class_id),
        _number_or_none(confidence),
        _number_or_none(counted),
    )


def _number_or_none(value: Any) -> float | None:
    return None if value is None else _number(value)


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is no number")
    return number
