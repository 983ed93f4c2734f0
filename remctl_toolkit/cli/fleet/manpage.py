"""The man page of remctl-fleet, made of its parser.

    python -m remctl_toolkit.cli.fleet.manpage > remctl-fleet.1

It needs argparse-manpage.
"""

from __future__ import annotations

import sys

import remctl

from .options import COMMAND, EXAMPLES, NOTES, USAGE, parser

__all__ = ["manpage"]

_SEE_ALSO = r"\fBkinit\fR(1), \fBremctl\fR(1), \fBnodeset\fR(1), \fBremctld\fR(8)"


def manpage() -> str:
    """Return the page, as man reads it."""
    from argparse_manpage.manpage import Manpage

    built = parser()
    built.epilog = None  # It is made into sections.
    page = Manpage(built)
    page.description = "run a remctl command on many hosts"
    page.source = f"python-remctl {remctl.__version__}"
    page.manual = "remctl"
    usage = (line.strip() for line in (USAGE % {"prog": rf"\fB{COMMAND}\fR"}).splitlines())
    page.add_section("synopsis", "=", "\n.br\n".join(usage))
    for name, text in {**NOTES, "examples": EXAMPLES}.items():
        page.add_section(name, "=", f".nf\n{_escaped(text)}\n.fi")
    page.add_section("see also", "=", _SEE_ALSO)
    return str(page)


def _escaped(text: str) -> str:
    r"""Return a text that is to be shown as it is; it must not begin a line with . or '."""
    return text.replace("\\", r"\e").replace("-", r"\-")


if __name__ == "__main__":
    sys.stdout.write(manpage())
