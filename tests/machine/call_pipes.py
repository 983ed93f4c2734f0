"""Interpreters of this machine, over pipes instead of channels, for each Python that there is."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from support.waiting import eventually

from remctl_toolkit.machine import ClosedError
from remctl_toolkit.machine.base.program import Program
from remctl_toolkit.machine.call import Interpreter
from remctl_toolkit.machine.call.link import Reply

OLDEST = (3, 8)


def pythons() -> dict[str, str]:
    """Return the Pythons of this machine that a remote host may have, by version."""
    found = {}
    for minor in range(OLDEST[1], 20):
        path = shutil.which(f"python3.{minor}")
        if path is not None and "shims" not in path:
            found[f"3.{minor}"] = path
    for path in sorted(Path.home().glob(".pyenv/versions/3.*/bin/python3")):
        match = re.match(r"3\.(\d+)\.", path.parent.parent.name)
        if match and int(match[1]) >= OLDEST[1]:
            found[f"3.{match[1]}"] = str(path)
    return dict(sorted(found.items(), key=lambda item: int(item[0].split(".")[1])))


class PipeStream:
    """A channel over the pipes of a local process."""

    def __init__(self, python: str, program: str) -> None:
        command = [python, "-IS", "-c", program]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
        self.writes = 0
        self._reading = threading.Lock(), threading.Lock()

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.writes += 1
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def read(self, n: int = -1) -> bytes:
        return self._read(self.process.stdout, n, self._reading[0])

    def read_stderr(self, n: int = -1) -> bytes:
        return self._read(self.process.stderr, n, self._reading[1])

    def _read(self, file: IO[bytes] | None, n: int, reading: threading.Lock) -> bytes:
        assert file is not None
        with reading:  # Or the descriptor may be another's by then.
            if file.closed:
                raise ClosedError("the pipe was closed")
            return os.read(file.fileno(), n)

    def wait(self, timeout: float | None = None) -> int:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        files = self.process.stdin, self.process.stdout, self.process.stderr
        for file, using in zip(files, (contextlib.nullcontext(), *self._reading), strict=True):
            assert file is not None
            with using, contextlib.suppress(BrokenPipeError):
                file.close()

    drop = close


class _Here:
    host = "far.example.org"


class PipeInterpreter(Interpreter):
    """An interpreter over pipes."""

    def __init__(self, python: str, **settings: Any) -> None:
        self.python = python
        super().__init__(_Here(), **settings)  # type: ignore[arg-type]

    def _start(self, program: Program) -> PipeStream:
        self.stream = PipeStream(self.python, program.text())
        return self.stream


def begun(far: PipeInterpreter, function: Callable[[str], object], note: Path) -> Reply:
    """Call a function that writes a note; return as soon as that is there, with 0.2 s left."""
    reply = far._begin(0.2, function, (str(note),), {})
    eventually(note.exists)
    return reply
