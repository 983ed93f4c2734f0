"""Write to standard output and standard error: exact octets to a pipe, safe text to a terminal."""

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
    """Standard output and standard error, usable by any thread.

    Attributes:
        out, err: the two outlets.
    """

    def __init__(self) -> None:
        # They are None if they were closed.
        self.out = Outlet(sys.stdout or open(os.devnull, "w"))  # noqa: SIM115
        self.err = Outlet(sys.stderr or open(os.devnull, "w"))  # noqa: SIM115

    def use(self, console: Any) -> None:
        """Write to terminals through a console of rich, which moves its progress bar."""
        for outlet in (self.out, self.err):
            outlet.console = console if outlet.terminal else None


class Outlet:
    """Standard output or standard error.

    Attributes:
        terminal: whether it is a terminal.
        movable: whether the cursor can be moved, which a progress bar needs.
        console: the console that draws a progress bar, or None.
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
        """Return a text in a colour, if this outlet shows colours."""
        return f"\033[{colour}m{text}\033[0m" if colour and text and self._colours else text

    def write(self, octets: bytes) -> None:
        """Write octets unchanged."""
        self._file.buffer.write(octets)  # One call, so that other threads cannot write in between.
        self._file.buffer.flush()

    def piece(self, octets: bytes, *, last: bool = False) -> None:
        """Write a piece of a host's output, which may end in the middle of a character.

        A terminal gets text with unprintable characters escaped; a pipe or file gets the octets.
        """
        if not self.terminal:
            self.write(octets)
        elif text := self._decoder.decode(octets, last):
            safe = printable(text, lines=True)
            self.write(safe.encode(self._file.encoding, "backslashreplace"))

    def say(self, text: str = "", *, whole: bool = False) -> None:
        """Write a line of our own, which may have colours.

        Unless `whole` is true, a line that is wider than the terminal is wrapped.  Continuation
        rows are indented, so that none of them looks like a line.
        """
        if self.terminal and not whole:
            # Escapes are wider than the characters that they replace.
            text = text.encode(self._file.encoding, "backslashreplace").decode(self._file.encoding)
            text = fit(text, self._file)
        if self.console is not None:
            self.console.out(text, highlight=False)
        else:
            self.write(f"{text}\n".encode(self._file.encoding, "backslashreplace"))

    def line(self, label: str, octets: bytes, label_colour: str = "", colour: str = "") -> None:
        """Write a line of a host's output after a label of our own."""
        if not self.terminal:
            self.write(label.encode() + octets + b"\n")
            return
        text = printable(octets.removesuffix(b"\r"))
        self.say(self.paint(printable(label), label_colour) + self.paint(text, colour))
