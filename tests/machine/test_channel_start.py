"""Channels: how commands and Python text are started, and many at once."""

from __future__ import annotations

import ast
import concurrent.futures
import errno
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from machine.call_pipes import pythons
from machine.remote_traces import read_all, traces
from support.waiting import eventually, open_descriptors, thread_count

from remctl_toolkit.machine import Connection, WorkingFolderError
from remctl_toolkit.machine.base.program import Program, source
from remctl_toolkit.machine.channel.channel import Channel
from remctl_toolkit.testing import Command, RemctldServer

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once


# -- Starting -------------------------------------------------------------------------------------


def test_a_program_that_is_not_there_is_127(either: Connection) -> None:
    with Channel(either, ["no-such-program"]) as channel:
        assert channel.wait() == 127
        assert b"no-such-program: No such file" in channel.read_stderr()
    with Channel(either, ["/etc/passwd"]) as channel:
        assert channel.wait() == 126


def test_a_folder_that_cannot_be_entered_is_one_error(either: Connection) -> None:
    text = f"cannot change to working directory /nonexistent on {either.host}: No such file"
    with pytest.raises(WorkingFolderError, match=f"^{re.escape(text)}"):
        Channel(either, ["pwd"], cwd="/nonexistent")


def test_cwd_and_environment(either: Connection, tmp_path: Path) -> None:
    script = 'pwd; echo "$A"; echo "$HOME"'
    with Channel(
        either, ["sh", "-c", script], cwd=tmp_path, extend_env={"A": "a b", "HOME": None}
    ) as channel:
        assert read_all(channel) == b"%b\na b\n\n" % os.fsencode(tmp_path)
    with Channel(either, ["/usr/bin/env"], env={"A": "b"}) as channel:
        assert read_all(channel) == b"A=b\n"


