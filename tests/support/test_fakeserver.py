"""The fake server against clients that its authors did not write: Debian's, in C and in Python."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gssapi
import pytest

from support import wire
from support.fakeserver import (
    ClientQuit,
    Command,
    FakeServer,
    Peer,
    Refusal,
    Script,
    in_turn,
    serve,
)
from support.waiting import eventually, nothing_left_behind
from support.wire import Flag, Message, ProtocolError

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

REMCTL = shutil.which("remctl") or ""
SYSTEM_PYTHON = "/usr/bin/python3"
SYSTEM_BINDING = "/usr/lib/python3/dist-packages/remctl.py"

needs_remctl = pytest.mark.skipif(not REMCTL, reason="Debian's remctl-client is not installed")
needs_binding = pytest.mark.skipif(
    not os.path.exists(SYSTEM_BINDING), reason="Debian's python3-pyremctl is not installed"
)

CLIENT = """
import json, sys, remctl
r = remctl.Remctl()
r.set_timeout(20)
r.open("localhost", int(sys.argv[1]), sys.argv[2])
def tokens():
    while True:
        kind, data, stream, status, error = r.output()
        yield kind, len(data or b""), stream, status, error
        if kind in ("status", "error"):
            return
"""


def run_remctl(realm: Realm, port: int, *command: str) -> subprocess.CompletedProcess[bytes]:
    """Run the C client."""
    return subprocess.run(
        [REMCTL, "-p", str(port), "-s", realm.host_principal, "localhost", *command],
        env={**os.environ, **realm.env},
        capture_output=True,
        timeout=30,
    )


def run_binding(realm: Realm, port: int, code: str) -> Any:
    """Run code with an open `r` under the system's Python; return what it assigns to `answer`."""
    done = subprocess.run(
        [
            SYSTEM_PYTHON,
            *("-I", "-c", f"{CLIENT}\n{code}\nprint(json.dumps(answer))"),
            *(str(port), realm.host_principal),
        ],
        env={**os.environ, **realm.env},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def connect(server: FakeServer) -> socket.socket:
    """Make a TCP connection and say nothing."""
    return socket.create_connection(server.address, 10)


class RawClient:
    """A client that sends exactly what a test wants; a context manager."""

    def __init__(self, realm: Realm, port: int, *, protocol: int = 3) -> None:
        self.flag = Flag.PROTOCOL if protocol > 1 else Flag(0)
        self.socket = socket.create_connection(("127.0.0.1", port), 20)
        self.context = gssapi.SecurityContext(
            name=gssapi.Name(realm.host_principal, gssapi.NameType.kerberos_principal),
            usage="initiate",
            flags=gssapi.RequirementFlag.mutual_authentication
            | gssapi.RequirementFlag.confidentiality
            | gssapi.RequirementFlag.integrity,
        )

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def open(self) -> None:
        self.send(Flag.NOOP | Flag.CONTEXT_NEXT | self.flag, b"")
        token = self.context.step()
        while token:
            self.send(Flag.CONTEXT | self.flag, token)
            token = None if self.context.complete else self.context.step(self.receive()[1])

    def send(self, flags: int, payload: bytes) -> None:
        self.socket.sendall(wire.pack_token(flags, payload))

    def send_message(self, message: bytes) -> None:
        self.send(Flag.DATA | self.flag, self.context.wrap(message, True).message)

    def receive(self) -> tuple[int, bytes]:
        flags, length = wire.HEADER.unpack(self._receive(wire.HEADER.size))
        return flags, self._receive(length)

    def _receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += self.socket.recv(count - len(data)) or pytest.fail("end of file")
        return data

    def read_message(self) -> bytes:
        return self.context.unwrap(self.receive()[1]).message

    def at_end(self) -> bool:
        return self.socket.recv(1) == b""


def refuse(command: Command) -> tuple[bytes, bytes, int]:
    raise Refusal(wire.Error.UNKNOWN_COMMAND, "Unknown command")


def three_ways(command: Command) -> tuple[bytes, bytes, int]:
    return b"to stdout\n", b"to stderr\n", 7


# A server that behaves


@needs_remctl
@pytest.mark.parametrize("protocol", [1, 2, 3])
def test_echo(remctl_realm: Realm, protocol: int) -> None:
    with FakeServer(remctl_realm.keytab, protocol=protocol) as server:
        done = run_remctl(remctl_realm, server.port, "cmd", "sub", "", "an argument")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"cmd sub  an argument\n", b"")
    assert server.commands == [[b"cmd", b"sub", b"", b"an argument"]]
    assert server.connections == 1
    assert server.errors == []


