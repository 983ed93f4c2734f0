"""Renew tickets on demand and ahead of time, one request at a time, and retry after failures."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

from gssapi.raw.misc import GSSError

import remctl
from _remctl_hints import describe_tickets, find_tickets
from _remctl_text import printable

from ._caches import Tickets

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from ._caches import Cache

__all__ = ["RenewedCredentials", "minor_text"]

_logger = logging.getLogger("remctl")

_RENEWED_LEFT = 1 / 3  # renew when this part of the lifetime is left
_PATIENCE = 0.25  # seconds that an open waits for new tickets while the old ones are valid
_LATE_LEFT = 1 / 10  # an open waits longer when less than this part of the lifetime is left...
_LATE_SECONDS = 30  # ...and less than these seconds, so that tickets do not expire on the way
_FIRST_PAUSE = 1.0  # seconds between the first two attempts; each later pause is doubled...
_LAST_PAUSE = 60.0  # ...up to this many seconds...
_PAUSES_LEFT = 4  # ...and up to the remaining lifetime divided by this
_SHORTEST_PAUSE = 0.05
_LONGEST_WAIT = 30.0  # seconds between two looks at the clock, which may be set

_Reason = tuple[str, str | None]


class _Attempt:
    """One request for new tickets, shared by all threads that wait for it."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.reason: _Reason | None = None


class RenewedCredentials(remctl.RemctlCredentials):
    """Renewed tickets: base class of the credentials in this package.

    Any number of threads may share one object.  A forked child may use it, too, and gets its own
    tickets when the inherited ones expire; the thread of `start()` does not run in the child.

    Attributes:
        principal: the principal of the tickets, with the realm.
    """

    principal: str

    _source = ""  # Source of the tickets, for messages.
    _asks_user = False  # If True, the caller's thread gets tickets, and never ahead of time.

    def __init__(self, principal: str, cache: Cache) -> None:
        self.principal = principal
        self._cache = cache
        self._tickets: Tickets | None = None
        self._stop: threading.Event | None = None
        self._forget_threads()
        _all.add(self)

    def _forget_threads(self) -> None:
        self._lock = threading.Lock()
        self._attempt: _Attempt | None = None
        self._failures = 0
        self._not_before = 0.0  # on the monotonic clock
        self._stop = None

    # The public interface

    def ccache(self) -> str:
        """Return the name of a credential cache with valid tickets.

        With valid tickets, this waits only briefly, even if a renewal is due and no KDC answers.
        Otherwise it waits for new ones.

        Raises:
            remctl.RemctlAuthenticationError: the tickets have expired and cannot be renewed.
        """
        reason = None
        seen = self._tickets
        left = self._left()
        if left <= 0:
            reason = self._wait(None, instead_of=seen)
        elif self._is_due(left) and not self._is_pausing():
            patience = left / 2 if self._is_late(left) else _PATIENCE
            self._wait(patience, instead_of=seen)
        tickets = self._tickets
        if tickets is None or self._left() <= 0:
            raise self._refusal(reason)
        return tickets.ccache

    def renew(self) -> None:
        """Get new tickets now, even if the current ones are valid.

        Raises:
            remctl.RemctlAuthenticationError: no tickets could be obtained.
        """
        reason = self._wait(None, instead_of=self._tickets)
        if reason is not None:
            raise self._refusal(reason)

    def start(self) -> None:
        """Get tickets now, and renew them in a thread until `close()`.

        Use it for caches that other programs read: without it, tickets are renewed only when
        `ccache()` is called.  ``with`` does the same.  Calling it again does nothing.

        Raises:
            remctl.RemctlAuthenticationError: no tickets could be obtained.
        """
        if self._stop is not None:
            return
        self.ccache()
        if self._asks_user:
            return
        self._stop = threading.Event()
        arguments = (weakref.ref(self), self._stop)
        threading.Thread(target=_keep, args=arguments, name="remctl-tickets", daemon=True).start()

    def close(self) -> None:
        """End the thread of start(); the tickets stay in the cache, and `ccache()` still works."""
        stop, self._stop = self._stop, None
        if stop is not None:
            stop.set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "no tickets yet"
        tickets = self._tickets
        if tickets is not None:
            state = describe_tickets(self.principal, tickets.ccache, tickets.until)
        return f"<{type(self).__name__} {self.principal} {self._source}: {state}>"

    # The state of the tickets

    def _left(self) -> float:
        """Return for how many seconds the tickets are valid; 0 or less if there are none."""
        if self._tickets is None or not self._cache.exists():
            return 0.0
        return self._tickets.until - time.time()

    def _life(self) -> float:
        return 0.0 if self._tickets is None else self._tickets.until - self._tickets.since

    def _is_due(self, left: float) -> bool:
        return not self._asks_user and left <= self._life() * _RENEWED_LEFT

    def _is_late(self, left: float) -> bool:
        return left <= min(self._life() * _LATE_LEFT, _LATE_SECONDS)

    def _is_pausing(self) -> bool:
        return time.monotonic() < self._not_before

    def _next_look(self) -> float:
        """Return the seconds until a renewal may be due."""
        due = self._left() - self._life() * _RENEWED_LEFT
        pause = self._not_before - time.monotonic()
        return min(max(due, pause, 0.0), _LONGEST_WAIT)

    # Getting tickets

    def _fetch(self, ccache: str) -> float:
        """Get tickets from the KDC into a credential cache, and return their expiry.

        Raises:
            GSSError, remctl.RemctlError: no tickets could be obtained.
            OSError: the tickets could not be stored.
        """
        raise NotImplementedError

    def _wait(self, patience: float | None, *, instead_of: Tickets | None) -> _Reason | None:
        """Request new tickets, or join a pending request; return the reason of its failure."""
        with self._lock:
            if self._tickets is not instead_of:  # Another thread renewed them.
                return None
            attempt = self._attempt
            mine = attempt is None
            if attempt is None:
                attempt = self._attempt = _Attempt()
        if mine and self._asks_user:
            self._run(attempt)
        elif mine:
            try:
                threading.Thread(
                    target=self._run, args=(attempt,), name="remctl-new-tickets", daemon=True
                ).start()
            except RuntimeError:  # No more threads can be started.
                self._run(attempt)
        attempt.over.wait(patience)
        return attempt.reason

    def _run(self, attempt: _Attempt) -> None:
        try:
            tickets = self._cache.renew(self._fetch)
        except BaseException as error:
            attempt.reason = _reason(error)
            self._note_failure(attempt.reason)
            if not isinstance(error, Exception):
                raise
        else:
            self._note_success(tickets)
        finally:
            with self._lock:
                if self._attempt is attempt:
                    self._attempt = None
            attempt.over.set()

    def _note_success(self, tickets: Tickets) -> None:
        self._tickets = tickets
        self._failures = 0
        self._not_before = 0.0
        _logger.debug("got %s", describe_tickets(self.principal, *tickets[::2]))

    def _note_failure(self, reason: _Reason) -> None:
        if self._left() <= 0:
            self._adopt()
        left = self._left()
        pause = min(_FIRST_PAUSE * 2**self._failures, _LAST_PAUSE)
        if left > 0:
            pause = min(pause, max(left / _PAUSES_LEFT, _SHORTEST_PAUSE))
        self._failures = min(self._failures + 1, 10)
        self._not_before = time.monotonic() + pause
        # If no tickets are left and no thread renews them, ccache() raises the reason.
        level = logging.WARNING if left > 0 or self._stop is not None else logging.DEBUG
        _logger.log(
            level,
            "no new tickets for %s %s: %s; %s",
            self.principal,
            self._source,
            reason[0],
            f"the old ones are valid for {left:.0f} s" if left > 0 else "there are no others",
        )

    def _adopt(self) -> None:
        """Use tickets that are already in a shared cache, if they are valid."""
        if self._cache.name == "MEMORY:":
            return
        try:
            principal, _, until = find_tickets(self._cache.name)
        except GSSError:
            return
        if principal == self.principal and until is not None and until > time.time():
            self._tickets = Tickets(self._cache.name, time.time(), until)

    def _refusal(self, reason: _Reason | None) -> remctl.RemctlAuthenticationError:
        """Return the exception to raise without valid tickets."""
        why, cure = reason or ("they expired too soon", None)
        text = f"no tickets for {self.principal} {self._source}: {why}"
        error = remctl.RemctlAuthenticationError(text)
        if cure is not None:
            error.add_note(cure)
        tickets = self._tickets
        if tickets is None:
            error.add_note(f"there were no earlier tickets of {self.principal}")
        else:
            error.add_note(describe_tickets(self.principal, tickets.ccache, tickets.until))
        return error


