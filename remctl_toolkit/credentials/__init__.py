"""Tickets that see to themselves: from a keytab, a password, or in somebody else's name.

    >>> from remctl_toolkit.credentials import KeytabCredentials
    >>> credentials = KeytabCredentials("/etc/backup.keytab", "backup/client.example.org")
    >>> remctl.remctl("server.example.org", command=["backup", "list"], credentials=credentials)

They get tickets when a connection needs them, and new ones in good time before these end.  One
object serves any number of connections, threads and forked children.  `whoami()` says whose
tickets there are, and until when.

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
