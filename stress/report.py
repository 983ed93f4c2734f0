"""What the heavy tests share in telling what they found: the machine, and a place in a page."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import remctl

__all__ = ["environment", "markdown_table", "put_between_markers", "text_table"]


def _says(*command: str) -> str:
    """Return the first line that a program prints; "none" if it is not there."""
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return "none"
    return said.splitlines()[0] if said else "none"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment() -> dict[str, str]:
    """Return what to tell beside the figures."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "remctl": remctl.VERSION,
        "Python": f"{platform.python_version()}, {sys.implementation.name}",
        "libremctl": _says("pkg-config", "--modversion", "libremctl"),
        "Kerberos": _says("krb5-config", "--version"),
    }


def text_table(rows: Iterable[Sequence[str]]) -> str:
    """Lay rows out in columns: the first to the left, the others to the right."""
    table = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for first, *others in table:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table, with the numbers to the right."""
    rule = ["---", *["---:"] * (len(headings) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [headings, rule, *rows])


def put_between_markers(page: Path, name: str, text: str) -> None:
    """Replace what stands between <!-- NAME --> and <!-- end of NAME --> in a page.

    Raises:
        ValueError: it does not have both, in order.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found, rest = page.read_text().partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"{page} lacks {begin} or {end}")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")
