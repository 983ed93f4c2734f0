"""Faults of a hostile server: one `Fault` for each way to misbehave, in any state.

A fault gets the `Due`, the token that an honest server would send now, and sends something else, or
nothing.  `expected.py` has the expected outcomes.
"""

from __future__ import annotations

import enum
import functools
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import gssapi
from support import wire
from support.fakeserver import Peer
from support.wire import Error, Flag, Message

NUMBER = wire.NUMBER
LIE = b"HOSTILE"  # part of all data that a hostile server invents


class Reading(enum.Enum):
    """A fault as the client sees it."""

    RIGHT = "the token that is due"
    SILENCE = "nothing more"
    END = "the end of the connection"
    TOO_LARGE = "a token that is longer than the protocol allows"
    UNPROTECTED = "a token that GSS-API rejects"
    FLAGS = "a token of another kind"
    MESSAGE = "a message that the server itself has protected"


class Needs(enum.Enum):
    """Precondition of a fault."""

    NOTHING = "a connection"
    TOKEN = "a token that is due"
    KEY = "a key to protect a message with"


@dataclass
class Due:
    """The token that an honest server would send now: a message to be wrapped, or a payload."""

    peer: Peer
    flags: int
    message: bytes = b""
    raw: bytes = b""

    @functools.cached_property
    def payload(self) -> bytes:
        """The token's payload; wrapping uses up a sequence number."""
        return self.raw or self.peer.wrap(self.message)

    @property
    def wire(self) -> bytes:
        """The token as an honest server sends it."""
        return wire.pack_token(self.flags, self.payload)

    def send(self, payload: bytes) -> None:
        """Send another payload with the correct flags."""
        self.peer.send_token(self.flags, payload)


@dataclass(frozen=True)
class Fault:
    """A way to misbehave; `message` is the wrapped message, `flags` are the token's flags."""

    name: str
    group: str
    reading: Reading
    needs: Needs
    act: Callable[[Due], None] = field(repr=False, compare=False)
    message: bytes = b""
    flags: int | None = None
    versions: tuple[int, ...] = (1, 2, 3)


FAULTS: list[Fault] = []


def fault(
    name: str, group: str, reading: Reading, needs: Needs = Needs.TOKEN
) -> Callable[[Callable[[Due], None]], Callable[[Due], None]]:
    """Add a function to the table."""

    def add(act: Callable[[Due], None]) -> Callable[[Due], None]:
        FAULTS.append(Fault(name, group, reading, needs, act))
        return act

    return add


# -- The connection -------------------------------------------------------------------------------

CONNECTION = "The connection"


@fault("closes", CONNECTION, Reading.END, Needs.NOTHING)
def close(due: Due) -> None:
    due.peer.close()


@fault("resets", CONNECTION, Reading.END, Needs.NOTHING)
def reset(due: Due) -> None:
    due.peer.reset()


@fault("sends nothing", CONNECTION, Reading.SILENCE, Needs.NOTHING)
def say_nothing(due: Due) -> None:
    pass


@fault("sends half a header, then nothing", CONNECTION, Reading.SILENCE, Needs.NOTHING)
def send_half_a_header(due: Due) -> None:
    due.peer.send_raw(wire.pack_token(due.flags, b"")[:3])


@fault("sends half a header and closes", CONNECTION, Reading.END, Needs.NOTHING)
def send_half_a_header_and_close(due: Due) -> None:
    send_half_a_header(due)
    due.peer.close()


