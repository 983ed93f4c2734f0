"""Man pages, made of the parser and the texts that ``--help`` shows, too.

It needs argparse-manpage.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import remctl

__all__ = ["Manpage"]


class Manpage:
    """A page that is in the making.

    Args:
        parser: what reads the command line.
        description: what the command does, in a line.
        usage: how it is called, with ``%(prog)s`` for its name; each line is an alternative.
    """

    def __init__(self, parser: argparse.ArgumentParser, description: str, usage: str) -> None:
        from argparse_manpage import manpage

        parser.epilog = None  # It is made into sections.
        self._page: Any = manpage.Manpage(parser)
        self._page.description = description
        self._page.source = f"python-remctl {remctl.__version__}"
        self._page.manual = "remctl"
        lines = (usage % {"prog": rf"\fB{parser.prog}\fR"}).splitlines()
        self._page.add_section("synopsis", "=", "\n.br\n".join(line.strip() for line in lines))

    def add(self, sections: Mapping[str, str]) -> None:
        """Add texts that are to be shown as they are; no line may begin with . or '."""
        for name, text in sections.items():
            plain = text.replace("\\", r"\e").replace("-", r"\-")
            self._page.add_section(name, "=", f".nf\n{plain}\n.fi")

    def see_also(self, *pages: str) -> None:
        """Add references to other pages, such as ``ssh(1)``."""
        named = [page.partition("(") for page in pages]
        words = ", ".join(rf"\fB{name}\fR({section}" for name, _, section in named)
        self._page.add_section("see also", "=", words)

    def __str__(self) -> str:
        return str(self._page)
