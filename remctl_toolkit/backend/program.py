"""The backend: what a program makes, declares its commands with, and runs."""

import os
import sys

from .commands import Root
from .uncaught import report_uncaught

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from .acl import Acl
    from .invoking import InvokeResult

__all__ = ["Backend"]


class Backend(Root):
    """The program that remctld runs for a command.

    Attributes:
        name: the command, as clients name it.
        log: what gets the text of internal errors; None for the system log.
    """

    def __init__(
        self,
        name: str,
        about: str = "",
        *,
        acl: "Acl | None" = None,
        log: "Callable[[str], object] | None" = None,
    ) -> None:
        """Start without subcommands.

        Args:
            name: the command, as clients name it and remctl.conf has it.
            about: what it is about, for the help.
            acl: who may run those of its commands that declare no other: see command().
            log: called with a text, of many lines, where an internal error is to be logged.

        Raises:
            TypeError: an entry of the ACL is not text.
            ValueError: the name cannot be written in remctl.conf, or the ACL: see command().
        """
        super().__init__(name, about, acl, log)
        # Where it was made: what a server for tests has to run.
        self.file: str | None = sys._getframe(1).f_globals.get("__file__")

    def __repr__(self) -> str:
        return f"<Backend {self.name!r}, {sum(1 for _ in self.commands())} commands>"

    def run(self) -> int:
        """Run the command that this process was started for.

        Returns:
            The exit status, for ``raise SystemExit(backend.run())``. It does not raise, whatever
            the command does.
        """
        from .running import run_process

        return run_process(self)

    def invoke(
        self,
        args: "Sequence[str | bytes]",
        *,
        user: str | None = None,
        input: "str | bytes | None" = None,
        environ: "Mapping[str, str] | None" = None,
        reraise: bool = False,
    ) -> "InvokeResult":
        """Run a command in this process, as remctld would: for tests.

        Args:
            args: subcommand and arguments, without what comes on standard input.
            user: the principal that calls, REMOTE_USER. If it is None, only an ACL for any user
                lets the caller in.
            input: the argument on standard input; None if there is none.
            environ: more of what remctld sets: REMOTE_ADDR, REMOTE_HOST, REMOTE_EXPIRES,
                REMCTL_COMMAND (by default the backend's name).
            reraise: let an unexpected exception through, instead of making it an internal error.

        Returns:
            A `remctl.RemctlSimpleResult`, as a client would get it, with an attribute ``log``:
            the report of an internal error, which is on standard error as well.
        """
        from .invoking import invoke

        return invoke(self, args, user=user, input=input, environ=environ or {}, reraise=reraise)

    def rules(self) -> "list[dict[str, Any]]":
        """Return the lines of remctl.conf: keyword arguments of `remctl_toolkit.testing.Command`.

        All but ``program`` are there.
        """
        from .configuration import rules

        return rules(self)

    def check(self, file: "str | os.PathLike[str]", program: str | None = None) -> list[str]:
        """Compare a remctl.conf with what is declared, as ``check FILE`` does.

        Args:
            file: its path.
            program: what it should have remctld run; None if that does not matter.

        Returns:
            The differences, a sentence each.

        Raises:
            OSError: the file cannot be read.
            CommandError: remctld could not read it.
        """
        from .configuration import differences

        return differences(self, file, program)


def _report_before_run(error: BaseException) -> None:
    """Report what ends a program before it runs its backend: an import that fails, for example."""
    from .running import Run

    root = Root("backend", "", None, None)
    root.name = os.environ.get("REMCTL_COMMAND", root.name)
    Run(root, os.environ, None, sys.stdout, own_process=True).internal_error(error)


if "REMCTL_COMMAND" in os.environ:  # remctld would hand to the caller what Python prints.
    report_uncaught(_report_before_run)
