"""An interactive prompt: commands for one host or many, over connections that stay open."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import remctl
from _remctl_text import printable
from remctl_toolkit.cli.cures import explained
from remctl_toolkit.cli.typed import split_line
from remctl_toolkit.fleet import Fleet, Host
from remctl_toolkit.hosts import fold

from .completion import CommandNames, complete_at_prompt
from .job import CONNECTION
from .screen import YELLOW, Screen

__all__ = ["shell"]

Command = list[bytes]
RunOnAll = Callable[[Fleet, Command], int]

_MOST_LINES = 2000  # of the history
_WIDEST_PROMPT = 32  # columns
_REFUSED = 255  # as remctl(1)
_FAILED = 1
_INTERRUPTED = 128 + signal.SIGINT
_ENDING = (128 + signal.SIGTERM, 128 + signal.SIGHUP, 128 + signal.SIGPIPE)

_GREETING = """\
Connected to {host}.
"""
_GREETING_OF_MANY = """\
Commands run on {count} hosts: {hosts}.
"""
_HELP = """\
Type commands with their arguments, quoted as in a shell; "help" asks the server
what there is. Ctrl-C gives a command up, Ctrl-D or "exit" ends.
Lines that begin with a space are not kept in the history.
"""


def shell(hosts: Sequence[Host], options: argparse.Namespace, run_on_all: RunOnAll) -> int:
    """Read commands and run them, until the end of the input.

    Without a terminal there is no prompt and no history: it runs the lines of a file.  One host's
    output comes as it is.

    Args:
        hosts: where to run them.
        options: the options of remctl-fleet.
        run_on_all: runs a command on several hosts, shows what comes of it, and returns the exit
            status.

    Returns:
        The exit status of the last command, as that of a shell.
    """
    screen = Screen()
    if len(hosts) > 1:
        with Fleet(hosts, **{name: getattr(options, name) for name in CONNECTION}) as fleet:
            greeting = _GREETING_OF_MANY.format(count=len(hosts), hosts=printable(fold(hosts)))
            return _converse(
                screen, hosts, options, greeting, lambda command: run_on_all(fleet, command)
            )
    return _shell_of_one(screen, hosts[0], options)


def _shell_of_one(screen: Screen, host: Host, options: argparse.Namespace) -> int:
    try:
        connection = remctl.Remctl(
            timeout=options.connect_timeout or options.timeout,
            ccache=options.ccache,
            source_ip=options.source_ip,
            credentials=options.credentials,
        )
        port = options.port if host.port is None else host.port
        connection.open(host.name, port, host.principal or options.principal)
        connection.set_timeout(options.timeout or 0)
    except (remctl.RemctlError, ValueError) as error:
        _tell(error, screen)
        return 2 if isinstance(error, ValueError) else _FAILED
    with connection:
        greeting = _GREETING.format(host=host)
        run = lambda command: _run(connection, command, screen)  # noqa: E731
        return _converse(screen, [host], options, greeting, run)


def _converse(
    screen: Screen,
    hosts: Sequence[Host],
    options: argparse.Namespace,
    greeting: str,
    run: Callable[[Command], int],
) -> int:
    """Read lines and run them, with a prompt if somebody types."""
    if not (sys.stdin.isatty() and screen.out.terminal):
        return _run_all(sys.stdin.buffer, run, screen)
    if not options.quiet:
        screen.err.say(f"{greeting}{_HELP}")
    # What is typed is turned into octets again, and may be anything.
    sys.stdin.reconfigure(  # type: ignore[union-attr]
        encoding=sys.getfilesystemencoding(), errors=sys.getfilesystemencodeerrors()
    )
    names = CommandNames(hosts[0], options)
    with _history(screen, names) as history:
        return _run_all(_typed(_prompt(hosts), history), run, screen)


def _prompt(hosts: Sequence[Host]) -> str:
    folded = printable(fold(hosts))
    return f"{folded if len(folded) <= _WIDEST_PROMPT else f'{len(hosts)} hosts'}> "


def _run_all(lines: Iterator[bytes], run: Callable[[Command], int], screen: Screen) -> int:
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
        if status in _ENDING:
            break
    return status


def _run(connection: remctl.Remctl, command: Command, screen: Screen) -> int:
    """Run a command on one host, its output as it comes, and return its exit status."""
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
        return _INTERRUPTED
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


def _state_folder() -> Path:
    """Return where programs of this user keep what they remember.

    Raises:
        OSError: the environment does not tell, and the user has no home folder.
    """
    folder = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(folder):  # The XDG specification has those ignored.
        folder = os.path.expanduser("~/.local/state")
    if not os.path.isabs(folder):
        raise FileNotFoundError(errno.ENOENT, "the user has no home folder")
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
            with contextlib.suppress(OSError):  # Nobody can do anything about it now.
                history.save()


def _typed(prompt: str, history: _History | None) -> Iterator[bytes]:
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
        yield os.fsencode(line)
