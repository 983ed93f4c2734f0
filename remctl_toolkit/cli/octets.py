"""Arguments and lines of input as the octets that the user typed."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Sequence

__all__ = ["argument_octets", "split_line"]


def argument_octets(words: Sequence[str] | Sequence[bytes]) -> list[bytes]:
    """Return arguments as octets.

    Python decodes the command line with the C library's tables, and `os.fsencode()` encodes it
    with its own.  In some locales (of Chinese, Japanese and Korean) these differ, so the octets are
    read from the kernel if it shows them.

    Args:
        words: the last arguments of this process, or any other words.
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

    The line is decoded with the locale's encoding, in which the octet of a backslash can be half of
    a character, or octet by octet if that encoding does not round-trip.

    Raises:
        ValueError: a quotation is not closed.
    """
    text = os.fsdecode(line)
    with contextlib.suppress(UnicodeEncodeError):
        if os.fsencode(text) == line:
            return [os.fsencode(word) for word in shlex.split(text)]
    return [word.encode("latin-1") for word in shlex.split(line.decode("latin-1"))]
