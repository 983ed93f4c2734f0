"""`remctl.Remctl`: a session of several commands, how it ends, and how it comes back."""

from __future__ import annotations

import inspect
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from support.fakeserver import FakeServer, Peer, serve
from support.proxy import refused_port
from support.sessions import all_tokens, await_data, connect
from support.waiting import eventually

import remctl
from remctl_toolkit.testing import Command, RemctldServer
from remctl_toolkit.testing.commands import SAMPLE_COMMANDS

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm
    from remctl_toolkit.testing.plugin import ServerFactory

SILENCE = 0.2  # seconds that are too long


@pytest.fixture
def session(remctl_server: RemctldServer) -> Iterator[remctl.Remctl]:
    """A connection to the session's server."""
    with connect(remctl_server) as session:
        yield session


# Opening and closing


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("__init__", ["host", "port", "principal"]),
        ("open", ["host", "port", "principal"]),
        ("set_ccache", ["ccache"]),
        ("set_source_ip", ["source"]),
        ("set_timeout", ["timeout"]),
        ("command", ["comm"]),
        ("output", []),
        ("noop", []),
        ("close", []),
        ("error", []),
    ],
)
def test_arguments_have_the_contracts_names_and_order(method: str, names: list[str]) -> None:
    parameters = inspect.signature(getattr(remctl.Remctl, method)).parameters.values()
    by_position = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert by_position == ["self", *names]


def test_the_constructor_opens_where_a_host_is_given(remctl_server: RemctldServer) -> None:
    place = (remctl_server.host, remctl_server.port, remctl_server.principal)
    with remctl.Remctl(*place) as at_once:
        assert at_once.opened
        assert at_once.noop()
    with remctl.Remctl() as later:
        assert not later.opened
        later.open(host=place[0], port=str(place[1]), principal=place[2])
        assert later.run(["test", "status", "3"]).status == 3


def test_a_closed_session_refuses_until_it_is_opened_again(remctl_server: RemctldServer) -> None:
    session = connect(remctl_server)
    session.close()
    session.close()
    calls = [
        lambda: session.command(["test"]),
        lambda: session.run(["test"]),
        lambda: session.stream(["test"]),
        lambda: list(session.tokens()),
        session.output,
        session.noop,
        session.fileno,
    ]
    for call in calls:
        with pytest.raises(remctl.RemctlNotOpenedError) as caught:
            call()
        assert str(caught.value) == session.error() == "no currently open connection"
    with session:
        session.open("localhost", remctl_server.port)
        assert session.run(["test", "echo", "again"]).stdout == b"again\n"
    assert not session.opened


