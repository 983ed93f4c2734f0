"""The options of remctl-sandbox."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

import remctl

__all__ = ["COMMAND", "MAX_HOSTS", "parse", "parser"]

COMMAND = "remctl-sandbox"
MAX_HOSTS = 200
"""Maximum of ``--hosts``: each is a process, and an address below 127.0.0.255."""

_DESCRIPTION = """\
Try remctl without a Kerberos realm of your own: start a throwaway realm and a
remctl server on this machine, get a ticket, and open a shell in which remctl,
kinit, klist and Python programs use them. When the shell ends, everything is
removed. With -- COMMAND, run that command instead of a shell."""

_EPILOG = """\
examples:
  remctl-sandbox
      then, in the shell:  remctl localhost test echo hello
  remctl-sandbox --hosts 10
      then, in the shell:  remctl-fleet --hosts-file $REMCTL_HOSTS --timeout 2 \\
                               -- test echo hello
  remctl-sandbox -- sh -c 'remctl -p $REMCTL_PORT $REMCTL_HOST help'
  remctl-sandbox -- python3 -m pytest

environment of the shell or command:
  REMCTL_HOST, REMCTL_PORT, REMCTL_PRINCIPAL   the server and its principal
  REMCTL_HOSTS                                 file with the hosts of --hosts
  KRB5_CONFIG, KRB5CCNAME, ...                 Kerberos settings for the realm
  PATH                                         starts with the directories of
                                               remctl, kinit, remctl-fleet and
                                               the Python of remctl-sandbox

The port is 4373, the default of remctl, unless that is in use.

exit status:
  that of the shell or command; 128+N if signal N killed it
  2    usage error
  69   programs are not installed (the message names the packages to install)
  70   the realm or the server did not start
  126  the command cannot be executed
  127  the command is not found"""


def parser() -> argparse.ArgumentParser:
    """Return the parser, which is also the source of the man page."""
    built = argparse.ArgumentParser(
        prog=COMMAND,
        usage="%(prog)s [--config FILE] [--hosts N] [--verbose]\n"
        f"{' ' * len(f'usage: {COMMAND} ')}[-- COMMAND [ARGUMENT ...]]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    built.add_argument(
        "--config",
        "--command-file",
        metavar="FILE",
        type=_config_text,
        help="file with more commands for the server, in the format of its configuration file,"
        " see remctld(8)",
    )
    built.add_argument(
        "--hosts",
        metavar="N",
        type=_number_of_hosts,
        default=0,
        help="start N more hosts for trying remctl-fleet, each with a server; three of every ten"
        " refuse connections, never answer, or deny every command",
    )
    built.add_argument(
        "--verbose", action="store_true", help="show the server's log on standard error"
    )
    built.add_argument(
        "--version",
        action="version",
        version=f"{COMMAND} {remctl.__version__}",
        help="show the version",
    )
    built.add_argument("stray", nargs="*", help=argparse.SUPPRESS)
    return built


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options, and the command after ``--``; empty means a shell.

    Raises:
        SystemExit: for ``--help``, ``--version`` and wrong usage, as argparse does.
    """
    built = parser()
    split = argv.index("--") if "--" in argv else len(argv)
    options = built.parse_args(argv[:split])
    command = list(argv[split + 1 :])
    if options.stray:
        wanted = shlex.join([COMMAND, "--", *options.stray])
        built.error(f"put -- before the command: {wanted}")
    if split < len(argv) and not command:
        built.error("no command after --")
    return options, command


def _config_text(path: str) -> str:
    """Return the text of a configuration file, as an argparse type."""
    try:
        return Path(path).read_text()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise argparse.ArgumentTypeError(f"cannot read {path}: it is not a text file") from None


def _number_of_hosts(text: str) -> int:
    """Return a number of hosts, as an argparse type."""
    if not (text.isdecimal() and text.isascii() and 1 <= int(text) <= MAX_HOSTS):
        raise argparse.ArgumentTypeError(f"it must be a number from 1 to {MAX_HOSTS}, not {text!r}")
    return int(text)
