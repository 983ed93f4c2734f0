"""A session that was open before a fork works in the child, with a connection of its own.

So it is with gunicorn --preload, uWSGI and daemons. Python's hooks (os.register_at_fork) do not run
where C code calls fork(2), as uWSGI does, and as these tests do through ctypes.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from support.fakeserver import FakeServer, Peer, echo, serve
from support.subprocesses import in_child
from support.waiting import PATIENCE, eventually
from support.wire import Message

import remctl
from remctl_toolkit.aio import AsyncRemctl

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

CHILD_LIMIT = 20  # seconds, a whole number, that a forked child may take
LIMIT = 15.0  # seconds after which a wait has failed
PRINCIPAL = "host/localhost"


def fork_in_python() -> int:
    with warnings.catch_warnings():  # Forking while threads run is what is tested here.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def fork_in_c() -> int:
    """Fork as uWSGI does: with the GIL held, and none of Python's hooks."""
    return int(ctypes.PyDLL(None).fork())


FORKS: dict[str, Callable[[], int]] = {"os.fork()": fork_in_python, "fork(2)": fork_in_c}
forks = pytest.mark.parametrize("how", FORKS)


@pytest.fixture
def server(remctl_realm: Realm) -> Iterator[FakeServer]:
    with FakeServer(remctl_realm.keytab) as server:
        yield server
    assert server.errors == []


def work_in_child(how: str, work: Callable[[], object]) -> None:
    """Do some work in a forked child, and check that it ends well."""
    child = FORKS[how]()
    if not child:
        signal.alarm(round(CHILD_LIMIT * PATIENCE))  # A child that hangs ends by this.
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, f"the child ended with {code}"


def check_untouched(connection: remctl.Remctl, descriptor: int) -> None:
    """Check that the parent's connection is the one it was."""
    assert connection.fileno() == descriptor
    assert connection.noop()
    assert connection.run(["parent"]).stdout == b"parent\n"


# -- Idle sessions --------------------------------------------------------------------------------


def run_in_both(how: str, port: int) -> None:
    with remctl.Remctl("localhost", port, PRINCIPAL, timeout=LIMIT) as connection:
        connection.run(["before"])
        descriptor = connection.fileno()

        def work() -> None:
            assert connection.opened
            assert connection.run(["child", "1"]).stdout == b"child 1\n"
            tokens = [token.type for token in connection.stream(["child", "2"])]
            assert tokens == ["output", "status"]
            assert connection.noop()
            connection.close()

        work_in_child(how, work)
        check_untouched(connection, descriptor)


@forks
def test_the_first_command_opens_a_connection_of_its_own(server: FakeServer, how: str) -> None:
    in_child(run_in_both, how, server.port)
    assert server.connections == 2
    expected = [[b"before"], [b"child", b"1"], [b"child", b"2"], [b"parent"]]
    assert server.commands == expected
    # Each process said QUIT for its own connection, and for no other.
    eventually(lambda: server.messages.count(Message.QUIT) == 2)
    assert server.messages[-1] == Message.QUIT


