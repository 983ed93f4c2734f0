"""What remctl-rsh says about itself: help, version and completion."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import remctl
from remctl_toolkit.cli.completion import host_names, matching, script

from .options import COMMAND, IGNORED, OPTIONS, REFUSED

__all__ = ["page", "parser"]

USAGE = "%(prog)s [OPTION ...] [USER@]HOST [COMMAND [ARGUMENT ...]]"

DESCRIPTION = """\
Run a command on a host as ssh does, over remctl: for the programs that run ssh.
The words of the command are joined with spaces, and /bin/sh runs them on the host;
standard input, output and error are its own. Without a command it is the account's
shell. The host's remctl.conf needs a line, and may have a second, which is faster:

  python ALL /usr/bin/python3 stdin=last user=NAME ACL
  sh     ALL /bin/sh          stdin=last user=NAME ACL"""

EXAMPLES = """\
  remctl-rsh web1 uptime
  rsync -e remctl-rsh -a site/ web1:/srv/site/
  GIT_SSH_COMMAND=remctl-rsh git clone web1:/srv/project.git
  sftp -S remctl-rsh web1
  scp -S remctl-rsh notes.txt backup@web1:
  remctl-rsh -f -N -L 5432:localhost:5432 db1"""


def _letters(names: Iterable[str]) -> str:
    return " ".join(sorted(name for name in " ".join(names).split() if name.startswith("-")))


NOTES = {
    "accounts": """\
  USER@HOST is the account that the remctl commands python-USER and sh-USER run as;
  where the server has no such commands, python and sh are used if they run as USER.
  With --python NAME and --shell NAME: NAME-USER, or else NAME.""",
    "exit status": """\
  the command's own; 127 and 126 if there is no such command, or it cannot be run
  255  remctl-rsh failed (standard error says why, and the cure), or a signal ended
       the command: as with ssh
  SIGINT, SIGTERM and SIGHUP are passed on; they end the command, and then this
  process, as does SIGPIPE when nobody reads the output.""",
    "environment": """\
  REMCTL_RSH_PORT, REMCTL_RSH_PRINCIPAL, REMCTL_RSH_PYTHON, REMCTL_RSH_SHELL,
  REMCTL_RSH_CCACHE, REMCTL_RSH_TIMEOUT
      the options of these names, where a program has no way to pass them
  KRB5CCNAME
      the tickets to use""",
    "ssh's options": f"""\
  These do nothing, as they are about what Kerberos or remctl does in another way:
      {_letters(IGNORED.values())}
  These are errors:
      {_letters(REFUSED)}
  So are the names of -o that go with them; {COMMAND}(1) lists these.""",
}


def ssh_options() -> list[tuple[list[str], str]]:
    """Return the options of ssh that are ignored or errors, and what is said about them."""
    refused = {names: f"error: {what}; {cure}" for names, (what, cure) in REFUSED.items()}
    ignored = {names: f"ignored: {reason}" for reason, names in IGNORED.items()}
    return [(names.split(), text) for names, text in (*ignored.items(), *refused.items())]


def page(name: str) -> str:
    """Return the page: "help", "version", or what a shell of that name completes with."""
    if name == "version":
        return f"{COMMAND} {remctl.__version__}\n"
    return parser().format_help() if name == "help" else script(COMMAND, name)


def parser() -> argparse.ArgumentParser:
    """Return a parser with the same options, to make pages of; it reads no command line."""
    built = argparse.ArgumentParser(
        prog=COMMAND,
        usage=USAGE,
        description=DESCRIPTION,
        epilog="\n\n".join(
            f"{name}:\n{text}" for name, text in {"examples": EXAMPLES, **NOTES}.items()
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    built.add_argument("host", metavar="[USER@]HOST", help="the host, and the account there")
    built.add_argument("command", nargs="*", metavar="COMMAND", help="what to run there")
    for option in OPTIONS:
        added = built.add_argument(*option.names, help=option.help or argparse.SUPPRESS)
        added.metavar, added.nargs = option.metavar, None if option.metavar else 0
    return built


def candidates(words: list[str], word: str) -> list[str]:
    """Return what the last word of a command line could become, as `answer()` asks for it."""
    valued = {name for option in OPTIONS if option.metavar is not None for name in option.names}
    if words and words[-1] in valued:
        return []
    before = [each for place, each in enumerate(words) if (["", *words])[place] not in valued]
    if any(not each.startswith("-") for each in before):  # the host, and then a command there
        return []
    if word.startswith("-"):
        names = (name for option in OPTIONS if option.help for name in option.names)
        return matching(names, word)
    user, at, host = word.rpartition("@")
    return [f"{user}{at}{name}" for name in host_names(host) if not name.startswith("@")]
