"""Images of a driver's disk, put where every node of a cluster can read them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import PurePosixPath

from raylearn.data.dataset import Dataset, Image
from raylearn.data.images import content_hash, read_bytes
from raylearn.data.storage import Folder, scheme_of
from raylearn.errors import DatasetError

_PUT_AT_ONCE = 16


def with_images_in(dataset: Dataset, folder: Folder) -> Dataset:
    """The data set with the addresses of its images in `folder`, where each is put once, named by its content.

    Images that are at an address already stay where they are.

    Raises:
        DatasetError: an image changed since the data set was read.
        StorageError: the folder cannot be listed or written.
    """
    there = folder.sizes()

    def put(image: Image) -> Image:
        if scheme_of(image.uri):
            return image
        name = image.content_hash + PurePosixPath(image.uri).suffix.lower()
        if name not in there:
            data = read_bytes(image.uri)
            if content_hash(data) != image.content_hash:
                raise DatasetError(f"image {image.uri!r} changed since the run began: start a new run")
            folder.add(name, data)
        return replace(image, uri=folder.address_of(name))

    with ThreadPoolExecutor(_PUT_AT_ONCE) as threads:
        return replace(dataset, pool=tuple(threads.map(put, dataset.pool)), test=tuple(threads.map(put, dataset.test)))
