"""Imports transformers so that it asks no hub, reports to nobody and prints nothing of its own."""

import os
from functools import cache

from raylearn.errors import DetectorError

_SWITCHES = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


@cache
def isolate_transformers() -> None:
    """Sets the environment that the library reads once, at its import, and imports it.

    Every module that imports it calls this before; the first call does it.

    Raises:
        DetectorError: it is not installed.
    """
    os.environ.update(_SWITCHES)
    try:
        from transformers import logging
    except ModuleNotFoundError as error:
        raise DetectorError(
            f'detector family transformers needs {error.name}: pip install "raylearn[transformers]"'
        ) from error
    logging.set_verbosity_error()
