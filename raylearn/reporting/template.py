"""What all pages have in common: how templates are filled in, how numbers stand in them, how a page is written."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from raylearn.errors import RunFolderError
from raylearn.reporting.summary import spread_text
from raylearn.wording import counted

if TYPE_CHECKING:
    from raylearn.reporting.statistics import Difference, Reach

NO_BREAK = "\u00a0"


def environment() -> Environment:
    """For the templates beside this file."""
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {"spread": spread_text, "seconds": seconds_text, "number": number_text}
    found.filters |= {"difference": difference_text, "cost": cost_text, "counted": counted}
    found.globals |= {"share_step": share_step, "class_name": class_name}
    return found


def write_at_once(path: Path, text: str) -> Path:
    """Replaces a page whole: whoever reads it meanwhile sees the old one or the new one.

    Raises:
        RunFolderError: it cannot be written.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_bytes(page_bytes(text))
        os.replace(aside, path)
    except OSError as error:
        raise RunFolderError(f"{path} cannot be written ({error.strerror}): free or unlock the folder") from error
    finally:
        aside.unlink(missing_ok=True)
    return path


def page_bytes(text: str) -> bytes:
    """A page in UTF-8. A name may hold half a surrogate pair, which no encoding can write: it becomes "?"."""
    return text.encode(errors="replace")


def class_name(names: list[str] | tuple[str, ...], class_id: int) -> str:
    """Of a box, whose class the names may lack."""
    return names[class_id] if 0 <= class_id < len(names) else f"class {class_id}"


def share_step(share: float) -> int:
    """0 to 9, to shade a cell by."""
    return min(9, max(0, int(10 * share))) if share == share else 0


def seconds_text(seconds: Any) -> str:
    """`42 s`, `3 min 05 s`, `2 h 07 min`; a dash for what is no number."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
        return "\u2013"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def difference_text(difference: "Difference", of_seeds: int) -> str:
    """As in `+0.031 (+0.010 to +0.052) (4 of 5 seeds)`; a line can break only before a bracket."""
    parts = [f"{difference.mean:+.3f}".replace("-", "\u2212")]
    if difference.interval:
        low, high = difference.interval
        parts.append(f"({low:+.3f} to {high:+.3f})".replace("-", "\u2212"))
    found = len(difference.seeds)
    parts += [f"({found} of {of_seeds} seeds)"] if found < of_seeds else []
    return " ".join(part.replace(" ", NO_BREAK) for part in parts)


def cost_text(reach: "Reach | None", unit: str) -> str:
    """A median cost; `not reached` where the median seed did not come there, with how many seeds did."""
    if reach is None:
        return "\u2013"
    cost = getattr(reach, unit)
    text = f"not{NO_BREAK}reached" if cost is None else number_text(cost)
    return text if reach.num_reached == reach.num_seeds else f"{text} ({reach.num_reached} of {reach.num_seeds})"


def number_text(value: float) -> str:
    """A count, or a mean of counts: with one decimal only where it has one."""
    return f"{value:.1f}".removesuffix(".0")