@fault("sends half a token, then nothing", CONNECTION, Reading.SILENCE)
def send_half(due: Due) -> None:
    due.peer.send_raw(due.wire[: len(due.wire) // 2])


@fault("sends half a token and closes", CONNECTION, Reading.END)
def send_half_and_close(due: Due) -> None:
    send_half(due)
    due.peer.close()


@fault("sends half a token and resets", CONNECTION, Reading.END)
def send_half_and_reset(due: Due) -> None:
    send_half(due)
    due.peer.reset()


@fault("dribbles the right token, a byte at a time", CONNECTION, Reading.RIGHT)
def dribble(due: Due) -> None:
    for octet in due.wire:
        due.peer.send_raw(bytes([octet]))


@fault("sends an urgent byte in the middle of the right token", CONNECTION, Reading.RIGHT)
def send_urgent_byte(due: Due) -> None:
    middle = len(due.wire) // 2
    due.peer.send_raw(due.wire[:middle])
    due.peer.connection.send(b"!", socket.MSG_OOB)
    due.peer.send_raw(due.wire[middle:])


# -- The header of a token ------------------------------------------------------------------------

HEADER = "A token's header"


@fault("a token of 0 bytes", HEADER, Reading.UNPROTECTED, Needs.NOTHING)
def send_empty(due: Due) -> None:
    due.send(b"")


@fault("a token of 1 MiB of garbage", HEADER, Reading.UNPROTECTED, Needs.NOTHING)
def send_longest(due: Due) -> None:
    due.send(bytes(wire.MAX_TOKEN))


@fault("a token of 1 MiB and a byte", HEADER, Reading.TOO_LARGE, Needs.NOTHING)
def send_too_long(due: Due) -> None:
    due.send(bytes(wire.MAX_TOKEN + 1))


@fault("a header that announces 4 GiB", HEADER, Reading.TOO_LARGE, Needs.NOTHING)
def claim_4_gib(due: Due) -> None:
    due.peer.send_token(due.flags, due.raw or b"x", length=0xFFFFFFFF)


@fault("a length that is one too small", HEADER, Reading.UNPROTECTED)
def claim_less(due: Due) -> None:
    due.peer.send_token(due.flags, due.payload, length=len(due.payload) - 1)


WRONG_FLAGS = {
    "0": 0,
    "NOOP": Flag.NOOP,
    "CONTEXT": Flag.CONTEXT,
    "DATA": Flag.DATA,
    "MIC": Flag.MIC,
    "DATA and SEND_MIC": Flag.DATA | Flag.SEND_MIC,
    "DATA and PROTOCOL": Flag.DATA | Flag.PROTOCOL,
    "DATA, SEND_MIC and PROTOCOL": Flag.DATA | Flag.SEND_MIC | Flag.PROTOCOL,
    "all at once": 0xFF,
}


def send_with_flags(flags: int, due: Due) -> None:
    """Send the right payload; the client may derive the protocol from the flags."""
    due.peer.send_token(flags, due.payload)


for _name, _flags in WRONG_FLAGS.items():
    FAULTS.append(
        Fault(
            f"flags: {_name}",
            HEADER,
            Reading.FLAGS,
            Needs.TOKEN,
            functools.partial(send_with_flags, int(_flags)),
            flags=int(_flags),
        )
    )

# -- A token's protection -------------------------------------------------------------------------

PROTECTION = "A token's protection"


@fault("garbage", PROTECTION, Reading.UNPROTECTED, Needs.NOTHING)
def send_rubbish(due: Due) -> None:
    due.send(LIE * 20)


@fault("the right token with a bit changed", PROTECTION, Reading.UNPROTECTED)
def send_changed(due: Due) -> None:
    due.send(due.payload[:-1] + bytes([due.payload[-1] ^ 1]))


@fault("the right token without its last byte", PROTECTION, Reading.UNPROTECTED)
def send_shortened(due: Due) -> None:
    due.send(due.payload[:-1])


@fault("the right token plus a byte", PROTECTION, Reading.UNPROTECTED)
def send_lengthened(due: Due) -> None:
    due.send(due.payload + b"\0")


@fault("a token of another session", PROTECTION, Reading.UNPROTECTED)
def send_from_another_session(due: Due) -> None:
    reply, other = another_session(due.peer)
    if not due.raw:
        due.send(other.wrap(due.message, True).message)
    elif due.flags & Flag.MIC:
        due.send(other.get_signature(LIE))
    else:
        due.send(reply)


@fault("the client's own last token", PROTECTION, Reading.UNPROTECTED)
def send_back(due: Due) -> None:
    due.send(due.peer.last_token.payload)


@fault("a signature where data is due", PROTECTION, Reading.UNPROTECTED, Needs.KEY)
def send_signature(due: Due) -> None:
    due.send(due.peer.context.get_signature(due.message))


@fault("the right token after a missing one", PROTECTION, Reading.UNPROTECTED, Needs.KEY)
def leave_one_out(due: Due) -> None:
    due.peer.wrap(LIE)
    due.send(due.payload)


@fault("two tokens in the wrong order", PROTECTION, Reading.UNPROTECTED, Needs.KEY)
def send_out_of_order(due: Due) -> None:
    first, second = due.peer.wrap(due.message), due.peer.wrap(due.message)
    due.send(second)
    due.send(first)


@fault("the right token, protected but not encrypted", PROTECTION, Reading.RIGHT, Needs.KEY)
def send_unencrypted(due: Due) -> None:
    due.send(due.peer.wrap(due.message, encrypt=False))


def replay(due: Due) -> None:
    """Send the previous token, which was right the first time, again."""
    due.peer.send_raw(due.peer.last_sent)


FAULTS.append(
    Fault(
        "the previous token again",
        PROTECTION,
        Reading.UNPROTECTED,
        Needs.KEY,
        replay,
        versions=(2, 3),
    )
)


def another_session(peer: Peer) -> tuple[bytes, gssapi.SecurityContext]:
    """Return the server's context token for another client, and the context."""
    name = gssapi.Name("host@localhost", gssapi.NameType.hostbased_service)
    client = gssapi.SecurityContext(
        name=name,
        usage="initiate",
        mech=gssapi.MechType.kerberos,
        flags=gssapi.RequirementFlag.mutual_authentication,
        creds=gssapi.Credentials(usage="initiate", store={"ccache": os.environ["KRB5CCNAME"]}),
    )
    other = gssapi.SecurityContext(creds=peer.server.credentials, usage="accept")
    reply = other.step(client.step())
    return bytes(reply), other


# -- Messages of protocol 2 and 3 -----------------------------------------------------------------

MESSAGES = "Messages"


def send_message(message: bytes, due: Due) -> None:
    due.send(due.peer.wrap(message))


def message_faults(group: str, versions: tuple[int, ...], messages: dict[str, bytes]) -> None:
    """Add a fault for each message to the table."""
    FAULTS.extend(
        Fault(
            name,
            group,
            Reading.MESSAGE,
            Needs.KEY,
            functools.partial(send_message, message),
            message=message,
            versions=versions,
        )
        for name, message in messages.items()
    )


def output_of(length: int, data: bytes = LIE, stream: int = 1) -> bytes:
    """Return an OUTPUT message that claims a length."""
    return bytes([2, Message.OUTPUT, stream]) + NUMBER.pack(length) + data


def error_of(length: int, text: bytes = LIE, code: int = Error.ACCESS) -> bytes:
    """Return an ERROR message that claims a length."""
    return bytes([2, Message.ERROR]) + NUMBER.pack(code) + NUMBER.pack(length) + text


def _kind(number: int, version: int = 2) -> bytes:
    return bytes([version, number]) + LIE


OUTPUT = wire.pack_output(LIE)
LENGTH = len(LIE)

message_faults(
    MESSAGES,
    (2, 3),
    {
        "an empty message": b"",
        "a message of 1 byte": b"\2",
        "protocol version 0": b"\0" + OUTPUT[1:],
        "protocol version 1": b"\1" + OUTPUT[1:],
        "protocol version 3, for output": b"\3" + OUTPUT[1:],
        "protocol version 4": b"\4" + OUTPUT[1:],
        "protocol version 255": b"\xff" + OUTPUT[1:],
        "message type 0": _kind(0),
        "message type 8": _kind(8),
        "message type 255": _kind(255),
        "COMMAND, which is the client's": bytes([2, 1, 1, 0]) + NUMBER.pack(0),
        "COMMAND, to be continued": bytes([2, 1, 1, 1]) + NUMBER.pack(9),
        "QUIT, which is the client's": bytes([2, Message.QUIT]),
        "VERSION": wire.pack_version(2),
        "NOOP": wire.pack_noop(),
        "NOOP with something in it": wire.pack_noop() + LIE,
        "OUTPUT": OUTPUT,
        "OUTPUT without data": wire.pack_output(b""),
        "OUTPUT of almost 1 MiB": wire.pack_output(LIE * (1048000 // LENGTH)),
        "OUTPUT to stream 0": wire.pack_output(LIE, 0),
        "OUTPUT to stream 3": wire.pack_output(LIE, 3),
        "OUTPUT to stream 255": wire.pack_output(LIE, 255),
        "OUTPUT without a stream": OUTPUT[:2],
        "OUTPUT without a length": OUTPUT[:3],
        "OUTPUT, its length too small": output_of(LENGTH - 1),
        "OUTPUT, its length too large": output_of(LENGTH + 1),
        "OUTPUT that announces 4 GiB": output_of(0xFFFFFFFF),
        "STATUS 255": wire.pack_status(255),
        "STATUS without a status": bytes([2, Message.STATUS]),
        "STATUS with two statuses": bytes([2, Message.STATUS, 0, 0]),
        "ERROR: the client is refused": wire.pack_error(Error.ACCESS, b"Access denied"),
        "ERROR, its text with a NUL": wire.pack_error(Error.ACCESS, b"a\0b"),
        "ERROR, its text not UTF-8": wire.pack_error(Error.ACCESS, b"\xff\xfe\x80"),
        "ERROR, its text with control characters": wire.pack_error(Error.ACCESS, b"\x1b[2Jok\r\n"),
        "ERROR without text": wire.pack_error(Error.ACCESS, b""),
        "ERROR with a text of almost 1 MiB": wire.pack_error(Error.ACCESS, b"x" * 1048000),
        "ERROR with code 0": wire.pack_error(0, LIE),
        "ERROR with an unknown code": wire.pack_error(0xFFFFFFFF, LIE),
        "ERROR without a code": error_of(0, b"")[:4],
        "ERROR, its length too small": error_of(LENGTH - 1),
        "ERROR, its length too large": error_of(LENGTH + 1),
        "ERROR that announces 4 GiB": error_of(0xFFFFFFFF),
    },
)


# -- The one answer of protocol 1 -----------------------------------------------------------------

ANSWERS = "The answer"

message_faults(
    ANSWERS,
    (1,),
    {
        "an empty answer": b"",
        "an answer without a length": NUMBER.pack(0),
        "an answer, its length too small": NUMBER.pack(0) + NUMBER.pack(LENGTH - 1) + LIE,
        "an answer, its length too large": NUMBER.pack(0) + NUMBER.pack(LENGTH + 1) + LIE,
        "an answer that announces 4 GiB": NUMBER.pack(0) + NUMBER.pack(0xFFFFFFFF) + LIE,
        "an answer without output": wire.pack_v1_result(b"", 0),
        "an answer with status -1": wire.pack_v1_result(LIE, -1),
        "an answer of protocol 2": OUTPUT,
    },
)

# -- The context ----------------------------------------------------------------------------------

CONTEXT = "The Kerberos context"


def der(tag: int, *contents: bytes) -> bytes:
    """An ASN.1 element of less than 128 octets."""
    content = b"".join(contents)
    return bytes([tag, len(content)]) + content


def kerberos_error(code: int) -> bytes:
    """A context token with a KRB-ERROR (RFC 4120, section 5.9.1), which no key protects."""
    fields = {
        0: der(2, b"\5"),  # pvno
        1: der(2, b"\x1e"),  # msg-type
        4: der(0x18, b"20200101000000Z"),  # stime
        5: der(2, b"\0"),  # susec
        6: der(2, bytes([code])),  # error-code
        9: der(0x1B, b"REALM"),  # realm
        10: der(0x30, der(0xA0, der(2, b"\1")), der(0xA1, der(0x30, der(0x1B, b"host")))),  # sname
    }
    error = der(0x7E, der(0x30, *(der(0xA0 + tag, value) for tag, value in fields.items())))
    return der(0x60, der(6, bytes.fromhex("2a864886f712010202")), b"\3\0", error)


def refuse(due: Due) -> None:
    due.send(kerberos_error(12))  # KDC_ERR_POLICY


def answer_at_once(due: Due) -> None:
    """Omit the context token, so the server does not prove its identity."""
    due.peer.send_message(wire.pack_status(0))


FAULTS.extend(
    Fault(name, CONTEXT, Reading.UNPROTECTED, Needs.TOKEN, act)
    for name, act in {
        "refuses the client's principal with a Kerberos error": refuse,
        "sends a message without proving its identity": answer_at_once,
    }.items()
)