def _keep(reference: weakref.ref[RenewedCredentials], stop: threading.Event) -> None:
    """Renew tickets until `stop` is set, or the credentials are garbage."""
    pause = 0.0
    while not stop.wait(max(pause, _SHORTEST_PAUSE)):
        credentials = reference()
        if credentials is None:
            return
        if credentials._is_due(credentials._left()) and not credentials._is_pausing():
            credentials._wait(_LONGEST_WAIT, instead_of=credentials._tickets)
        pause = credentials._next_look()
        del credentials


# -- Reasons of failures --------------------------------------------------------------------------

# Part of Kerberos' message, and the cure.
_CURES = (
    (
        "Preauthentication failed",
        "the KDC has another key: the password is wrong, or the keytab out of date (extract it"
        " anew)",
    ),
    (
        "Decrypt integrity check failed",
        "the KDC has another key: the password is wrong, or the keytab out of date (extract it"
        " anew)",
    ),
    ("not found in Kerberos database", "the KDC does not know this principal: was it deleted?"),
    ("Cannot contact any KDC", "no KDC answers: it is down, or the network does not reach it"),
    (
        "Cannot find KDC for realm",
        "neither krb5.conf ([realms]) nor DNS names a KDC of this realm: check its name",
    ),
    ("Clock skew too great", "the clocks of this host and the KDC differ: set them"),
    (
        "Failed to store credentials",
        "the cache cannot be written: check that its directory exists, is writable and not full",
    ),
    (
        "can't fulfill requested option",
        "the KDC does not let the service act for others: see ok_to_auth_as_delegate and the"
        " principals that it may delegate to",
    ),
)


def minor_text(error: GSSError) -> str:
    """Return Kerberos' own message, without the text that GSS-API adds."""
    return printable("; ".join(error.get_all_statuses(error.min_code, False)))


def _reason(error: BaseException) -> _Reason:
    """Return the text of a failure, and its cure; None if the cure is unknown."""
    text = printable(str(error))
    if isinstance(error, GSSError):
        text = minor_text(error)
    notes = getattr(error, "__notes__", None)
    if notes:
        return text, notes[0]
    return text or repr(error), next((cure for part, cure in _CURES if part in text), None)


# -- Forks ----------------------------------------------------------------------------------------

_all: weakref.WeakSet[RenewedCredentials] = weakref.WeakSet()


def _forget_all_threads() -> None:
    for credentials in tuple(_all):
        credentials._forget_threads()


os.register_at_fork(after_in_child=_forget_all_threads)
