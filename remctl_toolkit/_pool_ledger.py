"""Bookkeeping of pools, without I/O: sessions that are lent or idle, and waiting callers."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar
from weakref import WeakSet

import remctl

_CHECK_AFTER = 30.0  # seconds of idleness after which a session is checked before it is lent
_OPEN_ATTEMPTS = 4
_OPEN_DELAY = 0.1  # seconds, at least, before the second attempt; doubled for each further one


class Session(Protocol):
    """The sessions of both kinds of pools; with asyncio, methods return awaitables."""

    @property
    def opened(self) -> bool: ...
    @property
    def open(self) -> Callable[..., Any]: ...
    @property
    def close(self) -> Callable[[], Any]: ...
    @property
    def noop(self) -> Callable[..., Any]: ...
    @property
    def output(self) -> Callable[[], Any]: ...
    def missing(self) -> int: ...
    def set_timeout(self, timeout: float) -> None: ...


S = TypeVar("S", bound=Session)


class PoolStats(NamedTuple):
    """The state of a pool at one moment.

    Attributes:
        idle: sessions that are open and free.
        in_use: sessions that are lent, or being opened.
        waiting: callers that wait for a session.
        opened: sessions opened since the pool was made, replacements included.
    """

    idle: int
    in_use: int
    waiting: int
    opened: int


class Gate(Protocol):
    """An event for one waiting caller; `wait()` resets it."""

    @property
    def set(self) -> Callable[[], object]: ...
    @property
    def clear(self) -> Callable[[], object]: ...
    @property
    def wait(self) -> Callable[[float | None], Any]: ...


class ThreadGate:
    """A gate for a thread.  Unlike an Event, a destructor can open it at any moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Open it."""
        with contextlib.suppress(RuntimeError):  # It was open already.
            self._lock.release()

    def clear(self) -> None:
        """Close it again."""
        self._lock.acquire(blocking=False)

    def wait(self, seconds: float | None) -> bool:
        """Wait until it is open, and close it; return False if the time is over first."""
        if seconds is None:
            return self._lock.acquire()
        return self._lock.acquire(timeout=min(max(seconds, 0.0), threading.TIMEOUT_MAX))


class Lease(Generic[S]):
    """One caller's claim to a session: it waits, then has a session or a place to open one."""

    def __init__(self, ledger: Ledger[S], gate: Gate) -> None:
        self.session: S | None = None
        self.gate = gate  # opened when the caller should look at the lease
        self.granted = False
        self.opening = False
        self.stale = False  # the session should be checked
        self.cancelled = False
        self.finished = False  # the caller knows that no command is running
        self._ledger = ledger

    def __del__(self) -> None:
        # Ctrl-C can prevent a caller from returning its lease: then this frees the place.
        if self.granted:
            self._ledger.forget(self)


