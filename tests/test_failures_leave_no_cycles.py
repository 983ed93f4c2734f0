"""Failures leave nothing to the garbage collector, which programs may have switched off."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from support.fakeserver import FakeServer, Peer, serve_on
from support.proxy import SilentServer, refused_port
from support.subprocesses import in_child
from support.waiting import eventually

import remctl
from remctl_toolkit.aio import AsyncRemctl, aremctl

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm, RemctldServer

LIMIT = 20.0  # seconds after which a wait has failed
TIMES = 5


class Ports:
    """The addresses of the servers; can be sent to a child."""

    def __init__(self, **ports: int) -> None:
        self.good = ports["good"]
        self.refused = ports["refused"]
        self.silent = ports["silent"]
        self.stalling = ports["stalling"]
        self.ending = ports["ending"]
        self.garbling = ports["garbling"]


class Boom(Exception):
    """Raised by what a caller hands in."""


class BadCredentials(remctl.RemctlCredentials):
    def ccache(self) -> str:
        raise Boom


class BadFile(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, octets: Any) -> int:
        raise Boom


def stall_on_anything(peer: Peer) -> None:
    peer.accept()
    peer.read_message()
    peer.stall()


def end_in_the_middle(peer: Peer) -> None:
    peer.accept()
    peer.read_command()
    peer.send_output(b"so far")


def garble(peer: Peer) -> None:
    peer.accept()
    peer.read_command()
    peer.send_message(b"\2\x63")
    serve_on(peer)


@pytest.fixture
def ports(remctl_realm: Realm, remctl_server: RemctldServer) -> Iterator[Ports]:
    keytab = remctl_realm.keytab
    with (
        refused_port() as refused,
        SilentServer() as silent,
        FakeServer(keytab, stall_on_anything) as stalling,
        FakeServer(keytab, end_in_the_middle) as ending,
        FakeServer(keytab, garble) as garbling,
    ):
        yield Ports(
            good=remctl_server.port,
            refused=refused,
            silent=silent.port,
            stalling=stalling.port,
            ending=ending.port,
            garbling=garbling.port,
        )


# -- Remctl ---------------------------------------------------------------------------------------


def call(port: int, *command: str, host: str = "localhost", **keywords: Any) -> None:
    given = {"timeout": LIMIT, **keywords}
    remctl.remctl(host, port, command=command or ("test", "echo"), **given).check()


def leave_stream(ports: Ports) -> None:
    with remctl.Remctl("localhost", ports.good, timeout=LIMIT) as session:
        for _ in session.stream(["test", "echo", "x"]):
            raise Boom


def be_busy(ports: Ports) -> None:
    with remctl.Remctl("localhost", ports.good, timeout=LIMIT) as session:
        session.command(["test", "echo", "x"])
        session.command(["test", "echo", "x"])


def stay_unopened(_: Ports) -> None:
    remctl.Remctl().run(["test"])


def lose_noop(ports: Ports) -> None:
    with remctl.Remctl("localhost", ports.stalling, timeout=LIMIT) as session:
        session.set_timeout(0.1)
        session.noop()


def be_closed(ports: Ports) -> None:
    with remctl.Remctl("localhost", ports.stalling) as session:
        closing = threading.Timer(0.1, session.close)
        closing.start()
        try:
            session.run(["x"])
        finally:
            closing.join()


FAILURES: dict[str, tuple[Callable[[Ports], None], type[Exception]]] = {
    "unknown host": (lambda p: call(1, host="no-such.invalid."), remctl.RemctlConnectError),
    "refused": (lambda p: call(p.refused, host="127.0.0.1"), remctl.RemctlConnectError),
    "refused, by name": (lambda p: call(p.refused), remctl.RemctlConnectError),
    "no ticket": (
        lambda p: call(p.good, ccache="FILE:/nonexistent"),
        remctl.RemctlAuthenticationError,
    ),
    "unknown server": (
        lambda p: call(p.good, principal="host/nobody"),
        remctl.RemctlAuthenticationError,
    ),
    "silent while opening": (
        lambda p: call(p.silent, timeout=0.1),
        remctl.RemctlTimeoutError,
    ),
    "silent after a command": (
        lambda p: call(p.stalling, timeout=0.1),
        remctl.RemctlTimeoutError,
    ),
    "silent after a noop": (lose_noop, remctl.RemctlTimeoutError),
    "closed in another thread": (be_closed, remctl.RemctlNotOpenedError),
    "ended": (lambda p: call(p.ending), remctl.RemctlDisconnectedError),
    "answer of no sense": (lambda p: call(p.garbling), remctl.RemctlAnswerError),
    "unknown command": (lambda p: call(p.good, "no", "such"), remctl.RemctlServerError),
    "status": (lambda p: call(p.good, "test", "status", "3"), remctl.RemctlStatusError),
    "stream left": (leave_stream, Boom),
    "busy": (be_busy, remctl.RemctlBusyError),
    "not opened": (stay_unopened, remctl.RemctlNotOpenedError),
    "credentials": (lambda p: call(p.good, credentials=BadCredentials()), Boom),
    "file": (lambda p: call(p.good, "test", "echo", "x", stdout=BadFile()), Boom),
    "command": (lambda p: call(p.good, "x\0"), ValueError),
    "argument": (lambda p: call(p.good, timeout="x"), TypeError),
}


def found_garbage() -> Counter[str]:
    """Count by class the objects that only the collector frees."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    found = Counter(type(each).__qualname__ for each in gc.garbage)
    gc.garbage.clear()
    return found


