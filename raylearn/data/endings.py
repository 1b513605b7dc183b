"""Files that were left out of a pool or a data set because of their ending, and what to do about them."""

from collections import Counter
from pathlib import PurePath

HEIF_ENDINGS = (".heic", ".heif", ".hif")
_SHOWN = 5
_ADVICE = {
    "convert them to JPEG, or pip install 'raylearn[heic]'": HEIF_ENDINGS,
    "convert them to JPEG or PNG": (
        *(".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"),  # cameras' own
        *(".dcm", ".eps", ".exr", ".fits", ".hdr", ".ico", ".jxl", ".jxr", ".npy", ".pbm", ".pdf", ".pgm"),
        *(".pnm", ".ppm", ".psd", ".ras", ".svg", ".svs", ".tga", ".xcf"),
        *(
            ".gif",
            ".j2k",
            ".jfif",
            ".jpe",
        ),  # read from a pool, but not from a data set, as Ultralytics passes them over
    ),
    "extract their frames": (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"),
    "unpack them": (".7z", ".gz", ".rar", ".tar", ".tgz", ".zip"),
}
_ADVICE_OF = {ending: advice for advice, endings in _ADVICE.items() for ending in endings}


def ending_of(name: str) -> str:
    """In lower case; "hidden" or "no ending" where there is none to tell."""
    if PurePath(name).name.startswith("."):
        return "hidden"
    return PurePath(name).suffix.lower() or "no ending"


def by_ending(left_out: Counter[str], *, pictures_only: bool = False) -> str:
    """Such as ".heic: 5, convert them to JPEG, or pip install 'raylearn[heic]'; .txt: 1".

    Args:
        left_out: ending -> number of files.
        pictures_only: tells nothing of what holds no pictures.
    """
    # what could be read in another form is told first
    kinds = sorted(left_out.items(), key=lambda kind: (kind[0] not in _ADVICE_OF, -kind[1], kind[0]))
    if pictures_only:
        kinds = [kind for kind in kinds if kind[0] in _ADVICE_OF]
    told = [f"{kind}: {count}{', ' + _ADVICE_OF[kind] if kind in _ADVICE_OF else ''}" for kind, count in kinds]
    more = [f"{len(told) - _SHOWN} more endings"] if len(told) > _SHOWN else []
    return "; ".join(told[:_SHOWN] + more)
