"""Every fault of a server in every state has the documented outcome, and the session goes on."""

from __future__ import annotations

import functools
import itertools
import select
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from support.fakeserver import FakeServer
from support.waiting import nothing_left_open

import remctl
from hostile.expected import CASES, OPENING, RUNNING, Case, State
from hostile.faults import LIE, Reading
from hostile.scripts import FIRST, CaseScript

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

PATIENCE = 20.0  # timeout in seconds if the server is not silent
SHORT = 0.3  # timeout in seconds if it is silent

numbers = itertools.count()


@pytest.fixture(scope="module")
def server(remctl_realm: Realm) -> Iterator[FakeServer]:
    """The server of all cases; each changes its script."""
    with FakeServer(remctl_realm.keytab) as server:
        remctl.remctl("localhost", server.port, command=FIRST)  # This gets a ticket from the KDC.
        yield server
    assert server.errors == []


def ask(session: remctl.Remctl) -> None:
    """Run a new command, and check that the answer belongs to it."""
    words = ["number", str(next(numbers))]
    result = session.run(words)
    assert result == remctl.RemctlSimpleResult(" ".join(words).encode() + b"\n", None, 0)


def await_news(session: remctl.Remctl) -> None:
    """Wait until there is something to read, or the end of the stream."""
    poller = select.poll()
    poller.register(session.fileno(), select.POLLIN)
    assert poller.poll(PATIENCE * 1000)


def timeouts_of(case: Case) -> tuple[float, ...]:
    """Return timeouts for a case, to be tried until one is long enough.

    A busy machine may need a long time before the server falls silent, but most cases should not
    wait that long.
    """
    silent = case.fault.reading is Reading.SILENCE and case.outcome.raises is not None
    return (SHORT, 10 * SHORT, PATIENCE) if silent else (PATIENCE,)


def come_near(session: remctl.Remctl, port: int, case: Case) -> Callable[[], Any]:
    """Bring the session into the case's state; return the call that meets the fault."""
    if case.state in OPENING:
        return functools.partial(session.open, "localhost", port)
    session.open("localhost", port)
    if case.state is State.CLOSE:
        return session.close
    if case.state is not State.IDLE and case.version > 1:
        assert session.run(FIRST).stdout == b"first\n"
    if case.state in (State.IDLE, State.ANSWERED):
        return functools.partial(await_news, session)
    if case.state is State.NOOP:
        return session.noop
    return functools.partial(session.run, ["interfere"])


def was_early(script: CaseScript, deadline: float, error: remctl.RemctlError) -> bool:
    """Return whether the client timed out before it, or the server, reached the fault."""
    if type(error) is not remctl.RemctlTimeoutError:
        return False
    if script.case.state in OPENING and script.case.outcome.text not in error.value:
        return True  # It may not even have connected.
    assert script.came.wait(PATIENCE)
    return script.came_at > deadline


def check_failure(error: remctl.RemctlError, case: Case) -> None:
    """Check that the exception is the documented one, and its attributes are true."""
    outcome = case.outcome
    assert type(error) is outcome.raises
    if isinstance(error, remctl.RemctlServerError):
        assert (error.value, int(error.code)) == (outcome.text, outcome.code)
    else:
        assert outcome.text in error.value
        assert LIE.decode() not in error.value
    assert error.host == "localhost"
    assert error.partial == outcome.result


def check_connections(case: Case, used: int) -> None:
    """Check that an untrusted connection was not used again, and a good one was."""
    again = case.version == 1 or not case.outcome.stays_open
    if case.state not in (*OPENING, State.CLOSE):
        assert used == (2 if again else 1)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_session(server: FakeServer, case: Case) -> None:
    assert any(use_session(server, case, timeout) for timeout in timeouts_of(case))


def use_session(server: FakeServer, case: Case, timeout: float) -> bool:
    """Hit the fault in a session, and use it again; return False if the timeout was too short."""
    server.script = script = CaseScript(case)
    early = False
    with nothing_left_open():
        before, commands = server.connections, len(server.commands)
        session = remctl.Remctl(timeout=PATIENCE)
        call = come_near(session, server.port, case)
        session.set_timeout(timeout)
        deadline = time.monotonic() + timeout
        try:
            given = call()
        except remctl.RemctlError as error:
            early = was_early(script, deadline, error)
            if not early:
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
            if not early:
                check_connections(case, server.connections - before)
        session.open("localhost", server.port)
        ask(session)
        session.close()
    return not early


ONE_SHOT = [
    case
    for case in CASES
    if case.state in (*OPENING, *RUNNING)
    and case.version != 2  # For a client that runs one command, 2 is like 3.
    and case.fault.name != "the previous token again"  # There is no previous token.
]


@pytest.mark.parametrize("case", ONE_SHOT, ids=str)
def test_one_shot(server: FakeServer, case: Case) -> None:
    """`remctl()` has the same outcomes as a session, but nothing to open again."""
    assert any(call_once(server, case, timeout) for timeout in timeouts_of(case))


def call_once(server: FakeServer, case: Case, timeout: float) -> bool:
    """Hit the fault in `remctl()`; return False if the timeout was too short."""
    server.script = script = CaseScript(case, first=False)
    with nothing_left_open():
        deadline = time.monotonic() + timeout
        try:
            result = remctl.remctl("localhost", server.port, command=["interfere"], timeout=timeout)
        except remctl.RemctlError as error:
            if was_early(script, deadline, error):
                return False
            check_failure(error, case)
        else:
            assert case.outcome.raises is None
            opened = remctl.RemctlSimpleResult(b"interfere\n", None, 0)
            assert result == (opened if case.state in OPENING else case.outcome.result)
    return True
