"""What to do about a failure, and whose tickets there are: imported at the first failure."""

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

# What to do about a failure, by what is known of it.  It is told in a note beside the exception's
# text, which stays libremctl's.  A hint that cannot know which of several causes it was names them
# all; a failure that is not found here (Kerberos's texts may be translated, and another library's
# are others) has no note.

_CONNECT_HINTS = {
    errno.ECONNREFUSED: "nothing listens on port {port} of {host}, or a firewall refuses: is"
    " remctld running there, and is the port right?",
    errno.ETIMEDOUT: "{host} did not answer on port {port}: it is down, or a firewall is between",
    errno.EHOSTUNREACH: "the network does not reach {host}: it is down, or a firewall is between",
    errno.ENETUNREACH: "this host has no route to {host}: is its network up?",
}

_UNKNOWN_HOST_HINT = (
    "no address was found for {host}: is the name right, and does the resolver answer?"
)

_CHANGED_KEY_HINT = (
    "your ticket is made for a key that the server (or the KDC) does not have: it was changed.\n"
    "Run kinit to get new tickets; if that does not help, the server's keytab is out of date"
)

_OLD_CLIENT_KEYTAB_HINT = (
    "the client's keytab does not have the present key of its principal: extract it anew"
)

_HUNG_UP_HINT = (
    "the server ended the connection and did not tell why: see its log.\nIt may be stopping, unable"
    " to accept anybody (its keytab), or no remctl server"
)

# What the text contains; the first that is found counts.
_AUTHENTICATION_HINTS = (
    (
        "Credentials cache permissions incorrect",
        "you may not read the credential cache {ccache}: run kinit as this user, or name another"
        " cache (ccache=, KRB5CCNAME)",
    ),
    (
        "Bad format in credentials cache",
        "{ccache} is empty, damaged, or no credential cache: look at its name (ccache=,"
        " KRB5CCNAME), then run kinit",
    ),
    (
        "Unsupported credentials cache format",
        "{ccache} is no credential cache, or one of another kind of Kerberos: look at its name"
        " (ccache=, KRB5CCNAME)",
    ),
    (
        "End of credential cache reached",
        "the credential cache {ccache} is damaged: run kinit",
    ),
    (
        "Credential cache is empty",
        "the credential cache {ccache} has no ticket in it: run kinit",
    ),
    (
        "No KCM server found",
        "{ccache} is kept by a KCM server, and none runs: start it (sssd-kcm, say), or name another"
        " cache (ccache=, KRB5CCNAME)",
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
        "the clock of this host and that of the server or of the KDC differ by more than is allowed"
        " (five minutes, usually): set the clocks",
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
        "the server's keytab is missing, or has no key of {principal}: have it mended, or name the"
        " server's own principal (principal=)",
    ),
    (
        "The ticket isn't for us",
        "the server at {host} is not {principal}: is it the right host? If so, name its principal"
        " (principal=), or have its keytab mended",
    ),
    (
        "Generic error (see e-text)",
        "the server or the KDC failed for a reason that it does not tell: see its log; a server's"
        " keytab may be empty or unreadable",
    ),
    (
        "Server krbtgt/",
        "{principal} is taken for one of another realm than your ticket's, and the KDC knows no way"
        " there: name the realm\n(principal=, or [domain_realm] in krb5.conf), or get a ticket of"
        " that realm",
    ),
    (
        "Client '",
        "the KDC does not know the principal of your ticket, or of the client's keytab: it was"
        " deleted, or is of another realm",
    ),
    (
        "not found in Kerberos database",
        "the KDC does not know the server's principal ({principal}, unless DNS names the host"
        " otherwise):\nuse the host's full name, or name its principal (principal=), and the realm"
        " if that is another",
    ),
    (
        "Cannot find KDC for realm",
        "neither krb5.conf ([realms]) nor DNS names a KDC of that realm: is it the right one, of"
        " the server and of the ticket in {ccache}?",
    ),
    (
        "Cannot contact any KDC for realm",
        "no KDC of that realm answers: it is down, the network does not reach it, or krb5.conf"
        " ([realms]) or DNS names the wrong host",
    ),
    (
        ": token too larger",
        "what listens there is no remctl server: is the port right?",
    ),
    ("error receiving token: ", _HUNG_UP_HINT),
    ("error sending token: ", _HUNG_UP_HINT),
)

