"""Where tickets are put: the credential caches, each kind renewed without a gap for its readers.

A cache is given a function that fetches tickets into a cache by name, and answers with the
`Tickets` that are there then.  The tickets before stay good for those who use them.
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

# Fetches tickets into the cache of that name, where nobody looks yet; returns when they end.
Fetch = Callable[[str], float]

# Without it, MIT's library would use the client keytab of the system for what it is asked.
EMPTY_KEYTAB = "MEMORY:remctl-none"

_COLLECTIONS = ("DIR", "KCM", "KEYRING", "API")
_KINDS = ("FILE", "MEMORY", *_COLLECTIONS)


class Tickets(NamedTuple):
    """Tickets that were got.

    Attributes:
        ccache: the name of their credential cache.
        since: when they were got, in seconds since the epoch.
        until: when they end.
    """

    ccache: str
    since: float
    until: float


class EndedError(Exception):
    """The tickets in a cache have ended."""


class _Names:
    """The names of caches in memory, for using them again when their tickets have ended.

    Nothing in GSS-API removes a cache: with ever new names, memory would grow.  A cache whose
    tickets have ended is of no use to anybody who may still be reading it.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()  # A cache that is garbage may be given back anywhere.
        self._used: dict[str, list[tuple[float, str]]] = {}
        self._count = 0

    def take(self, owner: str) -> str:
        """Return a name; what the cache has, if anything, are ended tickets of that owner."""
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
        """Say that a name is not needed after that time."""
        with self.lock:
            self._used.setdefault(owner, []).append((until, name))


_names = _Names()


def _forget_lock() -> None:
    _names.lock = threading.RLock()


os.register_at_fork(after_in_child=_forget_lock)


class MemoryCache:
    """Private caches in this process's memory, one after the other."""

    name = "MEMORY:"

    def __init__(self, owner: str) -> None:
        """Have none yet.

        Args:
            owner: tells apart whose tickets are fetched, and how.
        """
        self._owner = owner
        self._now: list[Tickets] = []
        weakref.finalize(self, _give_back_all, owner, self._now).atexit = False

    def renew(self, fetch: Fetch) -> Tickets:
        """Fetch tickets into another cache than that of the present ones."""
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
            # MIT's library found the cache used, failed to renew it, and does not say why.
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
        """Whether the cache is still there; nobody else can remove it."""
        return True


def _give_back_all(owner: str, tickets: list[Tickets]) -> None:
    for each in tickets:
        _names.give_back(owner, each.ccache, each.until)


def _fetched(fetch: Fetch, name: str) -> Tickets:
    since = time.time()
    return Tickets(name, since, fetch(name))


class FileCache:
    """A file: replaced at once by another, so that its readers see whole ones only."""

    def __init__(self, path: str) -> None:
        """Check that a file can be put there.

        Raises:
            ValueError: it cannot.
        """
        folder = os.path.dirname(path)
        if os.path.isdir(path):
            raise ValueError(f"ccache {path} is a folder: name a file in it")
        if not os.path.isdir(folder):
            raise ValueError(f"ccache {path}: there is no folder {folder}: make it first")
        if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
            raise ValueError(f"ccache {path}: {folder} is not writable: name another folder")
        self._path = path
        self.name = f"FILE:{path}"

    def renew(self, fetch: Fetch) -> Tickets:
        """Fetch tickets into a new file, and put it in place of the old one."""
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
        """Whether nobody has removed it."""
        return os.path.exists(self._path)


class CollectionCache:
    """A cache of a collection (DIR, KCM, KEYRING, API), kept by the Kerberos library."""

    def __init__(self, name: str, owner: str) -> None:
        """Name the collection, in which there may be caches of other principals."""
        self.name = name
        self._memory = MemoryCache(owner)

    def renew(self, fetch: Fetch) -> Tickets:
        """Fetch tickets, and store them over those of the same principal; that makes it primary."""
        tickets = self._memory.renew(fetch)
        _store_tickets(tickets.ccache, self.name, set_default=True)
        return tickets._replace(ccache=self.name)

    def exists(self) -> bool:
        """Whether it is there, as far as that is known."""
        return True


Cache = MemoryCache | FileCache | CollectionCache


def end_of(ccache: str) -> float:
    """Return when the tickets in a cache end.

    Raises:
        EndedError: they have.
        gssapi.exceptions.GSSError: there are none.
    """
    until = find_tickets(ccache)[2]
    if until is None or until <= time.time():
        raise EndedError("they had ended when they came: do the clocks differ?")
    return until


def _store_tickets(source: str, target: str, *, set_default: bool = False) -> None:
    """Copy the tickets of one credential cache into another."""
    found = gssapi.Credentials(
        usage="initiate", store={"ccache": source, "client_keytab": EMPTY_KEYTAB}
    )
    found.store(store={"ccache": target}, usage="initiate", overwrite=True, set_default=set_default)


def make_cache(ccache: str | os.PathLike[str] | None, owner: str) -> Cache:
    """Return the cache that is meant.

    Args:
        ccache: its name or path; None or "MEMORY:" is a private one in memory.
        owner: tells apart whose tickets are fetched, and how.

    Raises:
        TypeError, ValueError: there is none of that name.
    """
    if ccache is None:
        return MemoryCache(owner)
    name = _core.check_ccache(ccache)
    kind, colon, rest = name.partition(":")
    if not colon or "/" in kind:
        return FileCache(os.path.abspath(name))
    if kind not in _KINDS:
        raise ValueError(
            f"ccache {name!r} is of an unknown kind: it begins with none of"
            f" {', '.join(f'{known}:' for known in _KINDS)}"
        )
    if kind == "MEMORY":
        if rest:
            raise ValueError(
                f"ccache {name!r}: caches in memory get their names here; leave it out, and ask"
                " ccache() for the name"
            )
        return MemoryCache(owner)
    if kind == "FILE":
        return FileCache(os.path.abspath(rest)) if rest else _refuse_nameless(name)
    if rest.startswith(":"):
        raise ValueError(f"ccache {name!r} is one of a collection: name the collection")
    if kind == "KEYRING" and rest.startswith(("thread:", "process:")):
        raise ValueError(
            f"ccache {name!r} is for one thread only: name a session, user or persistent keyring"
        )
    return CollectionCache(name, owner)


def _refuse_nameless(name: str) -> FileCache:
    raise ValueError(f"ccache {name!r} names no file")
