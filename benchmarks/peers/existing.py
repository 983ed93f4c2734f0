"""The existing binding of libremctl, python3-pyremctl, under the system's own Python."""

from __future__ import annotations

import os
import sys
from typing import Any

from .worker import Action, serve

sys.path.pop(0)  # the checkout, which has the other remctl
import remctl

_HOST = os.environ["REMCTL_HOST"]
_PORT = int(os.environ["REMCTL_PORT"])
_PRINCIPAL = os.environ["REMCTL_PRINCIPAL"]
_ECHO = ("echo", "hello")


def _check(right: bool) -> None:
    if not right:
        raise RuntimeError("wrong output")


def _echo(session: Any) -> None:
    session.command(_ECHO)
    octets = b""
    kind, output, *_ = session.output()
    while kind == "output":
        octets += output
        kind, output, *_ = session.output()
    _check(kind == "status" and octets == b"hello\n")


def _simple(command: tuple[str, ...]) -> Any:
    return remctl.remctl(_HOST, _PORT, _PRINCIPAL, command)


class _Commands(Action):
    def prepare(self) -> None:
        self.session: Any = remctl.Remctl(_HOST, _PORT, _PRINCIPAL)
        _echo(self.session)

    def go(self, count: int) -> None:
        for _ in range(count):
            _echo(self.session)

    def quit(self) -> None:
        self.session.close()


class _Connects(Action):
    def go(self, count: int) -> None:
        for _ in range(count):
            _check(_simple(_ECHO).stdout == b"hello\n")


class _SimpleKeep(Action):
    """COUNT octets of output, by the simple interface."""

    def prepare(self) -> None:
        _simple(_ECHO)

    def go(self, count: int) -> None:
        _check(len(_simple(("zeros", "-c", str(count))).stdout) == count)


class _Sessions(Action):
    """COUNT sessions, all open at the same time; they stay open."""

    def __init__(self) -> None:
        self.sessions: list[Any] = []

    def prepare(self) -> None:
        _simple(_ECHO)

    def go(self, count: int) -> None:
        self.sessions += [remctl.Remctl(_HOST, _PORT, _PRINCIPAL) for _ in range(count)]
        for session in self.sessions:
            _echo(session)


if __name__ == "__main__":
    serve(
        {
            "commands": _Commands,
            "connects": _Connects,
            "simple-keep": _SimpleKeep,
            "sessions": _Sessions,
        }
    )
