"""The backend: a program creates one, declares its commands and runs it."""

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
        log: function that gets the text of internal errors; None for the system log.
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
            name: the command, as clients and remctl.conf name it.
            about: description for the help.
            acl: who may run the commands that declare no ACL: see command().
            log: called with the report of each internal error, a str of many lines.

        Raises:
            TypeError: an ACL entry is not a str.
            ValueError: remctl.conf cannot express the name or the ACL: see command().
        """
        super().__init__(name, about, acl, log)
        # The file that created it; the testing server runs this.
        self.file: str | None = sys._getframe(1).f_globals.get("__file__")

    def __repr__(self) -> str:
        return f"<Backend {self.name!r}, {sum(1 for _ in self.commands())} commands>"

    def run(self) -> int:
        """Run the command that this process was started for.

        Returns:
            The exit status, for ``raise SystemExit(backend.run())``. It never raises.
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
            args: subcommand and arguments, without the argument on standard input.
            user: the calling principal, REMOTE_USER. If it is None, only an ACL for any user
                permits the command.
            input: the argument on standard input; None means no standard input.
            environ: other variables that remctld sets: REMOTE_ADDR, REMOTE_HOST, REMOTE_EXPIRES,
                REMCTL_COMMAND (by default the backend's name).
            reraise: raise an unexpected exception instead of reporting an internal error.

        Returns:
            A `remctl.RemctlSimpleResult`, as a client would get it. Its attribute ``log`` has the
            report of an internal error, which is also written to standard error.
        """
        from .invoking import invoke

        return invoke(self, args, user=user, input=input, environ=environ or {}, reraise=reraise)

    def rules(self) -> "list[dict[str, Any]]":
        """Return the lines of remctl.conf: keyword arguments of `remctl_toolkit.testing.Command`.

        Only ``program`` is missing.
        """
        from .configuration import rules

        return rules(self)

    def check(self, file: "str | os.PathLike[str]", program: str | None = None) -> list[str]:
        """Compare a remctl.conf with the declarations, as ``check FILE`` does.

        Args:
            file: path of the remctl.conf.
            program: path that the file should have remctld run; None to accept any.

        Returns:
            The differences, a sentence each.

        Raises:
            OSError: the file cannot be read.
            CommandError: remctld would refuse the file.
        """
        from .configuration import differences

        return differences(self, file, program)


def _report_before_run(error: BaseException) -> None:
    """Report an exception that ends the program before run(), such as a failing import."""
    from .running import Run

    root = Root("backend", "", None, None)
    root.name = os.environ.get("REMCTL_COMMAND", root.name)
    Run(root, os.environ, None, sys.stdout, own_process=True).internal_error(error)


if "REMCTL_COMMAND" in os.environ:  # remctld sends the caller whatever Python prints.
    report_uncaught(_report_before_run)
