"""Standard output and standard error: exact octets for a pipe, safe text for a terminal."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from typing import Any, TextIO

from _remctl_text import printable

__all__ = ["BLUE", "BOLD", "GREEN", "RED", "YELLOW", "Screen"]

_COLOUR = re.compile(r"(\x1b\[[\d;]*m)")  # as Outlet.paint() writes it
_INDENT = "    "  # before what continues a line: no host's name begins with a space
_COLUMNS = 80  # of a terminal that does not say how many it has
_TAB = 8

RED, GREEN, YELLOW, BLUE, BOLD = "31", "32", "33", "36", "1"


class Screen:
    """Where lines are written to, by any thread.

    Attributes:
        out, err: the two outlets.
    """

    def __init__(self) -> None:
        # They are None where somebody closed them.
        self.out = Outlet(sys.stdout or open(os.devnull, "w"))  # noqa: SIM115
        self.err = Outlet(sys.stderr or open(os.devnull, "w"))  # noqa: SIM115

    def use(self, console: Any) -> None:
        """Write to terminals through a console of rich's, which moves its bar out of the way."""
        for outlet in (self.out, self.err):
            outlet.console = console if outlet.terminal else None


class Outlet:
    """Standard output or standard error.

    Attributes:
        terminal: whether it is a terminal.
        movable: whether the cursor can be moved there, as a progress bar has to.
        console: what draws a progress bar there, if something does.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.terminal = file.isatty()
        self.movable = self.terminal and os.environ.get("TERM", "dumb") != "dumb"
        self._colours = self.movable and not os.environ.get("NO_COLOR")
        self.console: Any = None

    def paint(self, text: str, colour: str) -> str:
        """Return a text with the codes for a colour, if this is a place for colours."""
        return f"\033[{colour}m{text}\033[0m" if colour and text and self._colours else text

    def write(self, octets: bytes) -> None:
        """Write octets as they are."""
        self._file.buffer.write(octets)  # In one go: nothing comes in between.
        self._file.buffer.flush()

    def say(self, text: str = "", *, whole: bool = False) -> None:
        """Write a line of ours; it may have colours.

        On a terminal, a line that is wider is broken, unless it has to stay whole, and the rows
        that continue it are indented: none of them looks like a line of its own.
        """
        if self.terminal and not whole:
            # What the terminal cannot show becomes wider.
            text = text.encode(self._file.encoding, "backslashreplace").decode(self._file.encoding)
            columns = os.get_terminal_size(self._file.fileno()).columns or _COLUMNS
            text = "\n".join(_broken(line, columns) for line in text.split("\n"))
        if self.console is not None:
            self.console.out(text, highlight=False)
        else:
            self.write(f"{text}\n".encode(self._file.encoding, "backslashreplace"))

    def line(self, label: str, octets: bytes, label_colour: str = "", colour: str = "") -> None:
        """Write a line of a host's, after a label of ours."""
        if not self.terminal:
            self.write(label.encode() + octets + b"\n")
            return
        text = printable(octets.removesuffix(b"\r"))
        self.say(self.paint(printable(label), label_colour) + self.paint(text, colour))


def _broken(line: str, columns: int) -> str:
    """Break a line into rows that a terminal does not wrap."""
    if line.isascii() and len(line) <= columns and "\t" not in line:
        return line
    columns = max(columns, len(_INDENT) + _TAB)
    pieces, column = [], 0
    for number, part in enumerate(_COLOUR.split(line)):
        if number % 2:
            pieces.append(part)
            continue
        for character in part:
            shown = " " * (_TAB - column % _TAB) if character == "\t" else character
            cells = sum(map(_cells, shown))
            if column + cells > columns:
                pieces.append(f"\n{_INDENT}")
                column = len(_INDENT)
            pieces.append(shown)
            column += cells
    return "".join(pieces)


def _cells(character: str) -> int:
    """Return how many columns a character takes: where terminals disagree, the most."""
    if character == "\ufe0f":
        return 1  # It makes a picture of the symbol before it.
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    symbol = "\u2600" <= character < "\u2800" or character >= "\U0001f000"
    return 2 if symbol or unicodedata.east_asian_width(character) in "WF" else 1
