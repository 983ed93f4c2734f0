"""The Perl examples of docs/coming-from-net-remctl.md print what the page says that both print.

The page's first ```perl block begins each of the others, which is a program of its own.  What it
prints is the ```text block right after it; or that of the Python example after it, which
test_docs.py compares with the same block.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from remctl_toolkit.testing import RemctldServer

pytestmark = [pytest.mark.once, pytest.mark.nightly]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "coming-from-net-remctl.md"
PERL = "/usr/bin/perl"


class Example(NamedTuple):
    line: int
    code: str
    printed: str


def examples() -> tuple[str, list[Example]]:
    """The beginning of all programs, and the programs."""
    text = PAGE.read_text()
    blocks = list(re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    found = []
    for number, block in enumerate(blocks):
        if block[1] == "perl":
            following = (each[2] for each in blocks[number:] if each[1] == "text")
            found.append(Example(text.count("\n", 0, block.start()), block[2], next(following)))
    return found[0].code, found[1:]


BEGINNING, EXAMPLES = examples()


@pytest.fixture(scope="module")
def perl() -> str:
    """The Perl that has Net::Remctl."""
    try:
        found = subprocess.run([PERL, "-MNet::Remctl", "-e1"], capture_output=True, timeout=50)
    except OSError:
        found = None
    if found is None or found.returncode:
        pytest.skip("Net::Remctl is not installed: libnet-remctl-perl (Debian, Ubuntu)")
    return PERL


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"line-{example.line}")
def test_perl_prints_the_same(example: Example, perl: str, remctl_server: RemctldServer) -> None:
    where = {"REMCTL_HOST": remctl_server.host, "REMCTL_PORT": str(remctl_server.port)}
    done = subprocess.run(
        [perl, "-"],
        input=BEGINNING + example.code,
        env={**os.environ, **where},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == example.printed


def test_the_page_shows_every_word_of_perl() -> None:
    """Those of Net::Remctl(3pm): functions, and methods of its objects."""
    text = PAGE.read_text()
    methods = "new open command output error noop set_ccache set_source_ip set_timeout"
    fields = "type data length stream status error"
    missing = [name for name in methods.split() if not re.search(rf"(\$r|Remctl)->{name}\b", text)]
    missing += [name for name in fields.split() if f"$o->{name}`" not in text]
    assert missing == []
