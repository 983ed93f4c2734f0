"""A whole exchange with a stock remctld, cut at every octet, and delayed at many.

The exchange opens a connection, runs a command with output on both streams, sends a NOOP and
closes.  `Exchange` measures the octets in each direction after each of these steps.  Then every
number of octets up to the last is a place to cut, in each direction.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import wire
from support.proxy import TO_CLIENT, TO_SERVER, Proxy
from support.relay import Direction
from support.waiting import eventually, nothing_left_open

import remctl
from remctl_toolkit.testing import Command, RemctldServer

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

PATIENCE = 20.0  # timeout in seconds if the peer answers
SHORT = 0.15  # timeout in seconds if the peer is silent
MOMENT = 0.01  # length of a delay in seconds
SLACK = 8  # octets by which the lengths of Kerberos' tokens vary

STEPS = ("open", "run", "noop", "close")
OUT, ERR = b"to standard output\n", b"to standard error\n"
SCRIPT = 'echo "$2" >> {journal}; echo to standard output; echo to standard error >&2; exit 7'

Ends = dict[Direction, list[int]]  # octets sent at the end of each step


@dataclass
class Exchange:
    """Clients of one server behind a proxy."""

    proxy: Proxy
    server: RemctldServer
    journal: Path
    ends: Ends = field(default_factory=dict)
    serial: Iterator[int] = field(default_factory=itertools.count)
    ran: set[str] = field(default_factory=set)
    """Numbers of the commands with a result."""
    never_sent: set[str] = field(default_factory=set)
    """Numbers of the commands that the server cannot have received."""

    def measure(self) -> None:
        """Measure an undisturbed exchange."""
        session = remctl.Remctl(timeout=PATIENCE)
        self.ends = {direction: [] for direction in Direction}
        for step in STEPS:
            self.take(step, session, str(next(self.serial)))
            if step == "close":
                eventually(lambda: self.proxy.forwarded(TO_SERVER) > self.ends[TO_SERVER][-1])
            for direction, ends in self.ends.items():
                ends.append(self.proxy.forwarded(direction))

    def take(self, step: str, session: remctl.Remctl, number: str) -> None:
        """Do one step, and check that a result is complete."""
        if step == "open":
            session.open("localhost", self.proxy.port)
        elif step == "run":
            assert session.run(["cut", "x", number]) == remctl.RemctlSimpleResult(OUT, ERR, 7)
            self.ran.add(number)
        elif step == "noop":
            assert session.noop() is True
        else:
            session.close()

    def steps_at(self, direction: Direction, octet: int) -> range:
        """Return the steps that a fault after this number of octets may hit.

        They are the steps that send this octet, and the next one if it may be between two steps.
        """
        ends = self.ends[direction]
        first = next((i for i, end in enumerate(ends) if octet < end + SLACK), len(ends))
        last = next((i for i, end in enumerate(ends) if octet < end - SLACK), len(ends))
        return range(first, last + 1)

    def must_fail(self, direction: Direction, octet: int) -> str:
        """Return the step that must fail if the connection ends there; "" if no step must."""
        steps = self.steps_at(direction, octet)
        if len(steps) > 1 or steps[0] >= STEPS.index("close"):
            return ""
        return STEPS[steps[0]]


@pytest.fixture(scope="module")
def exchange(remctl_realm: Realm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    """A server behind a proxy; the end checks the commands that the server ran."""
    journal = tmp_path_factory.mktemp("cuts") / "journal"
    commands = [Command("cut", script=SCRIPT.format(journal=journal))]
    with (
        RemctldServer(remctl_realm, commands) as server,
        Proxy("localhost", server.port) as proxy,
    ):
        exchange = Exchange(proxy, server, journal)
        exchange.measure()
        yield exchange
    assert proxy.errors == []
    times = Counter(journal.read_text().split())
    assert [number for number, count in times.items() if count > 1] == []
    assert exchange.ran <= set(times)
    assert not exchange.never_sent & set(times)


ALLOWED: dict[str, tuple[type[remctl.RemctlError], ...]] = {
    "open": (remctl.RemctlAuthenticationError,),
    "run": (remctl.RemctlDisconnectedError,),
    "noop": (remctl.RemctlDisconnectedError,),
    "close": (),
}


def go_through(
    exchange: Exchange, session: remctl.Remctl, number: str, silent: range = range(0)
) -> tuple[str, Exception]:
    """Do all steps; return the one that failed and its error.  Some may meet silence."""
    for index, step in enumerate(STEPS):
        session.set_timeout(SHORT if index in silent else PATIENCE)
        try:
            exchange.take(step, session, number)
        except remctl.RemctlError as error:
            return step, error
    return "", Exception()


def check_partial(error: remctl.RemctlError) -> None:
    """Check that a failure has only a beginning of the output, and no result."""
    if error.partial is not None:
        assert OUT.startswith(error.partial.stdout or b"")
        assert ERR.startswith(error.partial.stderr or b"")
        assert error.partial.status is None


def use_again(exchange: Exchange, session: remctl.Remctl, number: str) -> None:
    """Use the object without the proxy."""
    session.set_timeout(PATIENCE)
    session.open("localhost", exchange.server.port)
    if int(number) % 8 == 0:  # Not always, because a command starts a process.
        assert session.run(["cut", "x", f"{number}-again"]).stdout == OUT
    assert session.noop()
    session.close()


def cut(exchange: Exchange, direction: Direction, octet: int, kind: str) -> None:
    """Let the connection end or stall after a number of octets."""
    number = str(next(exchange.serial))
    proxy = exchange.proxy
    mine = proxy.connections + 1
    set_fault = {"close": proxy.close, "reset": proxy.reset, "stall": proxy.stall}[kind]
    set_fault(direction, after=octet, connections={mine})
    with nothing_left_open():
        session = remctl.Remctl()
        silent = exchange.steps_at(direction, octet) if kind == "stall" else range(0)
        failed, error = go_through(exchange, session, number, silent)
        if not re.match("unknown host|cannot connect", str(error)):
            # A client that gave up early may not be accepted yet, and be mistaken for the next.
            eventually(lambda: proxy.connections >= mine)
        check_end(exchange, direction, octet, kind, failed, error)
        must_fail = exchange.must_fail(direction, octet)
        # A stalled command is forwarded at the end of the stall, so it may still run.
        in_vain = (must_fail, direction) == ("run", TO_SERVER) and kind != "stall"
        if must_fail == "open" or in_vain:
            exchange.never_sent.add(number)
        proxy.release()
        use_again(exchange, session, number)


def check_end(
    exchange: Exchange, direction: Direction, octet: int, kind: str, failed: str, error: Exception
) -> None:
    """Check that the right step failed, with an allowed exception."""
    must_fail = exchange.must_fail(direction, octet)
    assert not must_fail or failed == must_fail
    if not failed:
        return
    assert isinstance(error, remctl.RemctlError)
    assert STEPS.index(failed) in exchange.steps_at(direction, octet)
    allowed = ALLOWED[failed] if kind != "stall" else (remctl.RemctlTimeoutError,)
    if octet == 0 and kind == "reset":  # The client may notice it in connect().
        allowed += (remctl.RemctlConnectError,)
    assert type(error) in allowed
    check_partial(error)


def hold_up(exchange: Exchange, direction: Direction, octet: int, kind: str) -> None:
    """Delay the octets after a number of them, then forward them together or one by one."""
    proxy = exchange.proxy
    connections = {proxy.connections + 1}
    if kind == "delay":
        proxy.delay(direction, seconds=MOMENT, after=octet, connections=connections)
    else:
        proxy.dribble(direction, after=octet, connections=connections)
    session = remctl.Remctl()
    assert go_through(exchange, session, str(next(exchange.serial)))[0] == ""
    proxy.release()


def every_octet(exchange: Exchange, direction: Direction) -> list[int]:
    """Return every place, and two more."""
    return list(range(exchange.ends[direction][-1] + 2))


def some_octets(exchange: Exchange, direction: Direction, step: int) -> list[int]:
    """Return the ends of tokens and headers, the octets around them, and every STEPth octet."""
    ends = exchange.ends[direction]
    edges = [0, *ends]
    if direction is TO_CLIENT:  # A command's answer has three tokens; a NOOP has two octets.
        around = ends[2] - ends[1] - 2
        edges.append(ends[0] + around + len(wire.pack_output(OUT)))
        edges.append(ends[1] - around - len(wire.pack_status(7)))
    near = {edge + by for edge in edges for by in (-1, 0, 1, 4, 5, 6) if edge + by >= 0}
    return sorted(near | set(range(0, ends[-1], step)))


CHUNKS = 8
HALF = [pytest.param(n, marks=[pytest.mark.nightly] if n % 2 else []) for n in range(CHUNKS)]


@pytest.mark.parametrize("chunk", HALF)
@pytest.mark.parametrize("kind", ["close", "reset"])
@pytest.mark.parametrize("direction", [TO_SERVER, TO_CLIENT], ids=["to server", "to client"])
def test_connection_that_ends(
    exchange: Exchange, direction: Direction, kind: str, chunk: int
) -> None:
    for octet in every_octet(exchange, direction)[chunk::CHUNKS]:
        cut(exchange, direction, octet, kind)


@pytest.mark.parametrize("chunk", HALF[:2])
@pytest.mark.parametrize("direction", [TO_SERVER, TO_CLIENT], ids=["to server", "to client"])
def test_connection_that_falls_silent(exchange: Exchange, direction: Direction, chunk: int) -> None:
    for octet in some_octets(exchange, direction, step=40)[chunk::2]:
        cut(exchange, direction, octet, "stall")


@pytest.mark.parametrize("kind", ["delay", "dribble"])
@pytest.mark.parametrize("direction", [TO_SERVER, TO_CLIENT], ids=["to server", "to client"])
def test_connection_that_is_slow(exchange: Exchange, direction: Direction, kind: str) -> None:
    for octet in some_octets(exchange, direction, step=30):
        hold_up(exchange, direction, octet, kind)
