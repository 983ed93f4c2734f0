"""docs/protocol.md: its numbers are those that the tests speak, its octets those on the wire.

The sessions of the page are played twice: our client against a server that answers as the page
says, and a client that sends what the page says to a real remctld.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import gssapi
import pytest
from support import wire
from support.fakeserver import FakeServer, Peer
from support.waiting import eventually
from support.wire import HEADER, NUMBER, Continue, Error, Flag, Message
from support.wiretap import Wiretap

import _remctl_arguments
import remctl
from remctl_toolkit.testing import Command, Realm, RemctldServer
from remctl_toolkit.testing.plugin import ServerFactory

pytestmark = [pytest.mark.once, pytest.mark.nightly]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "protocol.md"
TEXT = PAGE.read_text()
WIRE, SESSION, OLD_SESSION = re.findall(r"^```text\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
TIMEOUT = 20  # seconds

Step = tuple[str, bytes]


def table(heading: str) -> list[list[str]]:
    """The rows of the table whose first column has this heading."""
    rows = TEXT.split(f"| {heading} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def steps(block: str) -> list[Step]:
    """Return the messages of a session, in order; an indented line continues the one above."""
    found: list[Step] = []
    for line in block.splitlines():
        octets = bytes.fromhex("".join(re.findall(r"\b[0-9a-f]{2}\b", line[2:40])))
        if line[0] == " ":
            found[-1] = (found[-1][0], found[-1][1] + octets)
        else:
            found.append((line[0], octets))
    return found


class RawClient:
    """A client that sends whatever it is given, behind real Kerberos."""

    def __init__(self, server: RemctldServer, version: int = 3) -> None:
        self.protocol = Flag.PROTOCOL if version > 1 else Flag(0)
        self.socket = socket.create_connection((server.address, server.port), TIMEOUT)
        self.send(Flag.NOOP | Flag.CONTEXT_NEXT | self.protocol, b"")
        self.context = gssapi.SecurityContext(
            name=gssapi.Name("host@localhost", gssapi.NameType.hostbased_service),
            flags=gssapi.RequirementFlag.mutual_authentication,
        )
        answer = None
        while not self.context.complete:
            self.send(Flag.CONTEXT | self.protocol, self.context.step(answer))
            answer = self.read()[1]
            answer = self.context.step(answer)
            assert answer is None

    def send(self, flags: int, payload: bytes) -> None:
        self.socket.sendall(wire.pack_token(flags, payload))

    def read(self) -> wire.Token:
        """Read a token; EOFError when the server has closed."""
        flags, length = HEADER.unpack(self._receive(HEADER.size))
        return wire.Token(flags, self._receive(length))

    def _receive(self, count: int) -> bytes:
        octets = b""
        while len(octets) < count:
            received = self.socket.recv(count - len(octets))
            if not received:
                raise EOFError(f"{count - len(octets)} octets before their time")
            octets += received
        return octets

    def send_message(self, message: bytes, flags: int = Flag.DATA | Flag.PROTOCOL) -> None:
        self.send(flags, self.context.wrap(message, True).message)

    def read_message(self) -> bytes:
        token = self.read()
        assert token.flags == Flag.DATA | self.protocol
        return self.context.unwrap(token.payload).message

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def raw(remctl_server: RemctldServer) -> Iterator[RawClient]:
    with contextlib.closing(RawClient(remctl_server)) as client:
        yield client


# -- Numbers --------------------------------------------------------------------------------------


def test_flags_types_and_codes_are_those_that_are_spoken() -> None:
    for heading, numbers in (("Flag", Flag), ("Type", Message), ("Continue", Continue)):
        rows = {name: int(number, 0) for number, name, *_ in table(heading)}
        assert rows == {name: each.value for name, each in numbers.__members__.items()}
    codes = {name: int(number) for number, name, _ in table("Code")}
    assert codes == {each.name: each.value for each in Error}
    assert codes == {each.name: each.value for each in remctl.RemctlErrorCode}


def test_limits_are_those_that_are_kept() -> None:
    limits = [int(octets.replace(",", "")) for _, octets, _ in table("What")]
    assert limits == [
        wire.MAX_TOKEN,
        wire.MAX_DATA,
        wire.MAX_OUTPUT,
        _remctl_arguments._MAX_COMMAND_OCTETS,
        _remctl_arguments._MAX_ARGUMENTS,
    ]
    assert f"port {remctl.PORT} or" in TEXT
    assert f"to {remctl.LEGACY_PORT}." in TEXT


# -- The sessions ---------------------------------------------------------------------------------


def test_flags_on_the_wire(remctl_server: RemctldServer) -> None:
    with Wiretap(remctl_server.host, remctl_server.port) as tap:
        remctl.remctl("localhost", tap.port, command=["test", "echo", "hello"], timeout=TIMEOUT)
        for side, octets in (("C", tap.to_server), ("S", tap.to_client)):
            expected = [first[0] for who, first in steps(WIRE) if who == side]
            eventually(lambda o=octets, e=expected: [t.flags for t in wire.tokens_in(o)] == e)


def test_our_client_speaks_as_the_page_says(remctl_realm: Realm) -> None:
    heard: list[Step] = []
    ended = threading.Event()

    def script(peer: Peer) -> None:
        peer.accept()
        for who, message in steps(SESSION):
            if who == "S":
                peer.send_message(message)
            else:
                heard.append((who, peer.read_message()))
        ended.set()

    with FakeServer(remctl_realm.keytab, script) as server:
        with remctl.Remctl("localhost", server.port, timeout=TIMEOUT) as connection:
            result = connection.run(["test", "echo", "hello"])
            assert (result.stdout, result.stderr, result.status) == (b"hello\n", None, 0)
            assert connection.noop()
            with pytest.raises(remctl.RemctlServerError, match=r"^Unknown command$") as caught:
                connection.run(["no"])
        assert ended.wait(TIMEOUT), server.errors
    assert caught.value.code == Error.UNKNOWN_COMMAND
    assert heard == [step for step in steps(SESSION) if step[0] == "C"]


def test_remctld_speaks_as_the_page_says(raw: RawClient) -> None:
    for who, message in steps(SESSION):
        if who == "C":
            raw.send_message(message)
        else:
            assert raw.read_message() == message
    with pytest.raises(EOFError):
        raw.read()


def test_remctld_speaks_protocol_1_as_the_page_says(remctl_server: RemctldServer) -> None:
    (_, command), (_, result) = steps(OLD_SESSION)
    with contextlib.closing(RawClient(remctl_server, version=1)) as client:
        client.send_message(command, Flag.DATA | Flag.SEND_MIC)
        signature = client.read()
        assert signature.flags == Flag.MIC
        client.context.verify_signature(command, signature.payload)
        assert client.read_message() == result
        with pytest.raises(EOFError):
            client.read()


def test_protocol_1_has_one_stream_of_limited_length(remctld: ServerFactory) -> None:
    server = remctld(
        [
            Command("much", script="head -c 70000 /dev/zero"),
            Command("both", script="echo out; echo err >&2"),
        ]
    )
    most = b"\0" * wire.MAX_OUTPUT_V1
    assert old_result(server, b"much") == wire.pack_v1_result(most, 0)
    assert sorted(old_result(server, b"both")[8:].split()) == [b"err", b"out"]
    assert old_result(server, b"no") == wire.pack_v1_result(b"Unknown command\n", -1)
    assert f"{wire.MAX_OUTPUT_V1:,} octets" in TEXT


def old_result(server: RemctldServer, command: bytes) -> bytes:
    """Return the answer of protocol 1 to a command of one word."""
    message = NUMBER.pack(1) + NUMBER.pack(len(command)) + command
    with contextlib.closing(RawClient(server, version=1)) as client:
        client.send_message(message, Flag.DATA | Flag.SEND_MIC)
        client.context.verify_signature(message, client.read().payload)
        return client.read_message()


# -- What remctld does with what is wrong ---------------------------------------------------------


def command_of(*arguments: bytes, whole: int = Continue.WHOLE) -> bytes:
    words = b"".join(NUMBER.pack(len(each)) + each for each in arguments)
    return bytes([2, Message.COMMAND, 1, whole]) + NUMBER.pack(len(arguments)) + words


ECHO = command_of(b"test", b"echo", b"x")

WRONG = {
    "version 1": b"\1" + ECHO[1:],
    "version 4": b"\4" + ECHO[1:],
    "version 3, and COMMAND": b"\3" + ECHO[1:],
    "type 0": bytes([2, 0]),
    "type 8": bytes([2, 8]),
    "OUTPUT": wire.pack_output(b"x"),
    "a message of one octet": b"\2",
    "a message of none": b"",
    "continue 4": command_of(b"test", whole=4),
    "continue 2 for a beginning": command_of(b"test", whole=Continue.MIDDLE),
    "an argument that is longer than the message": ECHO[:-1],
    "an octet after the last argument": ECHO + b"x",
    "no arguments": command_of(),
    "NUL in the subcommand": command_of(b"test", b"e\0cho"),
    "4097 arguments": command_of(*[b"x"] * 4097),
    "65,537 octets in a message": command_of(b"test", b"cat", b"x" * (65537 - 8 - 8 - 7 - 4)),
}
UNWRAPPED = "octets that are not wrapped"
NOTHING = "nothing: it closes"
AND_CLOSES = ", and it closes"


def described(raw: RawClient) -> str:
    """Return the server's answer, in the page's words."""
    try:
        message = raw.read_message()
    except EOFError:
        return NOTHING
    if message[1] == Message.VERSION:
        return f"VERSION {message[2]}"
    if message[1] == Message.ERROR:
        return f"ERROR {wire.parse_number(message, 2)[0]}"
    assert message == wire.pack_output(b"x\n")
    assert raw.read_message() == wire.pack_status(0)
    return "what the command gives"


@pytest.mark.parametrize(("row", "answer"), table("The client sends"))
def test_remctld_answers_what_is_wrong(row: str, answer: str, raw: RawClient) -> None:
    if row == UNWRAPPED:
        raw.send(Flag.DATA | Flag.PROTOCOL, b"x" * 100)
    else:
        raw.send_message(WRONG[row])
    assert described(raw) == answer.removesuffix(AND_CLOSES)
    if answer in (NOTHING, f"ERROR 2{AND_CLOSES}"):
        with pytest.raises(EOFError):
            raw.read()
    else:
        raw.send_message(wire.pack_noop())
        assert raw.read_message() == wire.pack_noop()


def test_every_wrong_thing_is_on_the_page() -> None:
    assert len(WRONG["65,537 octets in a message"]) == 65537
    assert [row for row, _ in table("The client sends")] == [*WRONG, UNWRAPPED]


def test_the_longest_message_is_taken(raw: RawClient) -> None:
    data = b"x" * (wire.MAX_DATA - 8 - 8 - 7 - 4)
    message = command_of(b"test", b"cat", data)
    assert len(message) == wire.MAX_DATA
    raw.send_message(message)
    heard = b""
    while (answer := raw.read_message())[1] == Message.OUTPUT:
        assert len(answer) <= 7 + 4096, "the page says so"
        heard += answer[7:]
    assert heard == data
    assert answer == wire.pack_status(0)


def test_without_keep_alive_the_server_closes(raw: RawClient) -> None:
    raw.send_message(ECHO[:2] + b"\0" + ECHO[3:])
    assert described(raw) == "what the command gives"
    with pytest.raises(EOFError):
        raw.read()


def test_quit_gives_up_a_command_that_is_half_sent(raw: RawClient) -> None:
    raw.send_message(command_of(b"test", whole=Continue.FIRST))
    raw.send_message(bytes([2, Message.QUIT]))
    with pytest.raises(EOFError):
        raw.read()


def test_a_command_may_be_cut_anywhere(raw: RawClient) -> None:
    words = ECHO[4:]
    for whole, piece in ((1, words[:2]), (2, words[2:11]), (3, words[11:])):
        raw.send_message(bytes([2, Message.COMMAND, 1, whole]) + piece)
    assert described(raw) == "what the command gives"


def test_libremctl_sends_messages_no_longer_than_allowed(remctl_realm: Realm) -> None:
    lengths: list[tuple[int, int]] = []

    def script(peer: Peer) -> None:
        peer.accept()
        while (message := peer.read_message())[1] == Message.COMMAND:
            assert message[2] == 1
            lengths.append((message[3], len(message)))
            if message[3] == Continue.LAST:
                peer.send_status(0)

    with FakeServer(remctl_realm.keytab, script) as server:
        command = ["test", "cat", b"x" * 140000]
        remctl.remctl("localhost", server.port, command=command, timeout=TIMEOUT)
    assert [whole for whole, _ in lengths] == [Continue.FIRST, Continue.MIDDLE, Continue.LAST]
    assert [length for _, length in lengths[:2]] == [wire.MAX_DATA, wire.MAX_DATA]
