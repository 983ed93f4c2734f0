"""Values that a remote host has written with ascii(), and what it may write instead."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from support.subprocesses import LIMIT

from remctl_toolkit.machine.base.program import literal

pytestmark = pytest.mark.once

VALUES = [
    None,
    True,
    -1,
    1e300,
    -2.5e-07,
    "it's",
    "\"'\\\n\ud800\u20ac([{",
    b"'\"\\\0",
    (),
    [[], {}, (1,)],
    {"a": [{"b": (1, -2, None), "c": [False]}], 3: "d"},
]


@pytest.mark.parametrize("value", VALUES)
def test_plain_data_comes_as_it_was(value: Any) -> None:
    assert literal(b"%b\n" % ascii(value).encode(), 1000) == value


NO_VALUES = [
    "",
    "1-1",
    "-(1)",
    "--1",
    "'a'.b",
    "f()",
    "()()",
    "(1)[0]",
    "{1}|{2}",
    "1 if 1 else 1",
    "[1 for a in b]",
    "'a' 'b'",
    "'\\'",
    "[",
    "]",
    "\xff",
    "1" * 5000,
    "[[[[[[[]]]]]]]",
]


@pytest.mark.parametrize("text", NO_VALUES)
def test_what_is_no_plain_data_is_one_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        literal(text.encode("latin-1"), 10_000)


def test_there_is_a_limit() -> None:
    with pytest.raises(ValueError, match=re.escape("more than 2 octets")):
        literal(b"123", 2)


SMALL_STACK = """
import threading
from remctl_toolkit.machine.base.program import literal

def work():
    for text in (b"(", b"{1:", b"-", b"not ", b"lambda:", b"1+", b"1**", b"1 if 1 else ", b"f("):
        for whole in (text * (60000 // len(text)), text * (60000 // len(text)) + b"1"):
            try:
                literal(whole, 1 << 16)
            except ValueError:
                refused.append(whole)

refused = []
threading.stack_size(128 << 10)
thread = threading.Thread(target=work)
thread.start()
thread.join()
assert len(refused) == 18
"""


def test_it_cannot_end_a_thread_with_a_small_stack() -> None:
    """Some systems have 128 KiB for each: the parser would end the process."""
    assert subprocess.run([sys.executable, "-c", SMALL_STACK], timeout=LIMIT).returncode == 0
