"""Leaks: descriptors, threads and memory; and the signals that a lost connection must not send."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pickle
import signal
import socket
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import _remctl
import pytest
from support.ccache import expire
from support.fakeserver import FakeServer, Peer, Script, in_turn, serve
from support.proxy import SilentServer, refused_port
from support.subprocesses import in_child
from support.waiting import (
    eventually,
    nothing_left_behind,
    open_descriptors,
    resident_kib,
    thread_count,
)

import _remctl_hints
import remctl
from remctl_toolkit.testing import Realm

if TYPE_CHECKING:
    from remctl_toolkit.testing import RemctldServer

pytestmark = pytest.mark.nightly

LIMIT = 20.0  # seconds after which a wait has failed
ECHO = ["test", "echo", "hello"]
COMMAND = ["some", "command"]
MUCH = b"x" * (16 * 1024 * 1024)  # more than the buffers of two sockets hold


# -- Again and again ------------------------------------------------------------------------------

Step = Callable[[remctl.Remctl, int], object]


def open_again(connection: remctl.Remctl, port: int) -> None:
    connection.open("localhost", port)


def open_and_run(connection: remctl.Remctl, port: int) -> None:
    connection.open("localhost", port)
    assert connection.run(ECHO).stdout == b"hello\n"
    assert connection.noop()
    connection.close()


def open_and_leave_output_unread(connection: remctl.Remctl, port: int) -> None:
    connection.open("localhost", port)
    connection.command(ECHO)
    connection.output()


def call_once(connection: remctl.Remctl, port: int) -> None:
    assert remctl.remctl("localhost", port, command=ECHO).status == 0


def call_extension_once(connection: remctl.Remctl, port: int) -> None:
    command = [word.encode() for word in ECHO]
    assert _remctl.remctl("localhost", port, None, command) == (None, b"hello\n", None, 0)


def open_low_handle_again(connection: remctl.Remctl, port: int) -> None:
    handle = _remctl.remctl_new()
    assert _remctl.remctl_open(handle, "localhost", port)
    assert _remctl.remctl_open(handle, "localhost", port)


def be_refused(connection: remctl.Remctl, port: int) -> None:
    with pytest.raises(remctl.RemctlConnectError):
        connection.open("localhost", port)


def wait_in_vain(connection: remctl.Remctl, port: int) -> None:
    connection.set_timeout(0.01)
    with pytest.raises(remctl.RemctlTimeoutError):
        connection.open("localhost", port)


def fail_to_authenticate(connection: remctl.Remctl, port: int) -> None:
    with pytest.raises(remctl.RemctlAuthenticationError):
        connection.open("localhost", port, "host/unknown@REMCTL.TEST")


def repeat(step: Step, port: int, times: int) -> int:
    """Do a step again and again; how many KiB of memory that took in the end."""
    connection = remctl.Remctl()
    for _ in range(max(times // 3, 10)):
        step(connection, port)
    gc.collect()
    connection.close()
    eventually(lambda: thread_count() == 1)  # The one that is kept for the next call has ended.
    memory = resident_kib()
    with nothing_left_behind():
        for _ in range(times):
            step(connection, port)
        connection.close()
        gc.collect()
    return resident_kib() - memory


@pytest.mark.parametrize(
    ("step", "times"),
    [
        (open_again, 300),
        (open_and_run, 150),
        (open_and_leave_output_unread, 150),
        (call_once, 150),
        (call_extension_once, 150),
        (open_low_handle_again, 100),
        (fail_to_authenticate, 300),
    ],
)
def test_opening_again_and_again_leaks_nothing(
    remctl_server: RemctldServer, step: Step, times: int
) -> None:
    assert in_child(repeat, step, remctl_server.port, times) < 2 * times


def test_connections_that_are_refused_leak_nothing(remctl_realm: Realm) -> None:
    with refused_port() as port:
        assert in_child(repeat, be_refused, port, 1000) < 2000


def test_opens_that_time_out_leak_nothing(remctl_realm: Realm) -> None:
    with SilentServer() as server:
        assert in_child(repeat, wait_in_vain, server.port, 30) < 200


def run_much(port: int, times: int) -> int:
    """Send and receive much in one session; how many KiB of memory that took in the end."""
    data = bytes(1_000_000)
    with remctl.Remctl("localhost", port) as connection:
        memory = 0
        for count in range(times):
            if count == times // 2:
                memory = resident_kib()
            assert connection.run(["test", "cat"], input=data).stdout == data
        return resident_kib() - memory


def test_commands_of_one_session_leak_nothing(remctl_server: RemctldServer) -> None:
    assert in_child(run_much, remctl_server.port, 40) < 10_000


class MallocInfo(ctypes.Structure):
    """The result of glibc's mallinfo2(): see mallinfo(3)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def look_at_tickets(ccache: str, times: int) -> int:
    """Look into a credential cache again and again; how many bytes of C's that took in the end."""
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = MallocInfo
    for _ in range(10):
        _remctl_hints.find_tickets(ccache)
    before: int = ask().uordblks
    for _ in range(times):
        _remctl_hints.find_tickets(ccache)
    return int(ask().uordblks) - before