def test_the_end_of_a_with_statement_closes_also_after_an_exception(
    remctl_realm: Realm,
) -> None:
    with FakeServer(remctl_realm.keytab) as server:
        session = connect(server)
        with pytest.raises(ZeroDivisionError), session:
            session.command([1 // 0])
        assert not session.opened
        with pytest.raises(remctl.RemctlNotOpenedError):
            session.output()


def test_opening_again_closes_the_connection_before(remctl_realm: Realm) -> None:
    with (
        FakeServer(remctl_realm.keytab) as first,
        FakeServer(remctl_realm.keytab) as second,
        connect(first) as session,
    ):
        session.run(["one"])
        session.open("localhost", second.port)
        session.run(["two"])
        assert (first.commands, second.commands) == ([[b"one"]], [[b"two"]])
        assert eventually(lambda: 2 in first.messages, what="the QUIT that ends a session")


def test_a_session_that_could_not_be_opened_is_not_open(remctl_server: RemctldServer) -> None:
    with refused_port() as nobody, connect(remctl_server) as session:
        with pytest.raises(remctl.RemctlConnectError) as caught:
            session.open("127.0.0.1", nobody)
        assert session.error() == str(caught.value)
        assert not session.opened
        with pytest.raises(remctl.RemctlNotOpenedError):
            session.command(["test"])
        session.open("localhost", remctl_server.port)
        assert session.noop()


def test_dropping_an_open_session_warns(remctl_server: RemctldServer) -> None:
    session = connect(remctl_server)
    with pytest.warns(ResourceWarning, match=r"^unclosed <Remctl localhost port \d+, open>: use"):
        del session


def test_error_tells_the_last_failure(session: remctl.Remctl) -> None:
    assert remctl.Remctl().error() == "no error"
    assert session.error() == "no error"
    with pytest.raises(remctl.RemctlServerError):
        session.run(["none"])
    assert session.error() == "Unknown command"
    with pytest.raises(remctl.RemctlError):
        session.set_timeout(-1)
    assert session.error() == "invalid timeout -1"
    fresh = remctl.Remctl()
    with pytest.raises(remctl.RemctlNotOpenedError) as caught:
        fresh.command(["test"])
    assert fresh.error() == str(caught.value), "as the contract says of every RemctlError"


def test_repr_says_where_to_and_in_what_state(remctld: ServerFactory) -> None:
    server = remctld(SAMPLE_COMMANDS)
    session = remctl.Remctl(timeout=20)
    port = server.port
    assert repr(session) == "<Remctl, not open>"
    session.open("localhost", port, server.principal)
    assert repr(session) == f"<Remctl localhost port {port} as {server.principal}, open>"
    session.open("localhost", port)
    assert repr(session) == f"<Remctl localhost port {port}, open>"
    session.command(["test", "sleep", "30"])
    assert repr(session) == f"<Remctl localhost port {port}, running a command>"
    server.kill()
    with pytest.raises(remctl.RemctlDisconnectedError):
        session.output()
    assert repr(session) == f"<Remctl localhost port {port}, lost>"
    session.close()
    assert repr(session) == "<Remctl, not open>"


# Commands


def test_tokens_are_those_of_the_contract(session: remctl.Remctl) -> None:
    session.command(["test", "streams"])
    found = all_tokens(session)
    assert sorted(found[:-1]) == [
        ("output", b"this is stderr\n", 2, None, None),
        ("output", b"this is stdout\n", 1, None, None),
    ]
    assert found[-1] == ("status", None, None, 0, None)
    for _ in range(2):
        assert session.output() == ("done", None, None, None, None)
    session.command(["none"])
    assert session.output() == ("error", b"Unknown command", None, None, 5)
    assert session.output() == ("done", None, None, None, None)


def test_a_token_is_a_tuple_with_names_and_enums(session: remctl.Remctl) -> None:
    session.command(["test", "echo", "hello"])
    token = session.output()
    kind, output, stream, status, error = token
    assert token._fields == ("type", "output", "stream", "status", "error")
    assert (kind, output, stream, status, error) == ("output", b"hello\n", 1, None, None)
    assert stream is token.stream is remctl.RemctlStream.STDOUT
    assert session.output().status == 0
    session.command(["none"])
    assert session.output().error is remctl.RemctlErrorCode.UNKNOWN_COMMAND


def test_one_connection_serves_many_commands(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab) as server, connect(server) as session:
        for number in range(20):
            word = b"%d" % number
            assert session.run(["test", word]).stdout == b"test " + word + b"\n"
        assert (server.connections, len(server.commands)) == (1, 20)


def test_a_refusal_leaves_the_session_usable(session: remctl.Remctl) -> None:
    for _ in range(2):
        with pytest.raises(remctl.RemctlServerError) as caught:
            session.run(["none"])
        assert caught.value.code is remctl.RemctlErrorCode.UNKNOWN_COMMAND
        assert session.run(["test", "echo", "hello"]).stdout == b"hello\n"


def test_stream_yields_tokens_as_they_arrive(session: remctl.Remctl) -> None:
    stream = session.stream(["test", "streams"])
    *outputs, last = stream
    assert {token.output for token in outputs} == {b"this is stderr\n", b"this is stdout\n"}
    assert (last.type, last.status) == ("status", 0)
    assert list(stream) == []
    assert list(session.tokens()) == []
    with pytest.raises(remctl.RemctlServerError):
        list(session.stream(["none"]))
    assert session.noop()


def test_stream_shows_the_first_output_while_the_command_runs(remctl_realm: Realm) -> None:
    def wait_in_the_middle(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        peer.send_output(b"first")
        peer.stall()

    with FakeServer(remctl_realm.keytab, wait_in_the_middle) as server, connect(server) as session:
        for token in session.stream(["test"]):
            assert token.output == b"first"
            break


def test_leaving_a_stream_early_closes_and_the_next_command_reopens(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab) as server, connect(server) as session:
        server.script = serve(handler=lambda command: (b"a" * 200_000, b"", 0))
        session.open("localhost", server.port)
        for token in session.stream(["left", "early"]):
            assert token.type == "output"
            break
        assert (session.opened, session.error()) == (True, "no error")
        server.script = serve()
        assert session.run(["afterwards"]).stdout == b"afterwards\n"
        assert server.commands == [[b"left", b"early"], [b"afterwards"]]


def test_a_second_command_does_not_mix_with_the_first(session: remctl.Remctl) -> None:
    session.command(["test", "echo", "first"])
    for call in (session.command, session.run, session.stream):
        with pytest.raises(remctl.RemctlBusyError):
            call(["test", "echo", "second"])
    with pytest.raises(remctl.RemctlBusyError):
        session.noop()
    assert [token.output for token in all_tokens(session)] == [b"first\n", None]


def test_input_becomes_the_last_argument(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab) as server, connect(server) as session:
        session.command(["one", "x"], input=b"\0")
        all_tokens(session)
        list(session.stream(["two", "x"], input="text"))
        session.run(["three"], input="")
        assert server.commands == [[b"one", b"x", b"\0"], [b"two", b"x", b"text"], [b"three", b""]]


def test_a_file_that_fails_does_not_spoil_the_next_command(remctl_realm: Realm) -> None:
    class Full(io.RawIOBase):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    with FakeServer(remctl_realm.keytab) as server, connect(server) as session:
        with pytest.raises(OSError, match="No space left"):
            session.run(["first"], stdout=Full())
        assert session.opened
        assert session.run(["second"]).stdout == b"second\n"
        assert server.commands == [[b"first"], [b"second"]]


@pytest.mark.parametrize("leave", ["close", "drop"])
def test_leaving_a_stream_that_was_never_read_leaves_the_session_usable(
    remctl_server: RemctldServer, leave: str
) -> None:
    with remctl.Remctl("localhost", remctl_server.port) as session:
        tokens = session.stream(["test", "echo", "unread"])
        if leave == "close":
            tokens.close()
        del tokens
        assert session.run(["test", "echo", "hi"]).stdout == b"hi\n"


def test_a_result_without_a_status_does_not_pass_for_success() -> None:
    with pytest.raises(remctl.RemctlStatusError, match=r"^command did not finish$"):
        remctl.RemctlSimpleResult(b"some output").check()


# Settings


def test_settings_hold_from_the_next_open_on(remctl_realm: Realm, remctld: ServerFactory) -> None:
    script = 'echo "$REMOTE_USER $REMOTE_ADDR"'
    server = remctld([Command("test", script=script)], default_acl="ANYUSER")
    other = remctl_realm.add_principal(f"other{os.getpid()}", "secret")
    with connect(server) as session:
        before = session.run(["test"]).stdout_text()
        session.set_ccache(remctl_realm.kinit(other, ccache=remctl_realm.new_ccache()))
        session.set_source_ip("127.0.0.8")
        assert session.run(["test"]).stdout_text() == before
        session.open("localhost", server.port)
        assert session.run(["test"]).stdout_text() == f"{other} 127.0.0.8\n"
        server.restart()
        await_data(session)
        assert session.run(["test"]).stdout_text() == f"{other} 127.0.0.8\n"


def test_a_timeout_holds_at_once(remctl_realm: Realm) -> None:
    def stall(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        peer.stall()

    with FakeServer(remctl_realm.keytab, stall) as server, connect(server) as session:
        session.command(["test"])
        session.set_timeout(SILENCE)
        with pytest.raises(TimeoutError):
            session.output()


def test_a_timeout_of_zero_clears_the_one_before(remctl_realm: Realm) -> None:
    def late(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        time.sleep(3 * SILENCE)
        peer.send_status(0)

    with FakeServer(remctl_realm.keytab, late) as server, connect(server) as session:
        session.command(["test"])
        session.set_timeout(SILENCE)
        session.set_timeout(0)
        assert session.output().status == 0


# Credentials


class Named:
    """Credentials that name a cache, or do something else when asked to."""

    def __init__(self, answer: Callable[[], str]) -> None:
        self.answer = answer
        self.asked = 0

    def ccache(self) -> str:
        self.asked += 1
        return self.answer()


def test_credentials_name_the_cache_for_each_open(
    remctl_realm: Realm, remctl_server: RemctldServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = Named(lambda: remctl_realm.ccache)
    monkeypatch.setenv("KRB5CCNAME", "FILE:/nowhere")
    with connect(remctl_server, credentials=credentials) as session:
        assert session.run(["test", "echo"]).status == 0
        assert session.run(["test", "echo"]).status == 0
        assert credentials.asked == 1
        session.open("localhost", remctl_server.port)
        assert credentials.asked == 2
    result = remctl.remctl(
        "localhost", remctl_server.port, command=["test", "echo"], credentials=credentials
    )
    assert (result.status, credentials.asked) == (0, 3)


def test_what_credentials_raise_the_open_raises(remctl_server: RemctldServer) -> None:
    def fail() -> str:
        raise remctl.RemctlAuthenticationError("no tickets to be had")

    with pytest.raises(remctl.RemctlAuthenticationError, match="no tickets") as caught:
        connect(remctl_server, credentials=Named(fail))
    assert caught.value.host == "localhost"


def test_credentials_that_take_too_long_are_left_alone(remctl_server: RemctldServer) -> None:
    go_on = threading.Event()

    def wait() -> str:
        go_on.wait(20)
        return ""

    with pytest.raises(remctl.RemctlTimeoutError, match="timed out waiting for credentials"):
        connect(remctl_server, credentials=Named(wait), timeout=SILENCE)
    go_on.set()


def test_credentials_must_be_some_and_the_only_ones() -> None:
    with pytest.raises(TypeError, match=r"^credentials must have ccache\(\): str has not$"):
        remctl.Remctl(credentials="keytab")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^credentials and ccache cannot be combined$"):
        remctl.Remctl(credentials=Named(str), ccache="FILE:/nowhere")


def test_setting_a_cache_takes_the_place_of_credentials(
    remctl_realm: Realm, remctl_server: RemctldServer
) -> None:
    session = remctl.Remctl(credentials=Named(lambda: "FILE:/nowhere"))
    session.set_ccache(remctl_realm.ccache)
    with session:
        session.open("localhost", remctl_server.port)
