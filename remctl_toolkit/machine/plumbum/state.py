"""What a machine keeps on this side: its folder, its environment, and the words of its commands."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from plumbum.commands import BaseCommand, shquote
from plumbum.commands.base import BoundCommand, BoundEnvCommand
from plumbum.machines.env import BaseEnv
from plumbum.machines.remote import RemoteCommand, RemoteEnv
from plumbum.path.remote import RemotePath, RemoteWorkdir

if TYPE_CHECKING:
    from .machine import Machine


class MachineEnv(RemoteEnv):  # type: ignore[misc]
    """The environment of a machine's commands.  Changes are kept here, and sent with each command.

    Names are those that any shell knows: letters, digits and underscores, no digit first.
    """

    __slots__ = ("_orig",)

    def __init__(self, remote: Machine) -> None:
        super().__init__(remote)
        # Without a PATH, plumbum would take the folder for it.
        if "PATH" not in self._curr:
            self._curr["PATH"] = remote.connection.far.path
            self._update_path()
        self._orig = dict(self._curr, PATH=self.path.join())

    def __setitem__(self, name: str, value: str) -> None:
        BaseEnv.__setitem__(self, _checked(name), str(value))

    def __delitem__(self, name: str) -> None:
        BaseEnv.__delitem__(self, _checked(name))

    def pop(self, name: str, *default: str) -> str | None:
        """Take a name out, and return its value."""
        value: str | None = BaseEnv.pop(self, _checked(name), *default)
        return value

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set names, as dict.update() does."""
        changes = dict(*args, **kwargs)
        BaseEnv.update(self, {_checked(name): str(value) for name, value in changes.items()})

    def changes(self) -> dict[str, str | None]:
        """Return what is different from how it was found; None for what was taken out."""
        now = self._curr
        now["PATH"] = self.path.join()
        changed: dict[str, str | None] = {
            name: str(value) for name, value in now.items() if self._orig.get(name) != value
        }
        changed.update((name, None) for name in self._orig if name not in now)
        return changed


def _checked(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"name in env must be text, not {type(name).__name__}")
    if not (name.isascii() and name.isidentifier()):
        raise ValueError(f"Invalid environment variable name: {name!r}")
    return name


class MachineWorkdir(RemoteWorkdir):  # type: ignore[misc]
    """The folder of a machine's commands; it is kept here, and sent with each command."""

    __slots__ = ()

    def __new__(cls, remote: Machine, folder: str | None = None) -> Self:
        found: Self = RemotePath.__new__(cls, remote, remote._folder if folder is None else folder)
        return found

    def chdir(self, newdir: str | RemotePath) -> Self:
        """Change it.

        Raises:
            ProcessExecutionError: there is no such folder, or it cannot be entered.
        """
        # What comes after the path keeps a newline at its end.
        found = self.remote._session.run(f"cd -- {shquote(newdir)} && pwd && echo .")[1]
        changed = type(self)(self.remote, found.removesuffix("\n.\n"))
        self.remote._cwd = changed
        return changed


class MachineCommand(RemoteCommand):  # type: ignore[misc]
    """A program of a machine.  Arguments may be octets, too: names that are no text."""

    __slots__ = ()

    def formulate(self, level: int = 0, args: Sequence[Any] = ()) -> list[str]:
        """Return the command's words; see plumbum."""
        words: list[str] = super().formulate(level, [_as_text(word) for word in args])
        return words


def _as_text(word: Any) -> Any:
    if isinstance(word, list | tuple):
        return [_as_text(one) for one in word]
    return os.fsdecode(word) if isinstance(word, bytes) else word


class Words:
    """The words of one of plumbum's commands, with what is bound to them.

    Attributes:
        argv: the program and its arguments.
        env: what is to be set in its environment.
        cwd: the folder to run it in, relative to the machine's; None is that.
        encoding: that of its output, or "auto".
    """

    def __init__(self, command: BaseCommand | Sequence[Any] | str) -> None:
        self.env: dict[str, str] = {}
        self.cwd: str | None = None
        self.encoding: str | None = "auto"
        if isinstance(command, BaseCommand):
            self.encoding = command._get_encoding()
            self.argv = self._unwrap(command)
        elif isinstance(command, str):
            self.argv = ["/bin/sh", "-c", command]  # As ssh does with a line of text.
        else:
            self.argv = [_as_text(word) for word in command]

    def _unwrap(self, command: BaseCommand) -> list[Any]:
        args: list[Any] = []
        outer: BaseCommand = command
        while isinstance(outer, BoundCommand | BoundEnvCommand):
            if isinstance(outer, BoundCommand):
                args = [*outer.args, *args]
            else:
                self.env = {**outer.env, **self.env}
                self.cwd = outer.cwd if self.cwd is None else self.cwd
            outer = outer.cmd
        if isinstance(outer, RemoteCommand):
            # The level at which nothing is quoted; commands in commands are, once for each level.
            words: list[Any] = outer.formulate(0, args)
            return words
        return ["/bin/sh", "-c", " ".join(command.formulate(1))]

    def folder(self, machine: Machine, cwd: Any) -> str:
        """Return the folder to run it in; `cwd` is what was asked for."""
        wanted = self.cwd if cwd is None else str(cwd)
        return posixpath.join(machine._folder, wanted) if wanted else machine._folder
