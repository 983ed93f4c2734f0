"""Work for two sessions of a connection at once: what bounds one is a core, here or there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import remctl

from ..base.connection import Connection

__all__ = ["Lanes"]

T = TypeVar("T")

_MOST = 2


class Lanes(Generic[T]):
    """Takes work from one thread, and does it in up to two others, each with its own session.

    The second is there for speed only: it is made when the first has not kept up, and if it cannot
    have a session, the first does all.
    """

    def __init__(self, connection: Connection, do: Callable[[remctl.Remctl, T], object]) -> None:
        """Start nothing.

        Args:
            do: what is to be done with a session and one piece of work.
        """
        self._connection = connection
        self._do = do
        self._changed = threading.Condition()
        self._item: T | None = None  # handed over, and not taken yet
        self._sessions: set[remctl.Remctl] = set()  # in use: they may be closed
        self._started = self._idle = 0
        self._held = 0  # sessions that are not given back yet
        self._done: list[T] = []
        self._error: Exception | None = None
        self._ending = False

    # For the thread that has the work.

    def hand(self, item: T) -> None:
        """Hand over one piece of work, and wait until a session takes it.

        Raises:
            Exception: what an earlier one, or the opening of the first session, raised.
        """
        with self._changed:
            self._item = item
            if not self._idle and self._started < _MOST:
                self._started += 1
                name = f"remctl-transfer-{self._started}"
                threading.Thread(target=self._lane, name=name, daemon=True).start()
            self._changed.notify_all()
            self._wait(lambda: self._item is None)

    def done(self) -> list[T]:
        """Return what was done since this was asked last."""
        with self._changed:
            done, self._done = self._done, []
            return done

    def end(self) -> None:
        """Wait until all is done and the sessions are given back.

        Raises:
            Exception: see `hand()`.
        """
        with self._changed:
            self._ending = True
            self._changed.notify_all()
            self._wait(lambda: not self._held)

    def stop(self) -> None:
        """Close the sessions, whatever they are doing, and wait until they are let go."""
        with self._changed:
            self._ending, self._item = True, None
            self._changed.notify_all()
            for session in self._sessions:
                session.close()
            self._changed.wait_for(lambda: not self._held)

    def _wait(self, condition: Callable[[], bool]) -> None:
        self._changed.wait_for(lambda: self._error is not None or condition())
        if self._error is not None:
            raise self._error

    # For the threads that do it.

    def _lane(self) -> None:
        held = False
        try:
            with self._connection.session() as session:
                with self._changed:
                    # A session that comes too late is given back, and nobody waits for it.
                    if self._ending:
                        return
                    held = True
                    self._held += 1
                    self._sessions.add(session)
                self._work(session)
        except Exception as error:
            with self._changed:
                dispensable = not held and self._held
                no_session = isinstance(error, remctl.RemctlError)
                if self._error is None and not (dispensable and no_session):
                    self._error = error
        finally:
            with self._changed:
                self._held -= held
                self._changed.notify_all()

    def _work(self, session: remctl.Remctl) -> None:
        try:
            while (item := self._next()) is not None:
                self._do(session, item)
                with self._changed:
                    self._done.append(item)
        finally:
            with self._changed:  # As soon as it is given back, it may be another's.
                self._sessions.discard(session)

    def _next(self) -> T | None:
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._item is not None or self._ending)
            self._idle -= 1
            item, self._item = self._item, None
            self._changed.notify_all()
            return item