class Credentials(remctl.RemctlCredentials):
    """Names a credential cache, and counts how often."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0

    def ccache(self) -> str:
        self.calls += 1
        return self.name


def keep_settings(how: str, port: int, ccache: str, given: str) -> None:
    credentials = Credentials(ccache) if given == "credentials" else None
    connection = remctl.Remctl(
        "localhost",
        port,
        PRINCIPAL,
        timeout=LIMIT,
        ccache=None if credentials else ccache,
        source_ip="127.0.0.9",
        credentials=credentials,
    )
    os.environ["KRB5CCNAME"] = "FILE:/nonexistent"

    def work() -> None:
        assert connection.run(["child"]).stdout == b"child\n"
        connection.set_timeout(0.2)
        with pytest.raises(remctl.RemctlTimeoutError):
            connection.run(["silent"])
        assert credentials is None or credentials.calls == 2

    work_in_child(how, work)
    connection.close()


@forks
@pytest.mark.parametrize("given", ["ccache", "credentials"])
def test_the_settings_are_kept(remctl_realm: Realm, how: str, given: str) -> None:
    peers = []

    def answer(command: list[bytes]) -> tuple[bytes, bytes, int]:
        if command == [b"silent"]:
            threading.Event().wait(2.0)
        return echo(command)

    def script(peer: Peer) -> None:
        peers.append(peer.connection.getpeername()[0])
        serve(handler=answer)(peer)

    with FakeServer(remctl_realm.keytab, script) as server:
        in_child(keep_settings, how, server.port, remctl_realm.ccache, given)
    assert peers == ["127.0.0.9"] * 2


def fork_twice(how: str, port: int) -> None:
    """Become a daemon, as daemons do: its grandparent is gone."""
    connection = remctl.Remctl("localhost", port, timeout=LIMIT)
    descriptor = connection.fileno()

    def grandchild() -> None:
        assert connection.run(["daemon"]).stdout == b"daemon\n"

    def child() -> None:
        os.setsid()
        work_in_child(how, grandchild)

    work_in_child(how, child)
    check_untouched(connection, descriptor)
    connection.close()


@forks
def test_a_double_fork(server: FakeServer, how: str) -> None:
    in_child(fork_twice, how, server.port)
    assert server.connections == 2


def work_in_many(how: str, port: int) -> None:
    """Preload a session, and use it in several workers, after one another and again."""
    connection = remctl.Remctl("localhost", port, timeout=LIMIT)
    descriptor = connection.fileno()

    def work() -> None:
        for number in range(3):
            assert connection.run(["n", str(number)]).stdout == f"n {number}\n".encode()

    for _ in range(4):
        work_in_child(how, work)
    check_untouched(connection, descriptor)
    connection.close()


@forks
def test_workers_that_share_what_was_preloaded(server: FakeServer, how: str) -> None:
    in_child(work_in_many, how, server.port)
    assert server.connections == 5


def leave_closed(how: str, port: int) -> None:
    connection = remctl.Remctl("localhost", port, timeout=LIMIT)
    connection.close()

    def work() -> None:
        with pytest.raises(remctl.RemctlNotOpenedError, match="no currently open connection"):
            connection.run(["x"])

    work_in_child(how, work)


@forks
def test_a_closed_session_stays_closed(server: FakeServer, how: str) -> None:
    in_child(leave_closed, how, server.port)
    assert server.connections == 1


# -- Commands that are running --------------------------------------------------------------------


def read_in_child(how: str, port: int) -> None:
    with remctl.Remctl("localhost", port, timeout=LIMIT) as connection:
        connection.command(["begun"])
        tokens = connection.tokens()

        def work(read: Callable[[], object]) -> None:
            with pytest.raises(remctl.RemctlError, match=r"process \d+|another process|fork"):
                read()
            assert connection.run(["child"]).stdout == b"child\n"

        for read in (connection.output, tokens.__next__):
            work_in_child(how, functools.partial(work, read))
        assert [token.output for token in tokens] == [b"begun\n", None]
        assert connection.run(["parent"]).stdout == b"parent\n"


@forks
def test_output_of_the_parents_command_is_the_parents(server: FakeServer, how: str) -> None:
    in_child(read_in_child, how, server.port)
    assert server.connections == 3


# -- asyncio --------------------------------------------------------------------------------------


def run_async_in_both(how: str, port: int) -> None:
    """Open in one loop before the fork; in the child, use it in another."""

    async def open_it() -> AsyncRemctl:
        connection = AsyncRemctl("localhost", port, timeout=LIMIT)
        await connection.run(["before"])
        return connection

    async def use_it(word: str) -> None:
        assert (await connection.run([word])).stdout == f"{word}\n".encode()

    runner = asyncio.Runner()
    connection = runner.run(open_it())
    work_in_child(how, lambda: asyncio.run(use_it("child")))
    runner.run(use_it("parent"))
    runner.run(connection.close())
    runner.close()


@forks
def test_asyncio(server: FakeServer, how: str) -> None:
    in_child(run_async_in_both, how, server.port)
    assert server.connections == 2
    assert server.commands == [[b"before"], [b"child"], [b"parent"]]
