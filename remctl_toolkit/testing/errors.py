"""Exceptions of test realms and servers.

Exception
├── RealmError           the realm: a Kerberos program failed, or the realm is not running
│   └── ServerError      a remctld of the realm: it did not start, or is not running
└── MissingPrograms      programs.py: a system program is not installed
"""

from _remctl_text import printable

__all__ = ["RealmError", "ServerError"]


class RealmError(Exception):
    """A Kerberos program failed, or an operation needs a running realm.

    The text may include several lines of a program's output. It is safe to print.
    """

    def __init__(self, text: str) -> None:
        super().__init__(printable(text, lines=True))


class ServerError(RealmError):
    """A remctld did not start, or an operation needs a running server."""
