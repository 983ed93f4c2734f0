"""Lines of a command's output as they come, for plumbum's iter_lines()."""

from __future__ import annotations

import selectors
from collections.abc import Callable, Generator, Iterator
from typing import IO, Any

from plumbum.commands.processes import ProcessLineTimedOut

_GULP = 1 << 16
_LOOK = 0.1  # seconds between two looks at whether the command has ended


def read_lines(
    process: Any, decode: Callable[[bytes], str], linesize: int, line_timeout: float | None = None
) -> Generator[tuple[int, str], None, None]:
    """Yield (0, line) for standard output, (1, line) for standard error, as soon as each is there.

    plumbum's own waits for a descriptor while lines that came with an earlier one stand in a
    buffer.

    Args:
        process: the command; the standard errors of those before it in a pipeline are read, too.
        decode: what makes a line of octets text.
        linesize: octets of a line at most; a longer one comes in pieces.  -1 is any.
        line_timeout: seconds without any line; None is for ever.

    Raises:
        ProcessLineTimedOut: there was none for that long.
    """
    with selectors.DefaultSelector() as selector:
        buffers: dict[Any, bytearray] = {}
        for kind, stream in _streams(process):
            selector.register(stream, selectors.EVENT_READ, kind)
            buffers[stream] = bytearray()
        while selector.get_map():
            ready = selector.select(_LOOK if line_timeout is None else line_timeout)
            if not ready and line_timeout is not None:
                raise ProcessLineTimedOut(
                    "popen line timeout expired", process.argv, process.machine
                )
            if not ready and process.poll() is not None:
                # poll() waits for a start that is under way: by now all it wrote is in the pipes.
                ready = selector.select(0)
                if not ready:
                    break  # What it has started may hold its output open.
            for key, _ in ready:
                file: Any = key.fileobj
                piece: bytes = file.read1(_GULP)
                buffers[file] += piece
                for line in _split(buffers[file], linesize, last=not piece):
                    yield key.data, decode(line)
                if not piece:
                    selector.unregister(file)


def _streams(process: Any) -> Iterator[tuple[int, IO[bytes]]]:
    while process is not None:
        for kind, file in ((0, process.stdout), (1, process.stderr)):
            if file is not None and not file.closed:
                yield kind, file
        process = getattr(process, "srcproc", None)


def _split(buffer: bytearray, linesize: int, *, last: bool) -> Iterator[bytes]:
    """Take the lines that are complete out of a buffer, and if it is the last, all of it."""
    while buffer:
        end = buffer.find(b"\n") + 1
        if linesize > 0 and (end == 0 or end > linesize) and len(buffer) >= linesize:
            end = linesize
        if end == 0 and not last:
            return
        line = bytes(buffer[: end or None])
        del buffer[: len(line)]
        yield line
