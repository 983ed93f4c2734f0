"""Commands of a remctld: lines of its configuration file, and sample commands."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

__all__ = ["SAMPLE_COMMANDS", "Command", "machine_commands"]


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a remctld: a line of its configuration file, remctld(8).

    Give either ``program`` or ``script``. remctld runs the program with the subcommand as its
    first argument, and the other arguments after it.
    """

    name: str
    """The command, or ALL."""
    subcommand: str = "ALL"
    """The subcommand, or ALL (any or none), or EMPTY (none given)."""
    program: str | os.PathLike[str] = ""
    """Full path of the program to run."""
    script: str = ""
    """Text of a script, instead of a program; for /bin/sh unless it starts with ``#!``. The server
    writes it to a file in the realm's private directory, so ``user`` cannot be used with it."""
    acl: str | tuple[str, ...] = ()
    """Who may run it: ``princ:NAME@REALM``, ``ANYUSER``, ``deny:...``, in the order they are
    tried. Empty means the server's default, which is the realm's user."""
    stdin: str | int | None = None
    """The argument given to the program on standard input: its number (the subcommand is 1), or
    ``"last"``."""
    summary: str | None = None
    """The argument that makes the program print a summary, for ``help`` without arguments."""
    help: str | None = None
    """The argument that makes the program explain a subcommand, for ``help COMMAND SUBCOMMAND``."""
    user: str | int | None = None
    """Run the program as this local user; remctld must run as root then."""
    sudo: str | None = None
    """Run the program as this local user with sudo."""
    logmask: tuple[int, ...] = ()
    """Numbers of the arguments that the log does not show (the subcommand is 1)."""

    def line(self, program: str, default_acl: str) -> str:
        """Return the line for remctld's configuration file.

        Args:
            program: full path of ``program`` or of the file with ``script``.
            default_acl: ACL for a command that has none.

        Raises:
            ValueError: a field is empty or contains white space, which the file cannot express.
        """
        acl = (self.acl,) if isinstance(self.acl, str) else self.acl
        words = [self.name, self.subcommand, program, *self._options(), *(acl or (default_acl,))]
        for word in words:
            if not word or word.split() != [word]:
                raise ValueError(
                    f"{word!r} cannot be written in remctld's configuration: no part of {self!r}"
                    " may be empty or contain white space"
                )
        return " ".join(words)

    def _options(self) -> list[str]:
        """Return the option=value words of the line."""
        options = {
            "stdin": self.stdin,
            "summary": self.summary,
            "help": self.help,
            "user": self.user,
            "sudo": self.sudo,
            "logmask": ",".join(map(str, self.logmask)) or None,
        }
        return [f"{name}={value}" for name, value in options.items() if value is not None]


_SAMPLE_SCRIPT = """
case $1 in
echo) shift; echo "$*" ;;
env) env ;;
status) exit "$2" ;;
streams) echo "this is stdout"; echo "this is stderr" >&2 ;;
sleep) exec sleep "$2" ;;
summary)
    echo "test echo WORDS    print the words"
    echo "test cat DATA      print the data, which may be of any size and kind"
    echo "test env           print the environment of the command"
    echo "test status N      end with exit status N"
    echo "test streams       print a line to each of stdout and stderr"
    echo "test sleep N       sleep for N seconds" ;;
help) echo "test $2: 'help' has a line about it" ;;
*) echo "unknown subcommand $1; try 'help'" >&2; exit 64 ;;
esac
"""

SAMPLE_COMMANDS = (
    Command("test", "cat", script="exec cat", stdin="last"),
    Command("test", script=_SAMPLE_SCRIPT, summary="summary", help="help"),
)
"""A few commands to try a client with; ``help`` lists them.

- ``test echo WORDS...`` prints the words.
- ``test cat DATA`` prints its last argument, which it gets on standard input.
- ``test env`` prints the environment of the command (REMOTE_USER and so on).
- ``test status N`` ends with exit status N.
- ``test streams`` prints a line to each of stdout and stderr.
- ``test sleep N`` sleeps for N seconds.
"""


def machine_commands(python: str | None = None, shell: str | None = "/bin/sh") -> list[Command]:
    """Return the commands that a `remctl_toolkit.machine.Machine` needs: ``python`` and ``sh``.

    Whoever may run them gets a shell as the user that runs the server.

    Args:
        python: path of the server's interpreter; None means the system's, or else this one.
        shell: path of its shell; None omits that command.
    """
    if python is None:
        python = next(filter(os.path.exists, ("/usr/bin/python3", sys.executable)))
    commands = [Command("python", program=python, stdin="last")]
    return commands if shell is None else [*commands, Command("sh", program=shell, stdin="last")]
