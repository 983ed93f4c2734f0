"""Fork: whatever a child does with an inherited session, the parent's goes on."""

from __future__ import annotations

import contextlib
import gc
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import _remctl
import pytest
from support.fakeserver import FakeServer, Peer, echo, serve
from support.subprocesses import in_child
from support.waiting import PATIENCE, eventually, unread_octets
from support.wire import Message

import remctl

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

CHILD_LIMIT = 20  # seconds, a whole number, that a forked child may take
ECHO = ["test", "echo", "hello"]
WAIT = ["wait"]
GO_ON = ["go", "on"]


@pytest.fixture
def server(remctl_realm: Realm) -> Iterator[FakeServer]:
    """A server that keeps a list of the messages it receives."""
    with FakeServer(remctl_realm.keytab) as server:
        yield server
    assert server.errors == []


def fork(work: Callable[[], object], *, clean_up: bool = False) -> int:
    """Do some work in a forked child; its process id.

    With `clean_up` it ends as a program ends, otherwise with nothing but _exit(2).
    """
    with warnings.catch_warnings():  # Forking while threads run is what is tested here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return child
    signal.alarm(round(CHILD_LIMIT * PATIENCE))  # A child that hangs ends by this.
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    if clean_up:
        sys.exit(0)
    os._exit(0)


def join(child: int) -> None:
    """Check that a child ended well."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, f"the child ended with {code}"


def expect_refusal(connection: remctl.Remctl) -> None:
    """Check that an inherited connection does not read output of the parent's command."""
    calls: list[Callable[[], object]] = [connection.output, lambda: list(connection.tokens())]
    for call in calls:
        with pytest.raises(remctl.RemctlError):
            call()


# -- What a child does with what it inherited -----------------------------------------------------


def leave_inherited(port: int, ending: str, command_first: bool) -> list[bytes | None]:
    """Fork with a session open; what the parent's commands then say."""
    connection = remctl.Remctl("localhost", port)
    descriptor = connection.fileno()
    replies = [connection.run(["before", "fork"]).stdout]
    if command_first:
        connection.command(["meanwhile"])
    holder = [connection]
    del connection

    def work() -> None:
        if ending == "use and close" and command_first:
            expect_refusal(holder[0])
        if ending.endswith("close"):
            holder[0].close()
            holder[0].close()
        elif ending == "drop":
            holder.clear()
            gc.collect()
        if ending in ("close", "use and close", "drop"):
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(descriptor)

    join(fork(work, clean_up=ending == "exit"))
    connection = holder[0]
    if command_first:
        replies.append(b"".join(token.output or b"" for token in connection.tokens()))
    replies.append(connection.run(["after", "fork"]).stdout)
    assert connection.noop()
    connection.close()
    return replies


@pytest.mark.parametrize("command_first", [False, True], ids=["idle", "running"])
@pytest.mark.parametrize("ending", ["close", "use and close", "drop", "exit", "exit at once"])
def test_session_survives_a_child_that_inherited_it(
    server: FakeServer, ending: str, command_first: bool
) -> None:
    replies = in_child(leave_inherited, server.port, ending, command_first)
    expected = [b"before fork\n", b"meanwhile\n", b"after fork\n"]
    assert replies == (expected if command_first else expected[::2])
    assert server.connections == 1
    commands = [Message.COMMAND] * len(replies)
    eventually(lambda: len(server.messages) >= len(replies) + 2)
    assert server.messages == [*commands, Message.NOOP, Message.QUIT]


def use_inherited_iterator(port: int, started: bool) -> None:
    """Go on with the parent's iterator in a child."""
    with remctl.Remctl("localhost", port) as connection:
        tokens = connection.stream(ECHO)
        outputs = [next(tokens).output] if started else []

        def work() -> None:
            with pytest.raises(remctl.RemctlError):
                next(tokens)

        join(fork(work))
        outputs += [token.output for token in tokens]
        assert outputs == [b"test echo hello\n", None]


@pytest.mark.parametrize("started", [False, True])
def test_iterator_that_a_child_inherited_raises(server: FakeServer, started: bool) -> None:
    in_child(use_inherited_iterator, server.port, started)
    assert server.connections == 1


def use_inherited_handle(port: int) -> None:
    """Call the extension with an inherited handle."""
    handle = _remctl.remctl_new()
    assert _remctl.remctl_open(handle, "localhost", port)

    def work() -> None:
        for call in (_remctl.remctl_output, _remctl.remctl_noop, _remctl.remctl_error):
            with pytest.raises(ValueError, match="belongs to another process"):
                call(handle)
        with pytest.raises(ValueError, match="belongs to another process"):
            _remctl.remctl_commandv(handle, [b"a"])
        _remctl.remctl_close(handle)
        _remctl.remctl_close(handle)

    join(fork(work))
    assert _remctl.remctl_noop(handle)
    _remctl.remctl_close(handle)


def test_handle_that_a_child_inherited_raises(server: FakeServer) -> None:
    in_child(use_inherited_handle, server.port)
    assert server.connections == 1


def close_all_then_drop(port: int) -> None:
    """Become a daemon as many do: close every descriptor, then open files of one's own."""
    connections = [remctl.Remctl("localhost", port) for _ in range(2)]
    descriptors = [connection.fileno() for connection in connections]

    def work() -> None:
        reader, writer = map(os.dup2, os.pipe(), descriptors)
        connections.pop().close()
        connections.clear()
        gc.collect()
        os.write(writer, b"still open")
        assert os.read(reader, 100) == b"still open"

    join(fork(work))
    for connection in connections:
        assert connection.noop()
        connection.close()


def test_child_that_closed_all_descriptors_loses_no_other_file(server: FakeServer) -> None:
    in_child(close_all_then_drop, server.port)