@needs_remctl
@pytest.mark.parametrize("protocol", [2, 3])
def test_both_streams_and_the_status(remctl_realm: Realm, protocol: int) -> None:
    with FakeServer(remctl_realm.keytab, serve(protocol, three_ways)) as server:
        done = run_remctl(remctl_realm, server.port, "cmd")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"to stdout\n", b"to stderr\n")
    assert server.errors == []


@needs_remctl
def test_protocol_1_has_one_stream(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab, serve(1, three_ways)) as server:
        done = run_remctl(remctl_realm, server.port, "cmd")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"to stdout\nto stderr\n", b"")
    assert server.errors == []


@needs_remctl
@pytest.mark.parametrize("protocol", [2, 3])
def test_refusal(remctl_realm: Realm, protocol: int) -> None:
    with FakeServer(remctl_realm.keytab, serve(protocol, refuse)) as server:
        done = run_remctl(remctl_realm, server.port, "cmd")
    assert (done.returncode, done.stdout, done.stderr) == (255, b"", b"Unknown command\n")
    assert server.errors == []


@needs_remctl
def test_refusal_with_protocol_1(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab, serve(1, refuse)) as server:
        done = run_remctl(remctl_realm, server.port, "cmd")
    assert (done.returncode, done.stdout, done.stderr) == (255, b"Unknown command\n", b"")
    assert server.errors == []


@needs_binding
def test_error_code(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab, serve(3, refuse)) as server:
        answer = run_binding(
            remctl_realm, server.port, "r.command(['cmd']); answer = list(tokens())"
        )
    assert [(kind, size, error) for kind, size, _, _, error in answer] == [("error", 15, 5)]


@needs_binding
@pytest.mark.parametrize("protocol", [2, 3])
def test_several_commands_on_one_connection(remctl_realm: Realm, protocol: int) -> None:
    code = "answer = [(r.command(['c', str(i)]), list(tokens()))[1] for i in range(3)]; r.close()"
    with FakeServer(remctl_realm.keytab, protocol=protocol) as server:
        answer = run_binding(remctl_realm, server.port, code)
        eventually(lambda: server.messages[-1:] == [Message.QUIT])
    assert [[token[0] for token in each] for each in answer] == [["output", "status"]] * 3
    assert server.commands == [[b"c", b"0"], [b"c", b"1"], [b"c", b"2"]]
    assert server.messages == [Message.COMMAND] * 3 + [Message.QUIT]
    assert server.connections == 1
    assert server.errors == []


@needs_binding
@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        (1, "NOOP message not supported"),
        (2, "unexpected message type 6 from server"),
        (3, None),
    ],
)
def test_noop(remctl_realm: Realm, protocol: int, expected: str | None) -> None:
    code = """
try:
    r.noop()
    answer = None
except remctl.RemctlError as error:
    answer = str(error)
"""
    with FakeServer(remctl_realm.keytab, protocol=protocol) as server:
        assert run_binding(remctl_realm, server.port, code) == expected
    assert server.errors == []


@needs_binding
def test_large_output_takes_several_tokens(remctl_realm: Realm) -> None:
    def handler(command: Command) -> tuple[bytes, bytes, int]:
        return b"o" * 200_000, b"e" * 70_000, 0

    with FakeServer(remctl_realm.keytab, serve(handler=handler)) as server:
        answer = run_binding(
            remctl_realm, server.port, "r.command(['cmd']); answer = list(tokens())"
        )
    full = wire.MAX_OUTPUT
    sizes = [(size, stream) for kind, size, stream, _, _ in answer if kind == "output"]
    assert sizes[:4] == [(full, 1), (full, 1), (full, 1), (200_000 - 3 * full, 1)]
    assert sizes[4:] == [(full, 2), (70_000 - full, 2)]
    assert server.errors == []


@needs_binding
def test_large_command_takes_several_tokens(remctl_realm: Realm) -> None:
    code = "r.command([b'cmd', b'x' * 200000, b'', b'y' * 65536]); answer = list(tokens())"
    with FakeServer(remctl_realm.keytab, serve(handler=three_ways)) as server:
        run_binding(remctl_realm, server.port, code)
    assert server.commands == [[b"cmd", b"x" * 200_000, b"", b"y" * 65536]]
    assert server.messages[:5] == [Message.COMMAND] * 5
    assert server.errors == []


@needs_remctl
def test_command_of_nearly_64_kib_with_protocol_1(remctl_realm: Realm) -> None:
    argument = "z" * (wire.MAX_DATA - 4 - 4 - 3 - 4)
    with FakeServer(remctl_realm.keytab, serve(1, three_ways)) as server:
        assert run_remctl(remctl_realm, server.port, "cmd", argument).returncode == 7
    assert server.commands == [[b"cmd", argument.encode()]]


