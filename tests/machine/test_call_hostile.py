"""An interpreter of the far side that is not ours: whatever it sends is one error."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from machine.call_pipes import PipeInterpreter
from support.waiting import eventually

from remctl_toolkit.machine.call.interpreter import InterpreterEndedError

pytestmark = pytest.mark.once

HOSTILE = """#!{python}
import os, struct, sys
hello = b"U\\0\\0\\0\\2U\\0\\0\\0\\1i\\0\\0\\0\\1\\3i\\0\\0\\0\\1\\1"
def send(letter, number, octets):
    os.write(1, struct.pack(">cII", letter, number, len(octets)) + octets)
send(b"H", 0, hello)
os.read(0, 100000)
{evil}
os.read(0, 100000)
"""


@pytest.mark.parametrize(
    ("evil", "text"),
    [
        ("send(b'J', 1, b'')", "kind b'J'"),
        ("send(b'V', 1, b'cos.system')", "value"),
        ("send(b'V', 1, b'\\x80\\x04N.')", "no kind"),
        ("os.write(1, struct.pack('>cII', b'V', 1, 2**32 - 1))", "4294967295 octets at once"),
        ("send(b'?', 1, b'N')", "question"),
        ("send(b'?', 1, b'x' * 5000)", "too long"),
        ("send(b'!', 1, b'N')", "error that is none"),
        ("send(b'M', 1, b'N')", "kind b'M'"),
        ("send(b'G', 1, b'N')", "beginning of a generator"),
        ("[send(b'G', 1, b'') for _ in range(2)]; os.read(0, 1)", "beginning of a generator"),
        ("send(b'I', 1, b'N')", "item of no generator"),
        ("send(b'H', 0, hello)", "a second greeting"),
    ],
    ids=range(12),
)
def test_what_it_must_not_send_is_one_error(evil: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "python"
    path.write_text(HOSTILE.format(python=sys.executable, evil=evil))
    path.chmod(0o755)
    with PipeInterpreter(str(path)) as far:
        with pytest.raises(Exception, match=text) as caught:
            next(far.call(abs, -1))
        assert type(caught.value).__name__ in ("DecodeError", "InterpreterEndedError")


@pytest.mark.parametrize(
    "hello",
    ["U\\0\\0\\0\\0", "U\\0\\0\\0\\1N", "U\\0\\0\\0\\2NN", "U\\0\\0\\0\\2U\\0\\0\\0\\1sNN", "N"],
)
def test_a_greeting_that_is_none_is_one_error(hello: str, tmp_path: Path) -> None:
    path = tmp_path / "python"
    text = HOSTILE.format(python=sys.executable, evil="")
    path.write_text(re.sub('hello = b".*"', lambda _: f'hello = b"{hello}"', text))
    path.chmod(0o755)
    with pytest.raises(InterpreterEndedError, match=r"sent what it must not"):
        PipeInterpreter(str(path))


def test_more_items_than_were_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "python"
    evil = "send(b'G', 1, b'')\nfor _ in range(300): send(b'I', 1, b'N')"
    path.write_text(HOSTILE.format(python=sys.executable, evil=evil))
    path.chmod(0o755)
    with PipeInterpreter(str(path)) as far:
        items = far.call(abs, -1)
        eventually(lambda: "ended" in repr(far))
        with pytest.raises(InterpreterEndedError, match=r"more of a generator's items"):
            list(items)
