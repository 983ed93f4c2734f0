"""What remctl-rsh was asked for; see options.py for how it is found in the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

TYPE_CHECKING = False  # typing takes longer to import than all of this to run.
if TYPE_CHECKING:
    from typing import TypeAlias

__all__ = ["Request", "UsageError"]

Forward: TypeAlias = "tuple[str | None, int | str, str | None, int | str]"

CONNECT_TIMEOUT = 30.0  # seconds


class UsageError(Exception):
    """The command line, or a variable of the environment, cannot be right."""


class Request:
    """A host, what to run there, and how.

    Of settings that are given more than once the first counts, as with ssh; those of the
    environment come last.

    Attributes:
        page: "help", "version" or "configuration": print that, and do nothing else; "bash", "zsh"
            and "fish" are what completes options and hosts in that shell.
        command: the words to run; empty means the account's shell.
        exact: whether they are the words of a program, not of a shell.
        terminal: whether a terminal was asked for.
        changes: what to set in the command's environment.
        local, remote: the tunnels, as (bind address, port, host, port); a Unix socket is None and
            a path.
    """

    def __init__(self) -> None:
        self.page: str | None = None
        self.host = ""
        self.user: str | None = None
        self.port: int | None = None
        self.principal: str | None = None
        self.python: str | None = None
        self.shell: str | None = None
        self.ccache: str | None = None
        self.timeout: float | None = None
        self.source_ip: str | None = None
        self.command: list[str] = []
        self.remote_command: str | None = None
        self.exact = False
        self.subsystem = False
        self.no_command = False
        self.no_input = False
        self.terminal = False
        self.quiet = False
        self.verbose = False
        self.changes: dict[str, str] = {}
        self.local: list[Forward] = []
        self.remote: list[Forward] = []

    def set_first(self, name: str, value: object) -> None:
        """Set an attribute that has no value yet."""
        if getattr(self, name) is None:
            setattr(self, name, value)

    def set_destination(self, text: str) -> None:
        """Take ``[user@]host``.

        Raises:
            UsageError: there is no host or user in it.
        """
        user, at, host = text.rpartition("@")
        if not host or (at and not user) or host.startswith("-") or "/" in host:
            raise UsageError(f"{text!r} is no host, and no user@host")
        if at:
            self.set_first("user", user)
        self.host = self.host or host

    def set_from_environment(self, environ: Mapping[str, str]) -> None:
        """Take the variables REMCTL_RSH_*, for programs that pass no options.

        Raises:
            UsageError: one cannot be right; its name is in the text.
        """
        for name, convert in _VARIABLES.items():
            variable = f"REMCTL_RSH_{name.upper()}"
            if variable in environ and getattr(self, name) is None:
                try:
                    setattr(self, name, convert(environ[variable]))
                except UsageError as error:
                    raise UsageError(f"environment variable {variable}: {error}") from None

    def send_variables(self, patterns: str, environ: Mapping[str, str] = os.environ) -> None:
        """Have the variables whose names match set for the command, as ssh's SendEnv."""
        from fnmatch import fnmatchcase

        for pattern in patterns.split():
            if pattern.startswith("-"):
                for name in [n for n in self.changes if fnmatchcase(n, pattern[1:])]:
                    del self.changes[name]
            else:
                found = {n: v for n, v in environ.items() if fnmatchcase(n, pattern)}
                self.changes = {**found, **self.changes}

    def set_variables(self, text: str) -> None:
        """Have variables set for the command, as ssh's SetEnv.

        Raises:
            UsageError: it is not NAME=VALUE [...].
        """
        import shlex

        try:
            words = shlex.split(text)
        except ValueError as error:
            raise UsageError(f"{text!r}: {error}") from None
        for word in words:
            name, equals, value = word.partition("=")
            if not name or not equals:
                raise UsageError(f"{word!r} is not NAME=VALUE")
            self.changes[name] = value


def port_number(text: str) -> int:
    """Return a port.

    Raises:
        UsageError: it is none.
    """
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= 65535:
        raise UsageError(f"a port is a number from 1 to 65535, not {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """Return a time.

    Raises:
        UsageError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UsageError(f"it must be seconds, more than 0, not {text!r}")
    return value


def forward(text: str) -> Forward:
    """Return what ``[bind_address:]port:host:port`` stands for.

    The path of a Unix socket, with a slash in it, may take the place of ``[bind_address:]port`` and
    of ``host:port``: its host is None.

    Raises:
        UsageError: it is something else.
    """
    parts = _split_address(text)
    size = 1 if "/" in parts[-1] else 2
    here, there = parts[:-size], parts[-size:]
    if len(here) == 1 and "/" not in here[0]:
        here.insert(0, "localhost")
    if len(here) not in (1, 2) or not all(parts):
        raise UsageError(f"a tunnel is [bind_address:]port:host:port, not {text!r}")
    return (*_end(here, zero=True), *_end(there))


def _end(parts: list[str], *, zero: bool = False) -> tuple[str | None, int | str]:
    if len(parts) == 1:
        return None, parts[0]
    host, port = parts
    return host, 0 if zero and port == "0" else port_number(port)  # 0: any that is free


def _split_address(text: str) -> list[str]:
    """Split at colons, but not at those within brackets."""
    parts = [""]
    bracketed = False
    for letter in text:
        if letter in "[]":
            bracketed = letter == "["
        elif letter == ":" and not bracketed:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


_VARIABLES: dict[str, Callable[[str], object]] = {
    "port": port_number,
    "principal": str,
    "python": str,
    "shell": str,
    "ccache": str,
    "timeout": seconds,
}
