"""The command remctl-sandbox: a shell (or one command) with a realm and a remctl server."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self

from _remctl_text import printable
from remctl_toolkit.testing import MissingPrograms, Realm, RealmError, RemctldServer
from remctl_toolkit.testing import programs as system
from remctl_toolkit.testing.commands import SAMPLE_COMMANDS, machine_commands

__all__ = ["main", "parser"]

_EX_USAGE = 2  # argparse's own
_EX_UNAVAILABLE = 69  # sysexits.h
_EX_SOFTWARE = 70  # sysexits.h
_NOT_EXECUTABLE = 126  # as shells have it
_NOT_FOUND = 127

_LOG_INTERVAL = 0.05  # seconds between two looks at the server's log

_DESCRIPTION = """\
Try remctl without a Kerberos realm of your own: start a throwaway realm and a
remctl server on this machine, get a ticket, and open a shell in which remctl,
kinit, klist and Python programs use them. When the shell ends, all of it is
removed. With -- COMMAND, run that command instead of a shell."""

_EPILOG = """\
examples:
  remctl-sandbox
      then, in the shell:  remctl -p $REMCTL_PORT $REMCTL_HOST test echo hello
  remctl-sandbox -- sh -c 'remctl -p $REMCTL_PORT $REMCTL_HOST help'
  remctl-sandbox -- python3 -m pytest

environment of the shell or command:
  REMCTL_HOST, REMCTL_PORT, REMCTL_PRINCIPAL   where the server is, and its name
  KRB5_CONFIG, KRB5CCNAME, ...                 what leads Kerberos to the realm
  PATH                                         first where remctl-fleet is, and
                                               the Python that runs all this

exit status:
  that of the shell or command; 128+N if signal N ended it
  2    wrong usage
  69   programs are not installed (the message has the packages to install)
  70   the realm or the server does not start
  126  the command cannot be executed
  127  the command is not found"""

_BANNER = """\
You have a Kerberos realm and a remctl server of your own.

  server     {host}, port {port}
  principal  {principal}
  you are    {user}, with a ticket

Try:

  remctl -p {port} {host} help
  remctl -p {port} {host} test echo hello
  python3 -c 'import remctl; print(remctl.remctl("{host}", {port}, command=["help"]).stdout_text())'

