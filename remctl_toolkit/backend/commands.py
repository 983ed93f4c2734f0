"""Groups of commands: declare commands, and find them by name."""

import os

from .acl import entries_of, only_for_remctld
from .command import Command
from .errors import UsageError, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, TypeVar

    from .acl import Acl

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["Group", "Root"]

_RESERVED = ("help", "summary")  # remctl.conf has remctld ask for these
_KEYWORDS = ("ALL", "EMPTY")  # of remctl.conf


class Group:
    """Commands under one name. Make one with ``Backend.group()``.

    Attributes:
        path: names of the outer groups and its own; empty for the backend itself.
        about: description of its commands.
    """

    def __init__(
        self,
        path: tuple[str, ...],
        about: str,
        acl: tuple[str, ...],
        line: "list[Command] | None" = None,
    ) -> None:
        """Start empty.

        Args:
            path, about: see above.
            acl: the entries for commands that declare no ACL.
            line: the commands that share a line of remctl.conf with those of this group; None
                if each member has a line of its own.
        """
        self.path = path
        self.about = about
        self.acl = acl
        self.members: dict[str, Command | Group] = {}
        self._line = line

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
        """Make a function a subcommand: a decorator that returns the function unchanged.

        Positional parameters are arguments, optional if they have a default; ``*names`` takes any
        number; keyword-only parameters are options. Annotations give the types.

        Args:
            name: name of the subcommand; None means the function's name with ``-`` for ``_``. The
                command ``""`` runs when no subcommand is given.
            stdin: the parameter that comes on standard input: of any size, and with any octets.
            logmask: parameters that remctld's log must not show.
            acl: who may run it: one or several entries of remctl.conf, such as ``"ANYUSER"``. None
                means those of the group or the backend. remctld enforces them for each line. The
                backend enforces those that it can evaluate for each command: principals and
                ANYUSER, also with ``deny:``.
            json: the function returns data; this adds an option ``--json``.
            hidden: omit it from help and summary.

        Raises:
            TypeError: the function cannot be a command, or does not fit the declaration (the text
                names the command and the parameter); or the parentheses are missing.
            ValueError: the name is taken, reserved, or cannot be written in remctl.conf; remctld
                would refuse the ACL; or commands of a group have different ACLs, and one has none
                or has an entry that only remctld can evaluate (a file, group or pattern): remctld
                has one ACL for the whole group.
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
                acl=entries_of(acl, " ".join((*self.path, own))) or self.acl,
                json=json,
                hidden=hidden,
            )
            if name is None and own in ("", "<lambda>"):
                raise ValueError(f'{function!r} has no name: write command("NAME")')
            self._add(own, command)
            return function

        return register

    def group(self, name: str, about: str = "", *, acl: "Acl | None" = None) -> "Group":
        """Create a subcommand that has subcommands.

        Args:
            name: name of the group.
            about: description of its commands, for the help.
            acl: who may run the commands that declare no ACL: see command().

        Raises:
            TypeError, ValueError: see command().
        """
        if not name:
            raise ValueError("a group needs a name")
        path = (*self.path, name)
        line = [] if self._line is None else self._line
        group = Group(path, about, entries_of(acl, " ".join(path)) or self.acl, line)
        self._add(name, group)
        return group

    def _add(self, name: str, member: "Command | Group") -> None:
        if name in self.members:
            raise ValueError(f"subcommand {name!r} is already declared")
        if not self.path and name in (*_RESERVED, *_KEYWORDS):
            raise ValueError(f"subcommand name {name!r} is reserved: choose another")
        if name and not _is_a_word(name):
            raise ValueError(f"{name!r} cannot be written in remctl.conf: use one printable word")
        if isinstance(member, Command) and self._line is not None:
            _check_line([*self._line, member])
            self._line.append(member)
        self.members[name] = member

    def commands(self) -> "Iterator[Command]":
        """Return all commands, including those of inner groups, in the order of declaration."""
        for member in self.members.values():
            if isinstance(member, Group):
                yield from member.commands()
            else:
                yield member

    def find(self, args: "Sequence[bytes]") -> "tuple[Command, Sequence[bytes]]":
        """Return the command that the arguments name, and the arguments after its name.

        Raises:
            UsageError: there is no such command.
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
        """Report whether one of its commands reads its last argument from standard input."""
        return any(command.stdin is not None for command in self.commands())


class Root(Group):
    """All commands of a program.

    Attributes:
        name: the command, as clients name it.
        log: function that gets the text of internal errors; None for the system log.
    """

    def __init__(
        self,
        name: str,
        about: str,
        acl: "Acl | None",
        log: "Callable[[str], object] | None",
    ) -> None:
        """Start without subcommands.

        Raises:
            TypeError, ValueError: see Group.command().
        """
        super().__init__((), about, entries_of(acl, name))
        if name in _KEYWORDS or not _is_a_word(name) or name.startswith("#"):
            raise ValueError(f"{name!r} cannot be written in remctl.conf: use one printable word")
        self.name = name
        self.log = log


def _is_a_word(name: str) -> bool:
    return name.split() == [name] and name.isprintable()


def _check_line(commands: "Sequence[Command]") -> None:
    """Check that the backend can enforce the ACLs of commands that share a line of remctl.conf.

    Raises:
        ValueError: their ACLs differ, and the backend cannot evaluate one of them.
    """
    if len({command.acl for command in commands}) == 1:
        return
    for command in commands:
        words = " ".join(command.path)
        if not command.acl:
            raise ValueError(
                f"{words} has no ACL, but other commands of its group have one: they share a line"
                " of remctl.conf, so declare acl= for the group or for each command"
            )
        entry = only_for_remctld(command.acl)
        if entry is not None:
            raise ValueError(
                f"{words} has the ACL entry {entry!r}, which only remctld can evaluate, but another"
                " command of its group has a different ACL: they share a line of remctl.conf, so"
                " give all the same ACL, or move this command out of the group"
            )
