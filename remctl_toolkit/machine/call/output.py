"""Show lines that remote functions print."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import TypeAlias

from _remctl_text import fit, printable
from remctl import RemctlStream

Output: TypeAlias = Callable[[str, RemctlStream, str], object]

_LINE_LIMIT = 65536  # octets of an incomplete line


def show(host: str, stream: RemctlStream, line: str) -> None:
    """Write a line to standard error, with the host before it and unprintable characters escaped.

    On a terminal, lines of the remote standard error are red, and long lines are wrapped.
    """
    text = printable(f"[{host}] {line}")
    if sys.stderr.isatty():
        text = fit(text, sys.stderr)
        if stream == RemctlStream.STDERR:
            text = f"\x1b[31m{text}\x1b[0m"
    print(text, file=sys.stderr, flush=True)


class Lines:
    """Split octets into lines, and pass them to `output`.

    Exceptions of `output` go to `threading.excepthook`, and do not end the thread.
    """

    def __init__(self, host: str, output: Output) -> None:
        self._host = host
        self._output = output
        self._rest = {RemctlStream.STDOUT: b"", RemctlStream.STDERR: b""}

    def take(self, stream: RemctlStream, octets: bytes) -> None:
        """Append octets of a stream, and pass on complete lines."""
        *lines, rest = (self._rest[stream] + octets).split(b"\n")
        self._rest[stream] = rest
        for line in lines:
            self._hand_on(stream, line)
        if len(rest) > _LINE_LIMIT:
            self.flush()

    def flush(self) -> None:
        """Pass on incomplete lines."""
        for stream, rest in self._rest.items():
            if rest:
                self._rest[stream] = b""
                self._hand_on(stream, rest)

    def _hand_on(self, stream: RemctlStream, line: bytes) -> None:
        try:
            self._output(self._host, stream, line.decode("utf-8", "replace"))
        except Exception as error:
            thread = threading.current_thread()
            details = (type(error), error, error.__traceback__, thread)
            threading.excepthook(threading.ExceptHookArgs(details))
