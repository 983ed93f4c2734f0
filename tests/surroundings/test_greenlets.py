"""gevent and eventlet: in a patched program, a command does not block other greenlets.

The server answers the command of one greenlet only after another greenlet has run a command. If a
wait blocked all greenlets, it would never end.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.fakeserver import FakeServer, Peer, echo, in_turn, serve
from support.preload import preloaded
from support.proxy import SilentServer
from support.subprocesses import in_child_after
from support.waiting import PATIENCE

import remctl
from remctl_toolkit.fleet import Host, run_on_hosts

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

LIMIT = 10.0 * PATIENCE  # seconds after which a wait has failed
WAIT = ["wait"]
GO = ["go"]
PRINCIPAL = "host/localhost"

PREPARATIONS = {
    "gevent": "import gevent.monkey; gevent.monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
# Both warn of unrelated things, and in_child() treats a warning as a failure.
QUIETLY = "import warnings; warnings.simplefilter('ignore'); "


class Greenlets:
    """The functions that both libraries have."""

    def __init__(self, library: str) -> None:
        module: Any = importlib.import_module(library)
        self.spawn: Callable[..., Any] = module.spawn
        self.sleep: Callable[[float], None] = module.sleep
        self.timeout: Any = module.Timeout

    @staticmethod
    def result(greenlet: Any) -> Any:
        """Wait for a greenlet; return its result or raise its exception."""
        return greenlet.get() if hasattr(greenlet, "get") else greenlet.wait()


@pytest.fixture(params=PREPARATIONS)
def library(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def in_patched_child(library: str, function: Callable[..., Any], *arguments: Any) -> Any:
    return in_child_after(QUIETLY + PREPARATIONS[library], function, library, *arguments)


@pytest.fixture
def server(remctl_realm: Realm) -> Iterator[FakeServer]:
    """A server where the command "wait" ends after the command "go"."""
    go = threading.Event()

    def answer(command: list[bytes]) -> tuple[bytes, bytes, int]:
        if command == [b"go"]:
            go.set()
        elif command == [b"wait"]:
            go.wait(LIMIT * 4)
        return echo(command)

    with FakeServer(remctl_realm.keytab, serve(handler=answer)) as server:
        try:
            yield server
        finally:
            go.set()


def connect(port: int) -> remctl.Remctl:
    return remctl.Remctl("localhost", port, timeout=LIMIT)


# -- Commands -------------------------------------------------------------------------------------


def call_simply(library: str, port: int) -> None:
    Greenlets(library)
    result = remctl.remctl("localhost", port, command=["simple"], timeout=LIMIT)
    assert result.stdout == b"simple\n"
    with connect(port) as session:
        assert session.noop()
        much = b"x" * (1 << 20)
        assert session.run(["x"], input=much).stdout == b"x " + much + b"\n"


def test_commands_run(server: FakeServer, library: str) -> None:
    in_patched_child(library, call_simply, server.port)


def run_beside(library: str, port: int) -> None:
    greenlets = Greenlets(library)
    with connect(port) as one, connect(port) as other:
        waiting = greenlets.spawn(one.run, WAIT)
        for _ in range(20):
            greenlets.sleep(0.01)
        assert other.run(GO).stdout == b"go\n"
        assert greenlets.result(waiting).stdout == b"wait\n"


def test_greenlets_run_while_a_command_waits(server: FakeServer, library: str) -> None:
    in_patched_child(library, run_beside, server.port)


def stream_beside(library: str, port: int) -> None:
    greenlets = Greenlets(library)
    with connect(port) as one, connect(port) as other:
        waiting = greenlets.spawn(lambda: [token.type for token in one.stream(WAIT)])
        greenlets.sleep(0.05)
        other.run(GO)
        assert greenlets.result(waiting) == ["output", "status"]


def test_greenlets_run_while_a_stream_waits(server: FakeServer, library: str) -> None:
    in_patched_child(library, stream_beside, server.port)


def open_beside(library: str, port: int) -> None:
    greenlets = Greenlets(library)
    waiting = greenlets.spawn(connect, port)
    greenlets.sleep(0.1)
    with connect(port) as other:
        other.run(GO)
    greenlets.result(waiting).close()


def test_greenlets_run_while_a_connection_opens(remctl_realm: Realm, library: str) -> None:
    go = threading.Event()

    def held(peer: Peer) -> None:
        go.wait(LIMIT * 4)
        serve()(peer)

    def answer(command: list[bytes]) -> tuple[bytes, bytes, int]:
        go.set()
        return echo(command)

    with FakeServer(remctl_realm.keytab, in_turn(held, serve(handler=answer))) as server:
        try:
            in_patched_child(library, open_beside, server.port)
        finally:
            go.set()


def count_while_looking_up(library: str, port: int) -> int:
    greenlets = Greenlets(library)
    count = 0

    def look_up() -> None:
        remctl.Remctl("slow.test", port, PRINCIPAL, timeout=LIMIT).close()

    opening = greenlets.spawn(look_up)
    while not opening.dead:
        greenlets.sleep(0.01)
        count += 1
    greenlets.result(opening)
    return count


def test_greenlets_run_while_a_name_is_looked_up(
    server: FakeServer, library: str, tmp_path: Path
) -> None:
    hosts = {"FAKE_HOSTS": "slow.test=127.0.0.1", "FAKE_HOSTS_DELAY": "1000"}
    with preloaded("resolver", tmp_path, **hosts):
        assert in_patched_child(library, count_while_looking_up, server.port) > 20


# -- Sharing a session ----------------------------------------------------------------------------


def share_session(library: str, port: int) -> None:
    greenlets = Greenlets(library)
    with connect(port) as shared, connect(port) as other:
        first = greenlets.spawn(shared.run, WAIT)
        greenlets.sleep(0.05)
        second = greenlets.spawn(shared.run, ["second"])
        greenlets.sleep(0.05)
        other.run(GO)
        assert greenlets.result(first).stdout == b"wait\n"
        assert greenlets.result(second).stdout == b"second\n"


def test_a_session_that_greenlets_share_runs_one_command_at_a_time(
    server: FakeServer, library: str
) -> None:
    in_patched_child(library, share_session, server.port)
    assert server.commands == [[b"wait"], [b"go"], [b"second"]]


def close_from_another(library: str, port: int) -> None:
    greenlets = Greenlets(library)
    session = connect(port)

    def wait() -> type[Exception]:
        try:
            session.run(WAIT)
        except remctl.RemctlError as error:
            return type(error)
        raise AssertionError("the command ended")

    waiting = greenlets.spawn(wait)
    greenlets.sleep(0.05)
    session.close()
    assert greenlets.result(waiting) is remctl.RemctlNotOpenedError


def test_close_in_another_greenlet_ends_a_wait(server: FakeServer, library: str) -> None:
    in_patched_child(library, close_from_another, server.port)


# -- Time limits ----------------------------------------------------------------------------------


def time_out(library: str, port: int, silent: int) -> None:
    Greenlets(library)
    with connect(port) as session:
        session.set_timeout(0.3)
        with pytest.raises(remctl.RemctlTimeoutError):
            session.run(WAIT)
        with pytest.raises(remctl.RemctlTimeoutError):
            remctl.remctl("localhost", silent, command=["x"], timeout=0.3)


def test_timeouts_hold(server: FakeServer, library: str) -> None:
    with SilentServer() as silent:
        in_patched_child(library, time_out, server.port, silent.port)


def time_out_greenlet(library: str, port: int) -> None:
    greenlets = Greenlets(library)
    with connect(port) as session:
        with pytest.raises(greenlets.timeout) as caught, greenlets.timeout(0.3) as limit:
            session.run(WAIT)
        assert caught.value is limit
        assert session.run(["next"]).stdout == b"next\n"


def test_the_time_limit_of_a_greenlet_ends_a_wait(server: FakeServer, library: str) -> None:
    in_patched_child(library, time_out_greenlet, server.port)


def run_fleet(library: str, port: int, silent: int) -> list[bool]:
    """Run a command on a silent host and a good one; return which of them timed out."""
    Greenlets(library)
    hosts = [Host("127.0.0.1", silent, PRINCIPAL), Host("localhost", port, PRINCIPAL)]
    start = time.monotonic()
    outcomes = list(run_on_hosts(hosts, ["simple"], limit=1.0, ordered=True, timeout=LIMIT * 2))
    assert time.monotonic() - start < LIMIT
    return [isinstance(outcome.error, TimeoutError) for outcome in outcomes]


def test_time_limits_of_fleets_hold(server: FakeServer, library: str) -> None:
    with SilentServer() as silent:
        assert in_patched_child(library, run_fleet, server.port, silent.port) == [True, False]
