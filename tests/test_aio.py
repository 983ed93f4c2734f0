"""AsyncRemctl: the same words and results as Remctl, for the tasks of an event loop."""

from __future__ import annotations

import asyncio
import gc
import inspect
import io
import select
import threading
import warnings
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import uvloop
from support.fakeserver import FakeServer, Peer, serve
from support.proxy import refused_port
from support.waiting import eventually

import remctl
from remctl_toolkit.aio import AsyncRemctl, aremctl
from remctl_toolkit.testing import Realm

if TYPE_CHECKING:
    from remctl_toolkit.testing import RemctldServer

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]

LIMIT = 20.0  # seconds after which a wait has failed
ECHO = ["test", "echo", "hello"]
SLEEP = ["test", "sleep", "30"]
MUCH = bytes(range(256)) * 4096  # a MiB


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run[Any]:
    """A function that runs a coroutine, for each kind of event loop."""
    return asyncio.run if request.param == "asyncio" else uvloop.run


# -- The same as Remctl ---------------------------------------------------------------------------

ASYNC_NAMES = {"__enter__": "__aenter__", "__exit__": "__aexit__"}
COROUTINES = {"open", "close", "command", "output", "run", "noop", "__enter__", "__exit__"}


def test_the_names_and_arguments_are_those_of_remctl() -> None:
    names = [name for name in vars(remctl.Remctl) if not name.startswith("_") or name[:3] == "__e"]
    assert len(names) > 15
    for name in names:
        theirs = vars(remctl.Remctl)[name]
        ours = vars(AsyncRemctl)[ASYNC_NAMES.get(name, name)]
        assert type(ours) is type(theirs), name
        if inspect.isfunction(theirs):
            assert list(inspect.signature(ours).parameters) == list(
                inspect.signature(theirs).parameters
            ), name
            assert inspect.iscoroutinefunction(ours) == (name in COROUTINES), name
    for ours, theirs in ((AsyncRemctl, remctl.Remctl), (aremctl, remctl.remctl)):
        assert [
            (parameter.name, parameter.kind, parameter.default)
            for parameter in inspect.signature(ours).parameters.values()
        ] == [
            (parameter.name, parameter.kind, parameter.default)
            for parameter in inspect.signature(theirs).parameters.values()
        ]


@pytest.mark.parametrize(
    ("command", "input"),
    [
        (ECHO, None),
        (["test", "streams"], None),
        (["test", "status", "200"], None),
        (["test", "cat"], b"\0\xff" * 1000),
        (["test", "cat"], MUCH),
    ],
    ids=["echo", "streams", "status", "binary", "much"],
)
def test_results_are_those_of_remctl(
    run: Run[Any], remctl_server: RemctldServer, command: list[str], input: bytes | None
) -> None:
    expected = remctl.remctl("localhost", remctl_server.port, command=command, input=input)

    async def main() -> list[remctl.RemctlSimpleResult]:
        async with AsyncRemctl("localhost", remctl_server.port) as connection:
            return [
                await connection.run(command, input=input),
                await connection.run(iter(command), input=input),
                await aremctl("localhost", remctl_server.port, command=command, input=input),
            ]

    assert run(main()) == [expected] * 3


@pytest.mark.parametrize("protocol", [1, 2, 3])
def test_tokens_are_those_of_remctl(run: Run[Any], remctl_realm: Realm, protocol: int) -> None:
    def answer(command: list[bytes]) -> tuple[bytes, bytes, int]:
        return MUCH[:100_000], b"err" if protocol > 1 else b"", 3

    with FakeServer(remctl_realm.keytab, serve(handler=answer), protocol=protocol) as server:
        with remctl.Remctl("localhost", server.port) as session:
            expected = list(session.stream(["x", "y"]))

        async def main() -> list[list[remctl.RemctlOutput]]:
            async with AsyncRemctl("localhost", server.port, timeout=LIMIT) as connection:
                streamed = [token async for token in connection.stream(["x", "y"])]
                await connection.command(["x", "y"])
                iterated = [token async for token in connection.tokens()]
                await connection.command(["x", "y"])
                single = []
                while (token := await connection.output()).type != "done":
                    single.append(token)
                return [streamed, iterated, single]

        assert run(main()) == [expected] * 3
    assert server.errors == []


def test_output_goes_to_files(run: Run[Any], remctl_server: RemctldServer) -> None:
    async def main() -> remctl.RemctlSimpleResult:
        async with AsyncRemctl("localhost", remctl_server.port) as connection:
            return await connection.run(["test", "cat"], input=MUCH, stdout=file)

    file = io.BytesIO()
    assert run(main()) == remctl.RemctlSimpleResult(None, None, 0)
    assert file.getvalue() == MUCH


