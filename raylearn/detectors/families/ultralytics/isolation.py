"""Imports Ultralytics so that it runs no foreign code, installs nothing, calls nobody and writes nowhere public."""

import atexit
import os
import shutil
import tempfile
from functools import cache

from PIL import Image

from raylearn.errors import DetectorError

_SWITCHES = {
    "ULTRALYTICS_SAFE_LOAD": "1",  # otherwise a crafted .pt runs code when it is opened
    "YOLO_AUTOINSTALL": "0",  # otherwise a text file named .jpg makes it call pip
    "YOLO_OFFLINE": "1",
    "YOLO_VERBOSE": "0",
}
# Each of these would report a training somewhere; `raytune` would even do so into the Tune session of a trial.
_TRACKERS = ("clearml", "comet", "dvc", "hub", "mlflow", "neptune", "raytune", "tensorboard", "wandb")


@cache
def isolate_ultralytics() -> None:
    """Sets the environment that Ultralytics reads once, at its import, then switches its trackers off.

    Every module that imports Ultralytics calls it before; the first call does it.
    """
    os.environ.update(_SWITCHES)
    folder = tempfile.mkdtemp(prefix="raylearn-ultralytics-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["YOLO_CONFIG_DIR"] = folder

    pillow_open = Image.open
    try:
        import ultralytics.utils.patches  # noqa: F401  it replaces Image.open, once
        from ultralytics import settings
    except ImportError as error:
        raise DetectorError(
            f"the detector family ultralytics cannot be used ({error}): pip install ultralytics, or name another "
            "detector.family"
        ) from error

    # Theirs looks for a plugin to install whenever a file is no image.
    Image.open = pillow_open

    settings.update({"sync": False, **{name: False for name in _TRACKERS if name in settings}})
