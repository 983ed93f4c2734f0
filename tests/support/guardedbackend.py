"""A backend whose commands have their own ACLs; remctld runs it."""

from remctl_toolkit.backend import Backend

OTHER = "princ:other@REMCTL.TEST"

backend = Backend("account", "Accounts.", acl=OTHER)
user = backend.group("user", "Users.")
deeper = user.group("deep").group("er")
password = backend.group("password", "Passwords.")
nobody = backend.group("nobody", "For nobody.")


@backend.command("")
@backend.command()
@user.command("")
@deeper.command("drop")
@nobody.command("one", acl="deny:princ:user@REMCTL.TEST")
@nobody.command("two", acl=["deny:ANYUSER", "ANYUSER"])
@password.command("hint", acl="ANYUSER")
def stop() -> str:
    """Take nothing."""
    return "done"


@user.command(acl="ANYUSER")
def show(name: str) -> str:
    """Show a user."""
    return "done"


@user.command()
def delete(name: str) -> str:
    """Delete a user."""
    return "done"


@password.command("set", acl=("deny:princ:user@REMCTL.TEST", "ANYUSER"), stdin="new")
@password.command("reset", acl=["deny:other@REMCTL.TEST", "ANYUSER"], stdin="new")
def change(new: str) -> str:
    """Change a password."""
    return "done"
