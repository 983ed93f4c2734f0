"""List the hosts where the command can safely be repeated, on the screen and for --failed-to."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterable

from remctl_toolkit.fleet import Host, Outcome
from remctl_toolkit.hosts import fold

from .screen import Screen
from .secret import UsageError
from .words import headline

__all__ = ["FailedFile", "Failures"]

_MODE = 0o666  # less the umask, as for a file that a shell makes

_REST = """\
# The command ran on these, or may have: remove the first # of a line to repeat it there.
"""


class Failures:
    """The hosts where the command failed, by whether it is safe to repeat it there.

    Args:
        hosts: all hosts, in their order.
        port: the port of hosts named without one; None is the default.
    """

    def __init__(self, hosts: Iterable[Host], port: int | None = None) -> None:
        self._place = {host: place for place, host in enumerate(hosts)}
        self._port = port
        self._safe: list[Host] = []
        self._unsafe: dict[Host, str] = {}  # with the headline of the failure

    def add(self, outcome: Outcome) -> None:
        """Record an outcome."""
        if outcome.ok:
            return
        if outcome.may_have_run:
            self._unsafe[outcome.host] = headline(outcome)
        else:
            self._safe.append(outcome.host)

    def show(self, screen: Screen, options: list[str], command: list[str]) -> None:
        """Print a command line for the safe hosts, and name the others.

        Args:
            screen: printed to its standard error.
            options: the options of the command line, without those that choose hosts.
            command: the command and its arguments.
        """
        if self._unsafe:
            names = fold(self._ordered(self._unsafe))
            screen.err.say(f"not safe to repeat (the command ran, or may have run): {names}")
        if self._safe:
            pattern = fold(self._ordered(self._safe))
            words = ["remctl-fleet", *options, pattern, "--", *command]
            screen.err.say(f"again: {' '.join(map(_quoted, words))}", whole=True)

    def lines(self) -> str:
        """Return a hosts file with the safe hosts, and the others in comments."""
        safe = [f"{self._with_port(host)}\n" for host in self._ordered(self._safe)]
        unsafe = [
            f"# {self._with_port(host)}  # {self._unsafe[host]}\n"
            for host in self._ordered(self._unsafe)
        ]
        return "".join([*safe, *([_REST] if unsafe else []), *unsafe])

    def _with_port(self, host: Host) -> Host:
        return Host(host.name, host.port or self._port)

    def _ordered(self, hosts: Iterable[Host]) -> list[Host]:
        return sorted(hosts, key=self._place.__getitem__)


class FailedFile:
    """The file of ``--failed-to``, which keeps its old content until the run has ended.

    Raises:
        UsageError: it cannot be opened for writing.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, _MODE)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from None

    def write(self, text: str) -> None:
        """Replace the content.

        Raises:
            OSError: it cannot be written; `filename` is its name.
        """
        try:
            with open(self._descriptor, "wb") as file:
                if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    file.truncate()
                file.write(text.encode())
        except OSError as error:
            error.filename = self._path
            raise


def _quoted(word: str) -> str:
    """Quote a word for a shell, as ``$'...'`` with escapes if it is not printable."""
    if word.isprintable():
        return shlex.quote(word)
    return f"$'{''.join(map(_escaped, word))}'"


def _escaped(character: str) -> str:
    if character in "'\\":
        return f"\\{character}"
    if character.isprintable():
        return character
    return "".join(f"\\x{octet:02x}" for octet in os.fsencode(character))
