"""The forms in which a data set is written: what `raylearn.data.formats` reads in YOLO, COCO and Pascal VOC form.

Not by supervision's writers: they round boxes to five decimals (YOLO) or whole pixels (VOC).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal
from xml.etree import ElementTree

import yaml

from raylearn.data.dataset import Dataset, Image
from raylearn.data.yolo_format import label_file_of
from raylearn.errors import ExportError
from raylearn.handoff import coco, yolo
from raylearn.handoff.exchange import PreAnnotation, SentImage

Format = Literal["yolo", "coco", "voc"]
Files = Mapping[str, str]
"""Image id -> where its image goes, below the folder."""
_SPLITS = ("train", "val")  # the names that every format's users know, for pool and test
_JPEG_IMAGES = "JPEGImages"


def files_of(dataset: Dataset, format: Format) -> Files:
    """In YOLO and COCO form, an image's path below the folder is its id.

    VOC has one folder for all images. Ids that are not of that form become JPEGImages/<number>_<name>, numbered in the
    order of the ids, which decides a training.
    """
    ids = sorted(image.image_id for image in dataset.images())
    if format != "voc" or _are_of_voc(ids):
        return {image_id: image_id for image_id in ids}
    digits = len(str(len(ids)))
    return {
        image_id: f"{_JPEG_IMAGES}/{number:0{digits}d}_{PurePosixPath(image_id).name}"
        for number, image_id in enumerate(ids, start=1)
    }


def _are_of_voc(image_ids: Sequence[str]) -> bool:
    paths = [PurePosixPath(image_id) for image_id in image_ids]
    return len({path.stem for path in paths}) == len(paths) and all(str(path.parent) == _JPEG_IMAGES for path in paths)


def texts_of(dataset: Dataset, format: Format, files: Files) -> dict[str, str]:
    """Path below the folder -> text, of every label file and list.

    Raises:
        ExportError: a name that no list can hold; or two files would have one name, as the label files of a.jpg and
            a.png in YOLO form.
    """
    texts: dict[str, str] = {}
    images = set(files.values())
    for name, text in _WRITERS[format](dataset, files):
        if name in images or texts.setdefault(name, text) != text:
            raise ExportError(f"in {format} form two files would have the name {name!r}: choose another --format")
    return texts


def _yolo_texts(dataset: Dataset, files: Files) -> Iterator[tuple[str, str]]:
    names = dict(enumerate(dataset.class_names))
    # without path: a reader starts at the yaml's own folder
    content = {split: f"{split}.txt" for split in _SPLITS} | {"names": names}
    yield yolo.YAML_FILE, yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    for split, images in zip(_SPLITS, (dataset.pool, dataset.test), strict=True):
        # "./" starts at the list's own folder, for Ultralytics too, which cuts a list where splitlines() does
        lines = [f"./{files[image.image_id]}" for image in images]
        broken = next((line for line in lines if line.splitlines() != [line]), None)
        if broken is not None:
            raise ExportError(f"a list of images cannot hold the name {broken[2:]!r}: use --format coco")
        yield f"{split}.txt", "".join(f"{line}\n" for line in lines)
        for image in images:
            truth = dataset.truth[image.image_id]
            rows = yolo.label_rows(truth.boxes, truth.class_ids, image.width, image.height)
            yield label_file_of(Path(), Path(files[image.image_id])).as_posix(), rows


def _coco_texts(dataset: Dataset, files: Files) -> Iterator[tuple[str, str]]:
    boxes = {name: PreAnnotation(truth.boxes, truth.class_ids, None) for name, truth in dataset.truth.items()}
    for split, images in zip(_SPLITS, (dataset.pool, dataset.test), strict=True):
        sent = [_numbered(image, number, files[image.image_id]) for number, image in enumerate(images, start=1)]
        yield f"annotations/instances_{split}.json", json.dumps(coco.content(sent, boxes, dataset.class_names))


def _numbered(image: Image, number: int, file: str) -> SentImage:
    size = {"width": image.width, "height": image.height}
    return SentImage(number, 0.0, image.image_id, image.uri, file, file, **size, content_hash=image.content_hash)


def _voc_texts(dataset: Dataset, files: Files) -> Iterator[tuple[str, str]]:
    yield "labels.txt", "".join(f"{name}\n" for name in dataset.class_names)
    for split, images in zip(_SPLITS, (dataset.pool, dataset.test), strict=True):
        stems = [PurePosixPath(files[image.image_id]).stem for image in images]
        yield f"ImageSets/Main/{split}.txt", "".join(f"{stem}\n" for stem in stems)
        for image, stem in zip(images, stems, strict=True):
            yield f"Annotations/{stem}.xml", _voc_annotation(dataset, image, PurePosixPath(files[image.image_id]).name)


def _voc_annotation(dataset: Dataset, image: Image, name: str) -> str:
    root = ElementTree.Element("annotation")
    _add(root, {"folder": _JPEG_IMAGES, "filename": name})
    _add(ElementTree.SubElement(root, "size"), {"width": image.width, "height": image.height, "depth": 3})
    truth = dataset.truth[image.image_id]
    for (x1, y1, x2, y2), class_id in zip(truth.boxes.astype(float).tolist(), truth.class_ids, strict=True):
        element = ElementTree.SubElement(root, "object")
        _add(element, {"name": dataset.class_names[class_id], "pose": "Unspecified", "truncated": 0, "difficult": 0})
        # the first pixel of a box and its last, counted from 1
        corners = {"xmin": x1 + 1, "ymin": y1 + 1, "xmax": x2, "ymax": y2}
        _add(ElementTree.SubElement(element, "bndbox"), {tag: f"{corner:.12g}" for tag, corner in corners.items()})
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _add(parent: ElementTree.Element, texts: Mapping[str, object]) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(parent, tag).text = str(text)


_WRITERS: dict[str, Callable[[Dataset, Files], Iterator[tuple[str, str]]]] = {
    "yolo": _yolo_texts,
    "coco": _coco_texts,
    "voc": _voc_texts,
}
