"""Credential caches, whose readers always find valid tickets during a renewal.

Each cache calls a function that fetches tickets into a cache by name, and returns the new
`Tickets`.  Readers of the old tickets can go on to use them.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable
from typing import NamedTuple

import gssapi

import _remctl_core as _core
from _remctl_hints import find_tickets

__all__ = ["EMPTY_KEYTAB", "Cache", "Tickets", "end_of", "make_cache"]

# Fetches tickets into the cache of that name, which nobody reads yet; returns their expiry.
Fetch = Callable[[str], float]

# Without it, MIT's library would use the system's client keytab.
EMPTY_KEYTAB = "MEMORY:remctl-none"

_COLLECTIONS = ("DIR", "KCM", "KEYRING", "API")
_KINDS = ("FILE", "MEMORY", *_COLLECTIONS)


class Tickets(NamedTuple):
    """Tickets in a cache.

    Attributes:
        ccache: the name of their credential cache.
        since: time of the request, in seconds since the epoch.
        until: expiry, in seconds since the epoch.
    """

    ccache: str
    since: float
    until: float


class EndedError(Exception):
    """The tickets in a cache have expired."""


class _Names:
    """Names of caches in memory, reused once their tickets have expired.

    GSS-API cannot remove a cache, so new names each time would leak memory.  Reusing a cache with
    expired tickets harms none of its readers.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()  # Finalizers may run in any thread, at any time.
        self._used: dict[str, list[tuple[float, str]]] = {}
        self._count = 0

    def take(self, owner: str) -> str:
        """Return a name whose cache does not exist or has only expired tickets of that owner."""
        now = time.time()
        with self.lock:
            used = self._used.get(owner, [])
            for entry in used:
                if entry[0] < now:
                    used.remove(entry)
                    return entry[1]
        return self.take_new()

    def take_new(self) -> str:
        """Return the name of a cache that does not exist."""
        with self.lock:
            self._count += 1
            return f"MEMORY:remctl-{os.getpid()}-{self._count}"

    def give_back(self, owner: str, name: str, until: float) -> None:
        """Allow the reuse of a name after that time."""
        with self.lock:
            self._used.setdefault(owner, []).append((until, name))


_names = _Names()


def _forget_lock() -> None:
    _names.lock = threading.RLock()


os.register_at_fork(after_in_child=_forget_lock)


class MemoryCache:
    """Private caches in this process's memory, a new one for each renewal."""

    name = "MEMORY:"

    def __init__(self, owner: str) -> None:
        """Start without a cache.

        Args:
            owner: key that identifies the principal and the source of the tickets.
        """
        self._owner = owner
        self._now: list[Tickets] = []
        weakref.finalize(self, _give_back_all, owner, self._now).atexit = False

    def renew(self, fetch: Fetch) -> Tickets:
        """Fetch tickets into another cache than the current one."""
        tickets = self._fetch_again(fetch)
        self._now.append(tickets)
        while len(self._now) > 1:
            old = self._now.pop(0)
            _names.give_back(self._owner, old.ccache, old.until)
        return tickets

    def _fetch_again(self, fetch: Fetch) -> Tickets:
        name = _names.take(self._owner)
        try:
            return _fetched(fetch, name)
        except EndedError:
            # MIT's library found the reused cache, failed to renew it, and does not say why.
            _names.give_back(self._owner, name, time.time())
            name = _names.take_new()
        except BaseException:
            _names.give_back(self._owner, name, 0)
            raise
        try:
            return _fetched(fetch, name)
        except BaseException:
            _names.give_back(self._owner, name, 0)
            raise

    def exists(self) -> bool:
        """Return True: nobody else can remove the cache."""
        return True


def _give_back_all(owner: str, tickets: list[Tickets]) -> None:
    for each in tickets:
        _names.give_back(owner, each.ccache, each.until)


def _fetched(fetch: Fetch, name: str) -> Tickets:
    since = time.time()
    return Tickets(name, since, fetch(name))