def test_program_that_is_started_does_not_get_the_descriptor(server: FakeServer) -> None:
    with remctl.Remctl("localhost", server.port) as connection:
        listed = subprocess.run(
            ["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, check=True
        ).stdout.decode()
        socket = os.readlink(f"/proc/self/fd/{connection.fileno()}")
    assert socket.startswith("socket:")
    assert socket not in listed


# -- A child with a session of its own ------------------------------------------------------------


def open_in_both(port: int) -> None:
    """Use the same object in parent and child, each with its own connection."""
    connection = remctl.Remctl("localhost", port)
    to_parent, to_child = os.pipe(), os.pipe()

    def work() -> None:
        connection.open("localhost", port)
        assert connection.run(["child", "1"]).stdout == b"child 1\n"
        os.write(to_parent[1], b"!")
        os.read(to_child[0], 1)
        assert connection.run(["child", "2"]).stdout == b"child 2\n"
        connection.close()

    child = fork(work)
    os.read(to_parent[0], 1)
    assert connection.run(["parent", "1"]).stdout == b"parent 1\n"
    os.write(to_child[1], b"!")
    join(child)
    assert connection.run(["parent", "2"]).stdout == b"parent 2\n"
    connection.close()


def test_child_opens_the_object_for_itself(server: FakeServer) -> None:
    in_child(open_in_both, server.port)
    assert server.connections == 2
    assert server.commands == [
        [b"child", b"1"],
        [b"parent", b"1"],
        [b"child", b"2"],
        [b"parent", b"2"],
    ]


HEADER = 5  # octets of a client's first token, which has nothing else


def fork_beside_a_call(port: int, opening: bool) -> None:
    """Fork while another thread is inside run() or open(), and holds the object's lock."""
    connection = remctl.Remctl()
    if not opening:
        connection.open("localhost", port)

    def call() -> int | None:
        if opening:
            connection.open("localhost", port)
        return connection.run(WAIT).status

    def work() -> None:
        if not opening:
            expect_refusal(connection)
        connection.close()
        connection.open("localhost", port)
        assert connection.run(ECHO).stdout == b"test echo hello\n"
        connection.close()

    def is_inside() -> bool:
        handle = connection._session.handle
        if handle is None:
            return False
        with contextlib.suppress(ValueError):
            _remctl.remctl_error(handle)
            return False
        return opening or handle.expecting  # Nothing is in the Kerberos library then.

    with ThreadPoolExecutor(1) as pool:
        called = pool.submit(call)
        eventually(is_inside)
        if (
            opening
        ):  # It has its ticket: the Kerberos library holds no lock that a child would miss.
            eventually(lambda: unread_octets(port) > HEADER)
        join(fork(work))
        assert not called.done()
        assert remctl.remctl("localhost", port, command=GO_ON).status == 0
        assert called.result() == 0
    connection.close()


@pytest.mark.parametrize("opening", [False, True], ids=["in run()", "in open()"])
def test_child_of_a_fork_beside_a_call_does_not_hang(remctl_realm: Realm, opening: bool) -> None:
    told = threading.Event()

    def answer(command: list[bytes]) -> tuple[bytes, bytes, int]:
        if command == list(map(str.encode, GO_ON)):
            told.set()
        elif command == list(map(str.encode, WAIT)):
            assert told.wait(CHILD_LIMIT * PATIENCE)
        return echo(command)

    def script(peer: Peer) -> None:
        if opening and peer.number == 1:
            assert told.wait(CHILD_LIMIT * PATIENCE)
        serve(handler=answer)(peer)

    with FakeServer(remctl_realm.keytab, script) as server:
        try:
            in_child(fork_beside_a_call, server.port, opening)
        finally:
            told.set()
    assert server.errors == []


def fork_beside_many_calls(port: int) -> None:
    """Fork at any moment of another thread's calls."""
    begun, ended = threading.Event(), threading.Event()
    connection = remctl.Remctl("localhost", port)

    def call() -> None:
        for count in itertools.count():
            assert connection.run(["number", str(count)]).stdout == f"number {count}\n".encode()
            begun.set()
            if ended.is_set():
                break

    def work() -> None:
        connection.close()
        gc.collect()

    with ThreadPoolExecutor(1) as pool:
        called = pool.submit(call)
        assert begun.wait(CHILD_LIMIT * PATIENCE)
        for child in [fork(work) for _ in range(40)]:
            join(child)
        ended.set()
        called.result()
    connection.close()


def test_fork_at_any_moment_of_a_call_does_no_harm(server: FakeServer) -> None:
    in_child(fork_beside_many_calls, server.port)
    assert server.connections == 1


def use_in_process(connection: remctl.Remctl, port: int) -> None:
    """Be a child that multiprocessing started."""
    assert connection.run(["inherited"]).stdout == b"inherited\n"
    assert remctl.remctl("localhost", port, command=["simple", "call"]).status == 0
    connection.open("localhost", port)
    assert connection.run(["child"]).stdout == b"child\n"
    connection.close()


def start_process(port: int) -> int | None:
    """Hand an open connection to a child by multiprocessing's way of forking."""
    warnings.simplefilter("ignore", DeprecationWarning)
    with remctl.Remctl("localhost", port) as connection:
        process = multiprocessing.get_context("fork").Process(
            target=use_in_process, args=(connection, port)
        )
        process.start()
        assert connection.run(["parent"]).stdout == b"parent\n"
        process.join(CHILD_LIMIT)
        assert connection.run(["parent"]).stdout == b"parent\n"
    return process.exitcode


def test_multiprocessing_with_fork_leaves_the_session_alone(server: FakeServer) -> None:
    assert in_child(start_process, server.port) == 0
    assert server.connections == 4
