"""Every fault of a server in every state: the documented outcome, and a session that goes on."""

from __future__ import annotations

import contextlib
import itertools
import select
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from support.fakeserver import FakeServer
from support.waiting import eventually, open_descriptors

import remctl
from hostile.expected import CASES, OPENING, RUNNING, Case, State
from hostile.faults import LIE, Reading
from hostile.scripts import FIRST, script_of

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

PATIENCE = 20.0  # seconds, where the server is not silent
SHORT = 0.3  # seconds, where it is

numbers = itertools.count()


@pytest.fixture(scope="module")
def server(remctl_realm: Realm) -> Iterator[FakeServer]:
    """The server of all cases, which change its script."""
    with FakeServer(remctl_realm.keytab) as server:
        remctl.remctl("localhost", server.port, command=FIRST)  # The KDC is asked for a ticket.
        yield server
    assert server.errors == []


def ask(session: remctl.Remctl) -> None:
    """Run a command that nobody has run before, and see that the answer is to it."""
    words = ["number", str(next(numbers))]
    result = session.run(words)
    assert result == remctl.RemctlSimpleResult(" ".join(words).encode() + b"\n", None, 0)


def await_news(session: remctl.Remctl) -> None:
    """Wait until there is something to read, or the end."""
    poller = select.poll()
    poller.register(session.fileno(), select.POLLIN)
    assert poller.poll(PATIENCE * 1000)


def timeout_of(case: Case) -> float:
    silent = case.fault.reading is Reading.SILENCE and case.outcome.raises is not None
    return SHORT if silent else PATIENCE


@contextlib.contextmanager
def nothing_left_open() -> Iterator[None]:
    """See that the block closes what it opens; the server's threads may take a moment."""
    before = open_descriptors()
    yield
    eventually(lambda: open_descriptors() <= before, PATIENCE, interval=0.001)


def come_to_the_fault(session: remctl.Remctl, port: int, case: Case) -> Any:
    """Bring the session into the case's state; return what the call that meets the fault does."""
    if case.state in OPENING:
        session.set_timeout(timeout_of(case))
    session.open("localhost", port)
    if case.state in OPENING:
        return None
    if case.state is State.CLOSE:
        session.close()
        return None
    if case.state is not State.IDLE and case.version > 1:
        assert session.run(FIRST).stdout == b"first\n"
    if case.state in (State.IDLE, State.ANSWERED):
        await_news(session)
        return None
    session.set_timeout(timeout_of(case))
    return session.noop() if case.state is State.NOOP else session.run(["interfere"])


def check_failure(error: remctl.RemctlError, case: Case) -> None:
    """See that the exception is the documented one, and tells no lies."""
    outcome = case.outcome
    assert type(error) is outcome.raises
    if isinstance(error, remctl.RemctlServerError):
        assert (error.value, int(error.code)) == (outcome.text, outcome.code)
    else:
        assert outcome.text in error.value
        assert LIE.decode() not in error.value
    assert error.host == "localhost"
    assert error.partial == outcome.result


def check_connections(session: remctl.Remctl, case: Case, used: int) -> None:
    """See that a connection that cannot be trusted was not used again, and a good one was."""
    again = case.version == 1 or not case.outcome.stays_open
    if case.state not in (*OPENING, State.CLOSE):
        assert used == (2 if again else 1)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_session(server: FakeServer, case: Case) -> None:
    server.script = script_of(case)
    with nothing_left_open():
        before, commands = server.connections, len(server.commands)
        session = remctl.Remctl(timeout=PATIENCE)
        try:
            given = come_to_the_fault(session, server.port, case)
        except remctl.RemctlError as error:
            check_failure(error, case)
        else:
            assert case.outcome.raises is None
            assert given == (
                case.outcome.answer if case.state is State.NOOP else case.outcome.result
            )
        session.set_timeout(PATIENCE)
        assert server.commands[commands:].count([b"interfere"]) <= 1, "sent twice"
        if session.opened:
            ask(session)
            check_connections(session, case, server.connections - before)
        session.open("localhost", server.port)
        ask(session)
        session.close()


ONE_SHOT = [
    case
    for case in CASES
    if case.state in (*OPENING, *RUNNING)
    and case.version != 2  # To a client that runs one command, that is 3.
    and case.fault.name != "the token before, once more"  # There is none before.
]


@pytest.mark.parametrize("case", ONE_SHOT, ids=str)
def test_one_shot(server: FakeServer, case: Case) -> None:
    """`remctl()` does as a session does, and has nothing to be opened again."""
    server.script = script_of(case, first=False)
    with nothing_left_open():
        try:
            result = remctl.remctl(
                "localhost", server.port, command=["interfere"], timeout=timeout_of(case)
            )
        except remctl.RemctlError as error:
            check_failure(error, case)
        else:
            assert case.outcome.raises is None
            opened = remctl.RemctlSimpleResult(b"interfere\n", None, 0)
            assert result == (opened if case.state in OPENING else case.outcome.result)
