"""Standard output and standard error: exact octets for a pipe, safe text for a terminal."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Any, TextIO

from _remctl_text import fit, printable

__all__ = ["BLUE", "BOLD", "GREEN", "RED", "YELLOW", "Screen"]

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
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)

    def paint(self, text: str, colour: str) -> str:
        """Return a text with the codes for a colour, if this is a place for colours."""
        return f"\033[{colour}m{text}\033[0m" if colour and text and self._colours else text

    def write(self, octets: bytes) -> None:
        """Write octets as they are."""
        self._file.buffer.write(octets)  # In one go: nothing comes in between.
        self._file.buffer.flush()

    def piece(self, octets: bytes, *, last: bool = False) -> None:
        """Write a piece of a host's output, which may end in the middle of a character.

        A terminal gets lines with escapes for what is not printable, anything else the octets.
        """
        if not self.terminal:
            self.write(octets)
        elif text := self._decoder.decode(octets, last):
            safe = printable(text, lines=True)
            self.write(safe.encode(self._file.encoding, "backslashreplace"))

    def say(self, text: str = "", *, whole: bool = False) -> None:
        """Write a line of ours; it may have colours.

        On a terminal, a line that is wider is broken, unless it has to stay whole, and the rows
        that continue it are indented: none of them looks like a line of its own.
        """
        if self.terminal and not whole:
            # What the terminal cannot show becomes wider.
            text = text.encode(self._file.encoding, "backslashreplace").decode(self._file.encoding)
            text = fit(text, self._file)
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
