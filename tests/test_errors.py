"""The tree of exceptions: which situation raises what, what it says and carries, and that it
survives pickling and copying."""

from __future__ import annotations

import copy
import pickle
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support import wire
from support.fakeserver import FakeServer, Peer, Refusal, in_turn, serve
from support.preload import preloaded
from support.proxy import TO_CLIENT, DeafListener, Proxy, refused_port
from support.subprocesses import in_child
from support.waiting import PATIENCE
from support.wire import Flag

import remctl
from remctl_toolkit.testing import Command

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm, RemctldServer
    from remctl_toolkit.testing.plugin import ServerFactory

Classes = dict[str, type[remctl.RemctlError]]

CLASSES: Classes = {
    name: getattr(remctl, name)
    for name in remctl.__all__
    if isinstance(getattr(remctl, name), type) and issubclass(getattr(remctl, name), Exception)
}
CODE = remctl.RemctlErrorCode


def fails(port: int, **keywords: Any) -> remctl.RemctlError:
    """The exception of a simple call, which is the session's too."""
    given = {"host": "localhost", "port": port, "command": ["test", "x"], "timeout": 20}
    call = {**given, **keywords}
    with pytest.raises(remctl.RemctlProtocolError) as caught:
        remctl.remctl(**call)
    error = caught.value
    assert error.value == str(error) == error.args[0]
    assert (error.host, error.port) == (call["host"], call["port"] or None)
    return error


# The tree


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    found = {}
    above: list[tuple[int, str]] = []
    for line in (remctl.__doc__ or "").splitlines():
        match = re.match(r"    ( *)(?:\+-- )?(Remctl\w*Error) {2,}\w", line)
        if match is None:
            continue
        depth, name = len(match[1]), match[2]
        above = [each for each in above if each[0] < depth]
        found[name] = above[-1][1] if above else "Exception"
        above.append((depth, name))
    assert found == {name: kind.__mro__[1].__name__ for name, kind in CLASSES.items()}


def test_what_the_contract_names_is_what_the_others_derive_from() -> None:
    assert issubclass(remctl.RemctlProtocolError, remctl.RemctlError)
    assert issubclass(remctl.RemctlNotOpenedError, remctl.RemctlError)
    assert issubclass(remctl.RemctlTimeoutError, TimeoutError)
    for name, kind in CLASSES.items():
        assert issubclass(kind, remctl.RemctlError)
        assert kind.__doc__, name
        assert kind.__module__ == "remctl"


# No connection


def test_a_port_where_nobody_listens() -> None:
    with refused_port() as port:
        error = fails(port, host="127.0.0.1")
    assert type(error) is remctl.RemctlConnectError
    assert str(error) == f"cannot connect to 127.0.0.1 (port {port}): Connection refused"
    assert error.errno == 111


def test_a_host_that_nobody_knows() -> None:
    error = fails(1, host="no-such-host.invalid")
    assert type(error) is remctl.RemctlConnectError
    assert re.match(r"unknown host no-such-host\.invalid: \w", str(error))
    error = fails(0, host="x" * 70 + ".invalid")
    assert type(error) is remctl.RemctlConnectError
    assert str(error).startswith(f"unknown host {'x' * 70}.invalid: ")


def test_a_host_that_does_not_answer() -> None:
    with DeafListener() as deaf:
        error = fails(deaf.port, host=deaf.host, timeout=0.2)
    assert type(error) is remctl.RemctlTimeoutError
    assert isinstance(error, TimeoutError)
    assert str(error) == (f"cannot connect to {deaf.host} (port {deaf.port}): Connection timed out")


def call_with_timeout(port: int, timeout: float) -> float:
    """Return the seconds that a successful call takes."""
    start = time.monotonic()
    assert remctl.remctl("127.0.0.1", port, "host/localhost", ["test"], timeout=timeout).status == 0
    return time.monotonic() - start


def test_a_host_that_has_answered_is_no_timeout_however_late_that_is_seen(
    remctl_realm: Realm, tmp_path: Path
) -> None:
    timeout = 1.0 * PATIENCE
    delay = str(round(1500 * timeout))
    with FakeServer(remctl_realm.keytab) as server, preloaded("late", tmp_path, FAKE_DELAY=delay):
        assert in_child(call_with_timeout, server.port, timeout) > timeout


def test_no_session_is_open() -> None:
    with pytest.raises(remctl.RemctlNotOpenedError, match=r"^no currently open connection$"):
        remctl.Remctl().command(["test"])


