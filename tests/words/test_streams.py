"""The result of stream() and tokens(): an iterator that can be closed, and used in `with`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from support.fakeserver import FakeServer

import remctl
from remctl_toolkit.aio import AsyncRemctl

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

LIMIT = 20.0  # seconds after which a wait has failed
WAYS = ["stream", "tokens"]
ways = pytest.mark.parametrize("way", WAYS)


class Boom(Exception):
    """Raised by the body of a with statement."""


@pytest.fixture
def server(remctl_realm: Realm) -> Iterator[FakeServer]:
    with FakeServer(remctl_realm.keytab) as server:
        yield server
    assert server.errors == []


@pytest.fixture
def session(server: FakeServer) -> Iterator[remctl.Remctl]:
    with remctl.Remctl("localhost", server.port, timeout=LIMIT) as session:
        yield session


def begin(session: remctl.Remctl, way: str) -> Any:
    if way == "stream":
        return session.stream(["first"])
    session.command(["first"])
    return session.tokens()


@ways
def test_leaving_the_with_statement_early_closes(
    session: remctl.Remctl, server: FakeServer, way: str
) -> None:
    with begin(session, way) as tokens:
        assert next(tokens).output == b"first\n"
    assert list(tokens) == []
    assert session.run(["second"]).stdout == b"second\n"
    assert server.connections == 2


@ways
def test_reading_to_the_end_keeps_the_connection(
    session: remctl.Remctl, server: FakeServer, way: str
) -> None:
    with begin(session, way) as tokens:
        assert [token.type for token in tokens] == ["output", "status"]
    tokens.close()
    assert session.run(["second"]).stdout == b"second\n"
    assert server.connections == 1


@ways
def test_close(session: remctl.Remctl, server: FakeServer, way: str) -> None:
    tokens = begin(session, way)
    tokens.close()
    tokens.close()
    with pytest.raises(StopIteration):
        next(tokens)
    assert session.run(["second"]).stdout == b"second\n"
    assert server.connections == 2


@ways
def test_closing_late_does_not_touch_the_next_command(
    session: remctl.Remctl, server: FakeServer, way: str
) -> None:
    tokens = begin(session, way)
    tokens.close()
    session.command(["second"])
    tokens.close()
    del tokens
    gc.collect()
    assert [token.output for token in session.tokens()] == [b"second\n", None]
    assert server.connections == 2


@ways
def test_the_exception_of_the_body_comes_through(session: remctl.Remctl, way: str) -> None:
    def body() -> None:
        with begin(session, way) as tokens:
            next(tokens)
            raise Boom

    with pytest.raises(Boom):
        body()
    assert session.run(["second"]).stdout == b"second\n"


@ways
def test_with_contextlib(session: remctl.Remctl, server: FakeServer, way: str) -> None:
    with contextlib.closing(begin(session, way)) as tokens:
        next(tokens)
    assert session.run(["second"]).stdout == b"second\n"
    assert server.connections == 2


@ways
def test_dropping_it_closes(session: remctl.Remctl, server: FakeServer, way: str) -> None:
    tokens = begin(session, way)
    next(tokens)
    del tokens
    gc.collect()
    assert session.run(["second"]).stdout == b"second\n"
    assert server.connections == 2


# -- asyncio --------------------------------------------------------------------------------------


async def begin_async(session: AsyncRemctl, way: str) -> Any:
    if way == "stream":
        return session.stream(["first"])
    await session.command(["first"])
    return session.tokens()


async def leave_async(port: int, way: str) -> None:
    async with AsyncRemctl("localhost", port, timeout=LIMIT) as session:
        async with await begin_async(session, way) as tokens:
            assert (await anext(tokens)).output == b"first\n"
        assert [token async for token in tokens] == []
        assert (await session.run(["second"])).stdout == b"second\n"
        async with await begin_async(session, way) as tokens:
            assert [token.type async for token in tokens] == ["output", "status"]
        await tokens.aclose()
        await tokens.aclose()
        assert (await session.run(["third"])).stdout == b"third\n"
        with pytest.raises(Boom):
            async with await begin_async(session, way) as tokens:
                raise Boom


@ways
def test_async_with(server: FakeServer, way: str) -> None:
    asyncio.run(leave_async(server.port, way))
    assert server.connections == 2
