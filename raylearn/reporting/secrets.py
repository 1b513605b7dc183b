"""What may be shown of settings and records."""

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
_SECRET = (
    r"(?:secret(?:[_-]?key)?|token|passw(?:or)?d|passphrase|credentials?|signature"
    r"|(?:api|access|private)[_-]?key(?:[_-]?id)?)"
)
_SECRET_NAME = re.compile(rf"{_SECRET}$", re.IGNORECASE)
_SECRET_PAIR = re.compile(rf"({_SECRET}['\"]?\s*[=:]\s*)(?:'[^']*'|\"[^\"]*\"|[^\s&,;]+)", re.IGNORECASE)
_SECRET_FLAG = re.compile(rf"(--?(?:[\w-]*-)?{_SECRET}\s+)\S+", re.IGNORECASE)
_USER_IN_ADDRESS = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@]+@", re.IGNORECASE)


def without_secrets(value: Any) -> Any:
    """What may be shown of a setting or a record: passwords, keys and tokens are replaced, in names and addresses."""
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if item and _SECRET_NAME.search(str(key)) else without_secrets(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    if isinstance(value, str):
        text = _USER_IN_ADDRESS.sub(rf"\1{HIDDEN}@", value)
        return _SECRET_FLAG.sub(rf"\1{HIDDEN}", _SECRET_PAIR.sub(rf"\1{HIDDEN}", text))
    return value
