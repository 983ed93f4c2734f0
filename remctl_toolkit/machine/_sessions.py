"""The sessions of a connection: opened when they are needed, and kept for the next command."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Generator
from typing import Any

import remctl

from .errors import ClosedError, MachineError

_PARALLEL_OPENS = 4  # A remctld without systemd listens with a backlog of 5.
_ATTEMPTS = 4
_FRESH = 30.0  # seconds after which a session that waited is asked whether it is still there


class Sessions:
    """Sessions with one machine, for any number of threads.

    Args:
        host, port, principal: see `remctl.Remctl.open()`.
        settings: the keyword arguments of `remctl.Remctl`, with a timeout.

    Attributes:
        closed: whether `close()` was called.
    """

    def __init__(
        self,
        host: str,
        port: int | str | None,
        principal: str | None,
        settings: dict[str, Any],
    ) -> None:
        self.host = host
        self.port = port
        self.closed = False
        self.principal = principal
        self._settings = settings
        self._peer: tuple[str, int] | None = None  # where the first session found the machine
        self._forget()

    def _forget(self) -> None:
        # Of one thread, as a __del__ that closes all may come in between.
        self._lock = threading.RLock()
        self._opening = threading.BoundedSemaphore(_PARALLEL_OPENS)
        self._idle: list[tuple[remctl.Remctl, float]] = []
        self._used: set[remctl.Remctl] = set()
        self._pid = os.getpid()

    def _leave_to_parent(self) -> None:
        """In a forked child, let go of what is the parent's: the lock may be held for ever."""
        if self._pid != os.getpid():
            self._forget()

    @contextlib.contextmanager
    def session(self) -> Generator[remctl.Remctl]:
        """Have a session for oneself; see `Connection.session()`."""
        session = self._take()
        try:
            yield session
        except BaseException:
            self._discard(session)
            raise
        self._give_back(session)

    def _take(self) -> remctl.Remctl:
        self._leave_to_parent()
        while True:
            with self._lock:
                self.check_open()
                if not self._idle:
                    break
                session, since = self._idle.pop()
                self._used.add(session)
            if time.monotonic() - since < _FRESH or _answers(session):
                return session
            self._discard(session)
        return self._open()

    def check_open(self) -> None:
        """Check that it was not closed.

        Raises:
            ClosedError: it was.
        """
        if self.closed:
            raise self.named(ClosedError(f"the connection to {self.host} was closed"))

    def _open(self) -> remctl.Remctl:
        with self._opening:
            for attempt in range(1, _ATTEMPTS + 1):
                session = remctl.Remctl(**self._settings)
                session._address, port = self._peer or (None, self.port)
                with self._lock:
                    self.check_open()
                    self._used.add(session)
                try:
                    session.open(self.host, port, self.principal)
                except BaseException as error:
                    self._discard(session)
                    if attempt == _ATTEMPTS or not self._may_be_busy(error):
                        raise
                    # Not all that were turned away at once come again at once.
                    time.sleep((1 + os.urandom(1)[0] / 85) * 0.05 * 2**attempt)
                    continue
                if self._peer is None:
                    self._peer = _peer_of(session)
                return session
        raise AssertionError("the last attempt either returns or raises")

    def _may_be_busy(self, error: BaseException) -> bool:
        """Whether an open that failed may do a little later."""
        # The first says what is wrong at once; later ones were right a moment ago.
        if self._peer is None or self.closed or isinstance(error, remctl.RemctlTimeoutError):
            return False  # What is silent for that long does not say that it has much to do.
        return isinstance(error, remctl.RemctlProtocolError)

    def _give_back(self, session: remctl.Remctl) -> None:
        try:
            clean = session.opened and session.missing() == 0 and session.output().type == "done"
        except remctl.RemctlError:
            clean = False
        if clean:
            with self._lock:
                if not self.closed:
                    session.set_timeout(self._settings["timeout"])
                    self._used.discard(session)
                    self._idle.append((session, time.monotonic()))
                    return
        self._discard(session)

    def _discard(self, session: remctl.Remctl) -> None:
        with self._lock:
            self._used.discard(session)
        session.close()

    def close(self) -> None:
        """Close them all; what runs in one ends with an exception."""
        self._leave_to_parent()
        with self._lock:
            self.closed = True
            sessions = [*self._used, *(session for session, _ in self._idle)]
            self._idle.clear()
        for session in sessions:
            session.close()

    def named(self, error: MachineError) -> MachineError:
        """Note in an exception which machine it is about, and return it."""
        error.host, error.port = self.host, remctl._check_port(self.port) or None
        return error


def _answers(session: remctl.Remctl) -> bool:
    try:
        return session.noop()
    except remctl.RemctlError:  # Nothing was sent by it: a new one will do.
        return False


def _peer_of(session: remctl.Remctl) -> tuple[str, int]:
    # The descriptor stays the session's.
    with socket.socket(fileno=os.dup(session.fileno())) as view:
        address, port = view.getpeername()[:2]
        return address, port