class Ledger(Generic[S]):
    """The sessions of a pool.

    A destructor may close a pool at any moment, even in the middle of these methods.  So the lock
    is reentrant, closing changes none of the collections, and callers of a method check `closed`
    afterwards.  Ctrl-C may interrupt a method anywhere: the next call repairs the state.

    Args:
        size: the maximum number of sessions.
        parallel_opens: the maximum number of sessions to open at the same time.
        max_idle: seconds after which an idle session is closed.

    Attributes:
        closed: whether `close()` was called.
        clock: a function that returns the time in seconds.
    """

    def __init__(self, size: int, parallel_opens: int, max_idle: float) -> None:
        self.size = size
        self.closed = False
        self.clock = time.monotonic
        self._parallel_opens = parallel_opens
        self._max_idle = max_idle
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._idle: deque[tuple[S, float]] = deque()
        self._lent: WeakSet[Lease[S]] = WeakSet()
        self._queue: deque[Lease[S]] = deque()
        self._opened = 0
        self._reachable = False  # whether the latest open succeeded
        self._pid = os.getpid()

    @property
    def lock(self) -> threading.RLock:
        """The lock.  A forked child gets an empty ledger with it: the sessions are the parent's."""
        if self._pid != os.getpid():
            self._reset()
        return self._lock

    def stats(self) -> PoolStats:
        """Count sessions and callers."""
        with self.lock:
            return PoolStats(len(self._idle), len(self._lent), len(self._queue), self._opened)

    def request(self, lease: Lease[S]) -> list[S]:
        """Put a lease at the end of the queue; return sessions that were idle for too long."""
        with self.lock:
            expired = self._take_expired()
            self._queue.append(lease)
            self._grant()
        return expired

    def replace(self, lease: Lease[S]) -> None:
        """Put a lease whose session is broken at the head of the queue."""
        with self.lock:
            lease.session, lease.granted = None, False
            self._lent.discard(lease)
            self._queue.appendleft(lease)
            self._grant()

    def _grant(self) -> None:
        """Give idle sessions, and places for new ones, to the leases that have waited longest."""
        while self._queue:
            lease = self._queue[0]
            if lease not in self._lent:
                if self._idle:
                    lease.session, since = self._idle.pop()
                    lease.stale = self.clock() - since >= _CHECK_AFTER
                elif len(self._lent) < self.size and self._count_opening() < self._parallel_opens:
                    lease.opening = True
                else:
                    return
                self._lent.add(lease)
            lease.granted = True
            lease.gate.set()
            self._queue.popleft()

    def _count_opening(self) -> int:
        return sum(lease.opening for lease in self._lent)

    def note_opened(self, lease: Lease[S]) -> None:
        """Record that a session was opened, so that the next one may be."""
        with self.lock:
            lease.opening = False
            self._opened += 1
            self._reachable = True
            self._grant()

    def delay_after(self, error: remctl.RemctlError, attempt: int) -> float | None:
        """Return the seconds before the next attempt to open; None if there must be none.

        Never retry the very first connection: its error is the diagnosis.  Never retry after a
        timeout.  Other failures may mean that the server was busy, so they are retried; but when
        all attempts have failed, only after another connection has succeeded.
        """
        if not isinstance(error, remctl.RemctlProtocolError):
            return None
        silent = isinstance(error, remctl.RemctlTimeoutError)
        if self._reachable and not silent and attempt < _OPEN_ATTEMPTS:
            return float(random.uniform(1, 4) * _OPEN_DELAY * 2 ** (attempt - 1))
        self._reachable = False
        return None

    def release(self, lease: Lease[S], keep: bool) -> list[S]:
        """Take back a lease; return the sessions that the caller has to close."""
        with self.lock:
            keep = keep and lease in self._lent  # A lease of the parent process is not.
            session, lease.session = lease.session, None
            if session is not None and keep:
                self._idle.append((session, self.clock()))
            self.forget(lease)
            surplus = self._take_expired()
            if session is not None and (self.closed or not keep):
                surplus.append(session)
        return surplus

    def forget(self, lease: Lease[S]) -> None:
        """Free the place of a lease."""
        with self.lock:
            lease.opening = False
            if lease in self._queue:
                self._queue.remove(lease)
            self._lent.discard(lease)
            self._grant()
            lease.granted = False  # Last: if Ctrl-C comes first, the destructor repeats all this.

    def _take_expired(self) -> list[S]:
        expired = []
        while self._idle and self.clock() - self._idle[0][1] >= self._max_idle:
            expired.append(self._idle.popleft()[0])
        return expired

    def close(self) -> tuple[list[S], list[Lease[S]]]:
        """Stop lending; return the idle sessions and all leases."""
        self.closed = True
        with self.lock:
            return [session for session, _ in self._idle], [*self._lent, *self._queue]

    def cancel(self, lease: Lease[S]) -> S | None:
        """Mark a lease as cancelled and wake its holder; return its session, or None."""
        with self.lock:
            lease.cancelled = True
            lease.gate.set()
            return lease.session
