"""A session whose connection was lost: how it comes back, and what is never sent again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from support.fakeserver import FakeServer, Peer, in_turn, serve
from support.sessions import await_data, connect
from support.waiting import eventually

import remctl
from remctl_toolkit.testing.commands import SAMPLE_COMMANDS

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm, RemctldServer
    from remctl_toolkit.testing.plugin import ServerFactory

SILENCE = 0.2  # seconds that are too long


@pytest.fixture
def own_server(remctld: ServerFactory) -> RemctldServer:
    """A server that the test may stop."""
    return remctld(SAMPLE_COMMANDS)


def test_a_command_after_a_timeout_opens_the_connection_again(remctl_realm: Realm) -> None:
    def stall(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        peer.stall()

    script = in_turn(stall, serve())
    with FakeServer(remctl_realm.keytab, script) as server:
        with connect(server) as session:
            session.command(["first"])
            eventually(lambda: server.commands)
            session.set_timeout(SILENCE)
            with pytest.raises(remctl.RemctlTimeoutError) as caught:
                session.output()
            assert str(caught.value) == session.error() == "error receiving token: timed out"
            with pytest.raises(remctl.RemctlDisconnectedError):
                session.output()
            session.set_timeout(20)
            assert session.run(["second"]).stdout == b"second\n"
        assert server.commands == [[b"first"], [b"second"]]


def test_a_command_after_the_server_was_restarted_opens_the_connection_again(
    own_server: RemctldServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="remctl")
    with connect(own_server) as session:
        own_server.restart()
        await_data(session)
        assert session.run(["test", "echo", "idle"]).stdout == b"idle\n"
        session.command(["test", "sleep", "30"])
        own_server.restart()
        with pytest.raises(remctl.RemctlDisconnectedError):
            session.output()
        assert session.run(["test", "echo", "running"]).stdout == b"running\n"
    assert caplog.messages.count("opening the connection to localhost") == 2


def test_a_command_on_an_idle_connection_that_has_ended_runs_exactly_once(
    remctl_realm: Realm,
) -> None:
    def one_command(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        peer.send_status(0)

    with FakeServer(remctl_realm.keytab, one_command) as server, connect(server) as session:
        for number in range(5):
            if number:
                await_data(session)
            assert session.run([str(number)]).status == 0
        assert server.commands == [[b"%d" % number] for number in range(5)]
        assert server.connections == 5


def test_a_command_that_was_sent_is_never_sent_again(remctl_realm: Realm) -> None:
    def vanish(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        peer.reset()

    with FakeServer(remctl_realm.keytab, vanish) as server, connect(server) as session:
        with pytest.raises(remctl.RemctlDisconnectedError):
            session.run(["once"])
        assert (server.commands, server.connections) == ([[b"once"]], 1)


def test_a_session_that_cannot_be_reopened_tries_again_next_time(
    own_server: RemctldServer,
) -> None:
    with connect(own_server) as session:
        own_server.stop()
        await_data(session)
        for _ in range(2):
            with pytest.raises(remctl.RemctlConnectError, match="Connection refused"):
                session.run(["test", "echo", "down"])
        assert session.opened
        own_server.start()
        assert session.run(["test", "echo", "up"]).stdout == b"up\n"


def test_noop_does_not_reopen(own_server: RemctldServer) -> None:
    with connect(own_server) as session:
        assert session.noop() is True
        own_server.restart()
        await_data(session)
        with pytest.raises(remctl.RemctlDisconnectedError):
            session.noop()
        assert session.run(["test", "echo", "back"]).stdout == b"back\n"
        assert session.noop() is True


@pytest.mark.parametrize("how", ["run", "stream", "output"])
def test_a_command_that_is_answered_twice_does_not_answer_the_next(
    remctl_server: RemctldServer, how: str
) -> None:
    """remctld 3.18 says that "help" has too many arguments, and then runs it."""
    command = ["help", "test", "echo", "more"]
    with remctl.Remctl(
        remctl_server.host, remctl_server.port, remctl_server.principal, timeout=20
    ) as session:
        if how == "output":
            session.command(command)
            assert session.output().error == remctl.RemctlErrorCode.TOOMANY_ARGS
        else:
            with pytest.raises(remctl.RemctlServerError, match="Too many arguments"):
                list(session.stream(command)) if how == "stream" else session.run(command)
        for word in ("one", "two"):
            assert session.run(["test", "echo", word]).stdout == f"{word}\n".encode()
