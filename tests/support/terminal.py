"""Run a program on a pseudo-terminal, read its screen, and type."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from .waiting import eventually

LIMIT = 30.0  # timeout in seconds for everything that usually takes a fraction of one
ROWS, COLUMNS = 24, 80

# The first terminal that a session opens is its own; then Ctrl-C on it is a signal.
_SCRIPT = 'exec "$@" <"$0" >"$0" 2>&1'


class Terminal:
    """A context manager.

    `shown` is what was shown and not looked for yet, escape sequences included; `everything` all
    of it, and `octets` the same as octets.
    """

    def __init__(
        self, arguments: Sequence[str], environ: Mapping[str, str], columns: int = COLUMNS
    ) -> None:
        self.shown = self.everything = ""
        self.octets = b""
        self._master, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, os.ttyname(terminal), *arguments],
            env={"TERM": "xterm-256color", **environ},
            start_new_session=True,
        )
        self._ours = terminal  # Open until the program has it: otherwise it would be gone.

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)
        os.close(self._ours)

    def type(self, text: str | bytes) -> None:
        """Type, as a person would."""
        os.write(self._master, text.encode() if isinstance(text, str) else text)

    def interrupt(self, pattern: str) -> re.Match[str]:
        """Press Ctrl-C until a pattern was shown.

        Python looks for signals before its readline waits for a key, and misses one that comes in
        between until the next key: a person presses again, too.
        """
        for _ in range(5):
            self.type("\x03")
            with contextlib.suppress(AssertionError):
                return self.expect(pattern, LIMIT / 10)
        return self.expect(pattern)

    def terminate(self) -> None:
        """Send the program SIGTERM."""
        self._process.terminate()

    def expect(self, pattern: str, limit: float = LIMIT) -> re.Match[str]:
        """Read until a pattern was shown, and forget what was shown up to there."""
        deadline = time.monotonic() + limit
        while not (found := re.search(pattern, self.shown)):
            assert self._read(deadline - time.monotonic()), f"no {pattern!r} in {self.shown!r}"
        self.shown = self.shown[found.end() :]
        return found

    def shows_what_is_typed(self) -> bool:
        """Return whether the terminal echoes."""
        return bool(termios.tcgetattr(self._ours)[3] & termios.ECHO)

    def wait(self) -> int:
        """Wait until the program ends, read what it showed, and return its exit status."""
        eventually(self._ended, LIMIT, what=f"the program to end: {self.shown!r}")
        while self._read(0):
            pass
        assert self._process.returncode is not None
        return self._process.returncode

    def _ended(self) -> bool:
        while self._read(0):  # What nobody reads would keep it from ending.
            pass
        return self._process.poll() is not None

    def _read(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], max(seconds, 0))[0]:
            return False
        octets = b""
        with contextlib.suppress(OSError):
            octets = os.read(self._master, 65536)
        self.octets += octets
        text = octets.decode(errors="replace")
        self.shown += text
        self.everything += text
        return bool(text)
