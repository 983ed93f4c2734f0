"""The environment and working directory of a machine's commands, sent with each command."""

from __future__ import annotations

from typing import Any, Self

from plumbum.commands import shquote
from plumbum.machines.env import BaseEnv
from plumbum.machines.remote import RemoteEnv
from plumbum.path.remote import RemotePath, RemoteWorkdir


class MachineEnv(RemoteEnv):  # type: ignore[misc]
    """The environment of a machine's commands.

    Names have letters, digits and underscores, and do not begin with a digit, as in any shell.
    """

    __slots__ = ("_orig",)

    def __init__(self, remote: Any) -> None:
        super().__init__(remote)
        # Without a PATH, plumbum would use the working directory.
        if "PATH" not in self._curr:
            self._curr["PATH"] = remote.connection.far.path
            self._update_path()
        self._orig = dict(self._curr, PATH=self.path.join())

    def __setitem__(self, name: str, value: str) -> None:
        BaseEnv.__setitem__(self, _checked(name), str(value))

    def __delitem__(self, name: str) -> None:
        BaseEnv.__delitem__(self, _checked(name))

    def pop(self, name: str, *default: str) -> str | None:
        """Remove a variable, and return its value."""
        value: str | None = BaseEnv.pop(self, _checked(name), *default)
        return value

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set variables, as dict.update() does."""
        changes = dict(*args, **kwargs)
        BaseEnv.update(self, {_checked(name): str(value) for name, value in changes.items()})

    def changes(self) -> dict[str, str | None]:
        """Return the changes from the initial environment; None for removed variables."""
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
    """The working directory of a machine's commands."""

    __slots__ = ()

    def __new__(cls, remote: Any, folder: str | None = None) -> Self:
        """Make it from the machine's directory, or from another path."""
        found: Self = RemotePath.__new__(cls, remote, remote._folder if folder is None else folder)
        return found

    def chdir(self, newdir: str | RemotePath) -> Self:
        """Change the working directory.

        Raises:
            ProcessExecutionError: the directory does not exist, or cannot be entered.
        """
        # The line with "." preserves newlines at the end of the path.
        found = self.remote._session.run(f"cd -- {shquote(newdir)} && pwd && echo .")[1]
        changed = type(self)(self.remote, found.removesuffix("\n.\n"))
        self.remote._cwd = changed
        return changed
