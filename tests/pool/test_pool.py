"""Pool: sessions are kept, bounded, lent in turn, checked and replaced."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from support.fakeserver import FakeServer, Peer, in_turn, serve
from support.proxy import SilentServer, refused_port
from support.waiting import eventually, nothing_left_behind
from support.wire import Message

import remctl
from remctl_toolkit import _pool_ledger
from remctl_toolkit.pool import Pool, PoolClosedError, PoolStats, PoolTimeoutError

if TYPE_CHECKING:
    from pool.conftest import HoldingServer

    from remctl_toolkit.testing import Realm

LIMIT = 30.0  # seconds after which a wait has failed


def pool_of(server: FakeServer, size: int = 4, **options: Any) -> Pool:
    return Pool("localhost", server.port, size=size, **{"timeout": LIMIT, **options})


def serve_once(peer: Peer) -> None:
    peer.accept()
    peer.read_command()
    peer.send_status(0)


def serve_once_and_stall(peer: Peer) -> None:
    serve_once(peer)
    peer.stall()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


@contextlib.contextmanager
def clock_of(pool: Pool) -> Iterator[list[float]]:
    """The pool's time, which stands still unless the test changes it."""
    now = [1000.0]
    pool._ledger.clock = lambda: now[0]
    yield now


# -- Running, and what is kept --------------------------------------------------------------------


def test_sessions_are_opened_when_needed_and_kept(server: HoldingServer) -> None:
    with nothing_left_behind(), pool_of(server) as pool:
        assert pool.stats == PoolStats(0, 0, 0, 0)
        assert server.connections == 0
        for number in range(3):
            assert pool.run(["x", number]).stdout == b"x %d\n" % number
        assert pool.stats == PoolStats(1, 0, 0, 1)
    assert server.connections == 1
    assert server.commands == [[b"x", b"%d" % number] for number in range(3)]


def test_run_takes_input_and_files(server: HoldingServer) -> None:
    file = io.BytesIO()
    with pool_of(server) as pool:
        assert pool.run(["x"], input="y", stdout=file) == remctl.RemctlSimpleResult(status=0)
    assert file.getvalue() == b"x y\n"


