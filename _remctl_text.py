r"""Make foreign text safe for terminals, logs and exceptions.

Text from a server, a remote account, a KDC, DNS or a file may contain control sequences that change
a terminal, characters that change the direction of text, or newlines that forge lines of a log.
`printable()` shows them as escapes: ``\x1b``, ``\u202e``, ``\n``.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

__all__ = ["fit", "printable"]

_COLOUR = r"(\x1b\[[\d;]*m)"
_INDENT = "    "  # before continued lines: no name of a host begins with a space
_COLUMNS = 80  # of a terminal that does not report its width
_TAB = 8
# Symbols that are wide in newer versions of Unicode than Python's.
_SYMBOLS = (range(0x2600, 0x2800), range(0x4DC0, 0x4E00), range(0x1D300, 0x1D380))


def printable(text: str | bytes, *, lines: bool = False) -> str:
    r"""Return a text with its unprintable characters replaced by escapes.

    These are the characters for which `str.isprintable()` is false: control characters (C0, DEL and
    C1), format characters (such as those that change the direction of text or have no width), line
    and paragraph separators, spaces other than " ", and unassigned and private characters.

    Args:
        text: the text; bytes are decoded as UTF-8.  Invalid bytes, and the surrogates that
            `os.fsdecode()` makes of them, become escapes like ``\xff``.
        lines: whether to keep ``\n``, because the text may have several lines.  Tabs are kept.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return text
    kept = "\t\n" if lines else "\t"
    return "".join(c if c.isprintable() or c in kept else _escape(c) for c in text)


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


# -- Rows of a terminal ---------------------------------------------------------------------------


def fit(text: str, terminal: IO[str]) -> str:
    """Break lines that are wider than a terminal, and indent the continuation.

    If the terminal wrapped them itself, a row could look like a line of its own.

    Args:
        text: printable text, and colours.
        terminal: the terminal, as an open file.
    """
    columns = os.get_terminal_size(terminal.fileno()).columns or _COLUMNS
    return "\n".join(break_line(line, columns) for line in text.split("\n"))


def break_line(line: str, columns: int) -> str:
    """Break a line into rows; tabs become spaces."""
    if line.isascii() and len(line) <= columns and "\t" not in line:
        return line
    import re  # Only here: programs that remctld starts import this module, and start faster.

    columns = max(columns, len(_INDENT) + _TAB)
    pieces: list[str] = []
    column = 0
    for number, part in enumerate(re.split(_COLOUR, line)):
        if number % 2:
            pieces.append(part)
            continue
        for character in part:
            shown = " " * (_TAB - column % _TAB) if character == "\t" else character
            cells = sum(map(cells_of, shown))
            if column + cells > columns:
                pieces.append(f"\n{_INDENT}")
                column = len(_INDENT)
            pieces.append(shown)
            column += cells
    return "".join(pieces)


def cells_of(character: str) -> int:
    """Return how many columns a character takes; the maximum if terminals disagree."""
    import unicodedata

    if character == "\ufe0f":
        return 1  # This selector turns the symbol before it into a wide emoji.
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    number = ord(character)
    symbol = number >= 0x1F000 or any(number in each for each in _SYMBOLS)
    return 2 if symbol or unicodedata.east_asian_width(character) in "WF" else 1
