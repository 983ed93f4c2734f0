"""Credentials from ``--keytab``."""

from __future__ import annotations

import argparse

import remctl
from remctl_toolkit.hosts import MissingExtraError

from .secret import UsageError

__all__ = ["keytab_credentials"]


def keytab_credentials(options: argparse.Namespace) -> remctl.RemctlCredentials | None:
    """Return credentials for ``--keytab`` that store tickets in ``--ccache``, or None.

    Raises:
        UsageError: the keytab, its principal or the cache is wrong.
        MissingExtraError: python-gssapi is not installed.
    """
    if options.keytab is None:
        if options.client is not None:
            raise UsageError("--client needs --keytab FILE, which has the key of the principal")
        return None
    if options.client is None:
        raise UsageError("--keytab needs --client PRINCIPAL, the principal to get tickets for")
    try:
        from remctl_toolkit.credentials import KeytabCredentials

        return KeytabCredentials(options.keytab, options.client, options.ccache)
    except ImportError:
        raise MissingExtraError("python-gssapi", "--keytab") from None
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None
