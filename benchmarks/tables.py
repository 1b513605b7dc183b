"""What all benchmarks share: the machine's description, a table on the terminal, the same as JSON."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import which
from typing import Any

import cv2

from raylearn.plugins import versions_of


def describe_machine() -> dict[str, Any]:
    """What a figure depends on beside the code."""
    model, flags = platform.processor() or platform.machine(), ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in lines.items()}
        model, flags = fields.get("model name", model), fields.get("flags", "")
    wanted = ("avx512f", "avx512_bf16", "amx_bf16")
    described = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(described, capture_output=True, text=True, check=False).stdout if which("git") else ""
    return {
        "cpu": model,
        "cpus": len(os.sched_getaffinity(0)),
        "instructions": [name for name in wanted if name in flags.split()],
        "python": platform.python_version(),
        "commit": commit.strip(),
        "opencv": cv2.__version__,
        **versions_of(("ray", "torch", "ultralytics", "pyarrow")),
    }


def show(title: str, rows: Sequence[Mapping[str, Any]], json_file: Path, **facts: Any) -> None:
    """Prints rows of equal keys as a table, and writes them with the machine's description."""
    print(f"\n{title}\n{text_table(rows)}")
    json_file.parent.mkdir(parents=True, exist_ok=True)
    content = {"title": title, "machine": describe_machine(), **facts, "rows": list(rows)}
    json_file.write_text(json.dumps(content, indent=1))
    print(f"written to {json_file}")


def text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of equal keys in columns, the first of them to the left."""
    columns = list(rows[0])
    cells = [columns, *([_text(row[name]) for name in columns] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = []
    for row in cells:
        first, *others = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *others]))
    return "\n".join(lines)


def _text(value: Any) -> str:
    return (
        f"{value:.3g}"
        if isinstance(value, float) and value < 1000
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )
