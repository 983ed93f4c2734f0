"""Hostile remote interpreters: all malformed data is one error."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from machine.call_pipes import PipeInterpreter
from support.waiting import eventually

from remctl_toolkit.machine.call import (
    CallTimeoutError,
    InterpreterEndedError,
    RemoteCallError,
)
from remctl_toolkit.machine.call.link import Reply

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
        ("send(b'J', 1, b'')", r"b'J.*' does not begin a frame"),
        ("send(b'V', 1, b'cos.system')", "value"),
        ("send(b'V', 1, b'\\x80\\x04N.')", "unknown kind"),
        ("os.write(1, struct.pack('>cII', b'V', 1, 2**32 - 1))", "does not begin a frame"),
        ("send(b'?', 1, b'N')", "question"),
        ("send(b'?', 1, b'x' * 5000)", "too long"),
        ("send(b'!', 1, b'N')", "malformed error"),
        ("send(b'M', 1, b'N')", "does not begin a frame"),
        ("send(b'G', 1, b'N')", "unexpected start of a generator"),
        (
            "[send(b'G', 1, b'') for _ in range(2)]; os.read(0, 1)",
            "unexpected start of a generator",
        ),
        ("send(b'I', 1, b'N')", "item without a generator"),
        ("send(b'H', 0, hello)", "repeated greeting"),
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
def test_a_malformed_greeting_is_one_error(hello: str, tmp_path: Path) -> None:
    path = tmp_path / "python"
    text = HOSTILE.format(python=sys.executable, evil="")
    path.write_text(re.sub('hello = b".*"', lambda _: f'hello = b"{hello}"', text))
    path.chmod(0o755)
    with pytest.raises(InterpreterEndedError, match=r"sent invalid data"):
        PipeInterpreter(str(path))


def test_more_items_than_were_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "python"
    evil = "send(b'G', 1, b'')\nfor _ in range(300): send(b'I', 1, b'N')"
    path.write_text(HOSTILE.format(python=sys.executable, evil=evil))
    path.chmod(0o755)
    with PipeInterpreter(str(path)) as far:
        items = far.call(abs, -1)
        eventually(lambda: "ended" in repr(far))
        with pytest.raises(InterpreterEndedError, match=r"more items of a generator"):
            list(items)


def hostile(tmp_path: Path, evil: str) -> str:
    path = tmp_path / "python"
    path.write_text(HOSTILE.format(python=sys.executable, evil=evil))
    path.chmod(0o755)
    return str(path)


QUESTION = "U\\0\\0\\0\\2s\\0\\0\\0\\6modules\\0\\0\\0\\x11typing_extensions"


@pytest.mark.parametrize("number", [200, 2000])
def test_time_limits_hold_where_it_asks_and_does_not_read(number: int, tmp_path: Path) -> None:
    """The thread that reads must not be the one that answers."""
    evil = f"for n in range({number}): send(b'?', n, b'{QUESTION}')\nimport time; time.sleep(600)"
    with PipeInterpreter(hostile(tmp_path, evil), modules=["typing_extensions"]) as far:
        with pytest.raises((CallTimeoutError, InterpreterEndedError)) as caught:
            far.call_within(0.5, abs, -1)
        if number > 256:
            assert isinstance(caught.value, InterpreterEndedError)
            assert "too many unanswered questions" in str(caught.value)


def test_a_call_ends_where_it_does_not_read(tmp_path: Path) -> None:
    evil = "import time; time.sleep(600)"
    with PipeInterpreter(hostile(tmp_path, evil)) as far:
        for _ in range(2):
            with pytest.raises(CallTimeoutError):
                far.call_within(0.1, abs, bytes(1 << 20))


def test_the_end_of_a_generator_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items that still come do not begin it anew."""
    waited: list[float] = []
    following = Reply.next

    def note(reply: Reply) -> tuple[bytes, bytes]:
        waited.append(reply.timeout or 0.0)
        return following(reply)

    monkeypatch.setattr("remctl_toolkit.machine.call.interpreter._CLOSE_WAIT", 1.0)
    evil = "import time; send(b'G', 1, b'')\n"
    evil += "for _ in range(100): send(b'I', 1, b'N'); time.sleep(0.2)"
    with PipeInterpreter(hostile(tmp_path, evil)) as far:
        items = far.call(abs, -1)
        monkeypatch.setattr(Reply, "next", note)
        with pytest.raises(CallTimeoutError, match=r"call did not end within 1 s on"):
            items.close()
    assert len(waited) > 1
    assert waited[1:] == sorted(set(waited[1:]), reverse=True)
    assert max(waited) <= 1.0


def test_what_it_says_is_printable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    evil = r"""
def text(value): return b"s" + struct.pack(">I", len(value)) + value
bad = b"\\x1b]0;gone\\x07"
send(b"1", 0, bad + b"\\n")
names = b"U\\0\\0\\0\\1" + text(bad)
send(b"!", 1, b"U\\0\\0\\0\\5" + text(b"call") + names + text(bad) + text(bad) + b"N")
""".replace("\\\\", "\\")
    python = hostile(tmp_path, evil)
    logged, raised = caplog.at_level("DEBUG"), pytest.raises(RemoteCallError)
    with logged, PipeInterpreter(python) as far, raised as caught:
        far.call(abs, -1)
    shown = [str(caught.value), *caught.value.__notes__, capsys.readouterr().err, caplog.text]
    assert r"\x1b]0;gone\x07" in shown[0]
    assert not any("\x1b" in each or "\x07" in each for each in shown)
