"""Groups of commands: how commands are declared and found."""

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

_RESERVED = ("help", "summary")  # what remctld is configured to ask for
_KEYWORDS = ("ALL", "EMPTY")  # of remctl.conf


class Group:
    """Commands under one name. Make one with ``Backend.group()``.

    Attributes:
        path: the names that lead to it; empty for the backend itself.
        about: what its commands are about.
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
            acl: the entries for commands that declare none of their own.
            line: the commands that share a line of remctl.conf with those of this group; None
                where each member has its own.
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
        """Make a function a subcommand; a decorator, which returns the function as it is.

        Its parameters are the arguments: positional ones in their order, with a default optional,
        ``*names`` repeated; keyword-only ones are options. The types are those of the annotations.

        Args:
            name: the subcommand, by default the function's name with ``-`` for ``_``. ``""`` is
                what runs when no subcommand is given.
            stdin: the parameter that comes on standard input: of any size, and with any octets.
            logmask: parameters that remctld's log must not show.
            acl: who may run it: entries as in remctl.conf, ``"ANYUSER"`` say, or several. By
                default those of the group or the backend. remctld enforces them for each line, and
                the backend for each command, as far as it can: principals and ANYUSER, denied ones
                too.
            json: what the function returns is data, and there is an option ``--json``.
            hidden: leave it out of help and summary.

        Raises:
            TypeError: the function cannot be a command, or does not fit what is declared; the text
                names the command and the parameter. Or the parentheses were left out.
            ValueError: the name is taken, reserved, or cannot be written in remctl.conf; remctld
                would not take the ACL; or commands of a group differ in their ACLs, and one is
                missing or has an entry that only remctld can evaluate (of a file, a group, a
                pattern): remctld has one ACL for all of a group.
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
                raise ValueError(f'{function!r} has no name for a command: write command("NAME")')
            self._add(own, command)
            return function

        return register

    def group(self, name: str, about: str = "", *, acl: "Acl | None" = None) -> "Group":
        """Make a subcommand that has subcommands.

        Args:
            name: the subcommand.
            about: what its commands are about, for the help.
            acl: who may run those of them that declare no other: see command().

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
            raise ValueError(f"there is a subcommand {name!r} already")
        if not self.path and name in (*_RESERVED, *_KEYWORDS):
            raise ValueError(f"{name!r} is reserved")
        if name and not _is_a_word(name):
            raise ValueError(f"{name!r} cannot be written in remctl.conf")
        if isinstance(member, Command) and self._line is not None:
            _check_line([*self._line, member])
            self._line.append(member)
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


class Root(Group):
    """All commands of a program.

    Attributes:
        name: the command, as clients name it.
        log: what gets the text of internal errors; None for the system log.
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
            raise ValueError(f"{name!r} cannot be written in remctl.conf")
        self.name = name
        self.log = log


def _is_a_word(name: str) -> bool:
    return name.split() == [name] and name.isprintable()


def _check_line(commands: "Sequence[Command]") -> None:
    """Refuse commands of one line of remctl.conf if nobody could tell who may run which.

    Raises:
        ValueError: their ACLs differ, and the backend cannot evaluate one of them.
    """
    if len({command.acl for command in commands}) == 1:
        return
    for command in commands:
        words = " ".join(command.path)
        if not command.acl:
            raise ValueError(
                f"{words} has no ACL, and other commands of its group have one: remctld has one"
                " line for all of them, so declare acl= for the group, or for each"
            )
        entry = only_for_remctld(command.acl)
        if entry is not None:
            raise ValueError(
                f"{words} has the ACL entry {entry!r}, and the ACL of another command of its group"
                " differs: remctld has one line for all of them, and only remctld can evaluate this"
                " entry, so give all the same ACL, or make it a subcommand outside of the group"
            )
