"""Groups of commands, and the backend: how commands are declared and found."""

import os
import sys

from .command import Command
from .errors import UsageError, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, TypeVar

    from .invoking import InvokeResult

    F = TypeVar("F", bound=Callable[..., Any])
    Acl = str | Sequence[str]

__all__ = ["Backend", "Group"]

_RESERVED = ("help", "summary")  # what remctld is configured to ask for
_KEYWORDS = ("ALL", "EMPTY")  # of remctl.conf


class Group:
    """Commands under one name. Make one with ``Backend.group()``.

    Attributes:
        path: the names that lead to it; empty for the backend itself.
        about: what its commands are about.
    """

    def __init__(self, path: tuple[str, ...], about: str, acl: "Acl | None") -> None:
        """Start empty."""
        self.path = path
        self.about = about
        self.acl = _words(acl)
        self.members: dict[str, Command | Group] = {}

    def command(
        self,
        name: str | None = None,
        /,
        *,
        stdin: str | None = None,
        logmask: "Sequence[str]" = (),
        acl: "Acl | None" = None,
        json: bool = False,
        hidden: bool = False,
    ) -> "Callable[[F], F]":
        """Make a function a subcommand; a decorator, which returns the function as it is.

        Its parameters are the arguments: positional ones in their order, with a default optional,
        ``*names`` repeated; keyword-only ones are options. The types are those of the annotations.

        Args:
            name: the subcommand, by default the function's name with ``-`` for ``_``. ``""`` is
                what runs when no subcommand is given.
            stdin: the parameter that comes on standard input: of any size, and with any octets.
            logmask: parameters that remctld's log must not show.
            acl: who may run it, for ``config``; by default as the group or the backend says.
            json: what the function returns is data, and there is an option ``--json``.
            hidden: leave it out of help and summary.

        Raises:
            TypeError: the function cannot be a command, or does not fit what is declared; the text
                names the command and the parameter. Or the parentheses were left out.
            ValueError: the name is taken, reserved, or cannot be written in remctl.conf.
        """
        if name is not None and not isinstance(name, str):
            raise TypeError("write @backend.command(), with parentheses")

        def register(function: "F") -> "F":
            own = name
            if own is None:
                own = getattr(function, "__name__", "").strip("_").replace("_", "-")
            command = Command(
                function,
                self.path,
                own,
                stdin=stdin,
                logmask=logmask,
                acl=_words(acl) or self.acl,
                json=json,
                hidden=hidden,
            )
            if name is None and own in ("", "<lambda>"):
                raise ValueError(f'{function!r} has no name for a command: write command("NAME")')
            self._add(own, command)
            return function

        return register

    def group(self, name: str, about: str = "", *, acl: "Acl | None" = None) -> "Group":
        """Make a subcommand that has subcommands.

        Args:
            name: the subcommand.
            about: what its commands are about, for the help.
            acl: who may run them, for ``config``.

        Raises:
            ValueError: see command().
        """
        if not name:
            raise ValueError("a group needs a name")
        group = Group((*self.path, name), about, _words(acl) or self.acl)
        self._add(name, group)
        return group

    def _add(self, name: str, member: "Command | Group") -> None:
        if name in self.members:
            raise ValueError(f"there is a subcommand {name!r} already")
        if not self.path and name in (*_RESERVED, *_KEYWORDS):
            raise ValueError(f"{name!r} is reserved")
        if name and (name.split() != [name] or not name.isprintable()):
            raise ValueError(f"{name!r} cannot be written in remctl.conf")
        self.members[name] = member

    def commands(self) -> "Iterator[Command]":
        """Return all commands, those of groups in it included, in the order of declaration."""
        for member in self.members.values():
            if isinstance(member, Group):
                yield from member.commands()
            else:
                yield member

    def find(self, args: "Sequence[bytes]") -> "tuple[Command, Sequence[bytes]]":
        """Return the command that is meant, and the arguments after its name.

        Raises:
            UsageError: there is none.
        """
        name = os.fsdecode(args[0]) if args else ""
        member = self.members.get(name) if name or not args else None
        if isinstance(member, Group):
            return member.find(args[1:])
        if isinstance(member, Command):
            return member, args[1:]
        if not args:
            after = f" after {' '.join(self.path)}" if self.path else ""
            raise UsageError(f"missing subcommand{after}")
        raise UsageError(f"unknown subcommand: {quoted(' '.join((*self.path, name)))}")

    def takes_data_last(self) -> bool:
        """Whether a command in it has its last argument on standard input."""
        return any(command.stdin is not None for command in self.commands())


class Backend(Group):
    """The program that remctld runs for a command.

    Attributes:
        name: the command, as clients name it.
        log: what gets the text of internal errors; the system log unless another was given.
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
            acl: who may run its commands, for ``config``: ``"ANYUSER"``, say, or several entries.
            log: called with a text, of many lines, where an internal error is to be logged.

        Raises:
            ValueError: the name cannot be written in remctl.conf.
        """
        super().__init__((), about, acl)
        if name.split() != [name] or not name.isprintable() or name in _KEYWORDS:
            raise ValueError(f"{name!r} cannot be written in remctl.conf")
        self.name = name
        self.log = log
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
            user: the principal that calls, REMOTE_USER.
            input: the argument on standard input; None if there is none.
            environ: more of what remctld sets: REMOTE_ADDR, REMOTE_HOST, REMOTE_EXPIRES,
                REMCTL_COMMAND (by default the backend's name).
            reraise: let an unexpected exception through, instead of making it an internal error.

        Returns:
            A `remctl.RemctlSimpleResult`, as a client would get it, with an attribute ``log``:
            what would be in the system log.
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


def _words(acl: "Acl | None") -> tuple[str, ...]:
    return () if acl is None else (acl,) if isinstance(acl, str) else tuple(acl)
