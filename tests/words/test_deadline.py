"""deadline=: seconds for the whole of a call, whatever it waits for."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from support.fakeserver import FakeServer, Peer, in_turn, serve, stall_after_output
from support.preload import preloaded
from support.proxy import DeafListener, SilentServer
from support.subprocesses import in_child
from support.waiting import PATIENCE

import remctl
from remctl_toolkit.aio import AsyncRemctl, aremctl
from remctl_toolkit.pool import AsyncPool, Pool

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

PRINCIPAL = "host/localhost"
DEADLINE = 0.4
LIMIT = 15.0 * PATIENCE  # the timeout, which must not be what ends a call
SOON = 5.0 * PATIENCE  # seconds that DEADLINE may take on a machine that is busy
MUCH = b"x" * (16 * 1024 * 1024)  # more than the buffers of two sockets hold

Call = Callable[..., Any]


def trickle(peer: Peer) -> None:
    """Send a little output again and again, so that the timeout never ends a wait."""
    peer.accept()
    peer.read_command()
    while True:
        peer.send_output(b".")
        time.sleep(0.05)


def deaf_after_opening(peer: Peer) -> None:
    peer.accept()
    peer.stall(reading=False)


def call_once(port: int, *, host: str = "localhost", **keywords: Any) -> None:
    remctl.remctl(host, port, PRINCIPAL, ["x"], **{"timeout": LIMIT, **keywords})


def call_once_async(port: int, *, host: str = "localhost", **keywords: Any) -> None:
    asyncio.run(aremctl(host, port, PRINCIPAL, ["x"], **{"timeout": LIMIT, **keywords}))


def call_pool(port: int, *, host: str = "localhost", timeout: float = LIMIT, **words: Any) -> None:
    with Pool(host, port, PRINCIPAL, timeout=timeout) as pool:
        pool.run(["x"], **words)


async def run_async_pool(port: int, host: str, limit: float, **words: Any) -> None:
    async with AsyncPool(host, port, PRINCIPAL, timeout=limit) as pool:
        await pool.run(["x"], **words)


def call_async_pool(
    port: int, *, host: str = "localhost", timeout: float = LIMIT, **words: Any
) -> None:
    asyncio.run(run_async_pool(port, host, timeout, **words))


def open_session(port: int, *, host: str = "localhost", **words: Any) -> None:
    remctl.Remctl(timeout=LIMIT).open(host, port, PRINCIPAL, **words)


async def open_async_session(port: int, host: str, **words: Any) -> None:
    await AsyncRemctl(timeout=LIMIT).open(host, port, PRINCIPAL, **words)


def open_async(port: int, *, host: str = "localhost", **words: Any) -> None:
    asyncio.run(open_async_session(port, host, **words))


def open_in_pool(port: int, *, host: str = "localhost", **words: Any) -> None:
    with Pool(host, port, PRINCIPAL, timeout=LIMIT) as pool, pool.session(**words):
        pass


async def open_in_async_pool(port: int, host: str, **words: Any) -> None:
    async with AsyncPool(host, port, PRINCIPAL, timeout=LIMIT) as pool, pool.session(**words):
        pass


def open_in_pool_async(port: int, *, host: str = "localhost", **words: Any) -> None:
    asyncio.run(open_in_async_pool(port, host, **words))


def run_session(port: int, timeout: float = LIMIT, **keywords: Any) -> None:
    with remctl.Remctl("localhost", port, timeout=timeout) as session:
        session.run(["x"], **keywords)


def stream_session(port: int, timeout: float = LIMIT, **keywords: Any) -> None:
    with remctl.Remctl("localhost", port, timeout=timeout) as session:
        for _ in session.stream(["x"], **keywords):
            pass


async def run_async_session(port: int, limit: float, **keywords: Any) -> None:
    async with AsyncRemctl("localhost", port, timeout=limit) as session:
        await session.run(["x"], **keywords)


async def stream_async_session(port: int, limit: float, **keywords: Any) -> None:
    async with AsyncRemctl("localhost", port, timeout=limit) as session:
        async for _ in session.stream(["x"], **keywords):
            pass


def run_async(port: int, timeout: float = LIMIT, **keywords: Any) -> None:
    asyncio.run(run_async_session(port, timeout, **keywords))


def stream_async(port: int, timeout: float = LIMIT, **keywords: Any) -> None:
    asyncio.run(stream_async_session(port, timeout, **keywords))


AT_ONCE: list[Call] = [call_once, call_once_async, call_pool, call_async_pool]
IN_POOLS: list[Call] = [open_in_pool, open_in_pool_async]
OPENING: list[Call] = [*AT_ONCE, open_session, open_async, *IN_POOLS]
IN_SESSIONS: list[Call] = [run_session, stream_session, run_async, stream_async]
opening = pytest.mark.parametrize("call", OPENING)
everyhow = pytest.mark.parametrize("call", [*AT_ONCE, *IN_SESSIONS])


def ends(call: Call, port: int, **keywords: Any) -> remctl.RemctlTimeoutError:
    """Check that the deadline ends a call."""
    start = time.monotonic()
    with pytest.raises(remctl.RemctlTimeoutError) as caught:
        call(port, deadline=DEADLINE, **keywords)
    took = time.monotonic() - start
    assert DEADLINE * 0.9 <= took < SOON
    return caught.value


# -- What it ends ---------------------------------------------------------------------------------


@everyhow
def test_output_that_trickles_in(remctl_realm: Realm, call: Call) -> None:
    with FakeServer(remctl_realm.keytab, trickle) as server:
        error = ends(call, server.port)
    assert error.may_have_run
    if "stream" not in call.__name__:
        assert error.partial is not None
        assert set(error.partial.stdout or b"") == {ord(".")}


@everyhow
def test_output_that_does_not_come(remctl_realm: Realm, call: Call) -> None:
    with FakeServer(remctl_realm.keytab, stall_after_output) as server:
        assert ends(call, server.port).may_have_run


@everyhow
def test_input_that_is_not_taken(remctl_realm: Realm, call: Call) -> None:
    with FakeServer(remctl_realm.keytab, deaf_after_opening) as server:
        ends(call, server.port, input=MUCH)


@opening
@pytest.mark.usefixtures("remctl_realm")
def test_authenticating(call: Call) -> None:
    with SilentServer() as silent:
        assert not ends(call, silent.port).may_have_run


@opening
@pytest.mark.usefixtures("remctl_realm")
def test_connecting(call: Call) -> None:
    with DeafListener() as deaf:
        assert not ends(call, deaf.port, host=deaf.host).may_have_run


def look_up(call: Call) -> None:
    assert not ends(call, 1, host="slow.test").may_have_run


@opening
@pytest.mark.usefixtures("remctl_realm")
def test_looking_up_the_host(call: Call, tmp_path: Path) -> None:
    hosts = {"FAKE_HOSTS": "slow.test=127.0.0.1", "FAKE_HOSTS_DELAY": "10000"}
    with preloaded("resolver", tmp_path, **hosts):
        in_child(look_up, call)


class Shared(NamedTuple):
    """A session in which another thread runs a command, whose output trickles in."""

    session: remctl.Remctl
    pool: ThreadPoolExecutor

    def fail(self, **keywords: Any) -> BaseException | None:
        """Run a command in a third thread, so that no test waits for it for ever."""
        return self.pool.submit(self.session.run, ["x"], **keywords).exception(SOON)


@pytest.fixture
def shared(remctl_realm: Realm) -> Iterator[Shared]:
    with (
        FakeServer(remctl_realm.keytab, trickle) as server,
        remctl.Remctl("localhost", server.port, timeout=LIMIT) as session,
        ThreadPoolExecutor(2) as pool,
    ):
        running = threading.Event()

        class Noted:
            def write(self, octets: bytes) -> int:
                running.set()
                return len(octets)

        other = pool.submit(session.run, ["other"], stdout=Noted())
        assert running.wait(LIMIT)
        try:
            yield Shared(session, pool)
            assert not other.done()
        finally:
            session.close()
        with pytest.raises(remctl.RemctlNotOpenedError):
            other.result(LIMIT)


def test_the_command_of_another_thread(shared: Shared) -> None:
    error = shared.fail(deadline=DEADLINE)
    assert isinstance(error, remctl.RemctlTimeoutError)
    assert not error.may_have_run


def test_the_timeout_limits_waiting_for_another_thread_too(shared: Shared) -> None:
    shared.session.set_timeout(DEADLINE)
    error = shared.fail()
    assert isinstance(error, remctl.RemctlTimeoutError)
    assert not error.may_have_run


async def wait_for_task(port: int) -> None:
    async with AsyncRemctl("localhost", port, timeout=LIMIT) as session:
        other = asyncio.create_task(session.run(["other"]))
        await asyncio.sleep(0.2)
        with pytest.raises(remctl.RemctlTimeoutError) as caught:
            await session.run(["x"], deadline=DEADLINE)
        assert not caught.value.may_have_run
        assert not other.done()
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)


def test_the_command_of_another_task(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab, trickle) as server:
        asyncio.run(wait_for_task(server.port))


def answers_no_noop(peer: Peer) -> None:
    peer.accept()
    peer.read_command()
    peer.send_status(0)
    peer.stall()


def test_noop(remctl_realm: Realm) -> None:
    with (
        FakeServer(remctl_realm.keytab, answers_no_noop) as server,
        remctl.Remctl("localhost", server.port, timeout=LIMIT) as session,
    ):
        session.run(["x"])
        with pytest.raises(remctl.RemctlTimeoutError, match="deadline passed"):
            session.noop(deadline=DEADLINE)


def test_noop_async(remctl_realm: Realm) -> None:
    async def main(port: int) -> None:
        async with AsyncRemctl("localhost", port, timeout=LIMIT) as session:
            await session.run(["x"])
            with pytest.raises(remctl.RemctlTimeoutError, match="deadline passed"):
                await session.noop(deadline=DEADLINE)

    with FakeServer(remctl_realm.keytab, answers_no_noop) as server:
        asyncio.run(main(server.port))


def test_one_that_has_passed_before_anything_is_sent(remctl_realm: Realm) -> None:
    with (
        FakeServer(remctl_realm.keytab, serve()) as server,
        remctl.Remctl("localhost", server.port, timeout=LIMIT) as session,
    ):
        for arguments in (["x"], ["x", MUCH]):
            with pytest.raises(remctl.RemctlTimeoutError, match="before the command") as caught:
                session.run(arguments, deadline=0)
            assert not caught.value.may_have_run
        assert session.run(["second"]).ok
        assert server.commands == [[b"second"]]
        assert server.connections == 1


# -- What it leaves alone -------------------------------------------------------------------------


def test_the_next_call_has_none(remctl_realm: Realm) -> None:
    def slowly(command: list[bytes]) -> tuple[bytes, bytes, int]:
        time.sleep(DEADLINE * 1.5)
        return b"done", b"", 0

    script = in_turn(trickle, serve(handler=slowly))
    with (
        FakeServer(remctl_realm.keytab, script) as server,
        remctl.Remctl("localhost", server.port, timeout=LIMIT) as session,
    ):
        with pytest.raises(remctl.RemctlTimeoutError):
            session.run(["x"], deadline=DEADLINE)
        assert session.run(["x"]).stdout == b"done"
        assert session.run(["x"], deadline=LIMIT).stdout == b"done"
        assert [t.type for t in session.stream(["x"], deadline=LIMIT)] == ["output", "status"]


@everyhow
def test_the_timeout_still_holds(remctl_realm: Realm, call: Call) -> None:
    with (
        FakeServer(remctl_realm.keytab, stall_after_output) as server,
        pytest.raises(remctl.RemctlTimeoutError),
    ):
        call(server.port, timeout=0.3, deadline=LIMIT)


@pytest.mark.parametrize(
    ("deadline", "kind"),
    [("1", TypeError), (True, TypeError), (-1, ValueError), (math.nan, ValueError)],
)
@everyhow
def test_what_cannot_be_a_deadline(
    remctl_realm: Realm, call: Call, deadline: Any, kind: type[Exception]
) -> None:
    with FakeServer(remctl_realm.keytab) as server:
        with pytest.raises(kind, match="deadline"):
            call(server.port, deadline=deadline)
        assert server.commands == []
