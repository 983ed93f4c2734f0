"""The sample commands `account` and `backup` of the sandbox, with made-up data."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from remctl_toolkit.backend import Backend

__all__ = ["account", "backup"]

_NO_SUCH_ACCOUNT = 3  # exit status
_USED = {"alice": 3, "bob": 9}  # GB
_PAUSE = 0.3  # seconds between two lines, so that users can watch them arrive

account = Backend("account", "Accounts of users.")
backup = Backend("backup", "Backups.")


@account.command()
def show(user: str) -> int:
    """Show whether an account is active, and how much it uses."""
    if user not in _USED:
        print(f"no such account: {user}", file=sys.stderr)
        return _NO_SUCH_ACCOUNT
    print(f"{user}: active, {_USED[user]} of 10 GB used")
    return 0


@account.command(acl="princ:admin@REMCTL.TEST")
def delete(user: str) -> str:
    """Delete an account; only for administrators."""
    return f"deleted {user}"


@backup.command("run")
def run_backup() -> Iterator[str]:
    """Back up everything, and say so."""
    for part in ("mail", "home"):
        time.sleep(_PAUSE)
        yield f"saved {part}\n"
    time.sleep(_PAUSE)
    print("skipped cache", file=sys.stderr)
