"""Get and renew Kerberos tickets: from a keytab, with a password, or on behalf of a user.

    >>> from remctl_toolkit.credentials import KeytabCredentials
    >>> credentials = KeytabCredentials("/etc/backup.keytab", "backup/client.example.org")
    >>> remctl.remctl("server.example.org", command=["backup", "list"], credentials=credentials)

They get tickets when a connection needs them, and renew them before they expire.  Any number of
connections, threads and forked children can share one object.  `whoami()` returns the principal
and the expiry of the current tickets.

Needs python-gssapi: ``pip install gssapi``, or Debian's python3-gssapi.
"""

try:
    import gssapi as _gssapi  # noqa: F401
except ImportError as error:
    raise ImportError(
        "remctl_toolkit.credentials needs python-gssapi: pip install gssapi,"
        " or apt install python3-gssapi"
    ) from error

from ._renewal import RenewedCredentials
from ._sources import (
    AnonymousCredentials,
    ImpersonatedCredentials,
    KeytabCredentials,
    PasswordCredentials,
)
from ._whoami import Identity, whoami

__all__ = [
    "AnonymousCredentials",
    "Identity",
    "ImpersonatedCredentials",
    "KeytabCredentials",
    "PasswordCredentials",
    "RenewedCredentials",
    "whoami",
]
