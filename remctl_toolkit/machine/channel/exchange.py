"""Writing to a process and reading both its streams at once, until all has ended."""

from __future__ import annotations

import contextlib
import os
import selectors
import time
from typing import IO, Any

_GULP = 1 << 16


class Exchange:
    """What `communicate()` does, and how far it has got: it may be interrupted, and go on."""

    def __init__(
        self,
        data: bytes | None,
        stdin: IO[bytes] | None,
        stdout: IO[bytes] | None,
        stderr: IO[bytes] | None,
    ) -> None:
        """Own the files: each is closed when it is done with."""
        self._left = memoryview(data or b"")
        self._stdin = stdin
        self._streams = {file: bytearray() for file in (stdout, stderr) if file is not None}
        self._files = (stdout, stderr)
        if stdin is not None:
            if self._left:
                stdin.flush()
                os.set_blocking(stdin.fileno(), False)
            else:
                close_quietly(stdin)

    def run(self, deadline: float | None) -> bool:
        """Go on until all has ended; False if the time (time.monotonic()) comes before."""
        with selectors.PollSelector() as selector:
            if self._stdin is not None and self._left:
                selector.register(self._stdin, selectors.EVENT_WRITE)
            for file in self._streams:
                if not file.closed:
                    selector.register(file, selectors.EVENT_READ)
            while selector.get_map():
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                for key, _ in selector.select(left):
                    ready: Any = key.fileobj
                    if self._write() if ready is self._stdin else self._read(ready):
                        selector.unregister(ready)
                        close_quietly(ready)
        return True

    def _write(self) -> bool:
        assert self._stdin is not None
        try:
            self._left = self._left[os.write(self._stdin.fileno(), self._left) :]
        except BlockingIOError:
            return False
        except BrokenPipeError:
            return True
        return not self._left

    def _read(self, file: IO[bytes]) -> bool:
        octets = os.read(file.fileno(), _GULP)
        self._streams[file] += octets
        return not octets

    def output(self) -> tuple[bytes | None, bytes | None]:
        """Return what was read; None for what there is no pipe of."""
        stdout, stderr = (
            None if file is None else bytes(self._streams[file]) for file in self._files
        )
        return stdout, stderr


def close_quietly(file: IO[bytes]) -> None:
    """Close a file whose other side may have gone."""
    with contextlib.suppress(BrokenPipeError):  # Something was left to be flushed.
        file.close()
