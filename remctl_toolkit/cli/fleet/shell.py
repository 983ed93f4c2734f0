"""An interactive prompt: many commands to one server, over one connection."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import remctl
from remctl_toolkit.cli.cures import explained
from remctl_toolkit.fleet import Host

from .screen import YELLOW, Screen

__all__ = ["shell"]

_MOST_LINES = 2000  # of the history
_REFUSED = 255  # as remctl(1)
_FAILED = 1

_GREETING = """\
Connected to {host}.
Type commands with their arguments, quoted as in a shell; "help" asks the server
what there is. Ctrl-C gives a command up, Ctrl-D or "exit" ends.
Lines that begin with a space are not kept in the history.
"""


def shell(host: Host, options: argparse.Namespace) -> int:
    """Read commands and run them, until the end of the input.

    Without a terminal there is no prompt and no history: it runs the lines of a file.

    Returns:
        The exit status of the last command, as that of a shell.
    """
    screen = Screen()
    interactive = sys.stdin.isatty() and screen.out.terminal
    try:
        connection = remctl.Remctl(
            timeout=options.timeout,
            ccache=options.ccache,
            source_ip=options.source_ip,
            credentials=options.credentials,
        )
        port = host.port or options.port
        connection.open(host.name, port, host.principal or options.principal)
    except (remctl.RemctlError, ValueError) as error:
        _tell(error, screen)
        return 2 if isinstance(error, ValueError) else _FAILED
    with connection:
        if not interactive:
            return _run_all(connection, sys.stdin, screen)
        if not options.quiet:
            screen.err.say(_GREETING.format(host=host))
        with _history(screen) as history:
            return _run_all(connection, _typed(f"{host}> ", history), screen)


def _run_all(connection: remctl.Remctl, lines: Iterator[str], screen: Screen) -> int:
    status = 0
    for line in lines:
        try:
            command = shlex.split(line)
        except ValueError as error:
            screen.err.say(f"remctl-fleet: {str(error).lower()}")
            status = 2
            continue
        if command == ["exit"]:
            break
        if command:
            status = _run(connection, command, screen)
    return status


def _run(connection: remctl.Remctl, command: list[str], screen: Screen) -> int:
    """Run a command, its output as it comes, and return its exit status."""
    try:
        for token in connection.stream(command):
            if token.type == "output":
                outlet = screen.out if token.stream == remctl.RemctlStream.STDOUT else screen.err
                outlet.write(token.output)
            elif token.type == "status":
                if token.status and screen.out.terminal:
                    screen.err.say(screen.err.paint(f"exit status {token.status}", YELLOW))
                return int(token.status)
    except KeyboardInterrupt:
        screen.err.say("\ngiven up; the command may go on")
        return 130
    except remctl.RemctlServerError as error:
        screen.err.line("", str(error).encode())
        return _REFUSED
    except (remctl.RemctlError, ValueError) as error:
        _tell(error, screen)
    return _FAILED


def _tell(error: Exception, screen: Screen) -> None:
    for text in explained(str(error), error):
        screen.err.line("remctl-fleet: ", text.encode())


# -- The prompt -----------------------------------------------------------------------------------


class _History:
    """The lines that were typed, in a file that nobody else can read."""

    def __init__(self, path: Path) -> None:
        import readline

        self._readline = readline
        self._path = path
        self._new = 0
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        path.chmod(0o600)
        readline.set_auto_history(False)
        readline.clear_history()
        readline.read_history_file(path)
        readline.set_history_length(_MOST_LINES)

    def add(self, line: str) -> None:
        """Keep a line, unless it begins with a space or is the one before again."""
        last = self._readline.get_history_item(self._readline.get_current_history_length())
        if line.strip() and not line[0].isspace() and line != last:
            self._readline.add_history(line)
            self._new += 1

    def save(self) -> None:
        """Append what is new: another shell may have done so meanwhile."""
        self._readline.append_history_file(self._new, self._path)
        self._path.chmod(0o600)


@contextlib.contextmanager
def _history(screen: Screen) -> Iterator[_History | None]:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    path = Path(state) / "remctl-fleet" / "history"
    history = None
    try:
        history = _History(path)
    except (ImportError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        screen.err.say(f"remctl-fleet: no history: {reason}: {path}")
    try:
        yield history
    finally:
        if history is not None:
            with contextlib.suppress(OSError):  # Nobody can do anything about it now.
                history.save()


def _typed(prompt: str, history: _History | None) -> Iterator[str]:
    """Return the lines that are typed; Ctrl-C drops the one that is begun."""
    while True:
        try:
            line = input(prompt)
        except KeyboardInterrupt:
            print()
            continue
        except EOFError:
            print()
            return
        if history is not None:
            history.add(line)
        yield line
