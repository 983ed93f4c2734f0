"""Fleets whose work is done by executors: threads, processes, and Dask's workers."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.fakeserver import FakeServer, Peer
from support.farm import ANY, Farm
from support.proxy import SilentServer
from support.subprocesses import in_child
from support.waiting import eventually, runs

import remctl
from remctl_toolkit._host_run import Work
from remctl_toolkit._settings import Settings
from remctl_toolkit.fleet import Fleet, Host, NotStartedError, check_all, run_on_hosts

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

LIMIT = 20.0  # seconds after which a wait has failed
ECHO = ["test", "echo", "hello"]


class Recorder(Executor):
    """Pickles what it is handed, and does it at once."""

    def __init__(self) -> None:
        self.handed: list[bytes] = []

    def submit(self, function: Any, /, *arguments: Any, **keywords: Any) -> Future[Any]:
        self.handed.append(pickle.dumps((function, arguments, keywords)))
        future: Future[Any] = Future()
        function, arguments, keywords = pickle.loads(self.handed[-1])
        future.set_result(pickle.loads(pickle.dumps(function(*arguments, **keywords))))
        return future


def test_all_that_is_handed_over_and_comes_back_can_be_pickled(farm: Farm) -> None:
    hosts = farm.good(2) + farm.dead(1) + farm.denying(1)
    recorder = Recorder()
    settings: dict[str, Any] = {
        "ccache": Path(os.environ["KRB5CCNAME"].removeprefix("FILE:")),
        "executor": recorder,
    }
    command = (part for part in [b"test", Path("cat")])
    outcomes = list(
        run_on_hosts(hosts, command, input=memoryview(b"\0x"), ordered=True, **settings)
    )
    assert len(recorder.handed) == 4
    assert [each.host for each in outcomes] == hosts
    assert [each.check().stdout for each in outcomes[:2]] == [b"\0x"] * 2
    assert [type(each.error) for each in outcomes[2:]] == [
        remctl.RemctlConnectError,
        remctl.RemctlServerError,
    ]


def test_equal_work_is_not_the_same_work() -> None:
    """Some executors take equal calls for one."""
    first, second = (Work(Host("web1"), (b"x",), None, Settings(), None) for _ in range(2))
    assert first != second
    assert first == pickle.loads(pickle.dumps(first))


@pytest.fixture(scope="module")
def pool(remctl_realm: Realm) -> Iterator[ProcessPoolExecutor]:
    """Two processes; their environment is this one's, the credential cache included."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        yield pool


def test_processes_do_the_work(pool: ProcessPoolExecutor, remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab, host="127.0.0.1") as server:
        principals = [None, remctl_realm.host_principal]
        hosts = [Host("localhost", server.port, each) for each in principals]
        with Fleet(hosts, executor=pool) as fleet:
            for number in range(3):
                outcomes = check_all(fleet.run(["x", str(number)]))
                assert {each.check().stdout for each in outcomes} == {b"x %d\n" % number}
        assert server.connections == 6  # They are not kept.


def test_first_and_stop_after_hold_for_executors(farm: Farm) -> None:
    (dead,), good = farm.dead(1), farm.good(3)
    with ThreadPoolExecutor(2) as executor:
        outcomes = list(run_on_hosts([dead, *good], ECHO, first=1, executor=executor))
        assert [each.started for each in outcomes] == [True, False, False, False]
        outcomes = list(
            run_on_hosts([dead, *good], ECHO, stop_after=1, concurrency=1, executor=executor)
        )
        assert [each.started for each in outcomes] == [True, False, False, False]


def test_an_executor_is_handed_no_more_than_it_may_have(farm: Farm) -> None:
    hosts = farm.good(6)
    with ThreadPoolExecutor(6) as executor:
        outcomes = run_on_hosts(hosts, ECHO, concurrency=2, executor=executor)
        next(outcomes)
        assert len(executor._threads) <= 2
        assert len(check_all(outcomes)) == 5


