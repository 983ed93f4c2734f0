"""The options of remctl-fleet: what ``--help``, completion and the man page are made of."""

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

_LONGEST = 60  # characters of a value that a message quotes

CONNECT_TIMEOUT = 15.0
"""Seconds that the network may be silent while connecting, unless an option says otherwise."""

USAGE = """\
%(prog)s [OPTION ...] HOSTS [--] COMMAND [ARGUMENT ...]
       %(prog)s [OPTION ...] --hosts-file FILE -- COMMAND [ARGUMENT ...]
       %(prog)s [OPTION ...] --any HOSTS [--] COMMAND [ARGUMENT ...]
       %(prog)s [OPTION ...] --shell HOSTS"""

DESCRIPTION = """\
Run a remctl command on many hosts at a time, and say at the end which of them
failed and why. With a single host it does what remctl(1) does: the output comes
as it is, and the exit status is the command's."""

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
  web1,db1:4444          names, each with a port or not; [2001:db8::7]:4444
  web[1-64,70]           ranges; web[01-10] keeps the zeros
  @web, @source:group    groups, as ClusterShell is configured
  web[1-64],-web[3-5]    without some; also --exclude
  @web!@down, @web&@db   without, and in both, from left to right
  Quote them: to the shell, [ ] and ! mean something too.""",
    "exit status": """\
  0    the command succeeded on every host
  1    it failed on some hosts, or was not begun there
  2    wrong usage, or a list of hosts that cannot be right; nothing was done
  3    it succeeded on no host
  69   a Python package is not installed (the message says which)
  74   the output cannot be written
  130  Ctrl-C; 128+N for signal N
  With one host or --any, and none of --gather, --live, --diff and --json: the
  command's own; 255 if the server refuses it; 1 for every other failure.
  With --max-status: the largest of any host; 255 for a host that has none.""",
    "defaults": """\
  Options are taken from these places; where two have the same option, the later
  place wins, and the command line wins over all of them:
    /etc/remctl-fleet/options
    $XDG_CONFIG_HOME/remctl-fleet/options, or ~/.config/remctl-fleet/options
    REMCTL_FLEET_OPTIONS in the environment
  They are written as on the command line. A file has one or more in each line,
  and # begins a comment. Options that choose hosts, send input, write files, or
  do something else than run a command cannot be there.""",
    "environment": """\
  KRB5CCNAME       the tickets to use, unless --ccache or --keytab says so
  NO_COLOR         if set, no colours, which a terminal gets otherwise
  REMCTL_FLEET_OPTIONS, XDG_CONFIG_HOME
                   see defaults, above
  XDG_STATE_HOME   --shell keeps its history there, in remctl-fleet/history;
                   ~/.local/state without it""",
}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; `where` is a file with a default, or empty."""

    where = ""

    def error(self, message: str) -> NoReturn:
        """End the program with a message; it may quote a file."""
        self.exit(2, f"{self.prog}: {printable(f'{self.where}{message}')} (see --help)\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options; `parse()` has what is beyond argparse."""
    return build()[0]


# -- Values ---------------------------------------------------------------------------------------


def _whole(least: int, most: float = math.inf) -> Callable[[str], int]:
    wanted = f"{least} or more" if most == math.inf else f"{least} to {most}"

    def convert(text: str) -> int:
        # Python itself takes digits of other scripts, and no number of thousands of them.
        if not re.fullmatch("[0-9]{1,18}", text) or not least <= int(text) <= most:
            shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
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
            raise argparse.ArgumentTypeError(f"it must be seconds, {wanted}, not {text!r}")
        return seconds

    return convert


# -- Options --------------------------------------------------------------------------------------


def build() -> tuple[Parser, set[str]]:
    """Return the parser, and the options that have a value."""
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
            help="hosts from a file: a pattern in each line, # begins a comment; - is"
            " standard input; can be repeated",
        ),
        add(
            "--srv",
            metavar="NAME",
            action="append",
            default=[],
            help="hosts and ports from the DNS SRV records _remctl._tcp.NAME; can be repeated",
        ),
        add(
            *("-x", "--exclude"),
            metavar="HOSTS",
            action="append",
            default=[],
            help="leave these out, wherever they are named; a name or range that leaves out no"
            " host is an error; can be repeated",
        ),
        add(
            "--exclude-file",
            metavar="FILE",
            action="append",
            default=[],
            help="leave out the hosts in a file, written as for --hosts-file; it may have hosts"
            " that are not in the list; can be repeated",
        ),
        add(
            "--pick",
            metavar="N",
            type=_whole(1),
            help="run on N of the hosts, chosen at random; on all, if there are no more",
        ),
        add(
            "--groups",
            metavar="FILE",
            help="where the groups of hosts are: a file such as ClusterShell's groups.conf,"
            " which it reads in its place",
        ),
        add(
            "--any",
            action="store_true",
            help="run on the first host that answers, in the order of --srv or of the list; the"
            " next one is tried only if nothing was sent",
        ),
        add(
            "--dry-run",
            action="store_true",
            help="print the hosts, one a line, and connect to none",
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
            help="get tickets with the key in this file, and put them into CCACHE, if named",
        ),
        add("--client", metavar="PRINCIPAL", help="whose tickets to get with --keytab"),
        add(
            *("-t", "--timeout"),
            metavar="SECONDS",
            type=_seconds(zero=True),
            help="give a host up when the network is silent for so long, while connecting or"
            " while the command runs (default: 0, never)",
        ),
        add(
            "--connect-timeout",
            metavar="SECONDS",
            type=_seconds(zero=True),
            help="the same, but only while connecting: a command may be silent for longer"
            f" (default: as --timeout, if that is given, or {CONNECT_TIMEOUT:g}; 0 is never)",
        ),
        add(
            "--retries",
            metavar="N",
            type=_whole(0),
            default=0,
            help="try again to connect, up to N times; a command is sent only once",
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
            help="so many hosts at a time (default: %(default)s)",
        ),
        add(
            "--limit",
            metavar="SECONDS",
            type=_seconds(),
            help="give a host up that takes longer, connecting included",
        ),
        add(
            "--deadline",
            metavar="SECONDS",
            type=_seconds(),
            help="give all hosts up that have not finished by then",
        ),
        add(
            "--first",
            metavar="N",
            type=_whole(0),
            default=0,
            help="begin with N hosts, and go on only if all of them succeed",
        ),
        add(
            "--stop-after",
            metavar="N",
            type=_whole(1),
            help="begin no other host when N have failed",
        ),
    ]


