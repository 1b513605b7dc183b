"""What a .pt file holds, found without torch and without running anything in it."""

import pickletools
import zipfile
from dataclasses import dataclass
from pathlib import Path

from raylearn.data.storage import reason_of
from raylearn.errors import CheckpointError

_PICKLE = "data.pkl"
_MOST_BYTES = 256 * 2**20  # of the pickled structure, which holds no weights
_STRINGS = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "SHORT_BINSTRING", "BINSTRING"})


@dataclass(frozen=True)
class Contents:
    """The names in a checkpoint's pickle, which say what wrote it.

    Args:
        classes: such as "collections.OrderedDict": what unpickling would look up.
        strings: all texts, such as the keys of its dictionaries.
    """

    classes: frozenset[str] = frozenset()
    strings: frozenset[str] = frozenset()


def contents_of(path: Path) -> Contents:
    """Looks into a file as torch.save writes it, by the opcodes of its pickle; one of another kind holds nothing.

    Raises:
        CheckpointError: no such file, or it cannot be read.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} is not there: give a .pt file")
    try:
        with zipfile.ZipFile(path) as archive:
            name = next((name for name in archive.namelist() if name.rpartition("/")[2] == _PICKLE), None)
            if name is None or archive.getinfo(name).file_size > _MOST_BYTES:
                return Contents()
            return _names(archive.read(name))
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError):  # torn, or something else
        return Contents()
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {reason_of(error)}") from error


def _names(pickle: bytes) -> Contents:
    classes, strings = set(), set()
    recent: list[str] = []  # STACK_GLOBAL takes module and name from the two strings before it
    for opcode, argument, _ in pickletools.genops(pickle):
        if opcode.name in _STRINGS:
            strings.add(str(argument))
            recent = [*recent[-1:], str(argument)]
        elif opcode.name == "GLOBAL":
            classes.add(str(argument).replace(" ", "."))
        elif opcode.name == "STACK_GLOBAL":
            classes.add(".".join(recent))
    return Contents(frozenset(classes), frozenset(strings))