def test_settings_are_those_of_remctl(remctl_realm: Realm, server: HoldingServer) -> None:
    class Credentials(remctl.RemctlCredentials):
        def ccache(self) -> str:
            used.append(True)
            return os.environ["KRB5CCNAME"]

    used: list[bool] = []
    with pool_of(server, credentials=Credentials(), source_ip="127.0.0.1") as pool:
        pool.run(["x"])
    assert used == [True]
    for pool in (
        pool_of(server, ccache="FILE:/nonexistent"),
        Pool("localhost", server.port, "host/unknown@NOWHERE.TEST", timeout=LIMIT),
    ):
        with pool, pytest.raises(remctl.RemctlAuthenticationError):
            pool.run(["x"])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"size": 0}, ValueError),
        ({"size": 1.5}, TypeError),
        ({"size": True}, TypeError),
        ({"parallel_opens": 0}, ValueError),
        ({"max_wait": -1}, ValueError),
        ({"max_idle": "x"}, TypeError),
        ({"max_idle": float("nan")}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"source_ip": "x"}, ValueError),
    ],
)
def test_arguments_that_cannot_be_right(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Pool("localhost", **options)


def test_a_command_that_cannot_be_right_costs_no_session(server: HoldingServer) -> None:
    with pool_of(server) as pool:
        pool.run(["x"])
        with pytest.raises(TypeError):
            pool.run(["x", None])
        with pytest.raises(remctl.RemctlServerError):
            pool.run(["refuse"])
        assert pool.run(["x"]).status == 0
    assert server.connections == 1


# -- Bounds and turns -----------------------------------------------------------------------------


def test_no_more_sessions_than_the_size(server: HoldingServer, threads: ThreadPoolExecutor) -> None:
    with pool_of(server, 2) as pool:
        calls = [threads.submit(pool.run, ["wait", n]) for n in range(6)]
        eventually(lambda: server.running == 2 and pool.stats.waiting == 4)
        assert pool.stats == PoolStats(0, 2, 4, 2)
        server.go.set()
        assert [call.result().stdout for call in calls] == [b"wait %d\n" % n for n in range(6)]
    assert server.connections == 2


def test_sessions_are_lent_in_the_order_of_asking(
    server: HoldingServer, threads: ThreadPoolExecutor
) -> None:
    calls = []
    with pool_of(server, 1) as pool:
        with pool.session():
            for number in range(8):
                calls.append(threads.submit(pool.run, ["x", number]))
                eventually(lambda: pool.stats.waiting == len(calls))
        for call in calls:
            call.result()
    assert server.commands == [[b"x", b"%d" % number] for number in range(8)]


def test_waiting_for_a_session_has_a_limit(server: HoldingServer) -> None:
    with pool_of(server, 1, max_wait=0.01) as pool:
        with pool.session():
            with pytest.raises(PoolTimeoutError, match=r"became free in 0\.01 s") as caught:
                pool.run(["x"])
            assert (caught.value.host, caught.value.port) == ("localhost", server.port)
            assert isinstance(caught.value, remctl.RemctlTimeoutError)
            with pytest.raises(PoolTimeoutError, match="in 0 s"), pool.session(timeout=0):
                pass
            with pytest.raises(ValueError, match="negative"):
                pool.session(timeout=-1)
        assert pool.stats == PoolStats(1, 0, 0, 1)
        with pool.session(timeout=0):
            pass


def test_few_sessions_are_opened_at_the_same_time(
    remctl_realm: Realm, threads: ThreadPoolExecutor
) -> None:
    def slow(peer: Peer) -> None:
        assert go.wait(LIMIT)
        serve()(peer)

    go = threading.Event()
    with FakeServer(remctl_realm.keytab, slow) as server, pool_of(server, 8) as pool:
        calls = [threads.submit(pool.run, ["x"]) for _ in range(8)]
        eventually(lambda: server.connections == 4)
        eventually(lambda: pool.stats == PoolStats(0, 4, 4, 0))
        go.set()
        assert [call.result().status for call in calls] == [0] * 8
        assert server.connections <= 8


# -- Giving back ----------------------------------------------------------------------------------


def test_a_session_left_in_the_middle_of_a_command_is_replaced(server: HoldingServer) -> None:
    with pool_of(server, 1) as pool:
        with pool.session() as session:
            session.command(["wait"])
            eventually(lambda: server.running == 1)
        assert server.running == 1  # The end of the block did not wait for it.
        assert pool.stats == PoolStats(0, 0, 0, 1)
        server.go.set()
        with pool.session() as session:
            session.command(["x"])
            eventually(lambda: session.missing() == 0)  # It could be read, but is not.
        assert pool.run(["y"]).stdout == b"y\n"
    assert server.connections == 3
    assert server.commands == [[b"wait"], [b"x"], [b"y"]]


def test_a_session_is_kept_after_an_exception_but_not_after_an_interrupt(
    server: HoldingServer,
) -> None:
    with pool_of(server, 1) as pool:
        with pytest.raises(KeyError), pool.session() as session:
            raise KeyError
        assert pool.stats.idle == 1
        with pytest.raises(KeyboardInterrupt), pool.session():
            raise KeyboardInterrupt
        assert pool.stats == PoolStats(0, 0, 0, 1)
        assert not session.opened


def test_a_session_that_was_closed_is_replaced(server: HoldingServer) -> None:
    with pool_of(server, 1) as pool:
        with pool.session() as session:
            session.close()
        assert pool.run(["x"]).status == 0
    assert server.connections == 2


def test_the_timeout_is_set_back(server: HoldingServer) -> None:
    with pool_of(server, 1, timeout=LIMIT) as pool:
        with pool.session() as session:
            session.set_timeout(0.001)
        with pool.session() as same:
            assert same is session
            assert same._session.timeout == LIMIT


# -- Checking and replacing -----------------------------------------------------------------------


def test_a_session_that_was_idle_for_long_is_asked(server: HoldingServer) -> None:
    with pool_of(server, 1) as pool, clock_of(pool) as now:
        pool.run(["x"])
        now[0] += 29
        pool.run(["x"])
        assert Message.NOOP not in server.messages
        now[0] += 30
        pool.run(["x"])
        assert server.messages.count(Message.NOOP) == 1
    assert server.connections == 1


def test_a_session_that_does_not_answer_is_replaced(remctl_realm: Realm) -> None:
    def silent_afterwards(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        peer.send_status(0)
        peer.stall()

    with (
        FakeServer(remctl_realm.keytab, in_turn(silent_afterwards, serve())) as server,
        pool_of(server, 1, timeout=0.3) as pool,
        clock_of(pool) as now,
    ):
        pool.run(["x"])
        now[0] += 30
        assert pool.run(["y"]).stdout == b"y\n"
        assert server.connections == 2
        assert server.commands == [[b"x"], [b"y"]]


def test_a_session_that_was_idle_for_too_long_is_closed(
    server: HoldingServer, threads: ThreadPoolExecutor
) -> None:
    with pool_of(server, 2, max_idle=60) as pool, clock_of(pool) as now:
        calls = [threads.submit(pool.run, ["wait"]) for _ in range(2)]
        eventually(lambda: server.running == 2)
        server.go.set()
        for call in calls:
            call.result()
        now[0] += 40
        pool.run(["x"])  # Takes the one that was given back last.
        now[0] += 40
        pool.run(["x"])
        assert pool.stats == PoolStats(1, 0, 0, 2)
        eventually(lambda: server.messages.count(Message.QUIT) == 1)
        now[0] += 60
        pool.run(["x"])
        assert pool.stats == PoolStats(1, 0, 0, 3)


def test_sessions_are_given_up_when_others_are_given_back(server: HoldingServer) -> None:
    with pool_of(server, 2, max_idle=60) as pool, clock_of(pool) as now:
        with pool.session():
            pool.run(["x"])
            now[0] += 60
            assert pool.stats == PoolStats(1, 1, 0, 2)
        assert pool.stats == PoolStats(1, 0, 0, 2)


def test_a_server_that_is_too_old_to_be_asked(remctl_realm: Realm) -> None:
    with (
        FakeServer(remctl_realm.keytab, protocol=2) as server,
        pool_of(server, 1) as pool,
        clock_of(pool) as now,
    ):
        pool.run(["x"])
        now[0] += 30
        assert pool.run(["y"]).stdout == b"y\n"
        eventually(lambda: server.messages.count(Message.QUIT) == 1)
        assert server.connections == 2


def test_sessions_that_the_server_ends_are_replaced(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab, serve_once) as server, pool_of(server, 1) as pool:
        for number in range(3):
            assert pool.run(["x", number]).status == 0
            eventually(lambda: not server._live)
        assert server.commands == [[b"x", b"0"], [b"x", b"1"], [b"x", b"2"]]


def test_a_command_whose_session_breaks_is_not_sent_again(remctl_realm: Realm) -> None:
    def break_off(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        peer.reset()

    with (
        FakeServer(remctl_realm.keytab, in_turn(break_off, serve())) as server,
        pool_of(server, 1) as pool,
    ):
        with pytest.raises(remctl.RemctlDisconnectedError):
            pool.run(["x"])
        assert pool.run(["y"]).status == 0
        assert server.commands == [[b"x"], [b"y"]]


# -- Opening --------------------------------------------------------------------------------------


@pytest.fixture
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pool_ledger, "_OPEN_DELAY", 0.0)


def reset(peer: Peer) -> None:
    peer.reset()


@pytest.mark.usefixtures("short_delays")
def test_an_open_that_fails_after_others_is_tried_again(remctl_realm: Realm) -> None:
    with (
        FakeServer(remctl_realm.keytab, in_turn(serve(), reset, reset, serve())) as server,
        pool_of(server, 2) as pool,
        pool.session(),
    ):
        assert pool.run(["x"]).stdout == b"x\n"
        assert server.connections == 4


@pytest.mark.usefixtures("short_delays")
def test_the_first_open_is_not_tried_again(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab, reset) as server, pool_of(server) as pool:
        with pytest.raises(remctl.RemctlProtocolError):
            pool.run(["x"])
        assert server.connections == 1


@pytest.mark.usefixtures("short_delays")
def test_a_server_that_refuses_all_attempts_is_tried_once_each_time(remctl_realm: Realm) -> None:
    with (
        FakeServer(remctl_realm.keytab, in_turn(serve(), reset)) as server,
        pool_of(server, 2) as pool,
        pool.session(),
    ):
        for connections in (5, 6):
            with pytest.raises(remctl.RemctlProtocolError):
                pool.run(["x"])
            assert server.connections == connections


@pytest.mark.usefixtures("short_delays")
def test_a_silent_server_has_the_time_of_one_attempt(remctl_realm: Realm) -> None:
    with (
        FakeServer(remctl_realm.keytab, in_turn(serve(), Peer.stall)) as server,
        pool_of(server, 2, timeout=0.2) as pool,
        pool.session(),
    ):
        with pytest.raises(remctl.RemctlTimeoutError):
            pool.run(["x"])
        assert server.connections == 2


def test_an_open_that_fails_frees_its_place(server: HoldingServer) -> None:
    with refused_port() as port, Pool("localhost", port, size=1) as pool:
        for _ in range(2):
            with pytest.raises(remctl.RemctlConnectError):
                pool.run(["x"])
        assert pool.stats == PoolStats(0, 0, 0, 0)


@pytest.mark.usefixtures("short_delays")
def test_all_sessions_go_to_the_address_of_the_first(server: HoldingServer) -> None:
    with pool_of(server, one_address=True) as pool:
        pool.run(["x"])
        pool.host = "no-such-host.invalid"
        with pool.session(), pytest.raises(remctl.RemctlAuthenticationError):  # It gets that far.
            pool.run(["x"])
    with pool_of(server) as pool:
        pool.run(["x"])
        pool.host = "no-such-host.invalid"
        with pool.session(), pytest.raises(remctl.RemctlConnectError, match="unknown host"):
            pool.run(["x"])


# -- Closing --------------------------------------------------------------------------------------


def test_close_ends_what_runs_and_what_waits(
    server: HoldingServer, threads: ThreadPoolExecutor
) -> None:
    pool = pool_of(server, 1)
    running = threads.submit(pool.run, ["wait"])
    eventually(lambda: server.running == 1)
    waiting = threads.submit(pool.run, ["x"])
    eventually(lambda: pool.stats.waiting == 1)
    pool.close()
    with pytest.raises(remctl.RemctlNotOpenedError):
        running.result(LIMIT)
    with pytest.raises(PoolClosedError, match="pool of sessions with localhost is closed"):
        waiting.result(LIMIT)
    pool.close()
    assert pool.closed
    assert repr(pool) == "<Pool localhost, size 1, closed>"
    with pytest.raises(PoolClosedError):
        pool.run(["x"])
    assert pool.stats[:3] == (0, 0, 0)


def test_close_ends_waiting_while_others_do_not_give_back(
    server: HoldingServer, threads: ThreadPoolExecutor
) -> None:
    pool = pool_of(server, 1)
    with pool.session():
        waiting = threads.submit(pool.run, ["x"])
        eventually(lambda: pool.stats.waiting == 1)
        pool.close()
        with pytest.raises(PoolClosedError):
            waiting.result(LIMIT)


def test_nothing_is_opened_once_the_pool_is_closed(
    server: HoldingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def new_session() -> remctl.Remctl:
        pool.close()
        return really_new_session()

    pool = pool_of(server)
    really_new_session = pool._new_session
    monkeypatch.setattr(pool, "_new_session", new_session)
    with pytest.raises(PoolClosedError):
        pool.run(["x"])
    assert server.connections == 0


@pytest.mark.usefixtures("remctl_realm")
def test_close_ends_an_open(threads: ThreadPoolExecutor) -> None:
    with SilentServer() as silent:
        pool = Pool("localhost", silent.port)
        call = threads.submit(pool.run, ["x"])
        eventually(lambda: silent.connections == 1)
        pool.close()
        with pytest.raises(PoolClosedError):
            call.result(LIMIT)


@pytest.mark.usefixtures("remctl_realm")
def test_close_ends_an_open_that_is_just_about_to_begin(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    about, closed = threading.Event(), threading.Event()
    really_open, really_close = remctl.Remctl.open, remctl.Remctl.close

    def late_open(self: remctl.Remctl, *target: Any, **words: Any) -> None:
        about.set()
        assert closed.wait(LIMIT)
        really_open(self, *target, **words)

    def noted_close(self: remctl.Remctl) -> None:
        really_close(self)
        if threading.current_thread() is threading.main_thread():
            closed.set()

    monkeypatch.setattr(remctl.Remctl, "open", late_open)
    monkeypatch.setattr(remctl.Remctl, "close", noted_close)
    with SilentServer() as silent:
        pool = Pool("localhost", silent.port)
        call = threads.submit(pool.run, ["x"])
        assert about.wait(LIMIT)
        pool.close()
        with pytest.raises(PoolClosedError):
            call.result(LIMIT)


@pytest.mark.usefixtures("short_delays")
def test_close_ends_the_delay_before_an_attempt(
    remctl_realm: Realm, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pool_ledger, "_OPEN_DELAY", 10 * LIMIT)
    with FakeServer(remctl_realm.keytab, in_turn(serve(), reset)) as server:
        pool = pool_of(server, 2)
        with pool.session():
            call = threads.submit(pool.run, ["x"])
            eventually(lambda: server.connections == 2 and not pool.stats.waiting)
            pool.close()
            with pytest.raises(remctl.RemctlError):
                call.result(LIMIT)


def test_repr_tells_no_more_than_the_server_and_the_numbers(server: HoldingServer) -> None:
    with pool_of(server, 3) as pool, pool.session():
        assert repr(pool) == "<Pool localhost, size 3, 0 idle, 1 in use>"


# -- Deadlines ------------------------------------------------------------------------------------


def test_a_deadline_limits_the_wait_for_a_session(server: HoldingServer) -> None:
    with (
        pool_of(server, size=1) as pool,
        pool.session(),
    ):
        with pytest.raises(PoolTimeoutError, match="became free before the deadline") as caught:
            pool.run(["x"], deadline=0.2)
        with (
            pytest.raises(PoolTimeoutError, match="became free before the deadline"),
            pool.session(deadline=0.2),
        ):
            pass
        with pytest.raises(ValueError, match="deadline"):
            pool.session(deadline=-1)
    assert not caught.value.may_have_run
    assert server.commands == []


def test_a_deadline_limits_the_check_of_an_idle_session(remctl_realm: Realm) -> None:
    script = in_turn(serve_once_and_stall)
    with (
        FakeServer(remctl_realm.keytab, script) as server,
        pool_of(server) as pool,
        clock_of(pool) as now,
    ):
        pool.run(["first"])
        now[0] += _pool_ledger._CHECK_AFTER + 1
        with pytest.raises(remctl.RemctlTimeoutError) as caught:
            pool.run(["second"], deadline=0.5)
    assert not caught.value.may_have_run
