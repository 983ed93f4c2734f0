"""A small backend, to measure its start-up; backend_perl.pl is the same in Perl."""

from remctl_toolkit.backend import Backend, CommandError, Context

backend = Backend("quota", "Disk quotas.", acl="ANYUSER")
quotas = {"alice": 10, "bob": 20}


@backend.command()
def show(context: Context, user: str) -> str:
    """Show a user's quota."""
    if user not in quotas:
        raise CommandError(f"no such user: {user}")
    return f"{user}: {quotas[user]} GB"


@backend.command("set")
def set_quota(context: Context, user: str, size: int) -> None:
    """Set a user's quota."""
    context.require(realm="REMCTL.TEST")
    quotas[user] = size


if __name__ == "__main__":
    raise SystemExit(backend.run())
