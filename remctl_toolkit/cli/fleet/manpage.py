"""The man page of remctl-fleet, made of its parser.

    python -m remctl_toolkit.cli.fleet.manpage > remctl-fleet.1

It needs argparse-manpage.
"""

from __future__ import annotations

import sys

from remctl_toolkit.cli.manpages import Manpage

from .options import EXAMPLES, NOTES, USAGE, parser

__all__ = ["manpage"]


def manpage() -> str:
    """Return the page, as man reads it."""
    page = Manpage(parser(), "run a remctl command on many hosts", USAGE)
    page.add({**NOTES, "examples": EXAMPLES})
    page.see_also("kinit(1)", "remctl(1)", "nodeset(1)", "remctld(8)")
    return str(page)


if __name__ == "__main__":
    sys.stdout.write(manpage())
