"""Demonstrate remctl commands with a temporary Kerberos realm and remctl server.

Each step is a function below: the demo prints its docstring, its code and its output.  Run
it with ./run demo, which installs its requirements.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import inspect
import io
import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

try:
    import remctl
    from remctl_toolkit.testing import Command, MissingPrograms, Realm, RealmError, RemctldServer
except ImportError as error:
    sys.exit(f"demo: {error}: start it with ./run demo, which builds the missing module")

EX_UNAVAILABLE = 69  # sysexits.h

EPILOG = """\
exit status:
  0    success
  1    a step failed, or the realm or the server did not start
  2    wrong usage
  69   programs are not installed (the message has the packages to install)
  130  interrupted
  141  the reader closed the output

Colours are used only on a terminal, and not if NO_COLOR is set."""

# The server's commands: a name, a subcommand, and a script instead of a real program.
COMMANDS = [
    Command(
        "account",
        "show",
        script="""
        case $2 in
        alice) echo "alice: active, 3 of 10 GB used" ;;
        bob) echo "bob: active, 9 of 10 GB used" ;;
        *) echo "no such account: $2" >&2; exit 3 ;;
        esac""",
    ),
    Command("account", "delete", script="echo deleted", acl="princ:admin@REMCTL.TEST"),
    Command(
        "backup",
        "run",
        script="""
        for part in mail home; do sleep 0.3; echo "saved $part"; done
        sleep 0.3; echo "skipped cache" >&2""",
    ),
]


# -- The steps ------------------------------------------------------------------------------------


def one_command(host: str, port: int) -> None:
    """One command: connect, authenticate with Kerberos, run, close."""
    result = remctl.remctl(host, port, command=["account", "show", "alice"])
    print(result.check().stdout_text(), end="")


def session(host: str, port: int) -> None:
    """Several commands over one connection."""
    with remctl.Remctl(host, port, timeout=10) as connection:
        for user in ("alice", "bob", "carol"):
            result = connection.run(["account", "show", user])
            print(f"status {result.status}", result.stdout, result.stderr)


def live_output(host: str, port: int) -> None:
    """Output while the command is still running."""
    with remctl.Remctl(host, port) as connection:
        start = time.monotonic()
        for token in connection.stream(["backup", "run"]):
            print(f"after {time.monotonic() - start:.2f} s:", end=" ")
            if token.type == "output":
                print("stream", token.stream, token.output)
            else:
                print("status", token.status)


def refusal(host: str, port: int) -> None:
    """Exceptions with the reason of a failure: this one has an error code of the server."""
    try:
        remctl.remctl(host, port, command=["account", "delete", "alice"])
    except remctl.RemctlServerError as error:
        print(f"{type(error).__name__}: {error}, code {error.code!r}")


def cost(host: str, port: int) -> None:
    """Time of a command, on this machine and with this server."""
    command = ["account", "show", "alice"]

    start = time.monotonic()
    with remctl.Remctl(host, port) as connection:
        for _ in range(100):
            connection.run(command).check()
    seconds = time.monotonic() - start
    print(f"100 commands over 1 connection:  {seconds / 100 * 1000:4.1f} ms each")

    start = time.monotonic()
    for _ in range(20):
        remctl.remctl(host, port, command=command).check()
    seconds = time.monotonic() - start
    print(f"20 commands, a connection each:  {seconds / 20 * 1000:4.1f} ms each")


STEPS = [one_command, session, live_output, refusal, cost]


# -- Showing them ---------------------------------------------------------------------------------


class Screen(io.TextIOBase):
    """Print headings, code and, as a file, the code's output with a bar before each line."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._colour = file.isatty() and not os.environ.get("NO_COLOR")
        self._at_line_start = True
        try:
            "│".encode(file.encoding)
            self._bar = "│"
        except UnicodeEncodeError:
            self._bar = "|"

    def style(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text

    def line(self, text: str = "") -> None:
        print(text, file=self._file, flush=True)

    def heading(self, text: str) -> None:
        self.line()
        self.line(self.style(text, "1"))
        self.line()

    def code(self, text: str) -> None:
        for line in text.splitlines():
            self.line(f"    {self.style(line, '36')}" if line else "")
        self.line()

    def write(self, text: str) -> int:
        for line in text.splitlines(keepends=True):
            if self._at_line_start:
                self._file.write(f"  {self.style(self._bar, '32')} ")
            self._file.write(line)
            self._at_line_start = line.endswith("\n")
        self._file.flush()
        return len(text)


def explain(step: Callable[..., None]) -> tuple[str, str]:
    """Return a step's docstring, and the source of the rest of its body."""
    source = inspect.getsource(step)
    (function,) = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    lines = source.splitlines()[function.body[1].lineno - 1 :]
    return inspect.getdoc(step) or "", textwrap.dedent("\n".join(lines))


def show(screen: Screen) -> None:
    start = time.monotonic()
    with Realm() as realm, RemctldServer(realm, COMMANDS) as server, realm.environ():
        seconds = time.monotonic() - start
        screen.line(f"A Kerberos realm and a remctl server of our own, up in {seconds:.2f} s.")
        screen.line(f"We are {realm.user}; the server is {server.principal}.")
        for step in STEPS:
            heading, code = explain(step)
            screen.heading(heading)
            screen.code(code)
            with contextlib.redirect_stdout(screen):
                step(server.host, server.port)
    screen.heading("To try it yourself, in a shell with a realm like this one:")
    screen.line(f"    {sandbox_command()}")


def sandbox_command() -> str:
    """Return the command for remctl-sandbox, with its directory if that is not on PATH."""
    script = Path(sys.executable).with_name("remctl-sandbox")
    if str(script.parent) in os.environ.get("PATH", "").split(os.pathsep) or not script.exists():
        return script.name
    with contextlib.suppress(ValueError):
        return str(script.relative_to(Path.cwd()))
    return str(script)


def main() -> int:
    """Run the demo and return the exit status; --help lists them."""
    argparse.ArgumentParser(
        prog="./run demo",
        description="Show remctl commands with a temporary Kerberos realm and remctl server.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    try:
        show(Screen(sys.stdout))
    except MissingPrograms as missing:
        print(f"demo: {missing}", file=sys.stderr)
        return EX_UNAVAILABLE
    except (RealmError, remctl.RemctlError) as error:
        print(f"demo: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Flushing the rest at exit would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return 0


if __name__ == "__main__":
    sys.exit(main())
