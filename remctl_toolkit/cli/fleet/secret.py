"""Ask the user for a secret."""

from __future__ import annotations

import os
import termios

__all__ = ["UsageError", "ask_secret"]

_READ_SIZE = 4096  # octets: the longest line of a terminal


class UsageError(Exception):
    """The command line asks for something impossible; the text is one line."""


def ask_secret() -> bytes:
    """Prompt twice without echo, and return the octets that were typed.

    Raises:
        UsageError: there is no terminal, nothing was typed, or the two entries differ.
    """
    try:  # Standard input need not be the terminal.
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        raise UsageError("--ask-secret needs a terminal") from None
    try:
        secret = _ask(terminal, b"Secret: ")
        again = _ask(terminal, b"Repeat secret: ")
    finally:
        os.close(terminal)
    if not secret:
        raise UsageError("no secret was typed")
    if secret != again:
        raise UsageError("the two secrets differ; nothing was sent")
    return secret


def _ask(terminal: int, prompt: bytes) -> bytes:
    """Return a line without its newline.

    Raises:
        UsageError: the input has ended.
    """
    before = termios.tcgetattr(terminal)
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    try:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, silent)
        os.write(terminal, prompt)
        line = b""
        while not line.endswith(b"\n") and (piece := os.read(terminal, _READ_SIZE)):
            line += piece
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
        os.write(terminal, b"\n")
    if not line:
        raise UsageError("no secret was typed")
    return line.removesuffix(b"\n")
