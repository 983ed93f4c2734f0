"""Write to a process and read both its streams at once, until all have ended."""

from __future__ import annotations

import contextlib
import os
import selectors
import time
from typing import IO, Any

_READ_SIZE = 1 << 16


class Exchange:
    """The progress of a `communicate()`, which can be interrupted and go on.

    Args:
        data: what to write.
        stdin, stdout, stderr: the files; each is closed when it has ended.  One that is closed
            already counts as None.
    """

    def __init__(
        self,
        data: bytes | None,
        stdin: IO[bytes] | None,
        stdout: IO[bytes] | None,
        stderr: IO[bytes] | None,
    ) -> None:
        self._left = memoryview(data or b"")
        self._stdin = None if stdin is None or stdin.closed else stdin
        self._files = [None if file is None or file.closed else file for file in (stdout, stderr)]
        self._read = {file: bytearray() for file in self._files if file is not None}
        if self._stdin is not None:
            if self._left:
                self._stdin.flush()
                os.set_blocking(self._stdin.fileno(), False)
            else:
                close_quietly(self._stdin)

    def run(self, deadline: float | None) -> bool:
        """Go on until all has ended; False if the time (time.monotonic()) comes before."""
        stdin = self._stdin
        with selectors.PollSelector() as selector:
            if stdin is not None and not stdin.closed:
                selector.register(stdin, selectors.EVENT_WRITE)
            for file in self._read:
                if not file.closed:
                    selector.register(file, selectors.EVENT_READ)
            while selector.get_map():
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                for key, _ in selector.select(left):
                    ready: Any = key.fileobj
                    done = self._write(ready) if ready is stdin else self._take(ready)
                    if done:
                        selector.unregister(ready)
                        close_quietly(ready)
        return True

    def _write(self, file: Any) -> bool:
        try:
            self._left = self._left[os.write(file.fileno(), self._left) :]
        except BlockingIOError:
            return False
        except BrokenPipeError:
            return True
        return not self._left

    def _take(self, file: IO[bytes]) -> bool:
        octets = os.read(file.fileno(), _READ_SIZE)
        self._read[file] += octets
        return not octets

    def output(self) -> tuple[bytes | None, bytes | None]:
        """Return what was read; None for what there is no pipe of."""
        stdout, stderr = (None if file is None else bytes(self._read[file]) for file in self._files)
        return stdout, stderr


def close_quietly(file: IO[bytes]) -> None:
    """Close a file whose other side may have gone."""
    with contextlib.suppress(BrokenPipeError):  # Something was left to be flushed.
        file.close()
