"""A data set as a folder of its own, written whole or not at all, and read back before it is there."""

import csv
import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from raylearn.data.dataset import Dataset
from raylearn.data.export_record import RECORD_FILE, image_records
from raylearn.data.formats import examine_dataset
from raylearn.data.groups import GROUPS_FILE
from raylearn.data.images import read_bytes
from raylearn.data.lock import LOCK_FILE, locked
from raylearn.data.storage import not_writable, scheme_of
from raylearn.errors import ExportError, nearest
from raylearn.handoff.dataset_forms import Files, Format, files_of, texts_of


def check_export(format: str, out: str | Path) -> Path:
    """Where `write_dataset` would write.

    Raises:
        ExportError: the format is unknown, or `out` is not on a disk, or holds something.
    """
    if format not in get_args(Format):
        raise ExportError(f"format {format!r} is unknown: {nearest(format, get_args(Format))}")
    if scheme_of(str(out)) is not None:
        raise ExportError(f"{out} is an address: export to a folder on a disk, and copy it from there")
    folder = Path(os.path.realpath(out))
    if folder.exists() and not (folder.is_dir() and not os.listdir(folder)):
        raise ExportError(f"{out} is there already: remove it, or give another --out")
    return folder


def write_dataset(
    dataset: Dataset,
    format: Format,
    out: str | Path,
    *,
    link: bool = False,
    about: Mapping[str, Any],
    about_images: Mapping[str, Mapping[str, Any]],
) -> Path:
    """Writes images, labels and a record; reads all of it back and compares, before it appears under its name.

    Args:
        dataset: its pool becomes the split train, its test split val. Every image has ground truth.
        out: a new folder, made whole or not at all.
        link: put links to the images in their place.
        about, about_images: for the record: of all of it, and by image id.

    Returns:
        The folder, with links followed.

    Raises:
        ExportError: see `check_export`; or the form cannot hold this data set.
        ImageError: an image cannot be read.
        RunFolderError: another process is writing there.
        InputError, StorageError: it cannot be written.
    """
    folder = check_export(format, out)
    for image in dataset.images():
        _refuse_id(image.image_id)
    files = files_of(dataset, format)
    texts = texts_of(dataset, format, files)
    images = [{**about_images.get(found["image_id"], {}), **found} for found in image_records(dataset, files)]
    texts |= _groups(dataset, files)
    texts[RECORD_FILE] = json.dumps({**about, "format": format, "images": images}, indent=1)
    aside = folder.with_name(f".{folder.name}.unfinished")
    try:
        aside.mkdir(parents=True, exist_ok=True)
        with locked(aside):
            try:
                _clear(aside)
                _fill(aside, dataset, files, texts, link)
                root = reading_root(dataset, aside) if link else None
                again, problems = examine_dataset(aside, format, root=root)
                if again is None:
                    problem = str(problems[0]).replace(str(aside), str(folder))
                    raise ExportError(f"{format} cannot hold this set: {problem}; choose another --format")
                _refuse_difference(again, dataset, format, files)
                (aside / LOCK_FILE).unlink()
                os.rename(aside, folder)
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise
    except OSError as error:
        raise not_writable(out, error) from error
    return folder


def reading_root(dataset: Dataset, folder: Path) -> Path:
    """The folder that holds both an export and the images that it links to: what to read it with as `root`."""
    return Path(os.path.commonpath([folder, *(os.path.realpath(image.uri) for image in dataset.images())]))


def _groups(dataset: Dataset, files: Files) -> dict[str, str]:
    """The table of groups, if any image is of one."""
    rows = [(files[image.image_id], image.clip_id) for image in dataset.images() if image.clip_id]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("image", "group"), *rows])
    return {GROUPS_FILE: text.getvalue()} if rows else {}


def _refuse_id(image_id: str) -> None:
    path = PurePosixPath(image_id)
    if path.is_absolute() or ".." in path.parts or str(path) != image_id or "\0" in image_id:
        raise ExportError(f"image id {image_id!r} is not a plain path below a folder, and no file can have it as name")
    try:
        image_id.encode()
    except UnicodeEncodeError as error:
        raise ExportError(f"image id {image_id!r} is not valid UTF-8: rename the file") from error


def _clear(folder: Path) -> None:
    """Removes what a killed export left; the folder is locked, so no living one does."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK_FILE:
            path.unlink()


def _fill(folder: Path, dataset: Dataset, files: Files, texts: Mapping[str, str], link: bool) -> None:
    for image in dataset.images():
        target = folder / files[image.image_id]
        target.parent.mkdir(parents=True, exist_ok=True)
        if link:
            target.symlink_to(os.path.realpath(image.uri))
        else:
            target.write_bytes(read_bytes(image.uri))
    for name, text in texts.items():
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise ExportError(f"a class name is not valid UTF-8, so {name} cannot be written") from error
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def _refuse_difference(again: Dataset, dataset: Dataset, format: str, files: Files) -> None:
    """Raises ExportError unless what was written is read as the data set that was to be written."""
    cannot = f"{format} cannot hold this set, choose another --format"
    if again.class_names != dataset.class_names:
        raise ExportError(f"{cannot}: its classes would be read as {again.class_names}")
    groups = {image.image_id: image.clip_id for image in again.pool}  # those of the test split are not kept
    for read, wanted in ((again.pool, dataset.pool), (again.test, dataset.test)):
        found = {image.image_id: image.content_hash for image in read}
        lost = found.keys() ^ {files[image.image_id] for image in wanted}
        if lost:
            raise ExportError(f"{cannot}: image {min(lost)!r} would be lost, or read twice")
        for image in wanted:
            file = files[image.image_id]
            if found[file] != image.content_hash:
                raise ExportError(f"image {image.uri} changed while it was exported: export again")
            if file in groups and groups[file] != image.clip_id:
                raise ExportError(f"{cannot}: the group of {image.image_id!r} would be read as {groups[file]!r}")
            if again.truth[file] != dataset.truth[image.image_id]:
                raise ExportError(f"{cannot}: the boxes of {image.image_id!r} would be read as others")
