"""The octets that somebody typed: arguments and lines reach a server as they are."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Sequence

__all__ = ["split_line", "typed"]


def typed(words: Sequence[str] | Sequence[bytes]) -> list[bytes]:
    """Return the last words of the command line as octets.

    Python decodes the command line with the C library's tables, and `os.fsencode()` encodes it
    with its own.  In some locales (of Chinese, Japanese and Korean) these differ, so the octets are
    read from the kernel where it shows them.

    Args:
        words: the end of this process's arguments, or any other words; octets stay as they are.
    """
    if words and sys.orig_argv[-len(words) :] == list(words):
        try:
            with open("/proc/self/cmdline", "rb") as file:
                octets = file.read().split(b"\0")[:-1]
        except OSError:
            octets = []
        if len(octets) == len(sys.orig_argv):
            return octets[-len(words) :]
    return [os.fsencode(word) for word in words]


def split_line(line: bytes) -> list[bytes]:
    """Split a line into words, as a POSIX shell does.

    The line is read in the locale's encoding, in which the octet of a backslash can be half of a
    character, or octet by octet if that encoding cannot give the same octets back.

    Raises:
        ValueError: a quotation is not closed.
    """
    text = os.fsdecode(line)
    with contextlib.suppress(UnicodeEncodeError):
        if os.fsencode(text) == line:
            return [os.fsencode(word) for word in shlex.split(text)]
    return [word.encode("latin-1") for word in shlex.split(line.decode("latin-1"))]
