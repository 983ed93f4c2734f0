"""The fake server with independent clients: Debian's, in C and in Python."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from support import wire
from support.fakeserver import Command, FakeServer, Peer, Refusal, Script, in_turn, serve
from support.stockclient import needs_remctl, remctl_arguments, run_remctl
from support.waiting import eventually
from support.wire import Flag, Message

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

SYSTEM_PYTHON = "/usr/bin/python3"
SYSTEM_BINDING = "/usr/lib/python3/dist-packages/remctl.py"

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
            remctl_arguments(remctl_realm, server.port, "c"),
            env={**os.environ, **remctl_realm.env},
            stderr=subprocess.PIPE,
        )
        eventually(lambda: server.commands)
        assert client.poll() is None
    assert b"unexpected end of file" in client.communicate(timeout=20)[1]
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
r.set_timeout(20)
r.open("localhost", int(sys.argv[1]), sys.argv[2])
r.command(['b'])
answer += [token[0] for token in tokens()]
"""
    with FakeServer(remctl_realm.keytab, in_turn(after_command("stall"), serve())) as server:
        answer = run_binding(remctl_realm, server.port, code)
    assert answer == ["error receiving token: timed out", "output", "status"]
    assert server.connections == 2
    assert sorted(server.commands) == [[b"a"], [b"b"]]