@pytest.mark.once
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="not glibc 2.33 or later")
def test_looking_at_tickets_that_have_ended_leaks_nothing(remctl_realm: Realm) -> None:
    ccache = remctl_realm.kinit(ccache=remctl_realm.new_ccache())
    expire(ccache)
    assert in_child(look_at_tickets, ccache, 100) < 100 * 50


def test_opens_left_behind_end_with_their_kdc() -> None:
    with (
        Realm() as realm,
        realm.environ(),
        FakeServer(realm.keytab) as server,
        nothing_left_behind(),
    ):
        threads = thread_count()
        realm.freeze_kdc()
        connection = remctl.Remctl(timeout=0.2)
        for _ in range(5):
            with pytest.raises(remctl.RemctlTimeoutError, match="waiting for a KDC"):
                # With an address: looking up a name may take as long on a busy machine.
                connection.open("127.0.0.1", server.port, "host/localhost")
        assert thread_count() > threads
        realm.thaw_kdc()


def noop_in_one_thread(port: int, sessions: int) -> int:
    """Send noops to all sessions in turn; how many threads that took, at most."""
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(remctl.Remctl("localhost", port)) for _ in range(sessions)
        ]
        threads: set[str] = set()
        for _ in range(20):
            for connection in connections:
                assert connection.noop()
                threads |= set(os.listdir("/proc/self/task"))
    eventually(lambda: thread_count() == 1)
    return len(threads) - 1


def test_one_thread_serves_all_calls_that_may_block_and_ends(remctl_server: RemctldServer) -> None:
    # A second one may be started while the first has answered, but not come to rest.
    assert in_child(noop_in_one_thread, remctl_server.port, 3) < 20


# -- Who keeps a connection -----------------------------------------------------------------------


def handles() -> int:
    """Count the handles of connections."""
    gc.collect()
    kind = type(_remctl.remctl_new())
    return sum(isinstance(each, kind) for each in gc.get_objects())


def fail(port: int, timeout: float | None = None) -> remctl.RemctlError:
    """The exception of a simple call that fails."""
    try:
        remctl.remctl("localhost", port, command=COMMAND, timeout=timeout)
    except remctl.RemctlError as error:
        return error
    raise AssertionError("the call did not fail")


def hang_up(peer: Peer) -> None:
    peer.accept()
    peer.read_command()
    peer.send_output(b"the beginning")


def refuse(peer: Peer) -> None:
    peer.accept()
    peer.read_command()
    peer.send_error(6, "Access denied")
    peer.stall()


def test_exception_that_is_kept_keeps_no_connection(remctl_realm: Realm) -> None:
    with (
        FakeServer(remctl_realm.keytab, in_turn(hang_up, refuse, Peer.stall)) as server,
        refused_port() as port,
    ):
        descriptors, before = open_descriptors(), handles()
        errors = [fail(server.port), fail(server.port), fail(server.port, 0.1), fail(port)]
        assert [type(error).__name__ for error in errors] == [
            "RemctlDisconnectedError",
            "RemctlServerError",
            "RemctlTimeoutError",
            "RemctlConnectError",
        ]
        eventually(lambda: open_descriptors() <= descriptors)
        for error in errors:  # What the interpreter keeps for it is not ours.
            error.__traceback__ = error.__context__ = None
        eventually(lambda: handles() <= before)
        assert errors[0].partial == remctl.RemctlSimpleResult(b"the beginning")


def test_result_and_tokens_that_are_kept_keep_no_connection(remctl_server: RemctldServer) -> None:
    before = handles()
    with remctl.Remctl("localhost", remctl_server.port) as connection:
        kept = [connection.run(ECHO), *connection.stream(ECHO)]
    del connection
    eventually(lambda: handles() <= before)
    assert pickle.loads(pickle.dumps(kept)) == kept


def test_connection_that_is_dropped_open_warns_and_is_closed(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab) as server:
        connection = remctl.Remctl("localhost", server.port)
        descriptor = connection.fileno()
        with pytest.warns(ResourceWarning, match=r"unclosed <Remctl localhost port \d+, open>"):
            del connection
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