@needs_remctl
def test_client_principal(remctl_realm: Realm) -> None:
    seen = []

    def script(peer: Peer) -> None:
        peer.accept()
        seen.append(peer.client_principal)
        peer.read_command()
        peer.send_status(0)

    with FakeServer(remctl_realm.keytab, script) as server:
        assert run_remctl(remctl_realm, server.port, "cmd").returncode == 0
    assert seen == [remctl_realm.user]


@needs_remctl
def test_many_clients_at_once(remctl_realm: Realm) -> None:
    together = threading.Barrier(4, timeout=20)

    def handler(command: Command) -> tuple[bytes, bytes, int]:
        together.wait()
        return command[1], b"", 0

    with FakeServer(remctl_realm.keytab, serve(handler=handler)) as server:
        clients = [
            threading.Thread(target=run_remctl, args=(remctl_realm, server.port, "cmd", str(i)))
            for i in range(4)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join(30)
    assert sorted(server.commands) == [[b"cmd", str(i).encode()] for i in range(4)]
    assert server.errors == []


# A server that does not


def after_command(step: str, *arguments: Any, **options: Any) -> Script:
    """Make a script that takes one step after a command and then waits."""

    def script(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        getattr(peer, step)(*arguments, **options)
        if peer.connection.fileno() >= 0:
            peer.stall()

    return script


@needs_remctl
@pytest.mark.parametrize(
    ("script", "message"),
    [
        (after_command("close"), b"unexpected end of file"),
        (after_command("reset"), b"unexpected end of file"),
        (after_command("send_raw", b"\x44\x00\x20\x00\x00"), b"token too large"),
        (after_command("send_token", Flag.DATA | Flag.PROTOCOL, b"garbage"), b"GSS-API"),
        (after_command("send_message", b"\x02\x04\x00", flags=Flag.DATA), b"unexpected token"),
        (after_command("send_message", b"\x02"), b"malformed result token"),
        (after_command("send_message", b"\x09\x04\x00"), b"unexpected protocol 9"),
        (after_command("send_message", b"\x02\x63"), b"unknown message type 99"),
        (after_command("send_message", wire.pack_output(b"")[:-1]), b"malformed result token"),
        (after_command("send_output", b"data", stream=3), b"unexpected stream"),
        (after_command("send_version", 2), b"unknown message type 6"),
        (after_command("send_noop"), b"unknown message type 7"),
    ],
)
def test_client_rejects(remctl_realm: Realm, script: Script, message: bytes) -> None:
    with FakeServer(remctl_realm.keytab, script) as server:
        done = run_remctl(remctl_realm, server.port, "cmd")
    assert done.returncode != 0
    assert message in done.stderr
    assert server.errors == []


@needs_remctl
def test_token_that_promises_more_than_comes(remctl_realm: Realm) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        peer.send_token(Flag.DATA | Flag.PROTOCOL, b"short", length=1000)

    with FakeServer(remctl_realm.keytab, script) as server:
        done = run_remctl(remctl_realm, server.port, "cmd")
    assert b"unexpected end of file" in done.stderr


@needs_remctl
def test_garbage_instead_of_a_context(remctl_realm: Realm) -> None:
    def script(peer: Peer) -> None:
        peer.read_hello()
        peer.read_token()
        peer.send_token(Flag.CONTEXT | Flag.PROTOCOL, b"garbage")
        peer.stall()

    with FakeServer(remctl_realm.keytab, script) as server:
        done = run_remctl(remctl_realm, server.port, "cmd")
    assert b"initializing context" in done.stderr
    assert server.errors == []


@needs_remctl
@pytest.mark.parametrize("ask_mic", [False, True])
def test_protocol_1_result_with_and_without_a_mic(remctl_realm: Realm, ask_mic: bool) -> None:
    def script(peer: Peer) -> None:
        peer.accept(1)
        peer.read_command()
        peer.send_v1_result(b"data", 3, ask_mic=ask_mic)

    with FakeServer(remctl_realm.keytab, script) as server:
        done = run_remctl(remctl_realm, server.port, "cmd")
    assert (done.returncode, done.stdout) == (3, b"data")
    assert server.errors == []


@needs_remctl
def test_wrong_mic(remctl_realm: Realm) -> None:
    def script(peer: Peer) -> None:
        peer.accept(1)
        peer.read_message()
        peer.send_mic(b"some other message")
        peer.stall()

    with FakeServer(remctl_realm.keytab, script) as server:
        done = run_remctl(remctl_realm, server.port, "cmd")
    assert b"GSS-API" in done.stderr
    assert server.errors == []


@needs_remctl
@pytest.mark.parametrize("reading", [True, False])
def test_stall_lasts_until_the_server_stops(remctl_realm: Realm, reading: bool) -> None:
    with FakeServer(remctl_realm.keytab, after_command("stall", reading=reading)) as server:
        client = subprocess.Popen(
            [REMCTL, "-p", str(server.port), "-s", remctl_realm.host_principal, "localhost", "c"],
            env={**os.environ, **remctl_realm.env},
            stderr=subprocess.PIPE,
        )
        eventually(lambda: server.commands)
        assert client.poll() is None
    assert b"unexpected end of file" in client.communicate(timeout=20)[1]
    assert server.errors == []


@pytest.mark.parametrize("reading", [True, False])
def test_stall_lasts_until_the_client_goes(remctl_realm: Realm, reading: bool) -> None:
    ended = threading.Event()

    def script(peer: Peer) -> None:
        peer.stall(reading=reading)
        ended.set()

    with FakeServer(remctl_realm.keytab, script) as server:
        with connect(server):
            assert not ended.wait(0.05)
        assert ended.wait(10)
    assert server.errors == []


@needs_binding
def test_in_turn(remctl_realm: Realm) -> None:
    """The binding opens a new connection when the first one has timed out."""
    code = """
answer = []
r.set_timeout(1)
r.command(['a'])
try:
    r.output()
except remctl.RemctlError as error:
    answer.append(str(error))
r.open("localhost", int(sys.argv[1]), sys.argv[2])
r.command(['b'])
answer += [token[0] for token in tokens()]
"""
    with FakeServer(remctl_realm.keytab, in_turn(after_command("stall"), serve())) as server:
        answer = run_binding(remctl_realm, server.port, code)
    assert answer == ["error receiving token: timed out", "output", "status"]
    assert server.connections == 2
    assert server.commands == [[b"a"], [b"b"]]


# What the server sees and keeps


@pytest.mark.parametrize(
    "hello",
    [
        wire.pack_token(Flag.DATA, b""),
        wire.pack_token(Flag.NOOP | Flag.CONTEXT_NEXT, b""),
        wire.pack_token(Flag.NOOP | Flag.CONTEXT_NEXT | Flag.PROTOCOL, b"x"),
        b"\x51\xff\xff\xff\xff",
    ],
)
def test_bad_hello_is_an_error(remctl_realm: Realm, hello: bytes) -> None:
    with FakeServer(remctl_realm.keytab) as server, connect(server) as client:
        client.sendall(hello)
        assert client.recv(1) == b""
    assert [type(error) for error in server.errors] == [ProtocolError]


def test_client_that_goes_away_is_no_error(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab) as server:
        for _ in range(3):
            connect(server).close()
        eventually(lambda: server.connections == 3)
    assert server.errors == []


def test_exception_of_a_script_is_kept(remctl_realm: Realm) -> None:
    def script(peer: Peer) -> None:
        pytest.fail("on purpose")

    with FakeServer(remctl_realm.keytab, script) as server, connect(server) as client:
        assert client.recv(1) == b""
    assert [str(error) for error in server.errors] == ["on purpose"]


def test_steps_before_accept_are_an_error(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab, Peer.send_noop) as server, connect(server) as client:
        assert client.recv(1) == b""
    assert [str(error) for error in server.errors] == ["the script needs accept() first"]


def test_silent_client_is_an_error_after_the_timeout(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab, timeout=0.05) as server, connect(server) as client:
        assert client.recv(1) == b""
    assert [type(error) for error in server.errors] == [TimeoutError]


def test_bad_ticket_is_an_error(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab) as server, connect(server) as client:
        client.sendall(wire.pack_token(Flag.NOOP | Flag.CONTEXT_NEXT | Flag.PROTOCOL, b""))
        client.sendall(wire.pack_token(Flag.CONTEXT | Flag.PROTOCOL, b"no ticket"))
        client.recv(1)
        eventually(lambda: server.errors)
    assert isinstance(server.errors[0], gssapi.raw.GSSError)


def test_missing_keytab_fails_at_once(tmp_path: Path) -> None:
    with pytest.raises(gssapi.raw.GSSError):
        FakeServer(tmp_path / "missing.keytab")


def test_nothing_is_left_behind(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab):
        pass  # the first use may load libraries that keep something
    with nothing_left_behind():
        with FakeServer(remctl_realm.keytab) as server:
            clients = [connect(server) for _ in range(5)]
            eventually(lambda: server.connections == 5)
        for client in clients:
            client.close()
        server.stop()


def waiting_for(gate: threading.Event) -> Script:
    """Make a script that stop() cannot wake."""

    def script(peer: Peer) -> None:
        gate.wait(10)

    return script


def test_thread_that_will_not_end_is_told(
    remctl_realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("support.loopback.STOP_LIMIT", 0.05)
    gate = threading.Event()
    with FakeServer(remctl_realm.keytab, waiting_for(gate)) as server, connect(server):
        eventually(lambda: server.connections)
        with pytest.raises(RuntimeError, match="would not end: FakeServer-1"):
            server.stop()
        gate.set()


def test_failure_of_the_body_is_not_hidden(
    remctl_realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("support.loopback.STOP_LIMIT", 0.05)
    gate = threading.Event()
    server = FakeServer(remctl_realm.keytab, waiting_for(gate))

    def fail() -> None:
        with server, connect(server):
            eventually(lambda: server.connections)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    gate.set()


def test_ipv6(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab, Peer.close, host="::1") as server:
        assert server.address[0] == "::1"
        with connect(server) as client:
            assert client.recv(1) == b""


# Clients that no library would be


def command_message(status: int, data: bytes, *, keepalive: bool = True) -> bytes:
    return bytes([2, Message.COMMAND, keepalive, status]) + data


COMMAND_DATA = struct.pack(">II3sI4s", 2, 3, b"cmd", 4, b"\x00sub")


def test_command_cut_anywhere(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab) as server, RawClient(remctl_realm, server.port) as client:
        client.open()
        client.send_message(command_message(1, COMMAND_DATA[:2]))
        client.send_message(command_message(2, COMMAND_DATA[2:9]))
        client.send_message(command_message(3, COMMAND_DATA[9:], keepalive=False))
        assert client.read_message() == wire.pack_output(b"cmd \x00sub\n")
        assert client.read_message() == wire.pack_status(0)
        assert client.at_end()  # no keep-alive was asked for
    assert server.commands == [[b"cmd", b"\x00sub"]]
    assert server.errors == []


def test_quit_within_a_command_discards_it(remctl_realm: Realm) -> None:
    seen = []

    def script(peer: Peer) -> None:
        peer.accept()
        try:
            peer.read_command()
        except ClientQuit as error:
            seen.append(error)

    with (
        FakeServer(remctl_realm.keytab, script) as server,
        RawClient(remctl_realm, server.port) as client,
    ):
        client.open()
        client.send_message(command_message(1, COMMAND_DATA[:9]))
        client.send_message(bytes([2, Message.QUIT]))
        assert client.at_end()
    assert len(seen) == 1
    assert server.commands == []
    assert server.errors == []


@pytest.mark.parametrize(
    "messages",
    [
        [command_message(2, COMMAND_DATA)],
        [command_message(3, COMMAND_DATA)],
        [command_message(4, COMMAND_DATA)],
        [command_message(1, COMMAND_DATA), command_message(0, COMMAND_DATA)],
        [command_message(1, COMMAND_DATA), wire.pack_noop()],
        [command_message(0, COMMAND_DATA[:-1])],
        [command_message(0, COMMAND_DATA + b"x")],
        [command_message(0, COMMAND_DATA[:9])],
        [b"\x02"],
    ],
)
def test_invalid_command_is_an_error(remctl_realm: Realm, messages: list[bytes]) -> None:
    with FakeServer(remctl_realm.keytab) as server, RawClient(remctl_realm, server.port) as client:
        client.open()
        for message in messages:
            client.send_message(message)
        assert client.at_end()
    assert [type(error) for error in server.errors] == [ProtocolError]
    assert server.commands == []


def test_message_of_a_higher_protocol(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab) as server, RawClient(remctl_realm, server.port) as client:
        client.open()
        client.send_message(bytes([4, Message.NOOP]))
        assert client.read_message() == wire.pack_version(3)
        client.send_message(bytes([2, 99]))
        assert client.read_message()[1] == Message.ERROR
        client.send_message(wire.pack_noop())
        assert client.read_message() == wire.pack_noop()


def test_first_reply_without_the_protocol_flag_means_protocol_1(remctl_realm: Realm) -> None:
    with (
        FakeServer(remctl_realm.keytab, serve(1)) as server,
        RawClient(remctl_realm, server.port) as client,
    ):
        client.send(Flag.NOOP | Flag.CONTEXT_NEXT | Flag.PROTOCOL, b"")
        token = client.context.step()
        assert token
        client.send(Flag.CONTEXT | Flag.PROTOCOL, token)
        assert client.receive()[0] == Flag.CONTEXT
