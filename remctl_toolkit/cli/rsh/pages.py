"""The pages of remctl-rsh: help, version and completion scripts."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import remctl
from remctl_toolkit.cli.completion import host_names, matching, script

from .options import COMMAND, IGNORED, OPTIONS, REFUSED

__all__ = ["page", "parser"]

USAGE = "%(prog)s [OPTION ...] [USER@]HOST [COMMAND [ARGUMENT ...]]"

DESCRIPTION = """\
Run a command on a host over remctl, as ssh does: for programs that run ssh.
The words of the command are joined with spaces and run by /bin/sh on the host,
with this program's standard input, output and error. Without a command, run the
account's login shell. The host's remctl.conf needs the first of these lines;
the second makes it faster:

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
  USER@HOST uses the remctl commands python-USER and sh-USER. If the server has no
  such commands, it uses python and sh, provided that they run as USER. --python
  NAME and --shell NAME replace the names python and sh.""",
    "exit status": """\
  the command's own; 127 if there is no such command, 126 if it cannot be run
  255  remctl-rsh failed (see standard error), or a signal killed the command,
       as with ssh
  SIGINT, SIGTERM and SIGHUP are passed on: they end the command, then this
  process, as does SIGPIPE when the reader of the output is gone.""",
    "environment": """\
  REMCTL_RSH_PORT, REMCTL_RSH_PRINCIPAL, REMCTL_RSH_PYTHON, REMCTL_RSH_SHELL,
  REMCTL_RSH_CCACHE, REMCTL_RSH_TIMEOUT
      the options of these names, for programs that cannot pass options
  KRB5CCNAME
      credential cache to use without --ccache""",
    "ssh's options": f"""\
  These are ignored, because Kerberos or remctl makes them unnecessary:
      {_letters(IGNORED.values())}
  These are errors:
      {_letters(REFUSED)}
  {COMMAND}(1) also lists the names of -o that are ignored or errors.""",
}


def ssh_options() -> list[tuple[list[str], str]]:
    """Return the options of ssh that are ignored or errors, with the reason."""
    refused = {
        names: f"error: remctl does not support {what}; {cure}"
        for names, (what, cure) in REFUSED.items()
    }
    ignored = {names: f"ignored: {reason}" for reason, names in IGNORED.items()}
    return [(names.split(), text) for names, text in (*ignored.items(), *refused.items())]


def page(name: str) -> str:
    """Return a page: "help", "version", or the completion script for a shell."""
    if name == "version":
        return f"{COMMAND} {remctl.__version__}\n"
    return parser().format_help() if name == "help" else script(COMMAND, name)


def parser() -> argparse.ArgumentParser:
    """Return a parser that is used only to format pages."""
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
    built.add_argument("host", metavar="[USER@]HOST", help="the host, and the account on it")
    built.add_argument("command", nargs="*", metavar="COMMAND", help="the command to run")
    for option in OPTIONS:
        added = built.add_argument(*option.names, help=option.help or argparse.SUPPRESS)
        added.metavar, added.nargs = option.metavar, None if option.metavar else 0
    return built


def candidates(words: list[str], word: str) -> list[str]:
    """Return candidates for the last word of a command line, for `answer()`."""
    valued = {name for option in OPTIONS if option.metavar is not None for name in option.names}
    if words and words[-1] in valued:
        return []
    before = [each for place, each in enumerate(words) if (["", *words])[place] not in valued]
    if any(not each.startswith("-") for each in before):  # The host is complete.
        return []
    if word.startswith("-"):
        names = (name for option in OPTIONS if option.help for name in option.names)
        return matching(names, word)
    user, at, host = word.rpartition("@")
    return [f"{user}{at}{name}" for name in host_names(host) if not name.startswith("@")]
