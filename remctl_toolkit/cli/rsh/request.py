"""The request that options.py parses from the command line of remctl-rsh."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

TYPE_CHECKING = False  # Importing typing takes longer than parsing.
if TYPE_CHECKING:
    from typing import TypeAlias

__all__ = ["Request", "UsageError"]

Endpoint: TypeAlias = "tuple[str | None, int | str]"
Forward: TypeAlias = "tuple[str | None, int | str, str | None, int | str]"

CONNECT_TIMEOUT = 30.0  # seconds

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LONGEST_TIME = 1 << 22  # seconds, as everywhere in remctl_toolkit.machine


class UsageError(Exception):
    """The command line or an environment variable is wrong."""


class Request:
    """A host, a command, and settings.

    If a setting is given more than once the first counts, as with ssh.  The environment comes last.

    Attributes:
        page: page to print instead of running a command: "help", "version", "configuration", or
            the completion script for "bash", "zsh" or "fish".
        host, typed_host: the host to connect to, and as it was typed before HostName replaced it.
        command: the words to run; empty means the account's login shell.
        exact: whether to run the words without a shell.
        session: "none" for -N, "subsystem" for -s.
        terminal: whether a terminal was requested.
        background: whether to fork when the command has started.
        changes: variables to set in the command's environment.
        stdio: the (host, port) to forward standard input and output to.
        unknown: patterns of unknown options to ignore, separated by commas.
        local, remote: the tunnels, as (bind address, port, host, port); a Unix socket is None and
            a path.
    """

    def __init__(self) -> None:
        self.page: str | None = None
        self.host = self.typed_host = ""
        self.host_name: str | None = None
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
        self.session: str | None = None
        self.no_input: bool | None = None
        self.terminal: bool | None = None
        self.background: bool | None = None
        self.log_level: str | None = None
        self.changes: dict[str, str] = {}
        self.stdio: Endpoint | None = None
        self.local: list[Forward] = []
        self.remote: list[Forward] = []
        self.no_forwards: bool | None = None
        self.unknown: str | None = None

    @property
    def no_command(self) -> bool:
        """True if no command runs and only tunnels are open."""
        return self.session == "none"

    @property
    def subsystem(self) -> bool:
        """True if the command is the name of a subsystem."""
        return self.session == "subsystem"

    @property
    def quiet(self) -> bool:
        """True to omit the report of a signal that killed the command."""
        return self.log_level in ("quiet", "fatal")

    @property
    def verbose(self) -> bool:
        """True to report each step."""
        return (self.log_level or "").startswith(("verbose", "debug"))

    def set_first(self, name: str, value: object) -> None:
        """Set an attribute unless it has a value."""
        if getattr(self, name) is None:
            setattr(self, name, value)

    def set_destination(self, text: str) -> None:
        """Parse ``[user@]host`` or ``ssh://[user@]host[:port]``; the host may be in brackets.

        Raises:
            UsageError: the host, the user or the port is missing or wrong.
        """
        uri = text.startswith("ssh://")
        user, at, host = text.removeprefix("ssh://").rpartition("@")
        port = ""
        if uri:
            from urllib.parse import unquote

            user = unquote(user.partition(";")[0])
            host, port, *more = [*split_address(host.removesuffix("/")), ""]
            host = "" if len(more) > 1 else host
        elif host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        if not host or (at and not user) or host.startswith("-") or "/" in host:
            raise UsageError(f"{text!r} is not HOST, USER@HOST or ssh://USER@HOST:PORT")
        if at:
            self.set_first("user", user)
        if port:
            self.set_first("port", port_number(port))
        self.host = self.typed_host = host

    def set_from_environment(self, environ: Mapping[str, str]) -> None:
        """Apply the variables REMCTL_RSH_*, which serve programs that cannot pass options.

        Raises:
            UsageError: a variable is wrong; the text names it.
        """
        for name, convert in _VARIABLES.items():
            variable = f"REMCTL_RSH_{name.upper()}"
            if variable in environ and getattr(self, name) is None:
                try:
                    setattr(self, name, convert(environ[variable]))
                except UsageError as error:
                    raise UsageError(f"environment variable {variable}: {error}") from None

    def send_variables(
        self, patterns: Sequence[str], environ: Mapping[str, str] = os.environ
    ) -> None:
        """Pass variables with matching names to the command, as SendEnv does."""
        from fnmatch import fnmatchcase

        for pattern in patterns:
            if pattern.startswith("-"):
                for name in [n for n in self.changes if fnmatchcase(n, pattern[1:])]:
                    del self.changes[name]
            else:
                found = {n: v for n, v in environ.items() if fnmatchcase(n, pattern)}
                self.changes = {**found, **self.changes}

    def set_variables(self, words: Sequence[str]) -> None:
        """Set variables for the command, as SetEnv does.

        Raises:
            UsageError: a word is not NAME=VALUE.
        """
        for word in words:
            name, equals, value = word.partition("=")
            if not name or not equals:
                raise UsageError(f"{word!r} is not NAME=VALUE")
            self.changes[name] = value


def port_number(text: str) -> int:
    """Return a port.

    Raises:
        UsageError: it is not a port.
    """
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= 65535:
        raise UsageError(f"a port must be a number from 1 to 65535, not {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """Return a time: ``90``, ``2.5``, ``90s`` or ``1m30s``; see TIME FORMATS in sshd_config(5).

    Raises:
        UsageError: it is not a time, or it is 0 or longer than 48 days.
    """
    total, number = 0.0, ""
    try:
        for letter in text if text[-1:].isalpha() else f"{text}s":
            if letter in "0123456789.":
                number += letter
            else:
                total += float(number) * _UNITS[letter.lower()]
                number = ""
    except (KeyError, ValueError):
        total = 0.0
    if not 0 < total <= _LONGEST_TIME:
        raise UsageError(f"it must be a time more than 0, not {text!r}: write 90, 90s or 1m30s")
    return total


def endpoint(text: str) -> Endpoint:
    """Parse ``host:port`` or the path of a Unix socket.

    Raises:
        UsageError: it is something else.
    """
    parts = split_address(text)
    if not all(parts) or len(parts) != (1 if "/" in text else 2):
        raise UsageError(f"it must be HOST:PORT or the path of a Unix socket, not {text!r}")
    return _endpoint(parts)


def forward(text: str) -> Forward:
    """Parse ``[bind_address:]port:host:port``.

    The path of a Unix socket, with a slash in it, may replace ``[bind_address:]port`` and
    ``host:port``; its host is None.  A bind address that is empty or ``*`` means all addresses.

    Raises:
        UsageError: it is something else.
    """
    parts = split_address(text)
    size = 1 if "/" in parts[-1] else 2
    here, there = parts[:-size], parts[-size:]
    if len(here) == 1 and "/" not in here[0]:
        here.insert(0, "localhost")
    elif len(here) == 2 and here[0] in ("", "*"):
        here[0] = "::"
    if len(here) not in (1, 2) or not all((*here, *there)):
        raise UsageError(f"a tunnel must be [bind_address:]port:host:port, not {text!r}")
    return (*_endpoint(here, zero=True), *_endpoint(there))


def _endpoint(parts: list[str], *, zero: bool = False) -> Endpoint:
    if len(parts) == 1:
        return None, parts[0]
    host, port = parts
    return host, 0 if zero and port == "0" else port_number(port)  # 0: any free port


def split_address(text: str) -> list[str]:
    """Split at colons outside of brackets."""
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
