"""error.may_have_run, error.advice and result.ok: what to do after a failure."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from support.fakeserver import (
    FakeServer,
    Peer,
    Refusal,
    echo,
    in_turn,
    serve,
    serve_on,
    stall_after_output,
)
from support.proxy import DeafListener, SilentServer, refused_port
from support.sessions import await_data

import remctl
from remctl_toolkit.aio import aremctl
from remctl_toolkit.testing import Command, RemctldServer

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm
    from remctl_toolkit.testing.plugin import ServerFactory

LIMIT = 20.0  # seconds after which a wait has failed
PRINCIPAL = "host/localhost"
CODE = remctl.RemctlErrorCode

Call = Callable[..., remctl.RemctlError]


def fail(port: int, **keywords: Any) -> remctl.RemctlError:
    given = {"host": "localhost", "command": ["test", "echo"], "timeout": LIMIT, **keywords}
    with pytest.raises(remctl.RemctlError) as caught:
        remctl.remctl(port=port, **given)
    return caught.value


def fail_async(port: int, **keywords: Any) -> remctl.RemctlError:
    given = {"host": "localhost", "command": ["test", "echo"], "timeout": LIMIT, **keywords}
    with pytest.raises(remctl.RemctlError) as caught:
        asyncio.run(aremctl(port=port, **given))
    return caught.value


calls = pytest.mark.parametrize("call", [fail, fail_async])


# -- Nothing was sent -----------------------------------------------------------------------------


@calls
def test_an_unknown_host(call: Call) -> None:
    assert call(1, host="no-such-host.invalid.").may_have_run is False


@calls
def test_a_port_where_nobody_listens(call: Call) -> None:
    with refused_port() as port:
        assert call(port, host="127.0.0.1").may_have_run is False


@calls
def test_a_timeout_while_connecting(call: Call) -> None:
    with DeafListener() as deaf:
        assert call(deaf.port, host=deaf.host, timeout=0.3).may_have_run is False


@calls
@pytest.mark.usefixtures("remctl_realm")
def test_a_timeout_while_authenticating(call: Call) -> None:
    with SilentServer() as silent:
        assert call(silent.port, timeout=0.3).may_have_run is False


@calls
def test_authentication_that_fails(remctl_server: RemctldServer, call: Call) -> None:
    error = call(remctl_server.port, principal="host/nobody")
    assert type(error) is remctl.RemctlAuthenticationError
    assert error.may_have_run is False
    assert call(remctl_server.port, ccache="FILE:/nonexistent").may_have_run is False


def hang_up(peer: Peer) -> None:
    peer.read_hello()
    peer.read_token()


@calls
def test_a_server_that_hangs_up_while_authenticating(remctl_realm: Realm, call: Call) -> None:
    with FakeServer(remctl_realm.keytab, hang_up) as server:
        assert call(server.port).may_have_run is False


def test_a_session_that_cannot_take_a_command(remctl_server: RemctldServer) -> None:
    with pytest.raises(remctl.RemctlNotOpenedError) as unopened:
        remctl.Remctl().run(["x"])
    assert unopened.value.may_have_run is False
    with remctl.Remctl("localhost", remctl_server.port) as session:
        session.command(["test", "echo"])
        with pytest.raises(remctl.RemctlBusyError) as busy:
            session.command(["test", "echo"])
        assert busy.value.may_have_run is False


def test_a_connection_that_had_ended_and_cannot_be_opened_again(remctl_realm: Realm) -> None:
    def end_after_opening(peer: Peer) -> None:
        peer.accept()

    script = in_turn(end_after_opening, hang_up)
    with (
        FakeServer(remctl_realm.keytab, script) as server,
        remctl.Remctl("localhost", server.port, timeout=LIMIT) as session,
    ):
        await_data(session)
        with pytest.raises(remctl.RemctlAuthenticationError) as caught:
            session.run(["x"])
    assert caught.value.may_have_run is False


# -- The server refused ---------------------------------------------------------------------------


@calls
def test_what_remctld_refuses(remctld: ServerFactory, call: Call) -> None:
    server = remctld(
        [
            Command("test", "x", script="echo hello"),
            Command("secret", "x", script="echo hello", acl="princ:nobody@NOWHERE"),
        ]
    )
    for command, code in (
        (["none"], CODE.UNKNOWN_COMMAND),
        (["secret", "x"], CODE.ACCESS),
        (["test", "x", "a\0"], CODE.BAD_COMMAND),
    ):
        error = call(server.port, command=command)
        assert isinstance(error, remctl.RemctlServerError)
        assert error.code == code
        assert error.may_have_run is False, command


@calls
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (CODE.BAD_TOKEN, False),
        (CODE.UNKNOWN_MESSAGE, False),
        (CODE.BAD_COMMAND, False),
        (CODE.UNKNOWN_COMMAND, False),
        (CODE.ACCESS, False),
        (CODE.TOOMANY_ARGS, False),
        (CODE.TOOMUCH_DATA, False),
        (CODE.UNEXPECTED_MESSAGE, False),
        (CODE.NO_HELP, False),
        (CODE.INTERNAL, True),  # remctld could not run it, or ran it and lost it
        (99, True),  # nobody knows
    ],
)
def test_codes_of_a_server(remctl_realm: Realm, call: Call, code: int, expected: bool) -> None:
    def refuse(command: list[bytes]) -> tuple[bytes, bytes, int]:
        raise Refusal(code, "no")

    with FakeServer(remctl_realm.keytab, serve(handler=refuse)) as server:
        assert call(server.port).may_have_run is expected


@calls
def test_a_refusal_after_output(remctl_realm: Realm, call: Call) -> None:
    def refuse(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        peer.send_output(b"so far")
        peer.send_error(CODE.ACCESS, b"no")

    with FakeServer(remctl_realm.keytab, refuse) as server:
        assert call(server.port).may_have_run is True


# -- It was sent ----------------------------------------------------------------------------------


def end_in_the_middle(peer: Peer) -> None:
    peer.accept()
    peer.read_command()
    peer.send_output(b"so far")


def garble(peer: Peer) -> None:
    peer.accept()
    peer.read_command()
    peer.send_message(b"\2\x63")
    serve_on(peer)


@calls
def test_a_timeout_while_waiting_for_output(remctl_realm: Realm, call: Call) -> None:
    with FakeServer(remctl_realm.keytab, stall_after_output) as server:
        error = call(server.port, timeout=0.3)
    assert type(error) is remctl.RemctlTimeoutError
    assert error.may_have_run is True


@calls
@pytest.mark.parametrize("script", [end_in_the_middle, garble])
def test_a_connection_that_is_lost_in_the_middle(
    remctl_realm: Realm, call: Call, script: Callable[[Peer], None]
) -> None:
    with FakeServer(remctl_realm.keytab, script) as server:
        assert call(server.port).may_have_run is True


def test_a_status(remctl_server: RemctldServer) -> None:
    result = remctl.remctl("localhost", remctl_server.port, command=["test", "status", "3"])
    assert result.ok is False
    with pytest.raises(remctl.RemctlStatusError) as caught:
        result.check()
    assert caught.value.may_have_run is True


# -- advice, ok -----------------------------------------------------------------------------------


def test_advice_is_the_hint_as_text(remctl_server: RemctldServer) -> None:
    with refused_port() as port:
        error = fail(port)
    assert f"nothing listens on port {port} of localhost" in error.advice
    assert error.advice in "\n".join(error.__notes__)
    assert fail(remctl_server.port, command=["none"]).advice == ""
    for kind in (remctl.RemctlError, remctl.RemctlServerError, remctl.RemctlStatusError):
        assert kind("text").advice == ""


def test_they_survive_pickling(remctl_realm: Realm) -> None:
    with refused_port() as port:
        refused = fail(port)
    with FakeServer(remctl_realm.keytab, end_in_the_middle) as server:
        lost = fail(server.port)
    for error in (refused, lost):
        copy = pickle.loads(pickle.dumps(error))
        assert (copy.may_have_run, copy.advice) == (error.may_have_run, error.advice)
    assert lost.advice


@pytest.mark.parametrize(("status", "ok"), [(0, True), (1, False), (255, False), (None, False)])
def test_ok(status: int | None, ok: bool) -> None:
    assert remctl.RemctlSimpleResult(status=status).ok is ok


def test_ok_of_a_command(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab, serve(handler=echo)) as server:
        assert remctl.remctl("localhost", server.port, command=["x"]).ok is True