def test_a_worker_that_dies_loses_no_host(remctl_realm: Realm) -> None:
    def kill_worker(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        for process in list(pool._processes.values()):
            os.kill(process.pid, signal.SIGKILL)
        peer.stall()

    pool = ProcessPoolExecutor(1, get_context("spawn"))
    with FakeServer(remctl_realm.keytab, kill_worker) as server, pool:
        hosts = [Host("localhost", server.port)]
        hosts += [Host(f"127.0.0.{number}", server.port) for number in (1, 2, 3)]
        outcomes = list(
            run_on_hosts(hosts, ECHO, executor=pool, concurrency=1, retries=5, backoff=0.01)
        )
        assert [each.host for each in outcomes] == hosts
        assert "terminated abruptly" in outcomes[0].reason
        assert outcomes[0].started
        assert [type(each.error) for each in outcomes[1:]] == [NotStartedError] * 3
        assert len(server.commands) == 1


def test_an_executor_that_takes_nothing_loses_no_host() -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    outcomes = list(run_on_hosts(["web1", "web2"], ECHO, executor=executor))
    assert {each.reason for each in outcomes} == {
        "not started: cannot schedule new futures after shutdown"
    }


def test_a_deadline_holds_for_what_waits_in_an_executor(farm: Farm) -> None:
    hosts = farm.silent(60)
    start = time.monotonic()
    with ThreadPoolExecutor(1) as executor:
        outcomes = list(run_on_hosts(hosts, ECHO, deadline=0.5, executor=executor))
    assert time.monotonic() - start < 15, "30 seconds if each had its half a second"
    assert {each.host for each in outcomes} == set(hosts)
    assert len(outcomes) == 60
    assert {each.reason for each in outcomes if not each.started} <= {
        "not started: the time was over"
    }
    assert all(
        isinstance(each.error, remctl.RemctlTimeoutError) for each in outcomes if each.started
    )
    text = "time limit reached: the command may have run"
    disowned = [each.error for each in outcomes if each.reason == text]
    assert disowned
    assert all(isinstance(error, remctl.RemctlError) and error.may_have_run for error in disowned)


def test_leaving_early_takes_back_what_waits_in_an_executor(farm: Farm) -> None:
    handed: list[Future[Any]] = []

    class Noting(ThreadPoolExecutor):
        def submit(self, function: Any, /, *arguments: Any, **keywords: Any) -> Future[Any]:
            handed.append(super().submit(function, *arguments, **keywords))
            return handed[-1]

    with Noting(1) as executor, SilentServer(ANY) as server:
        hosts = farm.good(1) + [farm.host(server.port) for _ in range(20)]
        outcomes = run_on_hosts(hosts, ECHO, executor=executor)
        assert next(outcomes).ok
        outcomes.close()
        assert len(handed) == 21
        assert sum(future.cancelled() for future in handed) >= 19  # One may be at work.


def test_credentials_are_asked_by_every_host(farm: Farm) -> None:
    asked: list[str] = []

    class Credentials:
        def ccache(self) -> str:
            asked.append(threading.current_thread().name)
            return os.environ["KRB5CCNAME"]

    assert len(check_all(run_on_hosts(farm.good(3), ECHO, credentials=Credentials()))) == 3
    assert len(asked) == 3


# -- Dask -----------------------------------------------------------------------------------------


def on_a_cluster(port: int, principal: str) -> tuple[list[str], list[str], int, list[int]]:
    """Run two commands over a Dask cluster; what came of it, and the processes of its workers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # What others' modules warn of is not ours.
        from distributed import Client, LocalCluster
    hosts = [Host("localhost", port), Host("localhost", port, principal)]
    hosts += [Host("localhost", 1), Host("unknown.invalid")]
    cluster = LocalCluster(
        n_workers=2,
        threads_per_worker=2,
        host="127.0.0.1",
        dashboard_address="",
        silence_logs=logging.CRITICAL,  # On a busy machine it complains of how slow things are.
    )
    with cluster, Client(cluster) as client:
        pids = list(client.run(os.getpid).values())
        with Fleet(hosts, executor=client.get_executor(), retries=1, backoff=0.01) as fleet:
            outcomes = [list(fleet.run(["x", "y"], limit=LIMIT, ordered=True)) for _ in range(2)]
    told = [[str(each.host), each.reason or str(each.check().stdout)] for each in outcomes[0]]
    return (
        [" ".join(each) for each in told],
        [type(each.error).__name__ for each in outcomes[1]],
        max(each.attempts for each in outcomes[1]),
        pids,
    )


def test_dask_does_the_work(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab) as server:
        told, kinds, attempts, pids = in_child(
            on_a_cluster, server.port, remctl_realm.host_principal
        )
        # The same work twice is done twice, though Dask takes equal calls for one.
        assert server.commands == [[b"x", b"y"]] * 4
        assert server.connections == 4
    where = f"localhost:{server.port}"
    assert told[:2] == [f"{where} b'x y\\n'"] * 2
    assert "Connection refused" in told[2]
    assert "unknown host" in told[3]
    assert kinds == ["NoneType", "NoneType", "RemctlConnectError", "RemctlConnectError"]
    assert attempts == 2
    assert len(pids) == 2
    eventually(lambda: not any(runs(pid) for pid in pids), what="no worker is left")
