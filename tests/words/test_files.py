"""Targets of output (DEVNULL, STDOUT), and input that is read from a file."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.fakeserver import FakeServer, Peer, serve_on

import remctl
from remctl_toolkit.aio import AsyncRemctl, aremctl

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

LIMIT = 20.0  # seconds after which a wait has failed
MUCH = bytes(range(256)) * 4096  # a MiB
Result = remctl.RemctlSimpleResult
Call = Callable[..., Result]


def call_once(port: int, *command: str, **keywords: Any) -> Result:
    return remctl.remctl("localhost", port, command=command, timeout=LIMIT, **keywords)


def run_session(port: int, *command: str, **keywords: Any) -> Result:
    with remctl.Remctl("localhost", port, timeout=LIMIT) as session:
        return session.run(command, **keywords)


def call_async(port: int, *command: str, **keywords: Any) -> Result:
    return asyncio.run(aremctl("localhost", port, command=command, timeout=LIMIT, **keywords))


calls = pytest.mark.parametrize("call", [call_once, run_session, call_async])


@pytest.fixture
def server(remctl_realm: Realm) -> Iterator[FakeServer]:
    """A server that answers one command with both streams in turn, and any others with an echo."""

    def script(peer: Peer) -> None:
        peer.accept()
        message = peer.read_message()
        if b"both" not in message:
            command = peer.finish_command(message)
            peer.send_output(b" ".join(command[1:]))
            peer.send_status(0)
        else:
            for stream, data in ((1, b"out 1\n"), (2, b"err 1\n"), (1, b"out 2\n")):
                peer.send_output(data, stream)
            peer.send_status(3)
        serve_on(peer)

    with FakeServer(remctl_realm.keytab, script) as server:
        yield server
    assert server.errors == []


# -- DEVNULL and STDOUT ---------------------------------------------------------------------------


def test_the_values_are_those_of_subprocess() -> None:
    assert remctl.DEVNULL == subprocess.DEVNULL == -3
    assert remctl.STDOUT == subprocess.STDOUT == -2
    assert {"DEVNULL", "STDOUT"} <= set(remctl.__all__)


@calls
def test_devnull(server: FakeServer, call: Call) -> None:
    port = server.port
    assert call(port, "both", stdout=remctl.DEVNULL) == Result(None, b"err 1\n", 3)
    assert call(port, "both", stderr=subprocess.DEVNULL) == Result(b"out 1\nout 2\n", None, 3)
    both = call(port, "both", stdout=remctl.DEVNULL, stderr=remctl.DEVNULL)
    assert both == Result(None, None, 3)


@calls
def test_stderr_to_stdout(server: FakeServer, call: Call) -> None:
    merged = b"out 1\nerr 1\nout 2\n"
    assert call(server.port, "both", stderr=remctl.STDOUT) == Result(merged, None, 3)
    file = io.BytesIO()
    result = call(server.port, "both", stdout=file, stderr=subprocess.STDOUT)
    assert result == Result(None, None, 3)
    assert file.getvalue() == merged
    result = call(server.port, "both", stdout=remctl.DEVNULL, stderr=remctl.STDOUT)
    assert result == Result(None, None, 3)


@calls
@pytest.mark.parametrize(
    "keywords",
    [{"stdout": remctl.STDOUT if hasattr(remctl, "STDOUT") else -2}, {"stdout": -1}, {"stderr": 5}],
)
def test_other_numbers_are_no_files(
    server: FakeServer, call: Call, keywords: dict[str, int]
) -> None:
    [name] = keywords
    with pytest.raises((TypeError, ValueError), match=name):
        call(server.port, "x", **keywords)
    assert server.commands == []


# -- Input ----------------------------------------------------------------------------------------


@calls
def test_input_from_memory(server: FakeServer, call: Call) -> None:
    file = io.BytesIO(b"skipped" + MUCH)
    file.seek(7)
    assert call(server.port, "x", "y", input=file).stdout == b"y " + MUCH
    assert file.read() == b""
    assert not file.closed
    assert call(server.port, "x", "y", input=io.BytesIO()).stdout == b"y "


@calls
@pytest.mark.parametrize("buffering", [-1, 0])
def test_input_from_a_file(server: FakeServer, call: Call, tmp_path: Path, buffering: int) -> None:
    path = tmp_path / "input"
    path.write_bytes(MUCH)
    with path.open("rb", buffering=buffering) as file:
        assert call(server.port, "x", "y", input=file).stdout == b"y " + MUCH
        assert not file.closed


@calls
def test_input_from_a_pipe(server: FakeServer, call: Call) -> None:
    reader, writer = os.pipe()

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError), open(writer, "wb") as file:
            file.write(MUCH)

    thread = threading.Thread(target=feed)
    thread.start()
    with open(reader, "rb", buffering=0) as file:
        assert call(server.port, "x", "y", input=file).stdout == b"y " + MUCH
    thread.join(LIMIT)


class BrokenFile(io.RawIOBase):
    """A file whose disk is broken."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        raise OSError(5, "Input/output error")


class HugeFile(io.RawIOBase):
    """A file with more in it than a server takes; reading much more than that fails the test."""

    def __init__(self) -> None:
        self.given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.given += len(buffer)
        assert self.given < 250 << 20, "all of it is read"
        return len(buffer)


@calls
def test_input_that_cannot_be_read(server: FakeServer, call: Call) -> None:
    with pytest.raises(OSError, match="Input/output error"):
        call(server.port, "x", "y", input=BrokenFile())
    assert server.commands == []


@calls
def test_input_that_is_too_much(server: FakeServer, call: Call) -> None:
    with pytest.raises(ValueError, match="100 MiB"):
        call(server.port, "x", "y", input=HugeFile())
    assert server.commands == []


@calls
def test_input_that_is_text(server: FakeServer, call: Call) -> None:
    with pytest.raises(TypeError, match=r"binary file.*'rb'"):
        call(server.port, "x", "y", input=io.StringIO("text"))
    assert server.commands == []


async def run_while_input_comes(port: int, file: Any, writer: int) -> bytes | None:
    """Run a command whose input comes from another task, later."""
    async with AsyncRemctl("localhost", port, timeout=LIMIT) as session:
        running = asyncio.create_task(session.run(["x", "y"], input=file))
        await asyncio.sleep(0.2)  # A loop that reads by itself never comes back from here.
        os.write(writer, b"late")
        os.close(writer)
        return (await running).stdout


def test_the_loop_goes_on_while_input_comes(server: FakeServer) -> None:
    reader, writer = os.pipe()
    # Ends the input of a loop that stands still, which fails the test.
    watchdog = threading.Timer(LIMIT / 2, os.close, [writer])
    watchdog.start()
    try:
        with open(reader, "rb", buffering=0) as file:
            assert asyncio.run(run_while_input_comes(server.port, file, writer)) == b"y late"
    finally:
        watchdog.cancel()
        watchdog.join()
