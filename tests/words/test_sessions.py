"""connect=False, which opens with the first command, and keepalive=, for idle connections."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from support.fakeserver import FakeServer, in_turn, serve
from support.proxy import refused_port
from support.sessions import await_data

import remctl
from remctl_toolkit.aio import AsyncRemctl

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

LIMIT = 20.0  # seconds after which a wait has failed


@pytest.fixture
def server(remctl_realm: Realm) -> Iterator[FakeServer]:
    with FakeServer(remctl_realm.keytab) as server:
        yield server
    assert server.errors == []


# -- connect=False --------------------------------------------------------------------------------


def test_nothing_is_opened_before_the_first_command(server: FakeServer) -> None:
    with remctl.Remctl("localhost", server.port, timeout=LIMIT, connect=False) as session:
        assert server.connections == 0
        assert session.run(["first"]).stdout == b"first\n"
        assert session.run(["second"]).stdout == b"second\n"
    assert server.connections == 1


@pytest.mark.parametrize("how", ["command", "stream"])
def test_any_first_command_opens(server: FakeServer, how: str) -> None:
    with remctl.Remctl("localhost", server.port, timeout=LIMIT, connect=False) as session:
        tokens: Any = None
        if how == "command":
            session.command(["first"])
            tokens = session.tokens()
        else:
            tokens = session.stream(["first"])
        assert [token.output for token in tokens] == [b"first\n", None]


def test_a_failure_is_the_first_commands() -> None:
    with refused_port() as port:
        session = remctl.Remctl("127.0.0.1", port, "host/localhost", connect=False)
        for _ in range(2):
            with pytest.raises(remctl.RemctlConnectError, match="refused"):
                session.run(["x"])
    session.close()


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [((1,), TypeError), (("h", "x"), TypeError), (("h", 70000), ValueError)],
)
def test_arguments_are_checked_at_once(arguments: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        remctl.Remctl(*arguments, connect=False)


def test_closing_before_the_first_command(server: FakeServer) -> None:
    session = remctl.Remctl("localhost", server.port, timeout=LIMIT, connect=False)
    session.close()
    with pytest.raises(remctl.RemctlNotOpenedError, match="no currently open connection"):
        session.run(["x"])
    assert server.connections == 0


async def run_async(port: int) -> None:
    async with AsyncRemctl("localhost", port, timeout=LIMIT, connect=False) as session:
        assert (await session.run(["first"])).stdout == b"first\n"


def test_connect_false_with_asyncio(server: FakeServer) -> None:
    asyncio.run(run_async(server.port))
    assert server.connections == 1


# -- keepalive= -----------------------------------------------------------------------------------


def keepalive_of(descriptor: int) -> tuple[int, int, int]:
    with socket.socket(fileno=os.dup(descriptor)) as twin:
        return (
            twin.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            twin.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
            twin.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
        )


def test_keepalive_sets_the_options_of_the_socket(server: FakeServer) -> None:
    with remctl.Remctl("localhost", server.port, timeout=LIMIT, keepalive=7) as session:
        assert keepalive_of(session.fileno()) == (1, 7, 7)


def test_without_it_the_systems_times_hold(server: FakeServer) -> None:
    with socket.socket() as other, remctl.Remctl("localhost", server.port) as session:
        assert keepalive_of(session.fileno()) == (1, *keepalive_of(other.fileno())[1:])


def test_keepalive_holds_for_later_connections(remctl_realm: Realm) -> None:
    def once(peer: Any) -> None:
        peer.accept()
        peer.read_command()
        peer.send_status(0)

    with (
        FakeServer(remctl_realm.keytab, in_turn(once, serve())) as server,
        remctl.Remctl("localhost", server.port, timeout=LIMIT, keepalive=7) as session,
    ):
        session.run(["first"])
        await_data(session)
        session.run(["second"])
        assert keepalive_of(session.fileno()) == (1, 7, 7)
        session.open("localhost", server.port)
        assert keepalive_of(session.fileno()) == (1, 7, 7)


@pytest.mark.parametrize(("value", "kind"), [("7", TypeError), (-1, ValueError)])
def test_what_cannot_be_a_keepalive(value: Any, kind: type[Exception]) -> None:
    for make in (remctl.Remctl, AsyncRemctl):
        with pytest.raises(kind, match="keepalive"):
            make(keepalive=value)


async def look_async(port: int) -> tuple[int, int, int]:
    async with AsyncRemctl("localhost", port, timeout=LIMIT, keepalive=9) as session:
        return keepalive_of(session.fileno())


def test_keepalive_with_asyncio(server: FakeServer) -> None:
    assert asyncio.run(look_async(server.port)) == (1, 9, 9)
