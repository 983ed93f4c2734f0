"""Asking for a secret."""

from __future__ import annotations

import getpass
import os

__all__ = ["UsageError", "ask_secret"]


class UsageError(Exception):
    """Something is asked for that cannot be; the text is one line."""


def ask_secret() -> str:
    """Ask twice, without showing it.

    Raises:
        UsageError: there is no terminal to ask on, or what was typed differs.
    """
    try:  # getpass would read from elsewhere, and show what is typed.
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        raise UsageError("--ask-secret needs a terminal to ask on") from None
    try:
        secret = getpass.getpass("Secret: ")
        again = getpass.getpass("The same again: ")
    except EOFError:
        raise UsageError("no secret was typed") from None
    if not secret:
        raise UsageError("no secret was typed")
    if secret != again:
        raise UsageError("the two are not the same; nothing was sent")
    return secret
