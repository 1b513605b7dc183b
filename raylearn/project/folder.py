"""The folder of a project: what was asked for, what was handed out, what came back. Each file is whole or absent."""

import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raylearn.config import DatasetSection
from raylearn.config_files import dump_file, load_file
from raylearn.data.dataset import Dataset, GroundTruth, Image
from raylearn.data.endings import by_ending
from raylearn.data.formats import read_dataset
from raylearn.data.images import content_hash, read_bytes, whole_size
from raylearn.data.storage import Folder, not_writable, write_whole
from raylearn.detectors import family_named, family_of, read_checkpoint
from raylearn.errors import DatasetError, ImageError, ProjectError
from raylearn.handoff.exchange import Record, SentImage
from raylearn.handoff.labels import ImportedLabels, read_labels, write_labels
from raylearn.learning.training import check_detector_of
from raylearn.project.settings import Project
from raylearn.scoring.listing import list_pool
from raylearn.strategies import Query
from raylearn.sweep.trial import Bench

SETTINGS_FILE = "project.yaml"
POOL_FILE = "pool.parquet"
_READ_AT_ONCE = 8
_COLUMNS = ("image_id", "uri", "width", "height", "content_hash")


@dataclass(frozen=True)
class ProjectFolder:
    """Labels of round 0 are those that were there at first; a query of round n is labelled by labels of round n."""

    path: Path

    @classmethod
    def create(cls, path: Path, settings: Project, tell: Callable[[str], None]) -> "ProjectFolder":
        """Freezes the pool, and takes over what is labelled already; the same again changes nothing.

        All is checked before anything is written, and the settings are written last: without them it is no project yet.

        Args:
            tell: told of images that cannot be read, which are left out.

        Raises:
            ProjectError: the folder is of another project, or labelled images are not in the pool.
            InputError, StorageError: the pool or a data set cannot be read, the detector is unknown, or the folder
                cannot be written.
        """
        folder, settings = cls(path.resolve()), settings.from_anywhere()
        if (folder.path / SETTINGS_FILE).exists():
            if not folder.settings.same_as(settings):
                raise ProjectError(f"{path} is a project with other settings: give another folder")
            return folder
        experiment = settings.experiment
        if not family_named(experiment.detector.family).no_training:  # else its checkpoints are brought
            check_detector_of(experiment)
        held_out = read_dataset_of(settings.held_out)
        images = _freeze(settings, tell)
        Bench.of_pool(experiment, _dataset(settings.name, images, held_out))
        labelled = read_dataset_of(settings.labelled) if settings.labelled else None
        taken = _labels_of(labelled, images, held_out.class_names) if labelled else None
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            there = {path for path in folder.path.rglob("*") if path.is_file() and not path.name.startswith(".")}
            if there - {folder.path / POOL_FILE, folder.labels_file(0)}:  # those of a creation that was cut short
                raise ProjectError(f"{path} is not empty: give a new folder")
            folder.labels_file(0).unlink(missing_ok=True)
            columns = [[getattr(image, name) for image in images] for name in _COLUMNS]
            pq.write_table(pa.table(columns, names=list(_COLUMNS)), folder.path / POOL_FILE)
            if taken:
                folder.add_labels(0, taken, held_out.class_names)
            Folder.at(folder.path).replace(SETTINGS_FILE, dump_file(settings).encode())
        except OSError as error:
            raise not_writable(folder.path, error) from error
        return folder

    @classmethod
    def open(cls, path: Path) -> "ProjectFolder":
        """Raises ProjectError where there is no project."""
        folder = cls(path.resolve())
        if not (folder.path / SETTINGS_FILE).is_file():
            raise ProjectError(f"{path} is no project: make one with `raylearn project init {path} FILE.yaml`")
        return folder

    @cached_property
    def settings(self) -> Project:
        return load_file(self.path / SETTINGS_FILE, Project)

    @cached_property
    def dataset(self) -> Dataset:
        """The frozen pool, of which no labels are known here, and the held-out images with theirs."""
        return _dataset(self.settings.name, self.pool, read_dataset_of(self.settings.held_out))

    def labels_file(self, index: int) -> Path:
        return self.path / "labels" / f"round-{index:03d}.json"

    def checkpoint_file(self, index: int) -> Path:
        """Of a round whose checkpoint was trained elsewhere."""
        return self.path / "checkpoints" / f"round-{index:03d}.pt"

    def bring_checkpoint(self, index: int, source: Path) -> None:
        """Takes a checkpoint as that of a round.

        Raises:
            ProjectError: it is of another family or other classes, or the round has another one.
            CheckpointError, DetectorError: it cannot be used.
        """
        family, facts = family_of(source).name, read_checkpoint(source)
        if family != self.settings.detector.family:
            raise ProjectError(
                f"{source} is of the family {family}, and the project's detector.family is "
                f"{self.settings.detector.family}: bring another, or begin a project for this family"
            )
        if facts.class_names != self.dataset.class_names:
            raise ProjectError(
                f"{source} has the classes {', '.join(facts.class_names)}, and the project "
                f"{', '.join(self.dataset.class_names)}, in this order: train with the project's classes"
            )
        content, target = source.read_bytes(), self.checkpoint_file(index)
        if target.exists() and target.read_bytes() != content:
            raise ProjectError(f"round {index} has another checkpoint already, {target}: remove that first")
        try:
            target.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise not_writable(target, error) from error
        write_whole(target, content)

    def query_folder(self, index: int) -> Path:
        return self.path / "queries" / f"round-{index:03d}"

    def handout(self, index: int) -> Path:
        return self.query_folder(index) / self.settings.query.format

    def asked(self, index: int) -> Query:
        """What was handed out for a round.

        Raises:
            LabelsError: its record is not there, or damaged.
        """
        images = Record.read(self.handout(index)).images
        return Query(tuple(image.image_id for image in images), tuple(image.score for image in images))

    def labels(self) -> Iterator[Mapping[str, GroundTruth]]:
        """Of each round that is labelled, from 0 or, where nothing was labelled at first, from the first query."""
        for index in range(len(list((self.path / "labels").glob("round-*.json")))):
            yield read_labels(self.labels_file(index), self.dataset.class_names)

    def add_labels(self, index: int, labels: ImportedLabels, class_names: tuple[str, ...]) -> None:
        images = {image.image_id: image for image in self.pool}
        sent = [_as_sent(images[image_id], rank) for rank, image_id in enumerate(labels.truth, start=1)]
        write_labels(labels, Record(class_names, tuple(sent)), self.labels_file(index))

    @cached_property
    def pool(self) -> tuple[Image, ...]:
        """Raises ProjectError where its file is damaged."""
        try:
            return tuple(Image(**row) for row in pq.read_table(self.path / POOL_FILE).to_pylist())
        except (OSError, pa.ArrowException, TypeError) as error:
            raise ProjectError(
                f"{self.path / POOL_FILE} is damaged: put back a copy, or begin anew and name the labels in labels/ as "
                f"labelled ({error})"
            ) from error

    def undo(self) -> str:
        """Takes the last import back, and what was handed out after it; both are kept in undone/.

        Returns:
            What was done, in words.

        Raises:
            ProjectError: nothing was imported.
        """
        imported = sorted((self.path / "labels").glob("round-*.json"))
        index = len(imported) - 1
        if index < (1 if self.settings.labelled else 0):
            raise ProjectError(f"{self.path} has no imported labels that could be taken back")
        undone = self.path / "undone" / uuid.uuid4().hex[:8]
        undone.mkdir(parents=True)
        later = self.query_folder(index + 1)
        # the later query first: without the labels it would be of no round
        with suppress(FileNotFoundError):
            os.rename(later, undone / f"query-{later.name}")
        with suppress(FileNotFoundError):
            os.rename(self.checkpoint_file(index), undone / f"checkpoint-{self.checkpoint_file(index).name}")
        os.rename(imported[-1], undone / f"labels-{imported[-1].name}")
        return f"labels of round {index} taken back, kept in {undone}"


