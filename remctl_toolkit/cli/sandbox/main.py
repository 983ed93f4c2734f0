"""Run remctl-sandbox: parse the command line, run a shell or command, return the exit status."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from _remctl_text import printable
from remctl_toolkit.testing import MissingPrograms, Realm, RealmError
from remctl_toolkit.testing import programs as system

from .banner import banner
from .child import Signals, run
from .options import COMMAND, parse
from .servers import Servers
from .shell import Shell, program_folders, shell_program

__all__ = ["main"]

_EX_UNAVAILABLE = 69  # sysexits.h
_EX_SOFTWARE = 70  # sysexits.h

_POLL_INTERVAL = 0.05  # seconds between two reads of the servers' logs


def main(argv: Sequence[str] | None = None) -> int:
    """Run remctl-sandbox.

    Args:
        argv: the arguments, without the program's name; None means those of this process.

    Returns:
        The exit status; ``--help`` lists them.

    Raises:
        SystemExit: for ``--help``, ``--version`` and wrong usage, as argparse does.
    """
    options, command = parse(sys.argv[1:] if argv is None else argv)
    try:
        system.find(*system.REALM_PROGRAMS, *system.SERVER_PROGRAMS)
        if not command:
            system.find(*system.CLIENT_PROGRAMS)
        status = _run_in_sandbox(command, options.config or "", options.hosts, options.verbose)
    except MissingPrograms as missing:
        print(f"{COMMAND}: {missing}", file=sys.stderr)
        return _EX_UNAVAILABLE
    except RealmError as error:
        print(f"{COMMAND}: {error}", file=sys.stderr)
        return _EX_SOFTWARE
    except KeyboardInterrupt:  # while the servers start
        return 128 + signal.SIGINT
    if not command:
        with contextlib.suppress(OSError):  # The terminal may be gone.
            print("The sandbox is closed: its realm and servers are gone.", file=sys.stderr)
    return status


def _run_in_sandbox(command: Sequence[str], config: str, hosts: int, verbose: bool) -> int:
    """Start a realm and servers, run a command or a shell, and return its exit status."""
    with Realm() as realm, Servers(realm, config, hosts) as servers:
        first = program_folders(realm.tmpdir / "bin")
        env = {**realm.env, **servers.env}
        with (
            _logs_on_stderr(servers.logs if verbose else {}),
            Signals(hang_up=not command) as signals,
        ):
            if command or not sys.stdin.isatty():
                path = os.pathsep.join((*first, system.search_path()))
                env = {**os.environ, **env, "PATH": path}
            if command:
                return run(command, env, signals)
            # Standard output is for the programs in the shell.
            print(banner(realm, servers), file=sys.stderr, flush=True)
            program = shell_program()
            if not sys.stdin.isatty():
                return run([program], env, signals)
            folder = realm.tmpdir / "shell"
            folder.mkdir()
            return Shell(program, env, first, folder).run(signals)


@contextmanager
def _logs_on_stderr(logs: Mapping[str, Path]) -> Iterator[None]:
    """Copy new lines of files to standard error.

    Args:
        logs: the files, by the prefix of their lines.
    """
    if not logs:
        yield
        return
    ended = threading.Event()

    def copy() -> None:
        with contextlib.ExitStack() as stack:
            files = {
                name: stack.enter_context(path.open(errors="replace"))
                for name, path in logs.items()
            }
            unfinished = dict.fromkeys(files, "")
            last_read = False
            while not last_read:
                last_read = ended.wait(_POLL_INTERVAL)
                for name, file in files.items():
                    lines = (unfinished[name] + file.read()).split("\n")
                    unfinished[name] = lines.pop()
                    sys.stderr.writelines(f"{name}{printable(line)}\n" for line in lines)
                sys.stderr.flush()
            sys.stderr.writelines(
                f"{name}{printable(line)}\n" for name, line in unfinished.items() if line
            )

    copier = threading.Thread(target=copy, name="remctl-sandbox-log")
    copier.start()
    try:
        yield
    finally:
        ended.set()
        copier.join()
