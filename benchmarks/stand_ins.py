"""Detectors and readers that cost nothing, or a fixed time, so that what is left is raylearn's own cost."""

import threading
import time

import numpy as np
from pyarrow import fs

from raylearn.detectors.base import Detections
from raylearn.scoring.reading import ReadImage

CLASS_NAMES = tuple(f"class {k}" for k in range(10))
_FOUND = Detections(np.zeros((5, 4), np.float32), np.full((5, len(CLASS_NAMES)), 0.1, np.float32))
_CANVAS = np.zeros((1, 1, 3), np.uint8)


def read_nothing(_uri: str, _content_hash: str) -> ReadImage:
    """An image that was read in no time."""
    return ReadImage(_CANVAS, (640, 480))


class Costless:
    """Five detections of ten classes in every image, at no cost."""

    class_names = CLASS_NAMES

    def predict(self, canvases: np.ndarray, sizes: np.ndarray) -> list[Detections]:  # noqa: ARG002
        return [_FOUND] * len(canvases)


class Waiting(Costless):
    """A GPU that takes 50 ms for a batch, one batch at a time; it writes down when it was busy."""

    SECONDS = 0.05

    def __init__(self, log: str) -> None:
        self._log = log
        self._device = threading.Lock()

    def predict(self, canvases: np.ndarray, sizes: np.ndarray) -> list[Detections]:
        with self._device:
            start = time.time()
            time.sleep(self.SECONDS)
            end = time.time()
        with open(f"{self._log}/{id(self)}-{threading.get_ident()}", "a") as file:
            file.write(f"{start} {end}\n")
        return super().predict(canvases, sizes)


class StandInStore(fs.FileSystemHandler):
    """A bucket of so many objects in folders of 10,000, which answers at once; only its names can be had."""

    FOLDER = 10_000

    def __init__(self, num_objects: int) -> None:
        super().__init__()
        self._num_objects = num_objects

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        folder = selector.base_dir
        if folder == "bucket":
            count = -(-self._num_objects // self.FOLDER)
            return [fs.FileInfo(f"bucket/{number:06d}", fs.FileType.Directory) for number in range(count)]
        first = int(folder.rpartition("/")[2]) * self.FOLDER
        last = min(first + self.FOLDER, self._num_objects)
        kind = fs.FileType.File
        return [
            fs.FileInfo(f"{folder}/{number:09d}.jpg", kind, size=200_000, mtime_ns=10**18 + number)
            for number in range(first, last)
        ]

    def get_type_name(self) -> str:
        return "stand-in"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        raise NotImplementedError

    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = delete_file = move = get_file_info  # type: ignore[assignment]
    copy_file = open_input_stream = open_input_file = open_output_stream = open_append_stream = get_file_info  # type: ignore[assignment]
