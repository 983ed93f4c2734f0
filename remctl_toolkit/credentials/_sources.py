"""What tickets are got with: a keytab, a password, or a service's right to act for others."""

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

# What Kerberos says when no KDC has seen the password.
_NO_ANSWER = ("Cannot contact any KDC", "Cannot find KDC")

_NO_PKINIT_CURE = (
    "the KDC does not offer anonymous PKINIT, or this host lacks the plugin (Debian: krb5-pkinit)"
    " or the KDC's certificate (pkinit_anchors in krb5.conf)"
)


class KeytabCredentials(RenewedCredentials):
    """Tickets from a keytab, renewed as long as it is used; for daemons and cron jobs.

    Args:
        keytab: the file with the key of the principal; the name of another kind of keytab, such
            as "KEYTAB-TYPE:rest", is taken as it is.
        principal: whose tickets; the default realm is added where there is none.
        ccache: where they are put: None is a cache in this process's
            memory; a path or ``FILE:path`` is replaced at once when tickets are renewed (mode
            0600); in a collection (``KCM:``, ``DIR:``, ``KEYRING:``) they become the primary ones.

    Raises:
        TypeError, ValueError: there is no such keytab, or no key of that principal in it; or no
            such cache.
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
        _check_keytab(self._keytab)  # Kerberos says of a bad one that there is no cache.
        _check_key(self._keytab, name)
        gssapi.Credentials(
            usage="initiate",
            name=name,
            mechs=[gssapi.MechType.kerberos],  # Each of the others would ask the KDC again.
            store={"client_keytab": self._keytab, "ccache": ccache},
        )
        return end_of(ccache)


class PasswordCredentials(RenewedCredentials):
    """Tickets for a password; for people.

    The tickets are got when they are needed first, which ``with`` and `start()` say is now, and
    are not renewed ahead of time: when they have ended, the next open asks again.

    Args:
        principal: whose tickets; the default realm is added where there is none.
        password: the password, which is forgotten as soon as a KDC has answered, so that it gets
            tickets once; a function that returns it, called each time it is needed; None asks
            the user, where standard input is a terminal.
        ccache: where the tickets are put, see `KeytabCredentials`.

    Raises:
        TypeError, ValueError: an argument cannot be right.
    """

    _source = "for a password"
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
                "there is no terminal to ask for it",
                "give password=, use a keytab, or run it at a terminal",
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
    """A service's tickets to act in somebody's name: constrained delegation (S4U2Self, S4U2Proxy).

    The KDC must allow the service to: MIT's wants the flag ok_to_auth_as_delegate for it, and a
    list of the servers that it may go to, which only some of its databases can hold (LDAP can,
    the default db2 cannot).  The service itself it may always go to.

    Args:
        service: the service's own credentials, such as `KeytabCredentials`.
        user: whose name to act in.
        ccache: where the tickets are put, see `KeytabCredentials`.

    Raises:
        TypeError, ValueError: an argument cannot be right.
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
    """Tickets that do not tell whose they are, where the KDC offers that (anonymous PKINIT).

    Args:
        realm: the realm; None is the default one.
        ccache: where the tickets are put, see `KeytabCredentials`.

    Raises:
        TypeError, ValueError: an argument cannot be right.
    """

    _source = "by anonymous PKINIT"

    def __init__(
        self, realm: str | None = None, ccache: str | os.PathLike[str] | None = None
    ) -> None:
        if realm is not None and not isinstance(realm, str):
            raise TypeError(f"realm must be a str: {realm!r}")
        name = _check_principal(_ANONYMOUS if realm is None else f"{_ANONYMOUS}@{realm}")
        super().__init__(str(name), make_cache(ccache, f"anonymous {name}"))

    def _fetch(self, ccache: str) -> float:
        # The library tries PKINIT first for this principal; there is no password.
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
    """Have tickets got where that was put off, and put them into a cache; return when they end."""
    credentials.inquire(name=False, usage=False, mechs=False)
    credentials.store(store={"ccache": ccache}, usage="initiate", overwrite=True)
    return end_of(ccache)


def _without_tickets(text: str, cure: str) -> remctl.RemctlAuthenticationError:
    error = remctl.RemctlAuthenticationError(text)
    error.add_note(cure)
    return error


def _refuse_forgotten() -> bytes:
    raise _without_tickets(
        "it was used, and forgotten", "make new credentials, or give a function as password="
    )


def _check_principal(principal: str) -> Any:
    """Return the name of a principal as GSS-API wants it, with its realm."""
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
            f"invalid principal {principal!r}: {reason}; it must be like name@REALM, or"
            " name/host@REALM"
        ) from None


def _check_password(password: str | bytes) -> bytes:
    if not isinstance(password, str | bytes):
        raise TypeError(f"password must be a str or bytes, not {type(password).__name__}")
    if not password:
        raise ValueError("the password must not be empty")
    return password.encode() if isinstance(password, str) else password


def _check_keytab(keytab: str | os.PathLike[str]) -> str:
    """Return the full name of a keytab, which can be read."""
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
        raise ValueError(f"keytab {path} is a folder: name the file in it")
    try:
        with open(path, "rb"):
            return path
    except FileNotFoundError:
        reason = "does not exist: look at the name, or extract it (kadmin: ktadd -k)"
    except PermissionError:
        reason = "may not be read by this user: change its owner or mode, or run as another"
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
                f"keytab {keytab} has no key of {name}: klist -k {keytab} shows whose it has"
            ) from None
        reason = minor_text(error)
        raise ValueError(f"{keytab} is not a keytab: {reason}") from None