def test_errors_are_those_of_remctl(run: Run[Any], remctl_server: RemctldServer) -> None:
    async def main() -> None:
        connection = AsyncRemctl()
        with pytest.raises(remctl.RemctlNotOpenedError, match="no currently open connection"):
            await connection.run(ECHO)
        with pytest.raises(TypeError, match="command must not contain None"):
            await connection.run(["x", None])
        with (
            refused_port() as port,
            pytest.raises(remctl.RemctlConnectError, match="cannot connect"),
        ):
            await connection.open("localhost", port)
        assert not connection.opened
        with pytest.raises(remctl.RemctlAuthenticationError):
            await connection.open("localhost", remctl_server.port, "host/unknown@NOWHERE.TEST")
        await connection.open("localhost", remctl_server.port)
        with pytest.raises(remctl.RemctlServerError, match="Unknown command") as caught:
            await connection.run(["none"])
        assert caught.value.partial == remctl.RemctlSimpleResult()
        with pytest.raises(remctl.RemctlServerError, match="Unknown command"):
            async for _ in connection.stream(["none"]):
                pass
        assert connection.error() == "Unknown command"
        await connection.command(ECHO)
        with pytest.raises(remctl.RemctlBusyError, match="still running"):
            await connection.command(ECHO)
        await connection.close()
        with pytest.raises(remctl.RemctlNotOpenedError, match="no currently open connection"):
            await connection.output()

    run(main())


def test_what_came_before_a_refusal_is_yielded_first(run: Run[Any], remctl_realm: Realm) -> None:
    def refuse(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        peer.send_output(b"so far")
        peer.send_error(1, b"no")

    async def main() -> list[Any]:
        seen: list[Any] = []
        async with AsyncRemctl("localhost", server.port, timeout=LIMIT) as connection:
            try:
                async for token in connection.stream(ECHO):
                    seen.append(token.output)
            except remctl.RemctlServerError as error:
                seen.append(str(error))
        return seen

    with FakeServer(remctl_realm.keytab, refuse) as server:
        assert run(main()) == [b"so far", "no"]


# -- Tasks ----------------------------------------------------------------------------------------


def test_tasks_that_share_a_connection_get_their_own_results(
    run: Run[Any], remctl_server: RemctldServer
) -> None:
    async def main() -> list[bytes | None]:
        async with AsyncRemctl("localhost", remctl_server.port) as connection:
            calls = [connection.run(["test", "echo", str(number)]) for number in range(30)]
            return [result.stdout for result in await asyncio.gather(*calls)]

    assert run(main()) == [b"%d\n" % number for number in range(30)]


def test_leaving_a_stream_closes_and_the_next_command_reopens(
    run: Run[Any], remctl_realm: Realm
) -> None:
    async def main() -> bytes | None:
        async with AsyncRemctl("localhost", server.port, timeout=LIMIT) as connection:
            async for _ in connection.stream(["first"]):
                break
            result = await connection.run(["second"])
            stream = aiter(connection.stream(["third"]))
            await anext(stream)
            await stream.aclose()  # type: ignore[attr-defined]
            assert (await connection.run(["fourth"])).stdout == b"fourth\n"
            return result.stdout

    with FakeServer(remctl_realm.keytab) as server:
        assert run(main()) == b"second\n"
        assert server.connections == 3
        assert server.commands == [[b"first"], [b"second"], [b"third"], [b"fourth"]]


def test_a_stream_that_is_garbage_in_another_thread_is_left_in_the_loop(
    run: Run[Any], remctl_realm: Realm
) -> None:
    # Garbage is collected in whichever thread happens to make more of it.
    threads = []

    async def main() -> None:
        async with AsyncRemctl("localhost", server.port, timeout=LIMIT) as connection:
            drop = connection._session.drop

            def noted() -> None:
                threads.append(threading.current_thread())
                drop()

            connection._session.drop = noted  # type: ignore[method-assign]
            streams = [aiter(connection.stream(["first"]))]
            await anext(streams[0])
            await asyncio.to_thread(streams.clear)
            await asyncio.sleep(0)
            assert (await connection.run(["second"])).stdout == b"second\n"

    with FakeServer(remctl_realm.keytab) as server:
        run(main())
    assert threads[0] is threading.main_thread()
    assert len(set(threads)) == 1


def test_a_connection_that_was_lost_is_opened_again(run: Run[Any], remctl_realm: Realm) -> None:
    def serve_once(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        peer.send_status(0)

    async def main() -> None:
        async with AsyncRemctl("localhost", server.port, timeout=LIMIT) as connection:
            for _ in range(3):
                assert (await connection.run(ECHO)).status == 0
                select.select([connection], [], [], LIMIT)  # Until it has ended.

    with FakeServer(remctl_realm.keytab, serve_once) as server:
        run(main())
        assert server.connections == 3


# -- What is left open, and how it looks ----------------------------------------------------------


def test_dropping_an_open_connection_warns(remctl_server: RemctldServer) -> None:
    async def main() -> None:
        connection = AsyncRemctl("localhost", remctl_server.port)
        await connection.run(ECHO)
        del connection
        gc.collect()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(main())
        eventually(lambda: caught)  # The thread that worked for it may hold it a moment longer.
    assert [warning.category for warning in caught] == [ResourceWarning]


def test_repr_says_where_to_and_in_what_state(remctl_server: RemctldServer) -> None:
    async def main() -> None:
        connection = AsyncRemctl()
        assert repr(connection) == "<AsyncRemctl, not open>"
        await connection.open("localhost", remctl_server.port)
        assert repr(connection) == f"<AsyncRemctl localhost port {remctl_server.port}, open>"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await connection.run(SLEEP)
        assert repr(connection) == f"<AsyncRemctl localhost port {remctl_server.port}, lost>"
        await connection.close()

    asyncio.run(main())