_SILENT_KDC_HINT = "no KDC answered in time: it hangs, it is down, or the network does not reach it"

_DISCONNECTED_HINTS = (
    (
        "no connection open",
        "the connection was lost before: the next command opens it again",
    ),
    (
        "unexpected data from server",
        "the server sent what nobody had asked for; the next command opens the connection again",
    ),
    (
        "",
        "the server ended the connection (it was stopped, say), or the network broke: a command"
        " that was sent may have run,\nso look before you send it again",
    ),
)

_ACCESS_HINT = (
    "the server's ACL does not let the principal of your ticket run that command: klist shows"
    " whose ticket it is"
)


def _hint(error: RemctlError) -> str | None:
    """Return what to do about a failure, as a template; None where that is not known."""
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


def _ccache_told(text: str) -> str:
    """Return the credential cache that Kerberos names in a text."""
    for mark in ("(default cache: ", "(filename: "):
        _, found, rest = text.partition(mark)
        if found:
            return rest.rpartition(")")[0]
    return "your default credential cache"


def add_advice(error: RemctlError, target: tuple[str, int, str | None], ccache: str | None) -> None:
    """Say what to do about a failure, and whose tickets there are, where that is known.

    Args:
        error: gets the attribute `advice`, and notes that a traceback shows.
        target: the host, the port (0: none was named) and the server's principal, or None.
        ccache: the name of the credential cache; None is the default one.
    """
    host, port = printable(target[0]), target[1]
    principal = printable(target[2] or f"host/{host}")
    if hasattr(error, "__notes__"):  # Credentials know better what is the matter.
        error.add_note(f"the server was to be {principal}")
        return
    hint = _hint(error)
    if hint is not None:
        error.advice = hint.format(
            host=host,
            port=port or _PORT,
            principal=principal,
            ccache=printable(ccache or _ccache_told(str(error))),
        )
        error.add_note(error.advice)
    if isinstance(error, RemctlAuthenticationError):
        tickets = _tickets_in(ccache)
        if tickets is not None:
            error.add_note(f"{tickets}; the server was to be {principal}")


# -- Tickets --------------------------------------------------------------------------------------

# Whose they are, and until when: only python-gssapi can tell, and it need not be installed.


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
        # First, and alone: of expired tickets, MIT's library loses the memory of what it tells.
        lifetime = found.inquire(name=False, usage=False, mechs=False).lifetime
        ends = None if lifetime is None else float(int(time.time()) + lifetime)
        # Not found.name: python-gssapi's names hold themselves, and wait for the collector.
        name = raw.inquire_cred(found, name=True, lifetime=False, usage=False, mechs=False).name
        if name is not None:
            principal = raw.display_name(name, name_type=False).name.decode(errors="replace")
    # GSS-API has no word for when tickets ended.  MIT's library writes it, and the name of the
    # cache, into what it exports (src/lib/gssapi/krb5/export_cred.c); others do not.
    with contextlib.suppress(GSSError, LookupError, TypeError, ValueError):
        text = found.export().decode("latin-1")
        fields = json.JSONDecoder().raw_decode(text, text.index('["K5C1",'))[0][1]
        principal, ends = str(fields[1][0]), float(fields[10])
        if isinstance(fields[7], str):
            ccache = fields[7]
    return principal, ccache, ends


def describe_tickets(principal: str | None, ccache: str | None, ends: float | None) -> str:
    """Say in words what find_tickets() returned."""
    text = f"tickets of {principal or 'an unknown principal'} in {ccache or 'the default cache'}"
    text = printable(text)
    if ends is None:
        return text
    verb = "ended" if ends <= time.time() else "end"
    return f"{text} {verb} {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(ends))}"


def _tickets_in(ccache: str | None) -> str | None:
    """Say whose tickets are in a cache and until when; None where that cannot be told."""
    try:
        from gssapi.raw.misc import GSSError
    except Exception:  # Not installed, or not for this Kerberos library.
        return None
    try:
        return describe_tickets(*find_tickets(ccache))
    except GSSError as error:
        return printable(f"no tickets in {ccache or _ccache_told(str(error))}")
    except Exception:  # A hint must not take the place of the error.
        return None