Leave with "exit" or Ctrl-D. The realm and the server go away then.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run remctl-sandbox.

    Args:
        argv: the arguments, without the program's name; None means those of this process.

    Returns:
        The exit status; ``--help`` lists them.

    Raises:
        SystemExit: for ``--help`` and wrong usage, as argparse does.
    """
    options, command = _parse(sys.argv[1:] if argv is None else argv)
    try:
        system.find(*system.REALM_PROGRAMS, *system.SERVER_PROGRAMS)
        if not command:
            system.find(*system.CLIENT_PROGRAMS)
        return _run_in_sandbox(command, options.config or "", verbose=options.verbose)
    except MissingPrograms as missing:
        print(f"remctl-sandbox: {missing}", file=sys.stderr)
        return _EX_UNAVAILABLE
    except RealmError as error:
        print(f"remctl-sandbox: {error}", file=sys.stderr)
        return _EX_SOFTWARE
    except KeyboardInterrupt:  # while things start; the shell's own Ctrl-C does not come here
        return 128 + signal.SIGINT


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options: what ``--help`` and the man page are made of."""
    built = argparse.ArgumentParser(
        prog="remctl-sandbox",
        usage="%(prog)s [--config FILE] [--verbose] [-- COMMAND [ARGUMENT ...]]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    built.add_argument(
        "--config",
        "--command-file",
        metavar="FILE",
        type=_config_text,
        help="further commands for the server: lines as in its configuration file, see remctld(8)",
    )
    built.add_argument(
        "--verbose", action="store_true", help="show the server's log on standard error"
    )
    built.add_argument("stray", nargs="*", help=argparse.SUPPRESS)
    return built


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options, and the command after ``--`` (empty: a shell)."""
    built = parser()
    split = argv.index("--") if "--" in argv else len(argv)
    options = built.parse_args(argv[:split])
    command = list(argv[split + 1 :])
    if options.stray:
        wanted = shlex.join(["remctl-sandbox", "--", *options.stray])
        built.error(f"a command goes after --, as in: {wanted}")
    if split < len(argv) and not command:
        built.error("no command after --")
    return options, command


def _config_text(path: str) -> str:
    """Return the text of a configuration file, for argparse."""
    try:
        return Path(path).read_text()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise argparse.ArgumentTypeError(f"cannot read {path}: it is not a text file") from None


def _run_in_sandbox(command: Sequence[str], config: str, *, verbose: bool) -> int:
    """Start a realm and a server, run a command or a shell, and return its exit status."""
    commands = (*SAMPLE_COMMANDS, *machine_commands())
    with Realm() as realm, RemctldServer(realm, commands, config=config) as server:
        env = {**os.environ, **realm.env, **server.env, "PATH": _search_path()}
        with _log_on_stderr(server.log_path, wanted=verbose):
            if command:
                return _run(command, env, hang_up=False)
            banner = _BANNER.format(
                host=server.host, port=server.port, principal=server.principal, user=realm.user
            )
            # Not on stdout, which belongs to what runs in the shell.
            print(banner, file=sys.stderr, flush=True)
            return _run([os.environ.get("SHELL") or "/bin/sh"], env, hang_up=True)


def _search_path() -> str:
    """Return a PATH that begins with where this Python and its commands are."""
    directories = [sysconfig.get_path("scripts"), *system.search_path().split(os.pathsep)]
    return os.pathsep.join(dict.fromkeys(directories))


def _run(command: Sequence[str], env: Mapping[str, str], *, hang_up: bool) -> int:
    """Run a command with this process's terminal and return its exit status, as a shell would.

    Args:
        command: program and arguments.
        env: its environment.
        hang_up: pass on a request to end as SIGHUP, since interactive shells ignore SIGTERM.
    """
    with _Signals(hang_up=hang_up) as signals:
        try:
            child = subprocess.Popen(command, env=env)
        except OSError as error:
            print(f"remctl-sandbox: cannot run {command[0]}: {error.strerror}", file=sys.stderr)
            return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
        signals.pass_on_to(child)
        status = child.wait()
    return 128 - status if status < 0 else status


class _Signals:
    """Leaves Ctrl-C to a child, which gets it from the terminal too; passes on requests to end.

    The handler is a function, not SIG_IGN, because a child would inherit that.
    """

    def __init__(self, *, hang_up: bool) -> None:
        self._hang_up = hang_up
        self._child: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []  # requests that came before the child was known
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def pass_on_to(self, child: subprocess.Popen[bytes]) -> None:
        """Send what has come so far, and what comes from now on, to this child."""
        self._child = child
        while self._early:
            self._send(self._early.pop(0))

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number in (signal.SIGTERM, signal.SIGHUP):
            self._early.append(number)
            if self._child is not None:
                self.pass_on_to(self._child)

    def _send(self, number: int) -> None:
        assert self._child is not None
        self._child.send_signal(signal.SIGHUP if self._hang_up else number)


@contextmanager
def _log_on_stderr(path: Path, *, wanted: bool) -> Iterator[None]:
    """Copy what is written to a file to standard error, until the end of the with statement."""
    if not wanted:
        yield
        return
    over = threading.Event()

    def copy() -> None:
        with path.open(errors="replace") as log:
            last_look = False
            while not last_look:
                last_look = over.wait(_LOG_INTERVAL)
                sys.stderr.write(printable(log.read(), lines=True))
                sys.stderr.flush()

    copier = threading.Thread(target=copy, name="remctl-sandbox-log")
    copier.start()
    try:
        yield
    finally:
        over.set()
        copier.join()


if __name__ == "__main__":
    sys.exit(main())
