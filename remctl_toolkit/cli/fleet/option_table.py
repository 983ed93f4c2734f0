"""The options of remctl-fleet, for ``--help``, completion and the man page."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from typing import NoReturn

import remctl
from _remctl_text import printable
from remctl_toolkit.cli.completion import SHELLS
from remctl_toolkit.fleet import CONCURRENCY

__all__ = [
    "COMMAND",
    "CONNECT_TIMEOUT",
    "DESCRIPTION",
    "EXAMPLES",
    "NOTES",
    "USAGE",
    "Parser",
    "build",
    "parser",
]

COMMAND = "remctl-fleet"

_QUOTE_LIMIT = 60  # longest value that a message quotes in full, in characters

CONNECT_TIMEOUT = 15.0
"""Default seconds that the network may be silent while connecting."""

USAGE = """\
%(prog)s [OPTION ...] HOSTS [--] COMMAND [ARGUMENT ...]
       %(prog)s [OPTION ...] --hosts-file FILE -- COMMAND [ARGUMENT ...]
       %(prog)s [OPTION ...] --any HOSTS [--] COMMAND [ARGUMENT ...]
       %(prog)s [OPTION ...] --shell HOSTS"""

DESCRIPTION = """\
Run a remctl command on many hosts in parallel, then report which of them failed
and why. With a single host it works like remctl(1): the output is passed on
unchanged, and the exit status is the command's."""

EXAMPLES = """\
  remctl-fleet 'web[1-300],-web7' -- service restart nginx
  remctl-fleet --first 2 --stop-after 10 @web -- package upgrade
  remctl-fleet -f hosts.txt --live --deadline 600 -- backup run
  remctl-fleet --json 'web[1-9]' -- disk show | jq -r 'select(.ok) | .stdout'
  remctl-fleet --ask-secret 'db[1-4]' -- account set-password alice
  remctl-fleet --any --srv example.org -- account show alice
  remctl-fleet --shell @web
  remctl-fleet --dry-run '@web!@down' -- service restart nginx
  remctl-fleet server.example.org account show alice"""

NOTES = {
    "writing hosts": """\
  web1,db1:4444          names, with or without a port; [2001:db8::7]:4444
  web[1-64,70]           ranges; web[01-10] keeps the zeros
  @web, @source:group    groups from ClusterShell's configuration
  web[1-64],-web[3-5]    all but some; see also --exclude
  @web!@down, @web&@db   difference and intersection, from left to right
  Quote them, because [ ], ! and & are special to the shell.""",
    "exit status": """\
  0    the command succeeded on every host
  1    it failed on some hosts, or was not begun there
  2    usage error, or an invalid list of hosts; nothing was sent
  3    it succeeded on no host
  69   a Python package is not installed (the message says which)
  74   the output cannot be written
  130  Ctrl-C; 128+N for signal N
  With one host or --any, and none of --gather, --live, --diff and --json: the
  command's own; 255 if the server refuses it; 1 for every other failure.
  With --max-status: the largest of any host; a host without one counts as 255.""",
    "defaults": """\
  Default options are read from these places. Later ones override earlier ones,
  and the command line overrides them all:
    /etc/remctl-fleet/options
    $XDG_CONFIG_HOME/remctl-fleet/options, or ~/.config/remctl-fleet/options
    REMCTL_FLEET_OPTIONS in the environment
  Write options as on the command line, in a file one or more per line; # starts
  a comment. Options that choose hosts, send input, write files, or do something
  other than run a command are not allowed.""",
    "environment": """\
  KRB5CCNAME       credential cache to use without --ccache and --keytab
  NO_COLOR         if set, do not use colours on a terminal
  REMCTL_FLEET_OPTIONS, XDG_CONFIG_HOME
                   see defaults, above
  XDG_STATE_HOME   directory for the history of --shell, remctl-fleet/history
                   (default: ~/.local/state)""",
}


class Parser(argparse.ArgumentParser):
    """Report a usage error in one line.

    Attributes:
        where: prefix of the message: the place of a default option, or "".
    """

    where = ""

    def error(self, message: str) -> NoReturn:
        """Print a message, which may quote a file, and exit."""
        self.exit(2, f"{self.prog}: {printable(f'{self.where}{message}')} (see --help)\n")


def parser() -> argparse.ArgumentParser:
    """Return the argparse parser; `parse()` adds what argparse cannot do."""
    return build()[0]


# -- Values ---------------------------------------------------------------------------------------


