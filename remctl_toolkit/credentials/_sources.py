"""Sources of tickets: a keytab, a password, delegation to a service, and anonymous PKINIT."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable
from typing import Any

import gssapi
from gssapi.raw.misc import GSSError

import remctl

from ._caches import EMPTY_KEYTAB, end_of, make_cache
from ._renewal import RenewedCredentials, minor_text

__all__ = [
    "AnonymousCredentials",
    "ImpersonatedCredentials",
    "KeytabCredentials",
    "PasswordCredentials",
]

_NO_SUCH_KEY = 39756033  # KG_KEYTAB_NOMATCH, of MIT's GSS-API library

_ANONYMOUS = "WELLKNOWN/ANONYMOUS"

# Kerberos' messages when no KDC has seen the password.
_NO_ANSWER = ("Cannot contact any KDC", "Cannot find KDC")

_NO_PKINIT_CURE = (
    "the KDC does not offer anonymous PKINIT, or this host lacks the plugin (Debian: krb5-pkinit)"
    " or the KDC's certificate (pkinit_anchors in krb5.conf)"
)


class KeytabCredentials(RenewedCredentials):
    """Tickets from a keytab, renewed as long as they are used; for daemons and cron jobs.

    Args:
        keytab: path of the file with the principal's key; a name with another type of keytab,
            such as "KEYTAB-TYPE:rest", is passed on unchanged.
        principal: principal of the tickets; the default realm is added if it has none.
        ccache: cache for the tickets. None means this process's memory. A file (a path or
            ``FILE:path``, mode 0600) is replaced atomically at each renewal. In a collection
            (``KCM:``, ``DIR:``, ``KEYRING:``) the tickets become the primary ones.

    Raises:
        TypeError, ValueError: the keytab does not exist or lacks a key of the principal, or the
            cache is invalid.
    """

    def __init__(
        self,
        keytab: str | os.PathLike[str],
        principal: str,
        ccache: str | os.PathLike[str] | None = None,
    ) -> None:
        name = _check_principal(principal)
        self._keytab = _check_keytab(keytab)
        _check_key(self._keytab, name)
        self._source = f"from the keytab {self._keytab}"
        super().__init__(str(name), make_cache(ccache, f"keytab {name}"))

    def _fetch(self, ccache: str) -> float:
        name = _check_principal(self.principal)
        _check_keytab(self._keytab)  # For a bad keytab, Kerberos would report a missing cache.
        _check_key(self._keytab, name)
        gssapi.Credentials(
            usage="initiate",
            name=name,
            mechs=[gssapi.MechType.kerberos],  # Each other mechanism would ask the KDC again.
            store={"client_keytab": self._keytab, "ccache": ccache},
        )
        return end_of(ccache)


class PasswordCredentials(RenewedCredentials):
    """Tickets from a password; for interactive programs.

    The tickets are requested when they are first needed, or at once by ``with`` and `start()`. They
    are not renewed ahead of time: when they have expired, the next open asks again.

    Args:
        principal: principal of the tickets; the default realm is added if it has none.
        password: the password, which works once, because it is forgotten as soon as a KDC has
            answered; or a function that returns it, called each time it is needed; None asks the
            user, if standard input is a terminal.
        ccache: cache for the tickets, see `KeytabCredentials`.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """

    _source = "with a password"
    _asks_user = True

    def __init__(
        self,
        principal: str,
        password: str | bytes | Callable[[], str | bytes] | None = None,
        ccache: str | os.PathLike[str] | None = None,
    ) -> None:
        name = _check_principal(principal)
        self._password: bytes | None = None
        self._ask: Callable[[], str | bytes] = self._prompt
        if callable(password):
            self._ask = password
        elif password is not None:
            self._password = _check_password(password)
            self._ask = _refuse_forgotten
        super().__init__(str(name), make_cache(ccache, f"password {name}"))

    def _prompt(self) -> str:
        if sys.stdin is None or not sys.stdin.isatty():
            raise _without_tickets(
                "there is no terminal to ask for the password",
                "give password=, use a keytab, or run the program at a terminal",
            )
        return getpass.getpass(f"Password for {self.principal}: ")

    def _fetch(self, ccache: str) -> float:
        password = self._password
        if password is None:
            password = _check_password(self._ask())
        try:
            until = _fetch_with_password(self.principal, password, ccache)
        except GSSError as error:
            if not any(part in str(error) for part in _NO_ANSWER):
                self._password = None
            raise
        self._password = None
        return until


class ImpersonatedCredentials(RenewedCredentials):
    """Tickets of a service on behalf of a user: constrained delegation (S4U2Self, S4U2Proxy).

    The KDC must allow this.  MIT's KDC requires the flag ok_to_auth_as_delegate for the service,
    and a list of target servers, which only some of its databases can hold (LDAP can, the default
    db2 cannot).  The service itself is always a permitted target.

    Args:
        service: the service's own credentials, such as `KeytabCredentials`.
        user: principal of the user.
        ccache: cache for the tickets, see `KeytabCredentials`.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """

    def __init__(
        self,
        service: RenewedCredentials,
        user: str,
        ccache: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(service, RenewedCredentials):
            raise TypeError(f"service must be credentials, not {type(service).__name__}")
        name = _check_principal(user)
        self._service = service
        self._source = f"by {service.principal}"
        super().__init__(str(name), make_cache(ccache, f"{service.principal} for {name}"))

    def _fetch(self, ccache: str) -> float:
        service = gssapi.Credentials(
            usage="initiate",
            store={"ccache": self._service.ccache(), "client_keytab": EMPTY_KEYTAB},
        )
        return _store(service.impersonate(_check_principal(self.principal)), ccache)


class AnonymousCredentials(RenewedCredentials):
    """Anonymous tickets, if the KDC offers anonymous PKINIT.

    Args:
        realm: the realm; None means the default realm.
        ccache: cache for the tickets, see `KeytabCredentials`.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """

    _source = "with anonymous PKINIT"

    def __init__(
        self, realm: str | None = None, ccache: str | os.PathLike[str] | None = None
    ) -> None:
        if realm is not None and not isinstance(realm, str):
            raise TypeError(f"realm must be a str: {realm!r}")
        name = _check_principal(_ANONYMOUS if realm is None else f"{_ANONYMOUS}@{realm}")
        super().__init__(str(name), make_cache(ccache, f"anonymous {name}"))

    def _fetch(self, ccache: str) -> float:
        # For this principal the library tries PKINIT first; the password is not used.
        try:
            return _fetch_with_password(self.principal, b"none", ccache)
        except GSSError as error:
            text = minor_text(error)
            if any(part in text for part in _NO_ANSWER):
                raise
            raise _without_tickets(text, _NO_PKINIT_CURE) from None


def _fetch_with_password(principal: str, password: bytes, ccache: str) -> float:
    got = gssapi.raw.acquire_cred_with_password(
        _check_principal(principal),
        password,
        mechs=[gssapi.MechType.kerberos],
        usage="initiate",
    )
    return _store(gssapi.Credentials(got.creds), ccache)


def _store(credentials: Any, ccache: str) -> float:
    """Get the tickets of credentials, store them in a cache, and return their expiry."""
    credentials.inquire(name=False, usage=False, mechs=False)
    credentials.store(store={"ccache": ccache}, usage="initiate", overwrite=True)
    return end_of(ccache)


def _without_tickets(text: str, cure: str) -> remctl.RemctlAuthenticationError:
    error = remctl.RemctlAuthenticationError(text)
    error.add_note(cure)
    return error


def _refuse_forgotten() -> bytes:
    raise _without_tickets(
        "the password was forgotten after its first use",
        "create new credentials, or give a function as password=",
    )


def _check_principal(principal: str) -> Any:
    """Return a principal as a GSS-API name, with its realm."""
    if not isinstance(principal, str):
        raise TypeError(f"principal must be a str: {principal!r}")
    if not principal or "\0" in principal:
        raise ValueError(f"invalid principal: {principal!r}")
    try:
        name = gssapi.Name(principal, gssapi.NameType.kerberos_principal)
        return name.canonicalize(gssapi.MechType.kerberos)
    except GSSError as error:
        reason = minor_text(error)
        raise ValueError(
            f"invalid principal {principal!r}: {reason}; write name@REALM or name/host@REALM"
        ) from None


def _check_password(password: str | bytes) -> bytes:
    if not isinstance(password, str | bytes):
        raise TypeError(f"password must be a str or bytes, not {type(password).__name__}")
    if not password:
        raise ValueError("the password must not be empty")
    return password.encode() if isinstance(password, str) else password


def _check_keytab(keytab: str | os.PathLike[str]) -> str:
    """Check that a keytab can be read, and return its full name."""
    name = os.fspath(keytab)
    if not isinstance(name, str):
        raise TypeError(f"keytab must be a str or a path: {keytab!r}")
    if not name or "\0" in name:
        raise ValueError(f"invalid keytab: {keytab!r}")
    kind, colon, rest = name.partition(":")
    if colon and "/" not in kind and kind != "FILE":
        return name
    path = os.path.abspath(rest if colon and kind == "FILE" else name)
    if os.path.isdir(path):
        raise ValueError(f"keytab {path} is a directory: name a file in it")
    try:
        with open(path, "rb"):
            return path
    except FileNotFoundError:
        reason = "does not exist: check the name, or extract it (kadmin: ktadd -k)"
    except PermissionError:
        reason = "is not readable by this user: change its owner or mode, or run as another user"
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    raise ValueError(f"keytab {path} {reason}")


def _check_key(keytab: str, name: Any) -> None:
    """Check, without a KDC, that a keytab has a key of a principal."""
    try:
        gssapi.Credentials(usage="accept", name=name, store={"keytab": keytab})
    except GSSError as error:
        if error.min_code == _NO_SUCH_KEY:
            raise ValueError(
                f"keytab {keytab} has no key of {name}: see its principals with klist -k {keytab}"
            ) from None
        reason = minor_text(error)
        raise ValueError(f"{keytab} is not a keytab: {reason}") from None
