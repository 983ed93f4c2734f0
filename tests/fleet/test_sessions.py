"""Fleets: connections that are kept, and what is left after leaving early, Ctrl-C or a fork."""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from support.fakeserver import FakeServer, Peer, in_turn, serve, stall_after_output
from support.farm import ANY, Farm, fleet_threads
from support.proxy import SilentServer
from support.standstill import await_standstill
from support.subprocesses import in_child
from support.waiting import PATIENCE, eventually, nothing_left_behind, open_descriptors

import remctl
from remctl_toolkit import schedule
from remctl_toolkit.fleet import Fleet, Host, NotStartedError, Outcome, run_on_hosts

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm, RemctldServer

pytestmark = pytest.mark.usefixtures("nothing_is_left")

LIMIT = 20.0  # seconds after which a wait has failed
ECHO = ["test", "echo", "hello"]


def serve_once(peer: Peer) -> None:
    peer.accept()
    peer.read_command()
    peer.send_status(0)


# -- Kept connections -----------------------------------------------------------------------------


def test_connections_stay_open_from_command_to_command(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab) as server:
        before = open_descriptors()
        with Fleet([Host("localhost", server.port)]) as fleet:
            found = [next(fleet.run(["x", str(number)])) for number in range(3)]
            assert [each.attempts for each in found] == [1, 0, 0]
            assert server.connections == 1
        assert [each.check().stdout for each in found] == [b"x 0\n", b"x 1\n", b"x 2\n"]
        eventually(lambda: open_descriptors() <= before, what="closed connections")
        assert next(fleet.run(ECHO)).attempts == 1  # It can be used again.
        fleet.close()


def test_run_on_hosts_keeps_no_connection(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab) as server:
        outcomes = run_on_hosts([Host("localhost", server.port)], ECHO)
        assert next(outcomes).ok
        eventually(lambda: server._live == {}, what="the connection closed")


def wait_for_its_end(fleet: Fleet) -> None:
    for session in fleet._sessions.values():
        assert select.select([session], [], [], LIMIT)[0]


def test_a_kept_connection_that_the_server_closed_is_opened_again(remctl_realm: Realm) -> None:
    """With retries, as for the first time: nothing was sent."""
    script = in_turn(serve_once, Peer.close, serve())
    with (
        FakeServer(remctl_realm.keytab, script) as server,
        Fleet([Host("localhost", server.port)], retries=1, backoff=0.01) as fleet,
    ):
        assert next(fleet.run(ECHO)).ok
        wait_for_its_end(fleet)
        outcome = next(fleet.run(ECHO))
        assert (outcome.ok, outcome.attempts) == (True, 2)
        assert len(server.commands) == 2


def test_a_kept_connection_works_after_a_limit_was_reached(remctl_realm: Realm) -> None:
    with (
        FakeServer(remctl_realm.keytab, stall_after_output) as server,
        Fleet([Host("localhost", server.port)]) as fleet,
    ):
        assert next(fleet.run(ECHO, limit=0.5)).reason == "time limit reached"
        server.script = serve()
        assert next(fleet.run(ECHO, limit=LIMIT)).ok


def test_a_kept_connection_works_after_a_refusal_and_a_status(farm: Farm) -> None:
    with Fleet(farm.good(1)) as fleet:
        assert next(fleet.run(["none"])).reason == "Unknown command"
        assert next(fleet.run(["test", "status", "3"])).attempts == 0
        assert next(fleet.run(ECHO)).attempts == 0


@pytest.mark.parametrize("protocol", [1, 2])
def test_older_servers(remctl_realm: Realm, protocol: int) -> None:
    """With protocol 1, each command has a connection of its own."""
    with (
        FakeServer(remctl_realm.keytab, protocol=protocol) as server,
        Fleet([Host("localhost", server.port)]) as fleet,
    ):
        outcomes = [next(fleet.run(ECHO)) for _ in range(2)]
    assert [each.check().stdout for each in outcomes] == [b"test echo hello\n"] * 2
    assert [each.attempts for each in outcomes] == ([1, 1] if protocol == 1 else [1, 0])


def test_one_command_at_a_time(farm: Farm) -> None:
    with Fleet(farm.good(2)) as fleet:
        under_way, other = fleet.run(ECHO), fleet.run(ECHO)
        next(under_way)
        with pytest.raises(remctl.RemctlBusyError, match="still running another command"):
            next(other)
        under_way.close()
        assert len(list(fleet.run(ECHO))) == 2


def test_closing_ends_what_is_under_way(farm: Farm) -> None:
    fleet = Fleet(farm.good(1) + farm.silent(2))
    outcomes = fleet.run(ECHO)
    assert next(outcomes).ok
    fleet.close()
    assert list(outcomes) == []
    assert fleet_threads() == []


