"""What goes out to an annotation tool and comes back, apart from any tool's form of it."""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from raylearn.data.storage import reason_of
from raylearn.errors import LabelsError

RECORD_FILE = "handoff.json"
Tool = Literal["label-studio", "cvat", "coco", "yolo", "csv"]
ONLY_COPIES = ("cvat", "yolo")  # they know an image by a file's name alone


@dataclass(frozen=True)
class SentImage:
    """An image as it was handed out.

    Args:
        rank: from 1, the most wanted first.
        score: the number it was ranked by.
        name: what the tool knows it by.
        address: where the tool finds it: a path below the export's folder, a local path, or an address.
        width, height: pixels of the upright image.
        content_hash: SHA-256 of its bytes.
    """

    rank: int
    score: float
    image_id: str
    uri: str
    name: str
    address: str
    width: int
    height: int
    content_hash: str


@dataclass(frozen=True, eq=False)
class PreAnnotation:
    """Boxes of one image: (n, 4) float32 xyxy pixels, (n,) class ids, (n,) confidences in [0, 1] if a detector's."""

    boxes: np.ndarray
    class_ids: np.ndarray
    confidences: np.ndarray | None


@dataclass(frozen=True)
class Box:
    """A box that came back, not yet held against its image: xyxy pixels, and where it stood, for messages."""

    class_name: str
    xyxy: tuple[float, float, float, float]
    where: str


Returned = Mapping[str, Sequence[Box]]
"""Name -> boxes of every image that a tool says was labelled; no boxes where it shows nothing."""


@dataclass
class Findings:
    """What a reader found that is no label, so that all of it is told at once.

    Args:
        problems: each with its kind, in a word or two, for counting.
        unfinished: name -> why an image without labels is not one that shows nothing, such as a draft.
        notes: what was taken over otherwise than it was written.
    """

    problems: list[tuple[str, str]] = field(default_factory=list)
    unfinished: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, kind: str, what: str) -> None:
        """Adds a problem."""
        self.problems.append((kind, what))

    @contextmanager
    def listing(self, kind: str) -> Iterator[None]:
        """Adds a LabelsError to the problems, and goes on behind what raised it."""
        try:
            yield
        except LabelsError as error:
            self.add(kind, str(error))


@dataclass(frozen=True)
class Record:
    """What an export remembers of itself, so that labels find their images again."""

    class_names: tuple[str, ...]
    images: tuple[SentImage, ...]

    def write(self, folder: Path) -> None:
        text = json.dumps({"class_names": self.class_names, "images": [asdict(i) for i in self.images]}, indent=1)
        (folder / RECORD_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """Raises LabelsError where there is none, or it is damaged."""
        path = folder / RECORD_FILE
        content = read_json(path, "name the folder that `raylearn query --format` wrote")
        try:
            return cls(
                tuple(str(name) for name in content["class_names"]),
                tuple(SentImage(**image) for image in content["images"]),
            )
        except (TypeError, KeyError) as error:
            raise LabelsError(f"{path} is no record of a hand-off: {error}") from error


def without_upload_prefix(name: str) -> str:
    """A file's name without the eight digits that Label Studio puts before that of an uploaded file."""
    return re.sub("^[0-9a-f]{8}-", "", name)


def only_file(path: Path, usual: str, skipped: Collection[str] = ()) -> Path:
    """The file itself; or, of a folder, the one with the usual name, or the only one with its ending.

    Args:
        skipped: names of files that are none, such as those of a hand-off.

    Raises:
        LabelsError: the folder holds none, or several.
    """
    if not path.is_dir() or (path / usual).is_file():
        return path / usual if path.is_dir() else path
    ending = PurePosixPath(usual).suffix
    files = sorted(file for file in path.rglob(f"*{ending}") if file.name not in skipped)
    usual_ones = [file for file in files if file.name == PurePosixPath(usual).name] or files
    if len(usual_ones) != 1:
        found = f"several: {', '.join(map(str, usual_ones[:3]))}" if usual_ones else "none"
        raise LabelsError(f"{path} should hold {usual}, or one {ending} file, and holds {found}")
    return usual_ones[0]


def refuse_another(image: SentImage | None, image_id: Any, where: str) -> None:
    """Raises LabelsError where an export names an image that was handed out, by the name it had in another hand-off."""
    if image is not None and image_id is not None and image_id != image.image_id:
        raise LabelsError(f"{where} is image {image_id!r} of another hand-off: this one's is {image.image_id!r}")


def size_fault(image: SentImage | None, width: Any, height: Any) -> str:
    """What is wrong with the size that labels were made at, or ""; null and 0 say that a tool did not know it."""
    if image is None:
        return ""
    try:
        stated = [float(side) if side else 0.0 for side in (width, height)]
    except (TypeError, ValueError, OverflowError):
        return f"was labelled at another size, {width!r:.20} x {height!r:.20}, which is no size"
    if all(side in (0, own) for side, own in zip(stated, (image.width, image.height), strict=True)):
        return ""
    found = "x".join(f"{side:g}" if side else "?" for side in stated)
    exchanged = "; its tool did not turn the photograph upright" if stated == [image.height, image.width] else ""
    return f"was labelled at another size, {found} and not {image.width}x{image.height}{exchanged}"


def read_json(path: Path, advice: str) -> Any:
    """Raises LabelsError where the file is not there, or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise LabelsError(f"{path} cannot be read ({error.strerror}): {advice}") from error
    except (ValueError, RecursionError) as error:
        raise LabelsError(f"{path} is no JSON: {reason_of(error)}") from error


def number(value: Any, where: str) -> float:
    """Raises LabelsError for what is no finite number."""
    try:
        if isinstance(value, bool) or (isinstance(value, str) and "_" in value):  # Python reads 1_0 as 10
            raise ValueError(value)
        found = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise LabelsError(f"{where}: {value!r} is no number") from error
    if not np.isfinite(found):
        raise LabelsError(f"{where}: {value!r} is no number")
    return found