def _add_input(built: argparse.ArgumentParser) -> list[argparse.Action]:
    add = built.add_argument_group("input").add_mutually_exclusive_group().add_argument
    return [
        add(
            "--stdin",
            action="store_true",
            help="send standard input, whole, as the argument that the command gets on its"
            " standard input (stdin= in the server's configuration); it is the last",
        ),
        add(
            "--ask-secret",
            action="store_true",
            help="ask for that argument, twice and without showing it",
        ),
    ]


def _add_output(built: argparse.ArgumentParser) -> list[argparse.Action]:
    group = built.add_argument_group("output")
    add = group.add_mutually_exclusive_group().add_argument
    return [
        add(
            "--gather",
            action="store_true",
            help="show output at the end, hosts with the same output together: the default"
            " for more than one host",
        ),
        add(
            "--diff",
            action="store_true",
            help="the same, but show what most hosts print, and of others what is different",
        ),
        add(
            "--live",
            action="store_true",
            help="show output as it arrives, each line after its host's name",
        ),
        add(
            "--json",
            action="store_true",
            help="print a JSON object for each host, one a line, as they finish",
        ),
        group.add_argument(
            *("-q", "--quiet"),
            action="store_true",
            help="no progress, and no word about success",
        ),
        group.add_argument(
            "--outdir",
            metavar="DIR",
            help="also write the output of each host to a file in this folder, which has the"
            " host's name, and its port if it was named with one; it takes the place of an"
            " earlier one, and is empty if there was no output; nobody else can read it",
        ),
        group.add_argument(
            "--errdir",
            metavar="DIR",
            help="the same, for what commands print on standard error",
        ),
        group.add_argument(
            "--failed-to",
            metavar="FILE",
            help="write the hosts where the command has failed without running, to use with"
            " --hosts-file; those where it ran, or may have, are comments in it; what the file"
            " held is replaced at the end of the run",
        ),
        group.add_argument(
            *("-S", "--max-status"),
            action="store_true",
            help="exit with the largest exit status of any host; 255 stands for a host that"
            " has none",
        ),
    ]


def _add_others(built: argparse.ArgumentParser) -> list[argparse.Action]:
    add = built.add_argument_group("others").add_argument
    return [
        add(
            "--shell",
            action="store_true",
            help="read commands, with a prompt and a history, and run them over connections that"
            " stay open; a line that begins with a space is not kept",
        ),
        add(
            "--print-completion",
            choices=SHELLS,
            help="print what makes this shell complete options, hosts, groups, and the commands"
            " that the server lists for help",
        ),
        add(
            "--no-defaults",
            action="store_true",
            help="ignore the files with defaults, and REMCTL_FLEET_OPTIONS",
        ),
        add(*("-d", "--debug"), action="store_true", help="tell what is done, step by step"),
        add(*("-h", "--help"), action="help", help="show this page"),
        add(
            *("-v", "--version"),
            action="version",
            version=f"{COMMAND} {remctl.__version__}",
            help="show the version",
        ),
    ]
