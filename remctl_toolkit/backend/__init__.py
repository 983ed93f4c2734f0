"""Write the program that remctld runs: typed subcommands, ACLs, help and configuration.

A backend is a program such as this::

    #!/usr/bin/python3 -I
    from remctl_toolkit.backend import Backend, CommandError, Context

    backend = Backend("quota", "Disk quotas.", acl="ANYUSER")
    quotas = {"alice": 10}

    @backend.command()
    def show(context: Context, user: str) -> str:
        '''Show a user's quota.'''
        if user not in quotas:
            raise CommandError(f"no such user: {user}")
        return f"{quotas[user]} GB"

    if __name__ == "__main__":
        raise SystemExit(backend.run())

The exit status of such a program::

    0         success
    1 to 255  the status that the command returned, or that of the CommandError it raised; also:
    64        wrong usage: unknown subcommand or option, missing, extra or malformed arguments
    65        malformed data on standard input
    70        internal error: an unexpected exception, whose traceback is in the log
    74        the output cannot be written
    77        denied by the command itself, or by its ACL
    141       the client no longer reads the output

remctld starts a process for each command, so this package imports almost nothing until it is
needed. It does not even import `__future__` in the files that every run reads, so their
annotations are quoted.
"""

from .commands import Group
from .context import Context, names_in
from .errors import CommandError, DataError, DeniedError, UsageError
from .program import Backend
from .values import Count, Matches, Short

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .invoking import InvokeResult as InvokeResult

__all__ = [
    "Backend",
    "CommandError",
    "Context",
    "Count",
    "DataError",
    "DeniedError",
    "Group",
    "InvokeResult",
    "Matches",
    "Short",
    "UsageError",
    "names_in",
]


def __getattr__(name: str) -> object:
    """Import on first access what only tests need."""
    if name != "InvokeResult":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .invoking import InvokeResult

    return InvokeResult