def fail(name: str, ports: Ports) -> Counter[str]:
    function, expected = FAILURES[name]

    def attempt() -> None:
        with contextlib.suppress(expected):
            function(ports)
            raise AssertionError("no failure")

    attempt()  # What is imported and cached by the first is no garbage of the others.
    gc.collect()
    gc.disable()
    for _ in range(TIMES):
        attempt()
    # A thread that was left alone may hold something for a moment longer.
    eventually(lambda: threading.active_count() == 1, LIMIT)
    return found_garbage()


@pytest.mark.parametrize("name", FAILURES)
def test_failures_of_remctl(ports: Ports, name: str) -> None:
    assert in_child(fail, name, ports) == {}


# -- AsyncRemctl ----------------------------------------------------------------------------------


async def call_async(port: int, *command: str, **keywords: Any) -> None:
    given = {"timeout": LIMIT, "host": "localhost", **keywords}
    result = await aremctl(port=port, command=command or ("test", "echo"), **given)
    result.check()


async def cancel(port: int) -> None:
    task = asyncio.create_task(call_async(port))
    await asyncio.sleep(0.1)
    task.cancel()
    await task


async def leave_async_stream(port: int) -> None:
    async with AsyncRemctl("localhost", port, timeout=LIMIT) as session:
        stream: Any = session.stream(["test", "echo", "x"])
        await anext(stream)
        await stream.aclose()
        raise Boom


async def time_out(port: int) -> None:
    async with asyncio.timeout(0.1):
        await call_async(port)


ASYNC_FAILURES: dict[str, tuple[Callable[[Ports], Awaitable[None]], type[BaseException]]] = {
    "unknown host": (
        lambda p: call_async(1, host="no-such.invalid."),
        remctl.RemctlConnectError,
    ),
    "refused": (lambda p: call_async(p.refused), remctl.RemctlConnectError),
    "unknown server": (
        lambda p: call_async(p.good, principal="host/nobody"),
        remctl.RemctlAuthenticationError,
    ),
    "silent while opening": (
        lambda p: call_async(p.silent, timeout=0.1),
        remctl.RemctlTimeoutError,
    ),
    "silent after a command": (
        lambda p: call_async(p.stalling, timeout=0.1),
        remctl.RemctlTimeoutError,
    ),
    "cancelled while opening": (lambda p: cancel(p.silent), asyncio.CancelledError),
    "cancelled after a command": (lambda p: cancel(p.stalling), asyncio.CancelledError),
    "asyncio.timeout()": (lambda p: time_out(p.stalling), TimeoutError),
    "ended": (lambda p: call_async(p.ending), remctl.RemctlDisconnectedError),
    "answer of no sense": (lambda p: call_async(p.garbling), remctl.RemctlAnswerError),
    "unknown command": (lambda p: call_async(p.good, "no", "x"), remctl.RemctlServerError),
    "status": (
        lambda p: call_async(p.good, "test", "status", "3"),
        remctl.RemctlStatusError,
    ),
    "stream left": (lambda p: leave_async_stream(p.good), Boom),
    "credentials": (lambda p: call_async(p.good, credentials=BadCredentials()), Boom),
    "file": (lambda p: call_async(p.good, "test", "echo", "x", stdout=BadFile()), Boom),
}


async def fail_in_loop(name: str, ports: Ports) -> Counter[str]:
    function, expected = ASYNC_FAILURES[name]

    async def attempt() -> None:
        with contextlib.suppress(expected):
            await function(ports)
            raise AssertionError("no failure")

    await attempt()
    await asyncio.sleep(0.3)
    gc.collect()
    gc.disable()
    for _ in range(TIMES):
        await attempt()
    await asyncio.sleep(0.3)
    return found_garbage()


def fail_async(name: str, ports: Ports) -> Counter[str]:
    return asyncio.run(fail_in_loop(name, ports))


@pytest.mark.parametrize("name", ASYNC_FAILURES)
def test_failures_of_asyncio(ports: Ports, name: str) -> None:
    assert in_child(fail_async, name, ports) == {}
