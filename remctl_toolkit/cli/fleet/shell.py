"""Interactive prompt: run commands on one host or many, over connections that stay open."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from _remctl_text import printable
from remctl_toolkit.cli.octets import split_line
from remctl_toolkit.fleet import Host
from remctl_toolkit.hosts import fold

from .completion import CommandNames, complete_at_prompt
from .screen import Screen
from .secret import UsageError

__all__ = ["shell"]

Command = list[bytes]
Run = Callable[[Command], int]

_HISTORY_LINES = 2000
_MAX_PROMPT_WIDTH = 32  # columns
_INTERRUPTED = 128 + signal.SIGINT

_GREETING = """\
Commands run on {where}.
Type commands with their arguments, quoted as in a shell. "help" lists the
server's commands. Ctrl-C interrupts a command; Ctrl-D or "exit" leaves.
Lines that begin with a space are not stored in the history.
"""


def shell(hosts: Sequence[Host], options: argparse.Namespace, run: Run) -> int:
    """Read commands and run them until the end of the input.

    Without a terminal there is no prompt and no history.

    Args:
        hosts: the hosts.
        options: the options of remctl-fleet.
        run: runs a command on the hosts, shows its output, and returns the exit status.  If it
            raises KeyboardInterrupt, the prompt continues, but a script ends.

    Returns:
        The exit status of the last command, as from a shell.

    Raises:
        UsageError: standard input is closed.
    """
    screen = Screen()
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]
        raise UsageError("--shell reads commands from standard input, which is closed")
    if not (sys.stdin.isatty() and screen.out.terminal):
        return _run_all(sys.stdin.buffer, run, screen)
    if not options.quiet:
        names = printable(fold(hosts))
        where = names if len(hosts) == 1 else f"{len(hosts)} hosts: {names}"
        screen.err.say(_GREETING.format(where=where))
    # Lines must encode to the octets that were typed, whatever these are.
    sys.stdin.reconfigure(  # type: ignore[union-attr]
        encoding=sys.getfilesystemencoding(), errors=sys.getfilesystemencodeerrors()
    )

    def run_typed(command: Command) -> int:
        try:
            return run(command)
        except KeyboardInterrupt:
            return _INTERRUPTED

    names_there = CommandNames(hosts[0], options)
    with _history(screen, names_there) as history:
        return _run_all(_typed(_prompt(hosts), history), run_typed, screen)


def _prompt(hosts: Sequence[Host]) -> str:
    folded = printable(fold(hosts))
    return f"{folded if len(folded) <= _MAX_PROMPT_WIDTH else f'{len(hosts)} hosts'}> "


def _run_all(lines: Iterator[bytes], run: Run, screen: Screen) -> int:
    status = 0
    for line in lines:
        try:
            command = split_line(line)
        except ValueError as error:
            screen.err.say(f"remctl-fleet: {str(error).lower()}")
            status = 2
            continue
        if command == [b"exit"]:
            break
        if command:
            status = run(command)
    return status


# -- The prompt -----------------------------------------------------------------------------------


class _History:
    """The history, in a file that only its owner can read."""

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
        readline.set_history_length(_HISTORY_LINES)

    def add(self, line: str) -> None:
        """Store a line, unless it begins with a space or repeats the previous one."""
        last = self._readline.get_history_item(self._readline.get_current_history_length())
        if line.strip() and not line[0].isspace() and line != last:
            self._readline.add_history(line)
            self._new += 1

    def save(self) -> None:
        """Append the new lines, as another shell may have appended to the file meanwhile."""
        self._readline.append_history_file(self._new, self._path)
        self._path.chmod(0o600)


def _state_folder() -> Path:
    """Return the directory for the state of the user's programs.

    Raises:
        OSError: XDG_STATE_HOME is not set, and the user has no home directory.
    """
    folder = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(folder):  # The XDG specification says to ignore relative paths.
        folder = os.path.expanduser("~/.local/state")
    if not os.path.isabs(folder):
        raise FileNotFoundError(errno.ENOENT, "the user has no home directory")
    return Path(folder)


@contextlib.contextmanager
def _history(screen: Screen, names: CommandNames) -> Iterator[_History | None]:
    history = None
    try:
        complete_at_prompt(names)
        history = _History(_state_folder() / "remctl-fleet" / "history")
    except ImportError as error:
        screen.err.say(f"remctl-fleet: no history: {error}")
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        screen.err.say(f"remctl-fleet: no history: {error.strerror}{where}")
    try:
        yield history
    finally:
        if history is not None:
            with contextlib.suppress(OSError):  # Too late for the user to do anything about it.
                history.save()


def _typed(prompt: str, history: _History | None) -> Iterator[bytes]:
    """Return lines from the prompt; Ctrl-C discards the current line."""
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
        yield os.fsencode(line)
