"""Code that pools for threads and for asyncio share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Generic, TypeVar

import remctl

from ._pool_ledger import Lease, Ledger, PoolStats, S

T = TypeVar("T")

# An operation of either pool: it yields functions to call (or to await), and receives the results.
Steps = Generator[Callable[[], Any], Any, T]


class PoolTimeoutError(remctl.RemctlTimeoutError):
    """No session became free in time; nothing was sent."""


class PoolClosedError(remctl.RemctlNotOpenedError):
    """The pool is closed; or it was closed while this call waited for a session."""


class BasePool(Generic[S]):
    """The base class of pools for threads and for asyncio."""

    def __init__(
        self,
        host: str,
        port: int | str | None = None,
        principal: str | None = None,
        *,
        size: int = 4,
        max_wait: float | None = None,
        max_idle: float = 600.0,
        parallel_opens: int = 4,
        timeout: float | None = None,
        ccache: str | os.PathLike[str] | None = None,
        source_ip: str | None = None,
        credentials: remctl.RemctlCredentials | None = None,
        keepalive: float | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self._principal = principal
        self._settings: dict[str, Any] = {
            "timeout": timeout,
            "ccache": ccache,
            "source_ip": source_ip,
            "credentials": credentials,
            "keepalive": keepalive,
        }
        remctl.Remctl(**self._settings)  # checks them
        self._max_wait = None if max_wait is None else _check_seconds("max_wait", max_wait)
        self._ledger: Ledger[S] = Ledger(
            _check_count("size", size),
            _check_count("parallel_opens", parallel_opens),
            _check_seconds("max_idle", max_idle),
        )

    @property
    def closed(self) -> bool:
        """True once `close()` was called."""
        return self._ledger.closed

    @property
    def stats(self) -> PoolStats:
        """The current numbers of sessions and of waiting callers: a `PoolStats`."""
        return self._ledger.stats()

    def __repr__(self) -> str:
        now = self.stats
        state = "closed" if self.closed else f"{now.idle} idle, {now.in_use} in use"
        return f"<{type(self).__name__} {self.host}, size {self._ledger.size}, {state}>"

    def _named(self, error: remctl.RemctlError) -> remctl.RemctlError:
        error.host, error.port = self.host, int(self.port) if self.port else None
        return error

    def _closed_error(self) -> remctl.RemctlError:
        return self._named(PoolClosedError(f"the pool of sessions with {self.host} is closed"))

    def _check_open(self, lease: Lease[S] | None = None) -> None:
        if self.closed or (lease is not None and lease.cancelled):
            raise self._closed_error() from None

    def _timed_out(self, until: float, limit: float | None) -> remctl.RemctlError:
        why = "before the deadline" if _is_over(until) else f"in {limit:g} s"
        text = f"no session with {self.host} became free {why}"
        return self._named(PoolTimeoutError(f"{text} (size of the pool: {self._ledger.size})"))

    def _limit(self, timeout: float | None) -> float | None:
        return self._max_wait if timeout is None else _check_seconds("timeout", timeout)

    # Taking sessions and giving them back.

    def _new_session(self) -> S:
        raise NotImplementedError

    def _take(self, lease: Lease[S], limit: float | None, until: float) -> Steps[S]:
        """Wait for a session or a place; check the session, or open a new one.

        Args:
            lease: the lease that gets the session.
            limit: seconds to wait for a session or a place; None is for ever.
            until: when the whole call has to end, on the monotonic clock; 0 is never.
        """
        self._check_open()
        for expired in self._ledger.request(lease):
            yield expired.close
        ends = [until] if until else []
        if limit is not None:
            ends.append(time.monotonic() + limit)
        while True:
            while not lease.granted:
                self._check_open(lease)
                if not (yield partial(lease.gate.wait, seconds_left(min(ends, default=0.0)))):
                    raise self._timed_out(until, limit)
            session = lease.session
            if session is None:
                return (yield from self._open(lease, until))
            self._check_open(lease)
            if not lease.stale or (yield from _answers(session, until)):
                return session
            yield session.close
            self._ledger.replace(lease)

    def _open(self, lease: Lease[S], until: float) -> Steps[S]:
        attempt = 1
        while True:
            session = lease.session = self._new_session()
            lease.gate.clear()
            self._check_open(lease)
            try:
                where = self.host, self._port(), self._principal
                yield partial(session.open, *where, deadline=seconds_left(until))
                break
            except remctl.RemctlError as error:
                self._check_open(lease)
                delay = self._ledger.delay_after(error, attempt)
                if delay is None or _is_over(until):
                    raise
            left = seconds_left(until)
            yield partial(lease.gate.wait, delay if left is None else min(delay, left))
            attempt += 1
        self._ledger.note_opened(lease)
        return session

    def _port(self) -> int | str | None:
        return self.port

    def _is_ready(self, lease: Lease[S]) -> Steps[bool]:
        """Return whether a session can be lent again: it is open, and runs no command."""
        if lease.finished:
            return True
        session = lease.session
        try:
            if session is None or not session.opened or session.missing():
                return False
            if (yield session.output).type != "done":
                return False
        except remctl.RemctlError:
            return False
        session.set_timeout(self._settings["timeout"] or 0)
        return True


def _is_over(until: float) -> bool:
    return bool(until) and time.monotonic() >= until


def seconds_left(until: float) -> float | None:
    """Return the seconds until a deadline; None is for ever."""
    return max(until - time.monotonic(), 0.0) if until else None


def _answers(session: S, until: float) -> Steps[bool]:
    try:
        answer: bool = yield partial(session.noop, deadline=seconds_left(until))
    except remctl.RemctlError:  # No command was sent in it: another session will do.
        return False
    return answer


def _check_count(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
    return value


def _check_seconds(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not value >= 0:
        raise ValueError(f"{name} must not be negative, but is {value}")
    return value
