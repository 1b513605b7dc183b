"""What `detector.model` of this family means: a model type, or a folder on this disk."""

import json
from pathlib import Path

from raylearn.data.storage import reason_of
from raylearn.errors import DetectorError

_CONFIG_FILE = "config.json"


def config_text(model: str) -> str:
    """A model type or the text of a configuration as it is, and for a folder the text of its configuration.

    Workers are sent the text, so they need no folder, and an edited config.json is another model.

    Raises:
        DetectorError: a folder that is not there, or without a config.json that holds an object.
    """
    if model.lstrip().startswith("{") or not (Path(model).is_dir() or {"/", "\\"} & set(model)):
        return model
    path = Path(model) / _CONFIG_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DetectorError(
            f"detector.model {model!r} has no {_CONFIG_FILE} that can be read ({reason_of(error)}): give a folder as "
            "save_pretrained writes it, or a model type such as rt_detr_v2"
        ) from error
    except ValueError as error:
        raise DetectorError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DetectorError(f"{path} holds no configuration: an object with a model_type is expected")
    return json.dumps(content, sort_keys=True)