def _dataset(name: str, images: Sequence[Image], held_out: Dataset) -> Dataset:
    truth = {image.image_id: held_out.truth[image.image_id] for image in held_out.test}
    test = held_out.test
    if truth.keys() & {image.image_id for image in images}:  # ids are paths below different folders, and may be alike
        renamed = {image.image_id: f"held out/{image.image_id}" for image in test}
        truth = {renamed[image_id]: own for image_id, own in truth.items()}
        test = tuple(Image(renamed[i.image_id], i.uri, i.width, i.height, i.content_hash, i.clip_id) for i in test)
    return Dataset(name, held_out.class_names, tuple(images), test, truth)


def read_dataset_of(section: DatasetSection) -> Dataset:
    """Raises DatasetError for one that is not on a disk, or has a problem."""
    if section.path is None:
        raise DatasetError("a project wants annotated files: dataset format yolo, coco or voc, with a path")
    return read_dataset(section.path, section.format, **section.reading)


def _freeze(settings: Project, tell: Callable[[str], None]) -> list[Image]:
    manifest, left_out = list_pool(settings.pool, root=settings.root, tell=tell)
    if left_out:
        tell(f"{left_out.total()} other or hidden files left out ({by_ending(left_out)})")
    rows = list(zip(*(manifest.table[name].to_pylist() for name in ("image_id", "uri")), strict=True))

    def look(row: tuple[str, str]) -> Image | ImageError:
        image_id, uri = row
        try:
            data = read_bytes(uri)
            width, height = whole_size(data)
        except ImageError as error:
            return error
        return Image(image_id, uri, width, height, content_hash(data))

    images: list[Image] = []
    with ThreadPoolExecutor(_READ_AT_ONCE) as threads:
        for (image_id, _), found in zip(rows, threads.map(look, rows), strict=True):
            if isinstance(found, Image):
                images.append(found)
            else:
                tell(f"left out: {image_id}: {found}")
    if not images:
        raise DatasetError(f"no image of {settings.pool} can be read")
    return images


def _labels_of(labelled: Dataset, images: list[Image], class_names: tuple[str, ...]) -> ImportedLabels:
    """The labels of the images of the pool that have the bytes of the labelled ones."""
    unknown = sorted(set(labelled.class_names) - set(class_names))
    if unknown:
        raise ProjectError(f"labelled has a class {unknown[0]!r} that held_out has not: {', '.join(class_names)}")
    ids = {image.content_hash: image.image_id for image in images}
    order = np.array([class_names.index(name) for name in labelled.class_names])
    truth = {}
    for image in labelled.pool:
        if image.content_hash not in ids:
            raise ProjectError(f"labelled image {image.uri} is not in the pool: put it there, or leave it out")
        own = labelled.truth[image.image_id]
        truth[ids[image.content_hash]] = GroundTruth(own.boxes, order[own.class_ids])
    return ImportedLabels(truth, (), 0)


def _as_sent(image: Image, rank: int) -> SentImage:
    return SentImage(
        rank, 0.0, image.image_id, image.uri, image.image_id, image.uri, image.width, image.height, image.content_hash
    )
