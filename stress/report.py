"""Shared by the stress tests and benchmarks: facts about the machine, tables and outputs."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import remctl

__all__ = [
    "check_outputs",
    "environment",
    "markdown_table",
    "put_between_markers",
    "says",
    "text_table",
]


def says(*command: str) -> str:
    """Return the first line of a program's output, on any stream; "none" if it fails."""
    try:
        said = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return said.splitlines()[0] if said else "none"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment() -> dict[str, str]:
    """Return facts to print with the figures."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "remctl": remctl.VERSION,
        "Python": f"{platform.python_version()}, {sys.implementation.name}",
        "libremctl": says("pkg-config", "--modversion", "libremctl"),
        "Kerberos": says("krb5-config", "--version"),
    }


def text_table(rows: Iterable[Sequence[str]]) -> str:
    """Format rows in columns, the first aligned left, the others right."""
    table = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for first, *others in table:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table, with numbers aligned right."""
    rule = ["---", *["---:"] * (len(headings) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [headings, rule, *rows])


def put_between_markers(page: Path, name: str, text: str) -> None:
    """Replace the text between <!-- NAME --> and <!-- end of NAME --> in a page.

    Raises:
        ValueError: the page does not have both, in order.
    """
    before, after = _around_markers(page, name)
    page.write_text(f"{before}\n\n{text}\n\n{after}")


def _around_markers(page: Path, name: str) -> tuple[str, str]:
    """Return the text before and after, including the markers."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found, rest = page.read_text().partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"{page} lacks {begin} or {end}")
    return before + begin, end + after


def check_outputs(
    parser: argparse.ArgumentParser,
    name: str,
    pages: Iterable[Path | None],
    files: Iterable[Path | None] = (),
) -> None:
    """Check that results can be written, and end with a usage error before the long run if not.

    Args:
        parser: parser of the command line.
        name: name of the markers that the pages need; see put_between_markers().
        pages, files: paths for the results, if given.
    """
    for page in filter(None, pages):
        try:
            _around_markers(page, name)
        except (OSError, ValueError) as error:
            parser.error(str(error))
    for file in filter(None, files):
        if not file.absolute().parent.is_dir():
            parser.error(f"cannot write {file}: there is no such folder")
