#!/usr/bin/python3 -I
"""A user-quota service: the program that remctld runs for the command `quota`.

The quotas are in a JSON file, /var/lib/quota/quotas.json or that in QUOTA_STORE. Users may
see their own quotas; administrators, such as alice/admin, may see and change all.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from remctl_toolkit.backend import Backend, CommandError, Context, DataError, Matches

REALM = "REMCTL.TEST"
NO_SUCH_USER = 3  # exit status

User = Annotated[str, Matches("[a-z][a-z0-9_-]{0,31}", "a user name"), "a local user"]

backend = Backend("quota", "Disk quotas of users.", acl="ANYUSER")


def not_negative(number: int) -> None:
    """Refuse a number below 0."""
    if number < 0:
        raise ValueError("less than nothing")


Size = Annotated[int, not_negative, "in GB"]


@contextmanager
def quotas(*, change: bool = False) -> Iterator[dict[str, int]]:
    """Provide the quotas; with `change`, lock them, and write them back atomically."""
    path = Path(os.environ.get("QUOTA_STORE", "/var/lib/quota/quotas.json"))
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if change else fcntl.LOCK_SH)
        found: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
        yield found
        if change:
            new = path.with_suffix(".new")
            new.write_text(json.dumps(found, indent=1))
            new.replace(path)


def require_admin(context: Context) -> None:
    """End the command unless the caller is an administrator."""
    context.require(realm=REALM, instance="admin", message="for administrators only")


@backend.command()
def show(context: Context, user: User | None = None) -> str:
    """Show a user's quota, by default the caller's own."""
    own = context.components[0] if len(context.components) == 1 and context.realm == REALM else None
    user = user or own
    if user is None:
        raise CommandError("whose quota?")
    if user != own:
        require_admin(context)
    with quotas() as found:
        if user not in found:
            raise CommandError(f"no such user: {user}", status=NO_SUCH_USER)
        return f"{user}: {found[user]} GB"


@backend.command("list", json=True)
def list_quotas(context: Context, *, at_least: Size = 0) -> dict[str, int]:
    """List the quotas of all users."""
    require_admin(context)
    with quotas() as found:
        return {user: size for user, size in sorted(found.items()) if size >= at_least}


@backend.command("set")
def set_quota(context: Context, user: User, size: Size) -> None:
    """Set a user's quota."""
    require_admin(context)
    with quotas(change=True) as found:
        found[user] = size


@backend.command("delete")
def delete_quotas(context: Context, *users: User) -> Iterator[str]:
    """Delete the quotas of users."""
    require_admin(context)
    with quotas(change=True) as found:
        for user in users:
            yield f"{user}: {'deleted' if found.pop(user, None) is not None else 'had none'}"


@backend.command("import", stdin="table")
def import_quotas(context: Context, table: str) -> str:
    """Set many quotas: lines of a user and a size, on standard input."""
    require_admin(context)
    new = {}
    for number, line in enumerate(table.splitlines(), 1):
        user, _, size = line.partition(" ")
        if not user or not size.isdecimal():
            raise DataError(f"line {number} is not a user and a size")
        new[user] = int(size)
    with quotas(change=True) as found:
        found |= new
    return f"{len(new)} quotas set"


if __name__ == "__main__":
    raise SystemExit(backend.run())
