"""Calls run in the calling thread if no thread can be started, as under a process limit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.fakeserver import FakeServer
from support.preload import preloaded
from support.proxy import SilentServer, refused_port
from support.subprocesses import in_child

import remctl
from remctl_toolkit.aio import AsyncRemctl, aremctl

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

LIMIT = 20.0  # seconds after which a wait has failed
MUCH = b"x" * (1 << 20)

# RLIMIT_NPROC does not limit root, so a pthread_create() that always fails is preloaded.


@pytest.fixture(autouse=True)
def _no_threads(tmp_path: Path) -> Iterator[None]:
    with preloaded("no_threads", tmp_path):
        yield


@pytest.fixture
def server(remctl_realm: Realm) -> Iterator[FakeServer]:
    with FakeServer(remctl_realm.keytab) as server:
        yield server
    assert server.errors == []


def start_thread() -> None:
    with pytest.raises(RuntimeError, match="can't start new thread"):
        threading.Thread(target=print).start()


def test_no_thread_can_be_started() -> None:
    in_child(start_thread)


def call(host: str, port: int) -> None:
    result = remctl.remctl(host, port, "host/localhost", ["simple"], timeout=LIMIT)
    assert result.stdout == b"simple\n"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_remctl(server: FakeServer, host: str) -> None:
    in_child(call, host, server.port)


def use_session(port: int) -> None:
    with remctl.Remctl("localhost", port, timeout=LIMIT) as session:
        assert session.noop()
        assert session.run(["one"]).stdout == b"one\n"
        assert session.run(["two"], input=MUCH).stdout == b"two " + MUCH + b"\n"
        assert [token.type for token in session.stream(["three"])] == ["output", "status"]


def test_session(server: FakeServer) -> None:
    in_child(use_session, server.port)


class Credentials(remctl.RemctlCredentials):
    """Credentials that name a given cache."""

    def __init__(self, name: str) -> None:
        self.name = name

    def ccache(self) -> str:
        return self.name


def open_with_credentials(port: int, name: str) -> None:
    given = Credentials(name)
    result = remctl.remctl("localhost", port, command=["x"], credentials=given, timeout=LIMIT)
    assert result.stdout == b"x\n"


def test_credentials(server: FakeServer, remctl_realm: Realm) -> None:
    in_child(open_with_credentials, server.port, remctl_realm.ccache)


def fail(refused: int, silent: int) -> None:
    with pytest.raises(remctl.RemctlConnectError, match="refused"):
        remctl.remctl("localhost", refused, command=["x"], timeout=LIMIT)
    with pytest.raises(remctl.RemctlConnectError, match="unknown host"):
        remctl.remctl("no-such-host.invalid.", refused, command=["x"], timeout=LIMIT)
    with pytest.raises(remctl.RemctlTimeoutError):
        remctl.remctl("localhost", silent, command=["x"], timeout=0.3)


@pytest.mark.usefixtures("remctl_realm")
def test_failures_are_those_that_are_documented() -> None:
    with refused_port() as refused, SilentServer() as silent:
        in_child(fail, refused, silent.port)


async def call_async(port: int) -> None:
    result = await aremctl("localhost", port, command=["simple"], timeout=LIMIT)
    assert result.stdout == b"simple\n"
    async with AsyncRemctl("localhost", port, timeout=LIMIT) as session:
        assert await session.noop()
        assert (await session.run(["two"], input=MUCH)).stdout == b"two " + MUCH + b"\n"
        assert [token.type async for token in session.stream(["x"])] == ["output", "status"]


def run_async(port: int) -> None:
    asyncio.run(call_async(port))


def test_asyncio(server: FakeServer) -> None:
    in_child(run_async, server.port)
