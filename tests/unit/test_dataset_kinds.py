"""What real data sets and pools hold, kind by kind, in every format that can hold it."""

import io
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from raylearn.data.endings import counted
from raylearn.data.formats import examine_dataset, read_dataset
from raylearn.data.images import decode, exif_orientation, heif_is_installed, upright_boxes
from raylearn.errors import DatasetError, ImageError, PoolError
from raylearn.scoring.listing import list_pool
from tests.unit.test_images import encoded, turned

FORMATS = ("yolo", "coco", "voc")
RAW = (40, 24)  # pixels of the picture as it lies in the file
BOX = (4.0, 6.0, 14.0, 12.0)
