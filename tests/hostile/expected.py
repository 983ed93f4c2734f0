"""What must come out of each fault in each state: rules made from the documentation, as data.

`CASES` holds every (version of the protocol, state, fault) with its `Outcome`; `left_out()` says
why a combination is not among them.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from support import wire
from support.wire import Flag, Message

import remctl

from .faults import CONTEXT, FAULTS, Fault, Needs, Reading

BEGINNING = b"the beginning\n"  # output that was there before a fault
REST = b"the rest\n"  # output that is due where a fault is


class State(enum.Enum):
    """Where in a session the server misbehaves."""

    CONNECTED = "connected"
    CONTEXT = "authenticating"
    IDLE = "idle"
    MIC = "command sent"
    COMMAND = "command"
    OUTPUT = "output"
    NOOP = "noop"
    ANSWERED = "answered"
    CLOSE = "close"


WHEN = {
    State.CONNECTED: "the connection was made, and the client has said hello",
    State.CONTEXT: "the server has the client's ticket and owes its own context token, which with "
    "Kerberos is the first and the last of them",
    State.IDLE: "the connection is open, and nothing was asked",
    State.MIC: "a command was sent, and protocol 1 owes a signature of it",
    State.COMMAND: "a command was sent, and its first answer is due",
    State.OUTPUT: "some of a command's output was sent, and more is due",
    State.NOOP: "`noop()` has asked for a sign of life",
    State.ANSWERED: "a command's status was sent, and nothing is due",
    State.CLOSE: "the client has said goodbye, or closed",
}

STATES = {
    # Protocol 1 has a connection for each command, and none in between.
    1: (State.CONNECTED, State.CONTEXT, State.MIC, State.COMMAND),
    2: tuple(state for state in State if state is not State.MIC),
    3: tuple(state for state in State if state is not State.MIC),
}
OPENING = (State.CONNECTED, State.CONTEXT)
UNASKED = (State.IDLE, State.ANSWERED, State.CLOSE)
RUNNING = (State.MIC, State.COMMAND, State.OUTPUT)


class Left(enum.Enum):
    """Why there is no such case."""

    VERSION = "that is a matter of another version of the protocol"
    NO_TOKEN = "no token is due yet that could be altered"
    NO_KEY = "no key to protect a message with has been agreed on"
    SIGNATURE = "what is due is a bare signature, no message"
    RIGHT_FLAGS = "these flags are the right ones there"
    NOTHING_DUE = "nothing is due, so that silence is right"
    OPENING_ONLY = "the context is complete"
    NO_TOKEN_BEFORE = "the server has not sent a message before"


@dataclass(frozen=True)
class Outcome:
    """What a call must do: raise, or return.

    `word` is for the table.  `text` must be found in the exception's; `code` is a refusal's.
    `result` is what `run()` returns or `error.partial`, `answer` what `noop()` returns.
    """

    word: str
    raises: type[remctl.RemctlError] | None = None
    text: str = ""
    code: int = 0
    result: remctl.RemctlSimpleResult | None = None
    answer: bool | None = None
    stays_open: bool = False


@dataclass(frozen=True)
class Case:
    """A fault in a state of a session of a version of the protocol."""

    version: int
    state: State
    fault: Fault
    outcome: Outcome = field(compare=False)

    def __str__(self) -> str:
        words = re.sub(r"\W+", "-", f"{self.state.value} {self.fault.name}")
        return f"v{self.version}-{words}"


# -- What is no case ------------------------------------------------------------------------------


def left_out(version: int, state: State, fault: Fault) -> Left | None:
    """Say why there is no such case; None if there is one."""
    if version not in fault.versions:
        return Left.VERSION
    if fault.group == CONTEXT and state is not State.CONTEXT:
        return Left.NO_TOKEN if state is State.CONNECTED else Left.OPENING_ONLY
    if state is State.CONNECTED and fault.needs is not Needs.NOTHING:
        return Left.NO_TOKEN
    if state is State.CONTEXT and fault.needs is Needs.KEY:
        return Left.NO_KEY
    if state is State.MIC and fault.needs is Needs.KEY:
        return Left.SIGNATURE
    if fault.flags is not None and fault.flags == due_flags(version, state):
        return Left.RIGHT_FLAGS
    if state in UNASKED and fault.name == "says nothing":
        return Left.NOTHING_DUE
    if state is State.IDLE and fault.name == "the token before, once more":
        return Left.NO_TOKEN_BEFORE
    return None


def due_flags(version: int, state: State) -> int:
    """The flags of the token that an honest server sends."""
    flag = {State.CONNECTED: Flag.CONTEXT, State.CONTEXT: Flag.CONTEXT, State.MIC: Flag.MIC}.get(
        state, Flag.DATA
    )
    return flag | Flag.PROTOCOL if version > 1 else flag


# -- What comes out -------------------------------------------------------------------------------


def partial(state: State) -> remctl.RemctlSimpleResult | None:
    """What `error.partial` holds after a failure in that state."""
    if state not in RUNNING or state is State.MIC:  # Sending is over once it is signed.
        return None
    return remctl.RemctlSimpleResult(BEGINNING if state is State.OUTPUT else None)


def answer_error(state: State, text: str) -> Outcome:
    return Outcome("Answer", remctl.RemctlAnswerError, text, result=partial(state))


def finished(state: State, stdout: bytes, status: int = 0) -> Outcome:
    """The command has come to its end."""
    before = BEGINNING if state is State.OUTPUT else b""
    result = remctl.RemctlSimpleResult(before + stdout or None, None, status)
    return Outcome("result", result=result, stays_open=True)


def outcome_of(version: int, state: State, fault: Fault) -> Outcome:
    """What must come out, by the state first and then by what the client can see."""
    if state in (State.IDLE, State.ANSWERED):
        return Outcome("reopened")
    if state is State.CLOSE:
        return Outcome("closed")
    if state in OPENING:
        return while_opening(fault)
    if fault.reading is Reading.MESSAGE:
        if version == 1:
            return answer_of(fault.message)
        return answer_to_noop(fault.message) if state is State.NOOP else output_of(state, fault)
    if fault.reading is Reading.RIGHT or is_right_in_protocol_1(version, state, fault):
        return as_if_nothing_had_happened(state)
    return failure(state, fault)


def while_opening(fault: Fault) -> Outcome:
    """Whoever cannot prove who it is, in time, does not get the command."""
    if fault.reading is Reading.SILENCE:
        return Outcome("Timeout", remctl.RemctlTimeoutError, "error receiving token: timed out")
    if fault.reading in (Reading.RIGHT, Reading.FLAGS):
        # Kerberos protects the token; what its flags are does not matter to libremctl, but for
        # PROTOCOL, without which it goes on with protocol 1.
        return Outcome("result")
    text = {
        Reading.END: "unexpected end of file",
        Reading.TOO_LARGE: "token too large",
        Reading.UNPROTECTED: "GSS-API error initializing context",
    }[fault.reading]
    return Outcome("Authentication", remctl.RemctlAuthenticationError, text)


def is_right_in_protocol_1(version: int, state: State, fault: Fault) -> bool:
    """Protocol 1 lets the server ask for a signature of what it sends."""
    asking = fault.flags == Flag.DATA | Flag.SEND_MIC
    return version == 1 and asking and state is State.COMMAND


def as_if_nothing_had_happened(state: State) -> Outcome:
    if state is State.NOOP:
        return Outcome("True", answer=True, stays_open=True)
    return finished(state, REST)


def failure(state: State, fault: Fault) -> Outcome:
    """The connection, or what protects the tokens, is not as it should be."""
    what = "sending" if state is State.MIC else "receiving"
    if fault.reading is Reading.SILENCE:
        text = f"error {what} token: timed out"
        return Outcome("Timeout", remctl.RemctlTimeoutError, text, result=partial(state))
    if fault.reading is Reading.END:
        text = f"error {what} token: unexpected end of file"
        return Outcome("Disconnected", remctl.RemctlDisconnectedError, text, result=partial(state))
    if fault.reading is Reading.TOO_LARGE or (state, fault.name) in TOO_LARGE_FOR_A_SIGNATURE:
        return answer_error(state, f"error {what} token: token too large")
    if fault.reading is Reading.FLAGS:
        wrong = "error sending token: invalid token format"
        return answer_error(state, wrong if state is State.MIC else "unexpected token from server")
    return answer_error(state, f"GSS-API error {what} token")


# libremctl takes no signature that is longer than 10 KiB.
TOO_LARGE_FOR_A_SIGNATURE = {(State.MIC, "a token of 1 MiB, of no sense")}

MALFORMED = "malformed result token from server"


def output_of(state: State, fault: Fault) -> Outcome:
    """Read a message of protocol 2 or 3 as the answer to a command."""
    message = fault.message
    if len(message) < 2:
        return answer_error(state, MALFORMED)
    if message[0] not in (2, 3):
        return answer_error(state, "unexpected protocol")
    kind, body = message[1], message[2:]
    if kind == Message.OUTPUT:
        if len(body) < 5 or (body[0] in (1, 2) and not fits(body[1:])):
            return answer_error(state, MALFORMED)
        if body[0] not in (1, 2):
            return answer_error(state, "unexpected stream")
        return finished(state, body[5:])
    if kind == Message.STATUS:
        return finished(state, b"", body[0]) if len(body) == 1 else answer_error(state, MALFORMED)
    if kind == Message.ERROR:
        if len(body) < 8 or not fits(body[4:]):
            return answer_error(state, MALFORMED)
        return refusal(state, body)
    return answer_error(state, "unknown message type")


def fits(text: bytes) -> bool:
    """Whether a length is that of what follows it."""
    return wire.parse_number(text, 0)[0] == len(text) - 4


# Texts that are not shown as they are.
TEXTS = {
    b"a\0b": r"a\x00b",
    b"\xff\xfe\x80": r"\xff\xfe\x80",
    b"\x1b[2Jok\r\n": r"\x1b[2Jok\r\n",
}


def refusal(state: State, body: bytes) -> Outcome:
    """The server says no, in whatever words."""
    return Outcome(
        "Server",
        remctl.RemctlServerError,
        TEXTS.get(body[8:], body[8:].decode("utf-8", "replace")),
        code=wire.parse_number(body, 0)[0],
        result=partial(state),
        stays_open=True,
    )


def answer_to_noop(message: bytes) -> Outcome:
    """Read a message as the answer to NOOP, of which nothing but the type counts."""
    if len(message) < 2:
        return answer_error(State.NOOP, MALFORMED)
    if message[0] not in (2, 3):
        return answer_error(State.NOOP, "unexpected protocol")
    if message[1] == Message.NOOP:
        return Outcome("True", answer=True, stays_open=True)
    if message[1] in (Message.ERROR, Message.VERSION):  # Too old to know the question.
        return Outcome("False", answer=False, stays_open=True)
    return answer_error(State.NOOP, "unexpected message type")


def answer_of(message: bytes) -> Outcome:
    """Read the one answer of protocol 1."""
    if len(message) < 8 or not fits(message[4:]):
        return answer_error(State.COMMAND, MALFORMED)
    status = wire.parse_number(message, 0)[0] & 0xFF  # A status is an octet.
    return finished(State.COMMAND, message[8:], status)


def all_cases() -> Iterator[Case]:
    for version, states in STATES.items():
        for state in states:
            for fault in FAULTS:
                if left_out(version, state, fault) is None:
                    yield Case(version, state, fault, outcome_of(version, state, fault))


CASES = list(all_cases())
