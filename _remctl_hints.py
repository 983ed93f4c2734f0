"""Advice for failures, and descriptions of tickets; imported at the first failure."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time

from _remctl_text import printable
from _remctl_types import (
    RemctlAuthenticationError,
    RemctlConnectError,
    RemctlDisconnectedError,
    RemctlError,
    RemctlErrorCode,
    RemctlProtocolError,
    RemctlServerError,
    RemctlTimeoutError,
)

_PORT = 4373

# Advice is added to an exception as a note; its text stays libremctl's.  If a failure can have
# several causes, the hint names them all.  A failure that is not listed here has no note: texts of
# Kerberos may be translated, and another library has other texts.

_CONNECT_HINTS = {
    errno.ECONNREFUSED: "nothing listens on port {port} of {host}, or a firewall refuses: is"
    " remctld running there, and is the port right?",
    errno.ETIMEDOUT: "{host} did not answer on port {port}: it is down, or a firewall drops it",
    errno.EHOSTUNREACH: "the network does not reach {host}: it is down, or a firewall blocks it",
    errno.ENETUNREACH: "this host has no route to {host}: is its network up?",
}

_UNKNOWN_HOST_HINT = (
    "no address was found for {host}: is the name right, and does the resolver answer?"
)

_CHANGED_KEY_HINT = (
    "the server (or the KDC) does not have the key that your ticket was made for: it was changed.\n"
    "Run kinit to get new tickets; if that does not help, the server's keytab is out of date"
)

_OLD_CLIENT_KEYTAB_HINT = (
    "the client's keytab does not have the current key of its principal: extract it again"
)

_HUNG_UP_HINT = (
    "the server closed the connection without giving a reason: see its log.\nIt may be shutting"
    " down, its keytab may be wrong, or it is not a remctl server"
)

# Parts of an error's text, and the advice; the first match counts.
_AUTHENTICATION_HINTS = (
    (
        "Credentials cache permissions incorrect",
        "you may not read the credential cache {ccache}: run kinit as this user, or name another"
        " cache (ccache=, KRB5CCNAME)",
    ),
    (
        "Bad format in credentials cache",
        "{ccache} is empty, damaged, or not a credential cache: check its name (ccache=,"
        " KRB5CCNAME), then run kinit",
    ),
    (
        "Unsupported credentials cache format",
        "{ccache} is not a credential cache, or belongs to another Kerberos implementation: check"
        " its name (ccache=, KRB5CCNAME)",
    ),
    (
        "End of credential cache reached",
        "the credential cache {ccache} is damaged: run kinit",
    ),
    (
        "Credential cache is empty",
        "the credential cache {ccache} contains no ticket: run kinit",
    ),
    (
        "No KCM server found",
        "{ccache} needs a KCM server, and none is running: start one (such as sssd-kcm), or name"
        " another cache (ccache=, KRB5CCNAME)",
    ),
    (
        "No credentials cache found",
        "the credential cache {ccache} does not exist: run kinit, or name another (ccache=)",
    ),
    (
        "No Kerberos credentials available (default cache: ",
        "no ticket was found in the default credential cache, {ccache}: run kinit, or name another"
        " (ccache=, KRB5CCNAME)",
    ),
    (
        "Ticket expired",
        "the ticket in {ccache} has expired by the clock of this host, of the KDC or of the"
        " server: run kinit; if the ticket is new, set the clocks",
    ),
    (
        "Ticket not yet valid",
        "the ticket in {ccache} is not valid yet by the clock of the server or of the KDC: set the"
        " clocks; if it is postdated, wait",
    ),
    (
        "Clock skew too great",
        "the clocks of this host and of the server or the KDC differ by more than is allowed"
        " (usually five minutes): set the clocks",
    ),
    (
        "unavailable or inaccessible, Decrypt integrity check failed",
        _OLD_CLIENT_KEYTAB_HINT,
    ),
    (
        "unavailable or inaccessible, Preauthentication failed",
        _OLD_CLIENT_KEYTAB_HINT,
    ),
    ("Key version is not available", _CHANGED_KEY_HINT),
    ("Decrypt integrity check failed", _CHANGED_KEY_HINT),
    (
        "Service key not available",
        "the server's keytab is missing, or has no key for {principal}: have it fixed, or name the"
        " server's actual principal (principal=)",
    ),
    (
        "The ticket isn't for us",
        "the server at {host} is not {principal}: is it the right host? If so, name its principal"
        " (principal=), or have its keytab fixed",
    ),
    (
        "Generic error (see e-text)",
        "the server or the KDC failed without giving a reason: see its log; a server's keytab may"
        " be empty or unreadable",
    ),
    (
        "Server krbtgt/",
        "Kerberos looks for {principal} in another realm than your ticket's, and the KDC has no"
        " trust path to it:\nname the realm (principal=, or [domain_realm] in krb5.conf), or get a"
        " ticket in that realm",
    ),
    (
        "Client '",
        "the KDC does not know the principal of your ticket, or of the client's keytab: it was"
        " deleted, or belongs to another realm",
    ),
    (
        "not found in Kerberos database",
        "the KDC does not know the server's principal ({principal}, unless DNS gives the host"
        " another name):\nuse the host's full name, or name its principal (principal=), with the"
        " realm if it is in another one",
    ),
    (
        "Cannot find KDC for realm",
        "neither krb5.conf ([realms]) nor DNS names a KDC of that realm: is it the realm of the"
        " server, and of the ticket in {ccache}?",
    ),
    (
        "Cannot contact any KDC for realm",
        "no KDC of that realm answers: it is down, the network does not reach it, or krb5.conf"
        " ([realms]) or DNS names the wrong host",
    ),
    (
        ": token too larger",
        "the program that listens on port {port} of {host} is not remctld: is the port right?",
    ),
    ("error receiving token: ", _HUNG_UP_HINT),
    ("error sending token: ", _HUNG_UP_HINT),
)

_SILENT_KDC_HINT = "no KDC answered in time: it hangs, it is down, or the network does not reach it"

_DISCONNECTED_HINTS = (
    (
        "no connection open",
        "the connection was lost earlier: the next command opens it again",
    ),
    (
        "unexpected data from server",
        "the server sent data that was not requested; the next command opens the connection again",
    ),
    (
        "",
        "the server closed the connection (perhaps it was stopped), or the network failed: a"
        " command that was sent\nmay have run, so check before you send it again",
    ),
)

_ACCESS_HINT = (
    "the server's ACL does not allow the principal of your ticket to run that command: klist shows"
    " the principal"
)


def _hint(error: RemctlError) -> str | None:
    """Return the advice for a failure, as a template; None if the cause is unknown."""
    text = str(error)
    if isinstance(error, RemctlAuthenticationError):
        return _find_hint(_AUTHENTICATION_HINTS, text)
    if isinstance(error, RemctlServerError):
        return _ACCESS_HINT if error.code == RemctlErrorCode.ACCESS else None
    if isinstance(error, RemctlDisconnectedError):
        return _find_hint(_DISCONNECTED_HINTS, text)
    if isinstance(error, RemctlProtocolError) and error.errno is not None:
        return _CONNECT_HINTS.get(error.errno)
    if isinstance(error, RemctlConnectError):
        return _UNKNOWN_HOST_HINT
    if isinstance(error, RemctlTimeoutError) and text.endswith("waiting for a KDC"):
        return _SILENT_KDC_HINT
    return None


def _find_hint(hints: tuple[tuple[str, str], ...], text: str) -> str | None:
    return next((hint for part, hint in hints if part in text), None)


def _ccache_in(text: str) -> str:
    """Return the credential cache that Kerberos names in a text."""
    for mark in ("(default cache: ", "(filename: "):
        _, found, rest = text.partition(mark)
        if found:
            return rest.rpartition(")")[0]
    return "your default credential cache"


def add_advice(error: RemctlError, target: tuple[str, int, str | None], ccache: str | None) -> None:
    """Add advice and a description of the tickets to an exception, as far as they are known.

    Args:
        error: gets the attribute `advice`, and notes that a traceback shows.
        target: the host, the port (0: none was named) and the server's principal, or None.
        ccache: the name of the credential cache; None is the default one.
    """
    host, port = printable(target[0]), target[1]
    principal = printable(target[2] or f"host/{host}")
    if hasattr(error, "__notes__"):  # The notes of credentials are more precise than ours.
        error.add_note(f"the server was to be {principal}")
        return
    hint = _hint(error)
    if hint is not None:
        error.advice = hint.format(
            host=host,
            port=port or _PORT,
            principal=principal,
            ccache=printable(ccache or _ccache_in(str(error))),
        )
        error.add_note(error.advice)
    if isinstance(error, RemctlAuthenticationError):
        tickets = _tickets_in(ccache)
        if tickets is not None:
            error.add_note(f"{tickets}; the server was to be {principal}")


# -- Tickets --------------------------------------------------------------------------------------

# Their principal and their end: only python-gssapi can read them, and it may not be installed.


def find_tickets(ccache: str | None) -> tuple[str | None, str | None, float | None]:
    """Look into a credential cache (None: the default one), without asking a KDC.

    Returns:
        The principal, the name of the cache, and when the tickets end (or ended), in seconds
        since the epoch; None for what is not known.

    Raises:
        ImportError: python-gssapi is not installed.
        gssapi.exceptions.GSSError: there is no ticket.
    """
    import gssapi
    from gssapi import raw
    from gssapi.raw.misc import GSSError

    # An empty client keytab: with a real one, looking would get tickets.
    store: dict[bytes | str, bytes | str] = {"client_keytab": "MEMORY:remctl-none"}
    if ccache is not None:
        store["ccache"] = os.fsencode(ccache)
    found = gssapi.Credentials(usage="initiate", store=store)
    principal = ends = None
    with contextlib.suppress(gssapi.exceptions.ExpiredCredentialsError):
        # Ask for the lifetime first, and alone: MIT's library leaks the other answers if the
        # tickets have expired.
        lifetime = found.inquire(name=False, usage=False, mechs=False).lifetime
        ends = None if lifetime is None else float(int(time.time()) + lifetime)
        # Not found.name: python-gssapi's names are reference cycles.
        name = raw.inquire_cred(found, name=True, lifetime=False, usage=False, mechs=False).name
        if name is not None:
            principal = raw.display_name(name, name_type=False).name.decode(errors="replace")
    # GSS-API cannot say when expired tickets ended.  MIT's library exports that time and the name
    # of the cache (src/lib/gssapi/krb5/export_cred.c); other libraries do not.
    with contextlib.suppress(GSSError, LookupError, TypeError, ValueError):
        text = found.export().decode("latin-1")
        fields = json.JSONDecoder().raw_decode(text, text.index('["K5C1",'))[0][1]
        principal, ends = str(fields[1][0]), float(fields[10])
        if isinstance(fields[7], str):
            ccache = fields[7]
    return principal, ccache, ends


def describe_tickets(principal: str | None, ccache: str | None, ends: float | None) -> str:
    """Describe what find_tickets() returned."""
    text = f"tickets of {principal or 'an unknown principal'} in {ccache or 'the default cache'}"
    text = printable(text)
    if ends is None:
        return text
    verb = "ended" if ends <= time.time() else "end"
    return f"{text} {verb} {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(ends))}"


def _tickets_in(ccache: str | None) -> str | None:
    """Describe the tickets in a cache; None if that is impossible."""
    try:
        from gssapi.raw.misc import GSSError
    except Exception:  # Not installed, or not for this Kerberos library.
        return None
    try:
        return describe_tickets(*find_tickets(ccache))
    except GSSError as error:
        return printable(f"no tickets in {ccache or _ccache_in(str(error))}")
    except Exception:  # A failure to describe tickets must not replace the error.
        return None