# No authentication


def test_no_ticket(remctl_server: RemctldServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRB5CCNAME", "FILE:/nonexistent/ccache")
    error = fails(remctl_server.port)
    assert type(error) is remctl.RemctlAuthenticationError
    assert str(error).startswith("GSS-API error initializing context: ")
    assert "/nonexistent/ccache" in str(error)


def test_a_credential_cache_that_is_missing(remctl_server: RemctldServer) -> None:
    error = fails(remctl_server.port, ccache="FILE:/nonexistent/ccache")
    assert type(error) is remctl.RemctlAuthenticationError
    assert "No credentials cache found" in str(error) or "/nonexistent/ccache" in str(error)


def test_a_ticket_that_has_expired(remctl_realm: Realm, remctl_server: RemctldServer) -> None:
    cache = remctl_realm.kinit(ccache=remctl_realm.new_ccache())
    file = Path(cache.removeprefix("FILE:"))
    file.write_bytes(expired(file.read_bytes()))
    error = fails(remctl_server.port, ccache=cache)
    assert type(error) is remctl.RemctlAuthenticationError
    assert re.search("expired", str(error), re.IGNORECASE)


def expired(cache: bytes) -> bytes:
    """A credential cache with the ticket's times moved back to 2001.

    In the file they are four numbers: authtime, starttime, endtime and renew_till (0 here).
    """
    pattern = re.compile(rb"([\x60-\x7f]...)\1([\x60-\x7f]...)\0\0\0\0", re.DOTALL)
    times = (10**9).to_bytes(4, "big") * 2 + (10**9 + 3600).to_bytes(4, "big") + bytes(4)
    moved, count = pattern.subn(times, cache)
    assert count >= 1
    return moved


@pytest.mark.parametrize("principal", ["host/unknown", "host/localhost@ELSEWHERE.TEST", "user"])
def test_a_principal_that_is_not_the_servers(remctl_server: RemctldServer, principal: str) -> None:
    error = fails(remctl_server.port, principal=principal)
    assert type(error) is remctl.RemctlAuthenticationError
    assert str(error)


def test_a_server_that_does_not_accept_the_client(remctl_realm: Realm) -> None:
    def hang_up(peer: Peer) -> None:
        peer.read_hello()
        peer.read_token()

    with FakeServer(remctl_realm.keytab, hang_up) as server:
        error = fails(server.port)
    assert type(error) is remctl.RemctlAuthenticationError
    assert str(error) == "error receiving token: unexpected end of file"


# Refused


@pytest.fixture
def refusing(remctld: ServerFactory) -> RemctldServer:
    return remctld(
        [
            Command("test", "x", script="echo hello"),
            Command("secret", "x", script="echo hello", acl="princ:nobody@NOWHERE"),
            Command("broken", "x", program="/nonexistent/program"),
        ]
    )


def test_refusals_of_a_real_server_have_its_codes(refusing: RemctldServer) -> None:
    found = []
    for command in (["none"], ["test", "none"], ["secret", "x"], ["test", "x", "a\0"]):
        error = fails(refusing.port, command=command)
        assert type(error) is remctl.RemctlServerError
        assert type(error.code) is remctl.RemctlErrorCode
        found.append((error.code, str(error)))
    assert found == [
        (CODE.UNKNOWN_COMMAND, "Unknown command"),
        (CODE.UNKNOWN_COMMAND, "Unknown command"),
        (CODE.ACCESS, "Access denied"),
        (CODE.BAD_COMMAND, "Invalid command token"),
    ]


@pytest.mark.parametrize("code", [*range(1, 11), 0, 11, 2**32 - 1])
def test_every_code_arrives(remctl_realm: Realm, code: int) -> None:
    def refuse(command: list[bytes]) -> tuple[bytes, bytes, int]:
        raise Refusal(code, "too many arguments: grün")

    with FakeServer(remctl_realm.keytab, serve(handler=refuse)) as server:
        error = fails(server.port)
    assert isinstance(error, remctl.RemctlServerError)
    assert error.code == code
    assert isinstance(error.code, remctl.RemctlErrorCode) == (1 <= code <= 10)
    assert str(error) == "too many arguments: grün"


def test_a_refusal_need_not_be_text(remctl_realm: Realm) -> None:
    def refuse(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        peer.send_output(b"so far")
        peer.send_error(1, b"\xff\0")

    with FakeServer(remctl_realm.keytab, refuse) as server:
        error = fails(server.port)
    assert type(error) is remctl.RemctlServerError
    assert str(error) == r"\xff\x00"
    assert error.partial == remctl.RemctlSimpleResult(b"so far", None, None)


# Cut off


@pytest.mark.parametrize("end", [Peer.close, Peer.reset], ids=["close", "reset"])
def test_a_connection_that_ends_in_the_middle(
    remctl_realm: Realm, end: Callable[[Peer], None]
) -> None:
    def leave(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        if end is Peer.close:  # RST would take it along.
            peer.send_output(b"so far")
        end(peer)

    with FakeServer(remctl_realm.keytab, leave) as server:
        error = fails(server.port)
    assert type(error) is remctl.RemctlDisconnectedError
    assert str(error) == "error receiving token: unexpected end of file"
    got = b"so far" if end is Peer.close else None
    assert error.partial == remctl.RemctlSimpleResult(got, None, None)


def test_a_connection_that_ends_inside_a_token(remctl_server: RemctldServer) -> None:
    with (
        Proxy("127.0.0.1", remctl_server.port) as proxy,
        remctl.Remctl("localhost", proxy.port, timeout=20) as session,
    ):
        proxy.close(TO_CLIENT, after=proxy.forwarded(TO_CLIENT) + 7)
        with pytest.raises(remctl.RemctlDisconnectedError, match="unexpected end of file"):
            session.run(["test", "echo", "hello"])


# Unusable answers

OTHER = Flag.DATA | Flag.PROTOCOL


def garbled(token: bytes) -> bytes:
    """A token whose last octet is another one."""
    return token[:-1] + bytes([token[-1] ^ 1])


ANSWERS: dict[str, tuple[Callable[[Peer], None], str]] = {
    "unknown message": (lambda p: p.send_message(b"\2\x63"), "unknown message type 99 from server"),
    "command": (lambda p: p.send_message(b"\2\1\1\0" + bytes(4)), "unknown message type 1 "),
    "noop unasked": (lambda p: p.send_noop(), "unknown message type 7 from server"),
    "version unasked": (lambda p: p.send_version(2), "unknown message type 6 from server"),
    "stream 3": (lambda p: p.send_message(wire.pack_output(b"x", 3)), "unexpected stream"),
    "stream 0": (lambda p: p.send_message(wire.pack_output(b"x", 0)), "unexpected stream"),
    "length too long": (
        lambda p: p.send_message(b"\2\3\1\0\0\0\7abc"),
        "malformed result token from server",
    ),
    "length too short": (
        lambda p: p.send_message(b"\2\3\1\0\0\0\1abc"),
        "malformed result token from server",
    ),
    "output cut": (lambda p: p.send_message(b"\2\3\1"), "malformed result token from server"),
    "status cut": (lambda p: p.send_message(b"\2\4"), "malformed result token from server"),
    "error cut": (lambda p: p.send_message(b"\2\5\0\0"), "malformed result token from server"),
    "empty message": (lambda p: p.send_message(b""), "malformed result token from server"),
    "protocol 9": (lambda p: p.send_message(b"\x09\4\0"), "unexpected protocol 9 from server"),
    "wrong flags": (lambda p: p.send_message(b"\2\4\0", flags=Flag.MIC), "unexpected token"),
    "too large": (
        lambda p: p.send_token(OTHER, b"", wire.MAX_TOKEN + 1),
        "error receiving token: token too larger",
    ),
    "largest number": (
        lambda p: p.send_token(OTHER, b"", 2**32 - 1),
        "error receiving token: token too larger",
    ),
    "not wrapped": (lambda p: p.send_token(OTHER, b"\2\4\0"), "GSS-API error receiving token: "),
    "garbled": (
        lambda p: p.send_token(OTHER, garbled(p.wrap(b"\2\4\0"))),
        "GSS-API error receiving token: ",
    ),
    "not remctl": (lambda p: p.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "token too larger"),
}


@pytest.fixture
def answering(remctl_realm: Realm, request: pytest.FixtureRequest) -> Iterator[FakeServer]:
    """A server that gives one of ANSWERS to its first client, and is sane to the next."""
    answer, _ = ANSWERS[request.param]

    def script(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        answer(peer)
        peer.stall()

    with FakeServer(remctl_realm.keytab, in_turn(script, serve())) as server:
        yield server


@pytest.mark.parametrize("answering", ANSWERS, indirect=True)
def test_an_answer_that_makes_no_sense_ends_the_connection_only(
    answering: FakeServer, request: pytest.FixtureRequest
) -> None:
    _, text = ANSWERS[request.node.callspec.params["answering"]]
    with remctl.Remctl("localhost", answering.port, timeout=20) as session:
        with pytest.raises(remctl.RemctlAnswerError) as caught:
            session.run(["first", "x"])
        assert text in str(caught.value)
        assert caught.value.partial == remctl.RemctlSimpleResult()
        assert session.run(["next", "x"]).stdout == b"next x\n"
        assert (session.opened, answering.connections) == (True, 2)


def test_an_answer_that_is_no_negotiation(remctl_realm: Realm) -> None:
    def talk_http(peer: Peer) -> None:
        peer.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        peer.stall()

    with FakeServer(remctl_realm.keytab, talk_http) as server:
        error = fails(server.port)
    assert isinstance(error, remctl.RemctlAuthenticationError | remctl.RemctlAnswerError)
    assert "token too larger" in str(error)


@pytest.mark.parametrize("late", [wire.pack_output(b"late"), wire.pack_status(9)], ids=len)
def test_what_comes_after_the_end_is_not_taken_for_the_next_answer(
    remctl_realm: Realm, late: bytes
) -> None:
    def say_too_much(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        peer.send_raw(
            wire.pack_token(OTHER, peer.wrap(wire.pack_status(1)))
            + wire.pack_token(OTHER, peer.wrap(late))
        )
        peer.stall()

    with FakeServer(remctl_realm.keytab, in_turn(say_too_much, serve())) as server:
        with remctl.Remctl("localhost", server.port, timeout=20) as session:
            assert session.run(["first"]) == remctl.RemctlSimpleResult(None, None, 1)
            assert session.output().type == "done"
            assert session.run(["next"]) == remctl.RemctlSimpleResult(b"next\n", None, 0)
        assert server.commands == [[b"first"], [b"next"]]


def test_noop_does_not_take_unasked_data_for_its_answer(remctl_realm: Realm) -> None:
    def say_too_much(peer: Peer) -> None:
        peer.accept()
        peer.send_output(b"nobody asked")
        peer.stall()

    with (
        FakeServer(remctl_realm.keytab, say_too_much) as server,
        remctl.Remctl("localhost", server.port, timeout=20) as session,
    ):
        await_data(session.fileno())
        with pytest.raises(remctl.RemctlDisconnectedError, match="unexpected data"):
            session.noop()


def await_data(descriptor: int) -> None:
    with socket.socket(fileno=socket.dup(descriptor)) as copy_of_it:
        copy_of_it.recv(1, socket.MSG_PEEK)


# Whole through pickle and copy


def full(kind: type[remctl.RemctlError]) -> remctl.RemctlError:
    """An exception of this class with every attribute set that it or its bases are said to have."""
    error = kind("what went wrong")
    error.host = "server.example"
    error.port = 4373
    error.partial = remctl.RemctlSimpleResult(b"half", None, None)
    if isinstance(error, remctl.RemctlProtocolError):
        error.errno = 111
    if isinstance(error, remctl.RemctlServerError):
        error.code = CODE.ACCESS
    if isinstance(error, remctl.RemctlStatusError):
        error.result = remctl.RemctlSimpleResult(b"out", b"err", 3)
    error.add_note("seen by a test")
    return error


def attributes(error: remctl.RemctlError) -> dict[str, object]:
    """Everything that the class and its bases document, and what was set besides."""
    names = {name for kind in type(error).__mro__ for name in vars(kind).get("__annotations__", ())}
    return {name: getattr(error, name) for name in {*names, *vars(error), "value", "args"}}


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_exceptions_survive_pickling_and_copying_whole(name: str) -> None:
    error = full(CLASSES[name])
    wanted = attributes(error)
    assert {"host", "port", "partial", "__notes__"} <= wanted.keys()
    copies = [copy.copy(error), copy.deepcopy(error)]
    copies += [pickle.loads(pickle.dumps(error, version)) for version in range(6)]
    for each in copies:
        assert type(each) is type(error)
        assert str(each) == str(error)
        assert repr(each) == repr(error)
        assert attributes(each) == wanted


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_an_exception_can_be_made_of_a_text_alone(name: str) -> None:
    error = CLASSES[name]("text")
    assert (str(error), error.value, error.args) == ("text", "text", ("text",))
    assert all(value is not NotImplemented for value in attributes(error).values())
