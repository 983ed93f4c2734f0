"""The contestant of this project: the bindings of this checkout."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable

import remctl
from remctl_toolkit.pool import Pool

from .worker import Action, serve

_HOST = os.environ["REMCTL_HOST"]
_PORT = int(os.environ["REMCTL_PORT"])
_PRINCIPAL = os.environ["REMCTL_PRINCIPAL"]
_ECHO = ("echo", "hello")
_UNKNOWN = ("unknown", "command")  # The server refuses it without starting a process.


def _open() -> remctl.Remctl:
    return remctl.Remctl(_HOST, _PORT, _PRINCIPAL)


def _zeros(count: int) -> tuple[str, str, str]:
    return ("zeros", "-c", str(count))


def _check(right: bool) -> None:
    if not right:
        raise RuntimeError("wrong output")


def _repeat(session: remctl.Remctl, count: int) -> None:
    for _ in range(count):
        _check(session.run(_ECHO).stdout == b"hello\n")


class _Session(Action):
    """Base of the actions of an open, warm session."""

    def prepare(self) -> None:
        self.session = _open()
        self.session.run(_ECHO).check()

    def quit(self) -> None:
        self.session.close()


class _Commands(_Session):
    def go(self, count: int) -> None:
        _repeat(self.session, count)


class _Refused(_Session):
    def go(self, count: int) -> None:
        for _ in range(count):
            try:
                self.session.run(_UNKNOWN)
            except remctl.RemctlServerError:
                continue
            _check(False)


class _Pool(Action):
    """A pool of 16 sessions, warm, and commands over all of them."""

    def prepare(self) -> None:
        self.pool = Pool(_HOST, _PORT, _PRINCIPAL, size=16)
        self.go(64)

    def go(self, count: int) -> None:
        for outcome in self.pool.map([_ECHO] * count, ordered=False):
            _check(outcome.check().stdout == b"hello\n")

    def quit(self) -> None:
        self.pool.close()


class _Connects(Action):
    def go(self, count: int) -> None:
        for _ in range(count):
            _check(remctl.remctl(_HOST, _PORT, _PRINCIPAL, _ECHO).stdout == b"hello\n")


class _Noops(_Session):
    def go(self, count: int) -> None:
        noop = self.session.noop
        for _ in range(count):
            noop()


class _Stream(_Session):
    """COUNT octets of output, read token by token and discarded."""

    def go(self, count: int) -> None:
        octets = 0
        for token in self.session.stream(_zeros(count)):
            if token.output is not None:
                octets += len(token.output)
        _check(octets == count)


class _Keep(_Session):
    """COUNT octets of output, kept in a result."""

    def go(self, count: int) -> None:
        stdout = self.session.run(_zeros(count)).stdout
        _check(stdout is not None and len(stdout) == count)


class _Save(_Session):
    """Output of that many octets, written to a file."""

    def go(self, count: int) -> None:
        with tempfile.TemporaryFile() as file:
            self.session.run(_zeros(count), stdout=file).check()
            _check(file.tell() == count)


class _SimpleKeep(Action):
    """Output of that many octets, by the simple interface."""

    def prepare(self) -> None:
        remctl.remctl(_HOST, _PORT, _PRINCIPAL, _ECHO)

    def go(self, count: int) -> None:
        stdout = remctl.remctl(_HOST, _PORT, _PRINCIPAL, _zeros(count)).stdout
        _check(stdout is not None and len(stdout) == count)


class _SimpleSave(_SimpleKeep):
    """COUNT octets of output, by the simple interface, written to a file."""

    def go(self, count: int) -> None:
        with tempfile.TemporaryFile() as file:
            remctl.remctl(_HOST, _PORT, _PRINCIPAL, _zeros(count), stdout=file).check()
            _check(file.tell() == count)


class _Upload(_Session):
    """COUNT octets for a command's standard input, created on the first call."""

    payload = b""

    def go(self, count: int) -> None:
        if len(self.payload) != count:
            self.payload = b"x" * count
        result = self.session.run(("count", "-c"), input=self.payload).check()
        _check(result.stdout_text().strip() == str(count))


class _Sessions(Action):
    """COUNT sessions, all open at the same time; they stay open."""

    def __init__(self) -> None:
        self.sessions: list[remctl.Remctl] = []

    def prepare(self) -> None:
        remctl.remctl(_HOST, _PORT, _PRINCIPAL, _ECHO)

    def go(self, count: int) -> None:
        self.sessions += [_open() for _ in range(count)]
        for session in self.sessions:
            _check(session.run(_ECHO).stdout == b"hello\n")

    def quit(self) -> None:
        for session in self.sessions:
            session.close()


class _Waiting(_Sessions):
    """COUNT more sessions, each of which waits for a command in its own thread."""

    def go(self, count: int) -> None:
        for _ in range(count):
            session = _open()
            self.sessions.append(session)
            session.command(("sleep", "600"))
            threading.Thread(target=_wait, args=(session,), daemon=True).start()


def _wait(session: remctl.Remctl) -> None:
    with contextlib.suppress(remctl.RemctlError):  # It is closed at the end.
        session.output()


class _Threads(Action):
    """640 commands, divided among COUNT threads with a session each."""

    def prepare(self) -> None:
        self.sessions = [_open() for _ in range(64)]

    def go(self, count: int) -> None:
        self.side_by_side(count, lambda session: _repeat(session, 640 // count))

    def side_by_side(self, count: int, function: Callable[[remctl.Remctl], None]) -> None:
        threads = [
            threading.Thread(target=function, args=(session,)) for session in self.sessions[:count]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def quit(self) -> None:
        for session in self.sessions:
            session.close()


class _Waits(_Threads):
    """All threads at once, each with one command that sleeps COUNT milliseconds."""

    def go(self, count: int) -> None:
        self.side_by_side(64, lambda session: _sleep(session, count / 1000))


def _sleep(session: remctl.Remctl, seconds: float) -> None:
    session.run(("sleep", str(seconds))).check()


if __name__ == "__main__":
    serve(
        {
            "commands": _Commands,
            "refused": _Refused,
            "pool": _Pool,
            "connects": _Connects,
            "noops": _Noops,
            "stream": _Stream,
            "keep": _Keep,
            "save": _Save,
            "simple-keep": _SimpleKeep,
            "simple-save": _SimpleSave,
            "upload": _Upload,
            "sessions": _Sessions,
            "waiting": _Waiting,
            "threads": _Threads,
            "waits": _Waits,
        }
    )