@pytest.mark.parametrize("ending", ["close", "with", "lost", "never opened", "failed"])
def test_connection_that_is_not_open_is_dropped_without_a_warning(
    remctl_realm: Realm, ending: str
) -> None:
    with (
        FakeServer(remctl_realm.keytab, hang_up if ending == "lost" else None) as server,
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        connection = remctl.Remctl()
        if ending == "failed":
            with pytest.raises(remctl.RemctlAuthenticationError):
                connection.open("localhost", server.port, "host/unknown")
        elif ending != "never opened":
            connection.open("localhost", server.port)
        if ending == "lost":
            with pytest.raises(remctl.RemctlDisconnectedError):
                connection.run(COMMAND)
        elif ending == "with":
            with connection:
                connection.run(COMMAND)
        elif ending == "close":
            connection.close()
        del connection
        gc.collect()
    assert caught == []


# -- SIGPIPE --------------------------------------------------------------------------------------


def await_end(connection: remctl.Remctl) -> None:
    """Wait until this side knows that the other has gone."""
    with socket.socket(fileno=os.dup(connection.fileno())) as ours:
        ours.settimeout(LIMIT)
        with contextlib.suppress(ConnectionError):
            assert ours.recv(1, socket.MSG_PEEK) == b""


def go_away_after_opening(peer: Peer) -> None:
    peer.accept()
    peer.reset()


def end_after_opening(peer: Peer) -> None:
    peer.accept()


def go_away_in_a_command(peer: Peer) -> None:
    peer.accept()
    peer.read_message()
    peer.reset()


def stop_reading(peer: Peer) -> None:
    peer.accept()
    peer.stall(reading=False)


def go_away_after_a_command(peer: Peer) -> None:
    peer.accept()
    peer.read_command()
    peer.send_status(0)
    peer.reset()


def go_away_at_once(peer: Peer) -> None:
    peer.read_hello()
    peer.reset()


def send_a_command(connection: remctl.Remctl) -> None:
    connection.run(COMMAND)


def send_much(connection: remctl.Remctl) -> None:
    with pytest.raises(remctl.RemctlDisconnectedError):
        connection.run(COMMAND, input=MUCH)


def send_more_than_is_read(connection: remctl.Remctl) -> None:
    connection.set_timeout(0.2)
    with pytest.raises(remctl.RemctlTimeoutError, match=r"^error sending token: timed out$"):
        connection.run(COMMAND, input=MUCH)
    connection.set_timeout(LIMIT)


def send_two_commands(connection: remctl.Remctl) -> None:
    connection.run(COMMAND)
    await_end(connection)
    connection.run(COMMAND)


def send_noop(connection: remctl.Remctl) -> None:
    with pytest.raises(remctl.RemctlDisconnectedError):
        connection.noop()


def close(connection: remctl.Remctl) -> None:
    connection.close()


def drop_without_close(connection: remctl.Remctl) -> None:
    vars(connection)["_handle"] = None


def lose(script: Script, step: Callable[[remctl.Remctl], None], after_the_end: bool) -> bool:
    """Lose a connection while SIGPIPE kills; whether a SIGPIPE was left for later."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    with FakeServer(os.environ["KRB5_KTNAME"], in_turn(script, serve())) as server:
        connection = remctl.Remctl("localhost", server.port, timeout=LIMIT)
        if after_the_end:
            await_end(connection)
        step(connection)
        connection.close()
        connection.open("localhost", server.port)
        assert connection.run(COMMAND).stdout == b"some command\n"
        connection.close()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    return bool(blocked | signal.sigpending())


@pytest.mark.parametrize(
    ("script", "step", "after_the_end"),
    [
        (go_away_after_opening, send_a_command, True),
        (go_away_after_opening, send_noop, True),
        (go_away_after_opening, close, True),
        (go_away_after_opening, drop_without_close, True),
        (end_after_opening, send_a_command, True),
        (end_after_opening, close, True),
        (go_away_in_a_command, send_much, False),
        (go_away_after_a_command, send_two_commands, False),
        (stop_reading, send_more_than_is_read, False),
    ],
)
def test_server_that_goes_away_does_not_kill_the_process(
    remctl_realm: Realm,
    script: Script,
    step: Callable[[remctl.Remctl], None],
    after_the_end: bool,
) -> None:
    assert not in_child(lose, script, step, after_the_end)


def lose_while_opening() -> None:
    """Lose connections in the middle of the authentication, while SIGPIPE kills."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    with FakeServer(os.environ["KRB5_KTNAME"], go_away_at_once) as server:
        for _ in range(20):
            with pytest.raises(remctl.RemctlAuthenticationError):
                remctl.Remctl("localhost", server.port)


def test_server_that_goes_away_while_opening_does_not_kill_the_process(
    remctl_realm: Realm,
) -> None:
    in_child(lose_while_opening)
