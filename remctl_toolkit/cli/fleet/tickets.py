"""Tickets from a keytab, where one is named."""

from __future__ import annotations

import argparse

import remctl
from remctl_toolkit.hosts import MissingExtraError

from .secret import UsageError

__all__ = ["keytab_credentials"]


def keytab_credentials(options: argparse.Namespace) -> remctl.RemctlCredentials | None:
    """Return credentials for ``--keytab``, which put tickets where ``--ccache`` says; or None.

    Raises:
        UsageError: the keytab, its principal or the cache cannot be right.
        MissingExtraError: python-gssapi is not installed.
    """
    if options.keytab is None:
        if options.client is not None:
            raise UsageError("--client is whose tickets to get with --keytab, which is missing")
        return None
    if options.client is None:
        raise UsageError("--keytab also needs --client PRINCIPAL, whose tickets to get")
    try:
        from remctl_toolkit.credentials import KeytabCredentials

        return KeytabCredentials(options.keytab, options.client, options.ccache)
    except ImportError:
        raise MissingExtraError("python-gssapi", "--keytab") from None
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None
