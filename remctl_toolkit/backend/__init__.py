"""Write the program that remctld runs: typed subcommands, who calls, help, configuration.

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

    0         the command did what it should
    1 to 255  what the command returned, or the status of the CommandError it raised; and of ours:
    64        wrong usage: unknown subcommand or option, missing, extra or malformed arguments
    65        malformed data on standard input
    70        internal error: an unexpected exception, whose traceback is in the log
    74        the output cannot be written
    77        denied by the command itself, or by its ACL
    141       nobody reads the output any more

remctld starts a process for each command, so this package imports next to nothing until it is
needed: not even `remctl`, nor `__future__` in the files that every run reads, which is why
annotations are quoted there.
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
    """Import what only tests need when it is asked for."""
    if name != "InvokeResult":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .invoking import InvokeResult

    return InvokeResult
