"""Every error a user can meet, and the exit code each one ends in."""

import difflib
from collections.abc import Iterable, Sequence


class RaylearnError(Exception):
    """The work failed: exit code 1."""

    exit_code = 1


class InputError(RaylearnError):
    """What was asked is wrong: exit code 2. The message says what, where and what to do."""

    exit_code = 2


class ConfigError(InputError):
    """An experiment file or an override that cannot be run."""


class DatasetError(InputError):
    """A data set that cannot be read as it was asked to be.

    Args:
        message: what is wrong.
        problems: every one, where all of them were looked for, with file and line.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class ImageError(InputError):
    """Bytes that are no image, or one too large to open.

    Args:
        message: what is wrong with which image.
        kind: in a word or two, for counting: "missing", "unreadable", "empty", "not an image", "broken", "too large",
            "changed", "HEIC" or "scientific TIFF".
    """

    def __init__(self, message: str, kind: str = "broken") -> None:
        super().__init__(message)
        self.kind = kind


class StorageError(RaylearnError):
    """A disk or an object store that does not answer, is full, or refuses: not a fault of one image.

    Args:
        message: what is wrong, and where.
        may_pass: it may be over in a minute, as where a store does not answer; what refuses will refuse again.
    """

    def __init__(self, message: str, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass


class PoolError(InputError):
    """Images to score that cannot be listed."""


class DetectorError(InputError):
    """A model that is unknown, or that gives no class scores."""


class CheckpointError(InputError):
    """A checkpoint or weights file that does not fit."""


class QueryError(InputError):
    """A query that cannot be answered from this pool."""


class TooFewError(QueryError):
    """A query of more images than groups with a limit give.

    Args:
        what: the message.
        found: images that they give.
    """

    def __init__(self, what: str, found: int = 0) -> None:
        super().__init__(what)
        self.found = found


class RunFolderError(InputError):
    """An output folder that another run holds, or that belongs to another experiment."""


class LedgerError(InputError):
    """A ledger that is not there, not finished, or not of what was asked."""


class LabelsError(InputError):
    """Labels from an annotation tool that cannot be taken over as they are.

    Args:
        message: the first problem, and how many more there are.
        problems: every one of them.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class ExportError(InputError):
    """A labelled set that cannot be written as a data set of its own, or not where or as it was asked to be."""


class ProjectError(InputError):
    """A step that a project is not ready for, or a folder that is none."""


class ClusterError(InputError):
    """Resources were asked for that Ray does not have."""


class DivergedError(RaylearnError):
    """A training or a model that gave NaN."""


class RunFailedError(RaylearnError):
    """One or more trials of a sweep failed."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """The end of an error message: the choice spelled most like `word`, or all of them."""
    known = sorted(choices)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