class FileCache:
    """A cache in a file, which each renewal replaces atomically."""

    def __init__(self, path: str) -> None:
        """Check that the file can be created or replaced.

        Raises:
            ValueError: the path is a directory, or its directory is missing or not writable.
        """
        folder = os.path.dirname(path)
        if os.path.isdir(path):
            raise ValueError(f"ccache {path} is a directory: name a file in it")
        if not os.path.isdir(folder):
            raise ValueError(f"ccache {path}: directory {folder} does not exist: create it first")
        if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
            raise ValueError(f"ccache {path}: directory {folder} is not writable: use another")
        self._path = path
        self.name = f"FILE:{path}"

    def renew(self, fetch: Fetch) -> Tickets:
        """Fetch tickets into a new file, and replace the old file with it."""
        new = f"{self._path}.{secrets.token_hex(8)}"
        try:
            tickets = _fetched(fetch, f"FILE:{new}")
            os.replace(new, self._path)
        except BaseException:
            if os.path.exists(new):
                os.unlink(new)
            raise
        return tickets._replace(ccache=self.name)

    def exists(self) -> bool:
        """Return whether the file still exists."""
        return os.path.exists(self._path)


class CollectionCache:
    """A cache in a collection (DIR, KCM, KEYRING, API) of the Kerberos library."""

    def __init__(self, name: str, owner: str) -> None:
        """Set the name of the collection, which may have caches of other principals."""
        self.name = name
        self._memory = MemoryCache(owner)

    def renew(self, fetch: Fetch) -> Tickets:
        """Fetch tickets, replace those of the same principal, and make them primary."""
        tickets = self._memory.renew(fetch)
        _store_tickets(tickets.ccache, self.name, set_default=True)
        return tickets._replace(ccache=self.name)

    def exists(self) -> bool:
        """Return True: a missing collection is not detected."""
        return True


Cache = MemoryCache | FileCache | CollectionCache


def end_of(ccache: str) -> float:
    """Return the expiry of the tickets in a cache.

    Raises:
        EndedError: they have expired.
        gssapi.exceptions.GSSError: there are no tickets.
    """
    until = find_tickets(ccache)[2]
    if until is None or until <= time.time():
        raise EndedError("they had expired on arrival: compare the clocks of this host and the KDC")
    return until


def _store_tickets(source: str, target: str, *, set_default: bool = False) -> None:
    """Copy the tickets of one credential cache into another."""
    found = gssapi.Credentials(
        usage="initiate", store={"ccache": source, "client_keytab": EMPTY_KEYTAB}
    )
    found.store(store={"ccache": target}, usage="initiate", overwrite=True, set_default=set_default)


def make_cache(ccache: str | os.PathLike[str] | None, owner: str) -> Cache:
    """Return the cache for a name.

    Args:
        ccache: name or path; None or "MEMORY:" means a private cache in memory.
        owner: key that identifies the principal and the source of the tickets.

    Raises:
        TypeError, ValueError: the name is invalid, or its type is not supported.
    """
    if ccache is None:
        return MemoryCache(owner)
    name = _core.check_ccache(ccache)
    kind, colon, rest = name.partition(":")
    if not colon or "/" in kind:
        return FileCache(os.path.abspath(name))
    if kind not in _KINDS:
        raise ValueError(
            f"ccache {name!r} has an unsupported type: use a path, or one of"
            f" {', '.join(f'{known}:' for known in _KINDS)}"
        )
    if kind == "MEMORY":
        if rest:
            raise ValueError(
                f"ccache {name!r}: names of caches in memory cannot be chosen: omit ccache=, and"
                " call ccache() to get the name"
            )
        return MemoryCache(owner)
    if kind == "FILE":
        return FileCache(os.path.abspath(rest)) if rest else _refuse_nameless(name)
    if rest.startswith(":"):
        raise ValueError(f"ccache {name!r} is part of a collection: name the whole collection")
    if kind == "KEYRING" and rest.startswith(("thread:", "process:")):
        raise ValueError(
            f"ccache {name!r} belongs to one thread or process: use a session, user or persistent"
            " keyring"
        )
    return CollectionCache(name, owner)


def _refuse_nameless(name: str) -> FileCache:
    raise ValueError(f"ccache {name!r} lacks the path of a file")