def test_a_broken_pipe_ends_a_command_over_there(connection: Connection) -> None:
    with Channel(connection, ["sh", "-c", "{ yes; echo $? >&2; } | head -n 1"]) as channel:
        assert read_all(channel) == b"y\n"
        assert channel.read_stderr() == b"141\n"


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({}, ValueError, "either argv"),
        ({"argv": ["cat"], "source": "pass"}, ValueError, "either argv"),
        ({"argv": "cat"}, TypeError, "list of words"),
        ({"argv": ["cat"], "payload": b"x"}, ValueError, "payload= is only for source="),
        ({"source": b"pass"}, TypeError, "source must be text"),
        ({"argv": ["cat"], "stderr": 2}, ValueError, "stderr must be"),
        ({"argv": ["cat"], "beat": 6.0}, ValueError, "twice beat"),
        ({"argv": ["cat"], "beat": 0.0}, ValueError, "twice beat"),
    ],
)
def test_what_cannot_be_right_is_not_sent(
    connection: Connection, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        Channel(connection, **arguments)


def test_nothing_but_the_label_is_logged(
    either: Connection, server: RemctldServer, far_log: Callable[[], str]
) -> None:
    secret = os.urandom(8).hex()
    argv = ["sh", "-c", f"cat; : {secret}"]
    with Channel(either, argv, extend_env={"S": secret}, label=f"l-{secret[:4]}") as channel:
        for octets in (secret.encode(), secret.encode() * 1000):
            channel.write(octets)
            assert channel.read_exactly(len(octets)) == octets
        folder = os.fsdecode(traces(channel).folder)
        channel.send_signal(signal.SIGUSR1)
        channel.wait()
    server.wait_for_log(f"l-{secret[:4]}")
    assert secret not in far_log()
    assert folder not in far_log()


# -- Python text ----------------------------------------------------------------------------------

PROGRAM = """
import sys, os
assert __name__ == "__main__" and payload == b"\\0" * 100000, len(payload)
assert sorted(name for name in globals() if not name.startswith("__")) == ["os", "payload", "sys"]
for line in sys.stdin:
    print(line.strip().upper(), flush=True)
os.write(2, b"bye")
sys.exit(7)
"""


def test_python_text(either: Connection) -> None:
    with Channel(either, source=PROGRAM, payload=b"\0" * 100000) as channel:
        channel.write(b"abc\n")
        assert channel.read() == b"ABC\n"
        channel.write(b"def\n")
        assert channel.read() == b"DEF\n"
        channel.close_write()
        assert (channel.read(), channel.read_stderr(), channel.wait()) == (b"", b"bye", 7)


def test_python_text_that_raises(connection: Connection) -> None:
    with Channel(connection, source="def f():\n  1/0\nf()\n", label="sums") as channel:
        assert channel.wait() == 1
        text = b"".join(iter(channel.read_stderr, b"")).decode()
    assert 'File "<sums>", line 2, in f' in text
    assert text.endswith("ZeroDivisionError: division by zero\n")


def test_python_text_can_be_interrupted(connection: Connection) -> None:
    text = (
        "import time\ntry:\n  print(1, flush=True); time.sleep(1000)\nexcept KeyboardInterrupt:\n"
    )
    with Channel(connection, source=text + "  print('caught')") as channel:
        assert channel.read() == b"1\n"
        channel.send_signal(signal.SIGINT)
        assert (read_all(channel), channel.wait()) == (b"caught\n", 0)


def test_python_text_has_the_environment(connection: Connection, tmp_path: Path) -> None:
    text = "import os; print(os.getcwd(), os.environ['A'], os.environ.get('HOME'))"
    change = {"A": "b", "HOME": None}
    with Channel(connection, source=text, cwd=tmp_path, extend_env=change) as channel:
        assert read_all(channel).decode() == f"{tmp_path} b None\n"


def test_a_folder_is_made_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be none after its first FIFO, and nothing is left."""
    text, _, _ = source("channel/far_keeper").rpartition("\n\nkeep(spec)")
    names: dict[str, Any] = {}
    exec(text, names)
    make = os.mkfifo

    def make_some(path: bytes, mode: int) -> None:
        if path.startswith(os.fsencode(tmp_path)) and path.endswith(b"/control"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        make(path, mode)

    monkeypatch.setattr(os, "mkfifo", make_some)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder = names["make_folder"]()
    assert sorted(os.listdir(folder)) == [b"control", b"data"]
    assert os.listdir(tmp_path) == []
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "name", ["base/far_loader", "base/far_execute", "base/far_supervise", "channel/far_keeper"]
)
def test_sources_are_for_python_3_8(name: str) -> None:
    text = source(name)
    assert text.isascii()
    ast.parse(text, feature_version=(3, 8))


@pytest.mark.parametrize("version", pythons())
def test_another_python_over_there(remctl_realm: Realm, version: str) -> None:
    line = Command("python", program=pythons()[version], stdin="last")
    with (
        RemctldServer(remctl_realm, (line,)) as server,
        Connection(server.host, server.port, server.principal) as connection,
    ):
        assert connection.far.python_version[:2] == tuple(map(int, version.split(".")))
        for _ in range(2):  # The second time, the keeper is compiled.
            with Channel(connection, ["sh", "-c", "cat; exit 3"]) as channel:
                channel.write(b"abc")
                assert channel.read() == b"abc"
                channel.close_write()
                assert channel.wait() == 3
        with Channel(connection, source="print(input())") as channel:
            there = traces(channel)
            channel.write(b"abc\n")
            assert read_all(channel) == b"abc\n"
        assert there.gone()


# -- Many -----------------------------------------------------------------------------------------


@pytest.fixture
def undisturbed(connection: Connection) -> Iterator[None]:
    """Threads and descriptors are as many afterwards as before."""
    threads, descriptors = thread_count(), open_descriptors()
    yield
    eventually(lambda: thread_count() <= threads)
    eventually(lambda: open_descriptors() <= descriptors + connection._pool.stats.idle)


def test_many_channels_at_once(connection: Connection, undisturbed: None) -> None:
    together = threading.Barrier(40)

    def work(number: int) -> bytes:
        with Channel(connection, ["cat"], beat=0.5, patience=50) as channel:
            together.wait(50)
            channel.write(b"%d" % number)
            octets = channel.read()
            channel.close_write()
            assert channel.wait() == 0
            return octets

    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        assert list(pool.map(work, range(40))) == [b"%d" % number for number in range(40)]


def test_programs_are_compiled_once(server: RemctldServer) -> None:
    text = "x = 1\n" * 1000 + "print(x, one.y)"
    program = Program("import one\n" + text, {"one": "y = 2\n" * 1000})

    def run() -> bytes:
        with Channel(connection, source=program) as channel:
            return read_all(channel)

    with Connection(server.host, server.port, server.principal) as connection:
        assert connection.python_run(program.text(), label="one").stdout == b"1 2\n"
        assert run() == b"1 2\n"
        compiled = dict(connection.compiled)
        files = [file for file, _ in compiled]
        assert files == ["<remctl keeper>", "<remctl one>", "<channel>"]
        assert run() == b"1 2\n"
        assert connection.compiled == compiled
        # The host has another Python, as after an upgrade.
        for key, code in compiled.items():
            connection.compiled[key] = b"other\0" + code.partition(b"\0")[2]
        assert run() == b"1 2\n"
        assert connection.compiled == compiled
        for number in range(50):
            with Channel(connection, source=f"{number}\n{text}") as channel:
                assert channel.wait() == 1
        assert len(connection.compiled) < 50