def test_closing_while_another_thread_waits_is_refused(farm: Farm) -> None:
    with SilentServer(ANY) as server:
        fleet = Fleet([farm.host(server.port)])
        found: list[Outcome] = []
        waiting = threading.Thread(target=lambda: found.extend(fleet.run(ECHO)))
        waiting.start()
        eventually(lambda: server.connections, what="a host at work")
        with pytest.raises(remctl.RemctlBusyError, match="leave its iterator"):
            fleet.close()
    waiting.join(LIMIT)
    assert [type(each.error) for each in found] == [remctl.RemctlAuthenticationError]
    fleet.close()


# -- Leaving early --------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [False, True])
def test_leaving_early_leaves_nothing_behind(farm: Farm, ordered: bool) -> None:
    hosts = farm.good(1) + farm.silent(20)
    gc.collect()
    with nothing_left_behind():
        for outcome in run_on_hosts(hosts, ECHO, ordered=ordered):
            assert outcome.ok
            assert len(fleet_threads()) == 20
            break
        assert fleet_threads() == []


def test_leaving_begins_no_other_host(remctl_realm: Realm, farm: Farm) -> None:
    with FakeServer(remctl_realm.keytab, host=ANY) as server:
        outcomes = run_on_hosts([farm.host(server.port) for _ in range(5)], ECHO, concurrency=1)
        next(outcomes)
        outcomes.close()
        assert len(server.commands) <= 2
        assert list(outcomes) == []


def test_nothing_begins_before_the_first_outcome_is_asked_for(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab) as server:
        outcomes = run_on_hosts([Host("localhost", server.port)], ECHO)
        assert fleet_threads() == []
        outcomes.close()
        assert server.connections == 0


def interrupt(port: int, principal: str) -> tuple[bool, list[str]]:
    """Be interrupted while all hosts are silent; whether we were, and which threads are left."""
    hosts = [Host("localhost", port, principal), Host("127.0.0.1", port, principal)]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupted = False

    def interrupt_when_at_work() -> None:
        eventually(lambda: len(fleet_threads()) == 2)
        await_standstill(threading.main_thread(), schedule.__file__)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_when_at_work).start()
    try:
        list(run_on_hosts(hosts, ECHO))
    except KeyboardInterrupt:
        interrupted = True
    return interrupted, fleet_threads()


def test_ctrl_c_ends_the_wait_and_all_that_is_at_work(remctl_realm: Realm) -> None:
    with SilentServer() as server:
        assert in_child(interrupt, server.port, remctl_realm.host_principal) == (True, [])
        eventually(lambda: server._live == {}, what="connections closed")


def interrupt_while_starting(port: int) -> tuple[bool, list[str]]:
    """Be interrupted while a host's thread starts; whether we were, and which threads are left."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    left = threading.Event()
    bootstrap = threading.Thread._bootstrap  # type: ignore[attr-defined]

    def start_late(thread: threading.Thread) -> None:
        if thread.name.startswith("remctl-fleet "):
            await_standstill(threading.main_thread(), schedule.__file__)
            os.kill(os.getpid(), signal.SIGINT)
            left.wait(LIMIT)
        bootstrap(thread)

    interrupted = False
    with mock.patch.object(threading.Thread, "_bootstrap", start_late):
        try:
            list(run_on_hosts([Host("localhost", port)], ECHO))
        except KeyboardInterrupt:
            interrupted = True
        left.set()
        eventually(lambda: fleet_threads() == [], what="the thread's end")
    return interrupted, fleet_threads()


def test_ctrl_c_ends_what_is_only_starting(remctl_realm: Realm) -> None:
    """A thread that was started is not alive for Python before it tells so."""
    with SilentServer() as server:
        assert in_child(interrupt_while_starting, server.port) == (True, [])
        assert server.connections == 0


def interrupt_before_start(port: int) -> bool:
    """Be interrupted just before a host's thread is made; whether we were."""
    name = "_start_new_thread" if sys.version_info < (3, 13) else "_start_joinable_thread"
    start = getattr(threading, name)

    def be_interrupted(*arguments: Any, **settings: Any) -> Any:
        if fleet_threads():
            raise KeyboardInterrupt
        return start(*arguments, **settings)

    with mock.patch.object(threading, name, be_interrupted):
        try:
            list(run_on_hosts([Host("localhost", port)], ECHO))
        except KeyboardInterrupt:
            return True
    return False


