"""Run a command without a server, for tests."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import remctl

from .running import Run

if TYPE_CHECKING:
    from .commands import Root

__all__ = ["InvokeResult", "invoke"]

_VARIABLES = ("REMOTE_USER", "REMUSER", "REMOTE_ADDR", "REMOTE_HOST", "REMOTE_EXPIRES")


class InvokeResult(remctl.RemctlSimpleResult):
    """The result that a client would get, with the text that would be logged.

    Equal to any `remctl.RemctlSimpleResult` with the same output and status.

    Attributes:
        log: the report of an internal error; "" if there was none.
    """

    __slots__ = ("log",)

    def __init__(self, stdout: bytes | None, stderr: bytes | None, status: int, log: str) -> None:
        super().__init__(stdout, stderr, status)
        self.log = log


class _Given:
    """Standard input with given data."""

    def __init__(self, data: bytes | None) -> None:
        self._data = data

    def pending(self) -> bool:
        return self._data is not None

    def read(self) -> bytes | None:
        return self._data


def invoke(
    backend: Root,
    args: Sequence[str | bytes],
    *,
    user: str | None,
    input: str | bytes | None,
    environ: Mapping[str, str],
    reraise: bool,
) -> InvokeResult:
    """Run a command: see Backend.invoke()."""
    told = {"REMCTL_COMMAND": backend.name, "REMOTE_ADDR": "127.0.0.1", **environ}
    if user is not None:
        told |= {"REMOTE_USER": user, "REMUSER": user}
    data = input.encode("utf-8", "surrogateescape") if isinstance(input, str) else input
    octets = [os.fsencode(arg) for arg in args]
    logged: list[str] = []
    log, backend.log = backend.log, logged.append
    try:
        with _environment(told), _captured() as (stdout, stderr):
            run = Run(backend, told, _Given(data), stdout, reraise=reraise)
            status = run.status(octets)
    finally:
        backend.log = log
    # pytest shows standard error when a test fails.
    sys.stderr.writelines(f"{text}\n" for text in logged)
    out, err = (stream.buffer.getvalue() or None for stream in (stdout, stderr))  # type: ignore[attr-defined]
    return InvokeResult(out, err, status, "\n".join(logged))


@contextlib.contextmanager
def _environment(told: Mapping[str, str]) -> Iterator[None]:
    """Set remctld's variables in os.environ, and remove those of an outer remctld."""
    names = {*_VARIABLES, *told}
    before = {name: os.environ[name] for name in names if name in os.environ}
    for name in names:
        os.environ.pop(name, None)
    os.environ.update(told)
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


@contextlib.contextmanager
def _captured() -> Iterator[tuple[io.TextIOWrapper, io.TextIOWrapper]]:
    """Capture sys.stdout and sys.stderr in memory, and make sys.stdin empty."""
    out, err = (
        io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogateescape", write_through=True)
        for _ in range(2)
    )
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin, sys.stdout, sys.stderr = io.TextIOWrapper(io.BytesIO(), "utf-8"), out, err
    try:
        yield out, err
    finally:
        sys.stdin, sys.stdout, sys.stderr = before