def _whole(least: int, most: float = math.inf) -> Callable[[str], int]:
    wanted = f"{least} or more" if most == math.inf else f"{least} to {most}"

    def convert(text: str) -> int:
        # int() accepts digits of other scripts, and refuses numbers with thousands of digits.
        if not re.fullmatch("[0-9]{1,18}", text) or not least <= int(text) <= most:
            shown = text if len(text) <= _QUOTE_LIMIT else f"{text[:_QUOTE_LIMIT]}..."
            raise argparse.ArgumentTypeError(f"it must be a whole number, {wanted}, not {shown!r}")
        return int(text)

    return convert


def _seconds(*, zero: bool = False) -> Callable[[str], float]:
    def convert(text: str) -> float:
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not (seconds > 0 or (zero and seconds == 0)) or seconds == math.inf:
            wanted = "0 or more" if zero else "more than 0"
            raise argparse.ArgumentTypeError(
                f"it must be a number of seconds, {wanted}, not {text!r}"
            )
        return seconds

    return convert


# -- Options --------------------------------------------------------------------------------------


def build() -> tuple[Parser, set[str]]:
    """Return the parser, and the options that take a value."""
    built = Parser(
        prog=COMMAND,
        usage=USAGE,
        description=DESCRIPTION,
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    built.add_argument("hosts", nargs="?", metavar="HOSTS", help="the hosts: see below")
    built.add_argument(
        "command", nargs="*", metavar="COMMAND", help="the command, and its arguments"
    )
    groups = (_add_hosts, _add_connection, _add_pace, _add_input, _add_output, _add_others)
    actions = [action for add in groups for action in add(built)]
    valued = {name for action in actions if action.nargs != 0 for name in action.option_strings}
    return built, valued


def _epilog() -> str:
    sections = {"examples": EXAMPLES, **NOTES}
    return "\n\n".join(f"{name}:\n{text}" for name, text in sections.items())


def _add_hosts(built: argparse.ArgumentParser) -> list[argparse.Action]:
    add = built.add_argument_group("hosts").add_argument
    return [
        add(
            *("-f", "--hosts-file"),
            metavar="FILE",
            action="append",
            default=[],
            help="read hosts from FILE, one pattern per line; # starts a comment; - is"
            " standard input; can be repeated",
        ),
        add(
            "--srv",
            metavar="NAME",
            action="append",
            default=[],
            help="take hosts and ports from the DNS SRV records _remctl._tcp.NAME; can be repeated",
        ),
        add(
            *("-x", "--exclude"),
            metavar="HOSTS",
            action="append",
            default=[],
            help="leave out these hosts; a name or range that matches no host is an error; can be"
            " repeated",
        ),
        add(
            "--exclude-file",
            metavar="FILE",
            action="append",
            default=[],
            help="leave out the hosts in FILE, which is written as for --hosts-file and may name"
            " hosts that are not in the list; can be repeated",
        ),
        add(
            "--pick",
            metavar="N",
            type=_whole(1),
            help="run on N of the hosts, chosen at random, or on all if there are no more than N",
        ),
        add(
            "--groups",
            metavar="FILE",
            help="read groups of hosts from FILE instead of ClusterShell's groups.conf",
        ),
        add(
            "--any",
            action="store_true",
            help="run on the first host that answers, in the order of --srv or of the list; try"
            " the next one only if nothing was sent",
        ),
        add(
            "--dry-run",
            action="store_true",
            help="print the hosts, one per line, without connecting to them",
        ),
    ]


def _add_connection(built: argparse.ArgumentParser) -> list[argparse.Action]:
    add = built.add_argument_group("connection").add_argument
    return [
        add(
            *("-p", "--port"),
            metavar="PORT",
            type=_whole(1, 65535),
            help=f"port of hosts named without one (default: {remctl.PORT}, then"
            f" {remctl.LEGACY_PORT})",
        ),
        add(
            *("-s", "--principal"),
            metavar="PRINCIPAL",
            help="Kerberos principal of the servers (default: host/HOST)",
        ),
        add(*("-b", "--source-ip"), metavar="ADDRESS", help="connect from this address"),
        add("--ccache", metavar="CCACHE", help="the credential cache with the tickets to use"),
        add(
            "--keytab",
            metavar="FILE",
            help="get tickets with the keys in FILE, and store them in CCACHE if --ccache is given",
        ),
        add("--client", metavar="PRINCIPAL", help="principal to get tickets for with --keytab"),
        add(
            *("-t", "--timeout"),
            metavar="SECONDS",
            type=_seconds(zero=True),
            help="give up on a host after this long without network traffic, while connecting or"
            " while the command runs (default: 0, never)",
        ),
        add(
            "--connect-timeout",
            metavar="SECONDS",
            type=_seconds(zero=True),
            help="the same, but only while connecting, as commands may be silent for longer"
            f" (default: that of --timeout, if given, or {CONNECT_TIMEOUT:g}; 0 is never)",
        ),
        add(
            "--retries",
            metavar="N",
            type=_whole(0),
            default=0,
            help="retry connecting up to N times; a command is never sent twice",
        ),
    ]


def _add_pace(built: argparse.ArgumentParser) -> list[argparse.Action]:
    add = built.add_argument_group("how many, how long").add_argument
    return [
        add(
            "--concurrency",
            metavar="N",
            type=_whole(1),
            default=CONCURRENCY,
            help="number of hosts to run on in parallel (default: %(default)s)",
        ),
        add(
            "--limit",
            metavar="SECONDS",
            type=_seconds(),
            help="time limit for each host, including connecting",
        ),
        add(
            "--deadline",
            metavar="SECONDS",
            type=_seconds(),
            help="time limit for all hosts together",
        ),
        add(
            "--first",
            metavar="N",
            type=_whole(0),
            default=0,
            help="run on the first N hosts as canaries, and on the others only if all of those"
            " succeed",
        ),
        add(
            "--stop-after",
            metavar="N",
            type=_whole(1),
            help="start no more hosts once N have failed",
        ),
    ]


def _add_input(built: argparse.ArgumentParser) -> list[argparse.Action]:
    add = built.add_argument_group("input").add_mutually_exclusive_group().add_argument
    return [
        add(
            "--stdin",
            action="store_true",
            help="send all of standard input as the last argument; the server's configuration"
            " (stdin=) can pass it to the command on standard input",
        ),
        add(
            "--ask-secret",
            action="store_true",
            help="prompt for that argument twice, without echoing it",
        ),
    ]


def _add_output(built: argparse.ArgumentParser) -> list[argparse.Action]:
    group = built.add_argument_group("output")
    add = group.add_mutually_exclusive_group().add_argument
    return [
        add(
            "--gather",
            action="store_true",
            help="show output at the end, and group hosts with the same output; the default for"
            " more than one host",
        ),
        add(
            "--diff",
            action="store_true",
            help="the same, but show the most common output, and how that of the other hosts"
            " differs",
        ),
        add(
            "--live",
            action="store_true",
            help="show output as it arrives, each line prefixed with its host",
        ),
        add(
            "--json",
            action="store_true",
            help="print a JSON object per host, one per line, as hosts finish",
        ),
        group.add_argument(
            *("-q", "--quiet"),
            action="store_true",
            help="print failures only",
        ),
        group.add_argument(
            "--outdir",
            metavar="DIR",
            help="also write the output of each host to a file in DIR, named after the host, with"
            " its port if you gave one; an existing file is replaced; only you can read the"
            " files",
        ),
        group.add_argument(
            "--errdir",
            metavar="DIR",
            help="the same for standard error",
        ),
        group.add_argument(
            "--failed-to",
            metavar="FILE",
            help="at the end, replace FILE with a list, for --hosts-file, of the hosts where the"
            " command failed without running; hosts where it ran or may have run are in"
            " comments",
        ),
        group.add_argument(
            *("-S", "--max-status"),
            action="store_true",
            help="exit with the largest exit status of any host; a host without one counts as 255",
        ),
    ]


def _add_others(built: argparse.ArgumentParser) -> list[argparse.Action]:
    add = built.add_argument_group("others").add_argument
    return [
        add(
            "--shell",
            action="store_true",
            help="prompt for commands, and run them over connections that stay open; lines that"
            " begin with a space are not stored in the history",
        ),
        add(
            "--print-completion",
            choices=SHELLS,
            help="print a script for this shell that completes options, hosts, groups, and the"
            " commands that the server's help lists",
        ),
        add(
            "--no-defaults",
            action="store_true",
            help="ignore default options in files and in REMCTL_FLEET_OPTIONS",
        ),
        add(*("-d", "--debug"), action="store_true", help="log each step to standard error"),
        add(*("-h", "--help"), action="help", help="show this page"),
        add(
            *("-v", "--version"),
            action="version",
            version=f"{COMMAND} {remctl.__version__}",
            help="show the version",
        ),
    ]