def test_ctrl_c_does_not_wait_for_a_thread_that_never_starts(remctl_realm: Realm) -> None:
    with SilentServer() as server:
        assert in_child(interrupt_before_start, server.port)


def drop_in_its_own_thread(port: int) -> list[str]:
    """Drop the last reference to an iterator in a thread that works for it; what was raised."""
    raised: list[str] = []
    sys.unraisablehook = lambda unraisable: raised.append(repr(unraisable.exc_value))
    holder: list[Any] = []
    dropped = threading.Event()

    def drop(*_: object) -> None:
        next_is_waiting.wait(LIMIT)
        holder.clear()
        dropped.set()

    next_is_waiting = threading.Event()
    hosts = [Host("localhost", 1), Host("localhost", port)]
    holder.append(run_on_hosts(hosts, ECHO, on_output=drop))
    next(holder[0])
    next_is_waiting.set()
    assert dropped.wait(LIMIT)
    eventually(lambda: fleet_threads() == [], what="the thread's end")
    return raised


def test_an_iterator_may_be_dropped_anywhere(remctl_server: RemctldServer) -> None:
    """The collector runs destructors in any thread; none waits for itself."""
    assert in_child(drop_in_its_own_thread, remctl_server.port) == []


kept: list[Any] = []


def end_in_the_middle(port: int) -> int:
    """Let the process end while an iterator, which nobody left, has a host at work."""
    kept.append(run_on_hosts([Host("localhost", 1), Host("localhost", port)], ECHO))
    assert "refused" in next(kept[0]).reason
    return len(fleet_threads())


def test_a_process_ends_while_hosts_are_at_work(remctl_realm: Realm) -> None:
    with SilentServer() as server:
        assert in_child(end_in_the_middle, server.port) == 1


def in_fork(work: Callable[[], str]) -> str:
    """Do something in a forked child; what it says."""
    read, write = os.pipe()
    warnings.simplefilter("ignore", DeprecationWarning)  # Threads of the extension are left.
    child = os.fork()
    if child == 0:
        signal.alarm(round(LIMIT * PATIENCE))
        os.write(write, work().encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with open(read) as pipe:
        return pipe.read()


def use_after_fork(port: int) -> tuple[str, str]:
    """Use a fleet in a child and then in the parent; what each of them gets."""
    with Fleet([Host("localhost", port)]) as fleet:

        def use() -> str:
            outcome = next(fleet.run(ECHO))
            return f"{outcome.reason} {outcome.attempts}"

        use()
        return in_fork(use), use()


def test_a_forked_child_opens_connections_of_its_own(remctl_server: RemctldServer) -> None:
    assert in_child(use_after_fork, remctl_server.port) == (" 1", " 0")


def go_on_after_fork(port: int) -> tuple[str, str]:
    """Ask for the next outcome in a child, leave, and ask for it in the parent."""
    outcomes = run_on_hosts([Host("localhost", 1), Host("localhost", port)], ["test", "sleep", "1"])
    next(outcomes)

    def go_on() -> str:
        try:
            next(outcomes)
        except remctl.RemctlNotOpenedError as error:
            return str(error).replace(str(os.getppid()), "parent")
        return "no error"

    return in_fork(go_on), next(outcomes).reason


def test_outcomes_belong_to_the_process_that_asked_for_the_first(
    remctl_server: RemctldServer,
) -> None:
    theirs, ours = in_child(go_on_after_fork, remctl_server.port)
    assert theirs == "the outcomes belong to process parent"
    assert ours == ""


def test_threads_are_named_after_their_hosts(farm: Farm) -> None:
    hosts = farm.good(1) + farm.silent(1)
    outcomes = run_on_hosts(hosts, ECHO, limit=LIMIT)
    next(outcomes)
    assert fleet_threads() == [f"remctl-fleet {hosts[1]}"]  # A limit takes none.
    outcomes.close()


def test_hosts_leave_no_garbage(farm: Farm) -> None:
    """The objects of a host are freed at once: no cycle waits for the collector."""
    hosts = farm.good(20) + farm.dead(150) + farm.denying(20) + farm.silent(10)
    list(run_on_hosts(hosts[:1], ECHO))
    gc.collect()
    gc.disable()
    try:
        reasons = [outcome.reason for outcome in run_on_hosts(hosts, ECHO, limit=3.0)]
        assert len(reasons) == 200
        assert gc.collect() < 100
    finally:
        gc.enable()


def test_a_host_without_a_thread_is_told(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    hosts = farm.good(2)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        outcomes = list(run_on_hosts(hosts, ECHO))
    assert [type(each.error) for each in outcomes] == [NotStartedError] * 2
    assert {each.reason for each in outcomes} == {"not started: can't start new thread"}
