"""Annotated data sets on disk, in YOLO, COCO or Pascal VOC form, read strictly: nothing is dropped in silence."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from raylearn.data.coco_format import read_coco
from raylearn.data.dataset import Dataset, GroundTruth, Image, fractions_fault
from raylearn.data.export_record import with_recorded_boxes
from raylearn.data.groups import GROUPS_FILE, GroupRows, groups_of, read_groups
from raylearn.data.images import content_hash, exif_orientation, read_bytes, upright_boxes, whole_size
from raylearn.data.records import TURNED, Folder, Frame, Problem, ProblemError, Row, Source, quoted
from raylearn.data.voc_format import read_voc
from raylearn.data.yolo_format import read_yolo
from raylearn.errors import DatasetError, ImageError, nearest

__all__ = ["Problem", "examine_dataset", "read_dataset"]

MAX_OVERSHOOT = 1.001  # pixels: rounding, and the off-by-one between pixel conventions

_READERS: dict[str, Callable[[Path, Sequence[str] | None, Sequence[str] | None, Path | None], Source]] = {
    "yolo": read_yolo,
    "coco": read_coco,
    "voc": read_voc,
}
_MISSING_LABELS = ("refuse", "background", "skip")
_BAD_BOXES = ("refuse", "drop")
_EXIF = ("refuse", "raw", "upright")
_ADVICE = {
    "box": "; correct it, or set bad_boxes to drop to leave such boxes out",
    "labels": "; add it, or set missing_labels to background (the image shows nothing) or skip (leave it out)",
    "file": "",
}


def read_dataset(
    path: Path,
    format: str,
    *,
    pool: Sequence[str] | None = None,
    test: Sequence[str] | None = None,
    missing_labels: str = "refuse",
    bad_boxes: str = "refuse",
    exif: str = "refuse",
    root: Path | None = None,
) -> Dataset:
    """Reads an annotated data set.

    Sizes come from the image headers; a size that the annotations state and that differs is noted. Where it is that of
    a photograph before its EXIF orientation turns it upright, the boxes were drawn on the picture as it lies in the
    file, and `exif` says what to do. A box that reaches at most one pixel out of its image is clipped, one that reaches
    further is bad; one whose corners were exchanged is turned over, with a note; a rotated one is bad, in whatever form
    it is written. Of boxes that are equal in class and
    corners one is kept, with a note, as Ultralytics would train on one. Image ids are paths below the data set's
    folder, and no file outside of that folder is read, by whatever link, `../` or absolute path. What `raylearn export`
    wrote gives its boxes back to the last bit; see `raylearn.data.export_record`.

    A groups.csv beside the data set, with the columns image (or stem) and group, says which images are near-duplicates
    of each other, such as frames of one clip; see raylearn.data.groups.

    Every list of classes in the data set (data.yaml, classes.txt, obj.names, the categories of each json file) is held
    against the one that is read: another name, order or number is refused with both files, and so is a name of
    two classes, or one that YAML takes for something else, such as NO or 010. A path that leads nowhere as it is
    written, with backslashes, of another machine or with CVAT's `data/` before it, is read with a note where it can
    mean one thing only; see raylearn.data.places.

    yolo: `path` is a data.yaml, or a folder with a data.yaml or exactly one *.yaml. All that Ultralytics accepts in it,
        except that relative paths start at the yaml's folder and `download:` is never run. A split is a key of the
        yaml; by default the pool is train, and test is test if the yaml has one, else val. Label files are found by
        Ultralytics' rule (images -> labels, .txt), so a.jpg and a.png share one: both get its boxes, and a note says
        so. Rows of 7, 9, ... columns are polygons and become their box; but where all of a data set's polygons have
        four corners and some are rotated rectangles, these are oriented boxes, and refused.
    coco: `path` is a folder. Split S is S/_annotations.coco.json, or annotations/instances_S*.json, or
        annotations/S.json; or a name that ends in .json is a file below the folder. Images are looked for beside the
        json, in S, images/S, images and the folder. By default the pool is train, and test is test if that has
        annotations, else val or valid. `path` may be a json file: then it is the pool, and `test` names another beside
        it. Classes are the categories in the order of their ids, without the root that Roboflow puts above them. An
        image without annotations is an empty frame, so there are no missing labels here. Crowd regions are left out,
        with a note.
    voc: `path` is a folder with JPEGImages, Annotations and ImageSets/Main. A split is a list in ImageSets/Main; by
        default the pool is trainval (or train) and test is test, or train and val where there is no list of test.
        Classes are the lines of labels.txt or classes.txt, or else all names in the two splits, sorted. Corners are
        1-based and inclusive: xmin and ymin are shifted by -1. Difficult objects count as any other. CVAT's export is
        known by its labelmap.txt: that lists the classes, corners begin at 0, and its list of images is default.

    Args:
        pool, test: names of splits; None for the format's default.
        missing_labels: for an image without a label file: "refuse", "background" (an empty frame) or "skip".
        bad_boxes: for a box that cannot be right: "refuse", or "drop" (each with a note).
        exif: for photographs with an EXIF orientation: "refuse" those whose annotations state the size before it;
            "raw" turns the boxes with the picture, but where the stated size is the upright one; "upright" takes them
            as they are.
        root: reads files below this folder too, for a data set whose yaml or links lead out of its own folder.

    Raises:
        DatasetError: the first problem, with file and line, how many more there are, and what can be done.
    """
    reading = _read(path, format, pool, test, _Policies(missing_labels, bad_boxes, exif), root)
    if reading.problems:
        first, more = reading.problems[0], len(reading.problems) - 1
        others = f" ({more} more {'problem' if more == 1 else 'problems'}: `raylearn check` lists all)" if more else ""
        raise DatasetError(f"{first}{_ADVICE[first.kind]}{others}")
    return reading.dataset()


def examine_dataset(
    path: Path,
    format: str,
    *,
    pool: Sequence[str] | None = None,
    test: Sequence[str] | None = None,
    missing_labels: str = "refuse",
    bad_boxes: str = "refuse",
    exif: str = "refuse",
    root: Path | None = None,
) -> tuple[Dataset | None, list[Problem]]:
    """Reads a data set as `read_dataset` does, to the end whatever is wrong with it.

    Returns:
        The data set, or None; and all that `read_dataset` with the same arguments would refuse, in the order of its
        files.

    Raises:
        DatasetError: an argument that has no meaning, such as an unknown format.
    """
    try:
        reading = _read(path, format, pool, test, _Policies(missing_labels, bad_boxes, exif), root)
    except ProblemError as error:
        return None, [error.problem]
    if reading.problems:
        return None, reading.problems
    try:
        return reading.dataset(), []
    except DatasetError as error:
        return None, [Problem(str(path), 0, str(error))]


@dataclass(frozen=True)
class _Policies:
    missing_labels: str
    bad_boxes: str
    exif: str

    def __post_init__(self) -> None:
        for name, known in (("missing_labels", _MISSING_LABELS), ("bad_boxes", _BAD_BOXES), ("exif", _EXIF)):
            if getattr(self, name) not in known:
                raise DatasetError(f"{name} {getattr(self, name)!r} is unknown: {nearest(getattr(self, name), known)}")


@dataclass
class _Reading:
    source: Source
    policies: _Policies
    images: dict[Literal["pool", "test"], list[Image]] = field(default_factory=lambda: {"pool": [], "test": []})
    truth: dict[str, GroundTruth] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    oriented: list[Problem] = field(default_factory=list)
    num_polygons: int = 0
    undecided: list[str] = field(default_factory=list)
    without_labels: dict[str, list[str]] = field(default_factory=lambda: {"pool": [], "test": []})

    def report(self, problem: Problem) -> None:
        if problem.kind == "box" and self.policies.bad_boxes == "drop":
            self.notes.append(f"{problem}; left out")
        else:
            self.problems.append(problem)

    def dataset(self) -> Dataset:
        return Dataset(
            name=self.source.name,
            class_names=self.source.class_names,
            pool=tuple(self.images["pool"]),
            test=tuple(self.images["test"]),
            truth=self.truth,
            notes=tuple(self.notes),
        )


def _read(
    path: Path,
    format: str,
    pool: Sequence[str] | None,
    test: Sequence[str] | None,
    policies: _Policies,
    root: Path | None,
) -> _Reading:
    if format not in _READERS:
        raise DatasetError(f"format {format!r} is unknown: {nearest(format, _READERS)}")
    if Path(path).suffix.lower() == ".zip" and Path(path).is_file():
        raise ProblemError(Path(path), "is a zip file: unpack it, and name the folder that is in it")
    pool, test = ([split] if isinstance(split, str) else split for split in (pool, test))
    source = _READERS[format](Path(path), pool, test, root)
    reading = _Reading(source, policies, notes=list(source.notes))
    for problem in source.problems:
        reading.report(problem)
    for frame in source.frames:
        _read_frame(frame, reading)
    if not reading.num_polygons:
        reading.problems += reading.oriented
    _report_repeats(reading)
    if format != "yolo" and (fault := fractions_fault(reading.truth.values())):
        reading.report(Problem(str(path), 0, fault))
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    _name_groups(folder / GROUPS_FILE, reading)
    reading.truth = with_recorded_boxes(reading.truth, Folder(folder, root))
    done = "read as empty frames" if policies.missing_labels == "background" else "left out"
    if reading.undecided:
        reading.notes.append(
            f"{len(reading.undecided)} images have an EXIF orientation, the first {reading.undecided[0]!r}, and their "
            "labels do not say whether they were made on the upright picture: taken so; if not, set exif to raw"
        )
    for split, images in reading.without_labels.items():
        if images:
            reading.notes.append(f"{len(images)} {split} images without a label file {done}, the first {images[0]!r}")
    return reading


def _name_groups(file: Path, reading: _Reading) -> None:
    """Puts the groups of a groups.csv into the images of the pool; a group that the test split has too is noted."""
    if not file.is_file():
        return
    try:
        rows = GroupRows(read_groups(file))
        pool, test = (
            groups_of([image.image_id for image in reading.images[split]], rows) for split in ("pool", "test")
        )
    except ProblemError as error:
        reading.problems.append(error.problem)
        return
    except DatasetError as error:
        reading.problems.append(Problem(str(file), 0, str(error).removeprefix(str(file)).lstrip(": ")))
        return
    reading.images["pool"] = [replace(image, clip_id=pool.get(image.image_id, "")) for image in reading.images["pool"]]
    if unused := rows.unused():
        what = f"name no image of the data set, the first {quoted(unused[0])}: looked for below {file.parent}"
        if len(unused) == len(rows):
            reading.problems.append(Problem(str(file), 0, f"its rows {what}"))
        else:
            reading.notes.append(f"{file}: {len(unused)} of {len(rows)} rows {what}")
    shared = set(pool.values()) & set(test.values())
    if shared:
        reading.notes.append(
            f"{file}: {len(shared)} groups, the first {min(shared)!r}, have images in the pool and in the test split: "
            "near-duplicates of what is trained on flatter the mAP"
        )


def _read_frame(frame: Frame, reading: _Reading) -> None:
    if frame.rows is None:
        if reading.policies.missing_labels == "refuse":
            what = f"has no label file {frame.label_file}"
            reading.report(Problem(str(frame.path), 0, what, "labels"))
        else:
            reading.without_labels[frame.split].append(frame.image_id)
        if reading.policies.missing_labels == "skip":
            return
    try:
        data = read_bytes(str(frame.path))
        width, height = whole_size(data)
    except ImageError as error:
        advice = "" if error.kind in ("HEIC", "scientific TIFF") else "; repair the file or remove it"
        reading.report(Problem(str(frame.path), 0, f"{error}{advice}"))
        return
    orientation = _label_orientation(frame, data, (width, height), reading)
    drawn_on = (height, width) if orientation >= 5 else (width, height)
    try:
        rows = list(frame.rows(*drawn_on)) if frame.rows else []
    except ProblemError as error:
        reading.report(error.problem)
        return
    if orientation > 1:
        rows = [_upright(row, orientation, *drawn_on) for row in rows]
    image = Image(frame.image_id, str(frame.path), width, height, content_hash(data))
    reading.images[frame.split].append(image)
    reading.truth.setdefault(frame.image_id, _ground_truth(frame, rows, image, reading))


def _label_orientation(frame: Frame, data: bytes, upright: tuple[int, int], reading: _Reading) -> int:
    """The EXIF orientation that the boxes are still to be turned by; 1 for none. A size that does not fit is told."""
    orientation, stated, exif = exif_orientation(data), frame.stated_size, reading.policies.exif
    in_file = upright[::-1] if orientation >= 5 else upright
    if orientation > 1 and exif == "raw" and stated in (None, in_file):
        return orientation
    if stated and stated != upright:
        what = "made for {}x{}, but {!r} is {}x{} upright".format(*stated, frame.image_id, *upright)
        if stated == in_file and exif == "refuse":
            advice = "set exif to raw if boxes were drawn on the picture before that, or to upright if not"
            reading.report(
                Problem(str(frame.label_file), 0, f"{what}, by its EXIF orientation {orientation}: {advice}")
            )
        else:
            reading.notes.append(f"{frame.label_file}: {what}")
    elif orientation > 1 and exif == "refuse" and in_file in (upright, stated or in_file):
        reading.undecided.append(frame.image_id)
    return 1


def _upright(row: Row, orientation: int, width: int, height: int) -> Row:
    if row.box is None:
        return row
    return replace(row, box=upright_boxes(row.box, orientation, width, height)[0])


def _ground_truth(frame: Frame, rows: Iterable[Row], image: Image, reading: _Reading) -> GroundTruth:
    kept: dict[tuple[int, float, float, float, float], None] = {}
    for row in sorted(rows, key=lambda row: row.line):
        corners, fault = checked_box(row, image)
        name = f"{row.name}: " if row.name else ""
        if fault:
            reading.report(Problem(str(frame.label_file), row.line, name + fault, "box"))
        elif (row.class_id, *corners) in kept:
            repeat = Problem(str(frame.label_file), row.line, f"{name}the same box and class again; one is kept")
            reading.notes.append(str(repeat))
        else:
            if row.turned:
                reading.notes.append(str(Problem(str(frame.label_file), row.line, f"{name}{TURNED}")))
            if row.polygon == "oriented":
                what = f"{name}a rotated box, by its four corners: export as upright boxes"
                reading.oriented.append(Problem(str(frame.label_file), row.line, what))
            reading.num_polygons += row.polygon == "polygon"
            kept[(row.class_id, *corners)] = None
    table = np.array(list(kept), dtype=np.float64).reshape(-1, 5)
    return GroundTruth(table[:, 1:].astype(np.float32), table[:, 0].astype(np.int64))


def checked_box(row: Row, image: Image) -> tuple[tuple[float, float, float, float], str]:
    """The corners of a row's box within its image, and what is wrong with it, or ""."""
    if row.fault or row.box is None:
        return (0, 0, 0, 0), row.fault
    x1, y1, x2, y2 = (float(corner) for corner in row.box)
    overshoot = max(-x1, -y1, x2 - image.width, y2 - image.height)
    corners = max(x1, 0.0), max(y1, 0.0), min(x2, float(image.width)), min(y2, float(image.height))
    size = f"box {x1:g}, {y1:g}, {x2:g}, {y2:g} in an image of {image.width}x{image.height}"
    if overshoot > MAX_OVERSHOOT:
        return corners, f"{size} reaches {overshoot:.1f} pixels out of it"
    if corners[2] <= corners[0] or corners[3] <= corners[1]:
        return corners, f"{size} has zero area"
    return corners, ""


def _report_repeats(reading: _Reading) -> None:
    """Problems of images that stand twice in a split, or in both."""
    times = Counter(image.image_id for images in reading.images.values() for image in images)
    by_content = {image.content_hash: image for image in reading.images["pool"]}
    reported = set()
    for images in reading.images.values():
        for image in images:
            if times[image.image_id] > 1 and image.image_id not in reported:
                reported.add(image.image_id)
                what = "stands twice in the data set: give each image one split"
                reading.report(Problem(image.uri, 0, what))
    for image in reading.images["test"]:
        twin = by_content.get(image.content_hash)
        if twin is not None and twin.image_id != image.image_id:
            what = f"test image with the same bytes as pool image {twin.image_id!r}: remove one of them"
            reading.report(Problem(image.uri, 0, what))
