"""Commands and outputs of any shape, made by hypothesis: both arrive unchanged.

The commands go to a real remctld, whose one command returns its arguments, octet by octet.  The
outputs come from a server that splits them into tokens, and these into writes, as the test chooses.
All examples share a session, so the remains of one example would be found by the next.
"""

from __future__ import annotations

import decimal
import enum
import io
import itertools
import operator
import queue
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from support import wire
from support.fakeserver import FakeServer, Peer
from support.generating import steady
from support.wire import Flag, Message

import remctl
from _remctl_text import printable
from remctl_toolkit.testing import Command, RemctldServer

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

LIMIT = 30.0  # seconds after which a wait has failed
NEVER = 3600.0  # seconds that a server waits for the next command: it is kept until the file's end
MOST_ARGUMENTS = 4096
LONGEST_ARGUMENT = 120_000  # Linux takes no longer one than 128 KiB, remctld or not


# Parts of commands, with the octets that each must arrive as


class Part(NamedTuple):
    """The arguments of a caller, and those that arrive."""

    item: Any
    sent: bytes


class Word(enum.StrEnum):
    ECHO = "echo"


class OldWord(str, enum.Enum):  # noqa: UP042  (as programs of today have it)
    GRUEN = "grün"


class Number(enum.IntEnum):
    SEVEN = 7


class Colour(enum.Enum):
    RED = "red"


class Shouting(str):
    def __str__(self) -> str:
        return "not this"


class PathOfOctets:
    def __init__(self, octets: bytes) -> None:
        self.octets = octets

    def __fspath__(self) -> bytes:
        return self.octets


def every_second(octets: bytes) -> memoryview:
    """A view that is not contiguous: each octet has a stranger behind it."""
    return memoryview(b"".join(b"%c!" % octet for octet in octets))[::2]


def backwards(octets: bytes) -> memoryview:
    return memoryview(octets[::-1])[::-1]


def of_format(octets: bytes) -> Any:
    """A view in the largest format that the length allows, of two dimensions where it can."""
    view: Any = memoryview(octets)
    for size, letter in ((8, "q"), (4, "i"), (2, "H")):
        if octets and len(octets) % size == 0:
            items = len(octets) // size
            shape = (2, items // 2) if items % 2 == 0 else (items,)
            return view.cast(letter, shape)
    return view


def as_text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


DATA: list[Callable[[bytes], Any]] = [
    bytes,
    bytearray,
    memoryview,
    every_second,
    backwards,
    of_format,
    as_text,
    lambda octets: Shouting(as_text(octets)),
]


def parts_of(octets: st.SearchStrategy[bytes]) -> st.SearchStrategy[Part]:
    """The same octets as each of the types that carry them."""
    return st.builds(lambda make, data: Part(make(data), data), st.sampled_from(DATA), octets)


def written(value: Any, text: str) -> Part:
    return Part(value, text.encode())


def without_nul(octets: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return octets.map(lambda data: data.replace(b"\0", b"n"))


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
octets = without_nul(st.binary(max_size=300)) | texts.map(str.encode)
long_octets = st.builds(
    lambda piece, size: (piece * size)[:LONGEST_ARGUMENT],
    without_nul(st.binary(min_size=1, max_size=10)),
    st.integers(1000, 20_000),
)
paths = st.one_of(
    octets.map(lambda data: Part(PathOfOctets(data), data)),
    octets.map(lambda data: PurePosixPath(as_text(data))).map(lambda p: Part(p, bytes(p))),
)
values = st.one_of(
    st.integers().map(lambda n: written(n, f"{n:d}")),
    st.booleans().map(lambda b: written(b, "True" if b else "False")),
    st.floats().map(lambda f: written(f, repr(f))),
    st.decimals().map(lambda d: written(d, str(decimal.Decimal(d)))),
    st.sampled_from(
        [
            written(Word.ECHO, "echo"),
            written(OldWord.GRUEN, "grün"),
            written(Number.SEVEN, "7"),
            written(Colour.RED, "Colour.RED"),
        ]
    ),
)
parts = st.one_of(parts_of(octets), parts_of(octets), paths, values, parts_of(long_octets))
names = st.sampled_from(DATA).map(lambda make: Part(make(b"show"), b"show"))

any_data = st.one_of(
    st.binary(max_size=2000),
    st.builds(bytes.__mul__, st.binary(max_size=20), st.integers(0, 20_000)),
    st.sampled_from([b"", b"\0", b"\0" * 70_000, bytes(range(256)) * 1100]),
)
inputs = st.one_of(st.none(), parts_of(any_data))

CONTAINERS: list[Callable[[list[Any]], Any]] = [
    list,
    tuple,
    iter,
    lambda items: (item for item in items),
    lambda items: map(operator.itemgetter(0), zip(items, strict=True)),
    lambda items: dict(enumerate(items)).values(),
]
containers = st.sampled_from(CONTAINERS)


# Commands that a server takes

# dash keeps every octet as it is; no argument of a program holds a NUL, so one can end each.
SHOW = r"""
for part; do printf '%s\000' "$part"; done
exec cat
"""


@pytest.fixture(scope="module")
def real(remctl_realm: Realm) -> Iterator[dict[str, remctl.Remctl]]:
    """Two sessions whose command `show` gives back what it gets; `fed` reads the last on stdin."""
    plain = RemctldServer(remctl_realm, [Command("show", script=SHOW)])
    fed = RemctldServer(remctl_realm, [Command("show", script=SHOW, stdin="last")])
    with (
        plain,
        fed,
        remctl.Remctl("localhost", plain.port, timeout=LIMIT) as to_plain,
        remctl.Remctl("localhost", fed.port, timeout=LIMIT) as to_fed,
    ):
        yield {"plain": to_plain, "fed": to_fed}


def shown(sent: list[Part]) -> bytes:
    return b"".join(part.sent + b"\0" for part in sent)


@settings(steady, max_examples=250)
@given(
    name=names,
    arguments=st.lists(parts, max_size=12),
    data=inputs,
    make=containers,
)
@example(Part("show", b"show"), [Part("", b"")], None, tuple)
@example(Part("show", b"show"), [Part(b"x", b"x")] * (MOST_ARGUMENTS - 1), None, iter)
@example(Part("show", b"show"), [Part("", b"")] * (MOST_ARGUMENTS - 2), Part(b"", b""), iter)
def test_what_is_sent_comes_back_octet_by_octet(
    real: dict[str, remctl.Remctl],
    name: Part,
    arguments: list[Part],
    data: Part | None,
    make: Callable[[list[Any]], Any],
) -> None:
    command = make([name.item, *(part.item for part in arguments)])
    if data is None:
        result = real["plain"].run(command)
        assert (result.stdout or b"") == shown(arguments)
    else:
        assume(arguments or b"\0" not in data.sent)  # It would be the subcommand.
        result = real["fed"].run(command, input=data.item)
        assert (result.stdout or b"") == shown(arguments) + data.sent
    assert (result.stderr, result.status) == (None, 0)


@settings(steady, max_examples=15)
@given(data=st.builds(bytes.__mul__, st.binary(min_size=1, max_size=9), st.integers(10**5, 10**6)))
def test_megabytes_come_back_octet_by_octet(real: dict[str, remctl.Remctl], data: bytes) -> None:
    assert real["fed"].run(["show", "x"], input=data).stdout == b"x\0" + data


# Commands that no server takes


@pytest.fixture(scope="module")
def watched(remctl_realm: Realm) -> Iterator[tuple[FakeServer, remctl.Remctl]]:
    """A server that notes all that it is sent, and a session with it."""
    with (
        FakeServer(remctl_realm.keytab, timeout=NEVER) as server,
        remctl.Remctl("localhost", server.port, timeout=LIMIT) as session,
    ):
        yield server, session
    assert server.errors == []


class Mistake(NamedTuple):
    """An invalid part, a way to put it into a command, and the error for it."""

    name: str
    spoil: Callable[[list[Any], int, bytes], list[Any]]
    kind: type[Exception]
    says: str


MEGABYTE = b"x" * 1024 * 1024


def put(items: list[Any], place: int, item: Any) -> list[Any]:
    place %= len(items) + 1
    return [*items[:place], item, *items[place:]]


MISTAKES = [
    Mistake("none", lambda c, n, _: put(c, n, None), TypeError, "must not contain None"),
    Mistake("half", lambda c, n, _: put(c, n, "a\ud83d"), ValueError, "contains a surrogate"),
    Mistake("low half", lambda c, n, _: put(c, n, "\udc7fa"), ValueError, "contains a surrogate"),
    Mistake(
        "nul in the command",
        lambda c, _, data: [data + b"\0" + data, *c],
        ValueError,
        r"^the command must not contain a NUL",
    ),
    Mistake(
        "nul in the subcommand",
        lambda c, _, data: [c[0], as_text(data) + "\0", *c[1:]],
        ValueError,
        r"^the subcommand must not contain a NUL",
    ),
    Mistake("empty", lambda *_: [], ValueError, r"^command must not be empty$"),
    Mistake(
        "too many",
        lambda c, n, _: [*c, *["x"] * (MOST_ARGUMENTS - len(c) + 1 + n)],
        ValueError,
        r"^command has more than 4096 arguments",
    ),
    Mistake(
        "too long",
        lambda c, n, _: put([*c, *[MEGABYTE] * 99], n + 1, MEGABYTE),
        ValueError,
        r"^command has \d+ octets; a server takes less than 100 MiB",
    ),
]


@settings(steady, max_examples=200)
@given(
    mistake=st.sampled_from(MISTAKES),
    name=names,
    arguments=st.lists(parts, max_size=5),
    place=st.integers(0, 20),
    data=octets,
    make=containers,
    how=st.sampled_from(["run", "command", "stream"]),
)
def test_what_no_server_takes_is_refused_before_anything_is_sent(
    watched: tuple[FakeServer, remctl.Remctl],
    mistake: Mistake,
    name: Part,
    arguments: list[Part],
    place: int,
    data: bytes,
    make: Callable[[list[Any]], Any],
    how: str,
) -> None:
    server, session = watched
    right = [name.item, *(part.item for part in arguments)]
    before = server.messages
    with pytest.raises(mistake.kind, match=mistake.says) as caught:
        getattr(session, how)(make(mistake.spoil(right, place, data)))
    assert len(str(caught.value)) < 200, "no argument stands in the text"
    assert session.noop(), "in step"
    assert server.messages == [*before, Message.NOOP]
    assert server.connections == 1


no_inputs = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.lists(st.binary()), st.just(PurePosixPath("x"))
)


@settings(steady, max_examples=50)
@given(wrong=no_inputs, arguments=st.lists(parts, max_size=5))
def test_what_is_no_input_is_refused_before_anything_is_sent(
    watched: tuple[FakeServer, remctl.Remctl], wrong: Any, arguments: list[Part]
) -> None:
    server, session = watched
    before = server.messages
    with pytest.raises(TypeError, match=r"^input must be bytes, str or a binary file, not "):
        session.run(["show", *(part.item for part in arguments)], input=wrong)
    assert session.noop()
    assert server.messages == [*before, Message.NOOP]


# Outputs


class Plan(NamedTuple):
    """The server's answer to the next command."""

    outputs: list[tuple[int, bytes]]
    last: bytes
    cuts: list[int]


@pytest.fixture(scope="module")
def scripted(remctl_realm: Realm) -> Iterator[tuple[queue.Queue[Plan], remctl.Remctl]]:
    """A server that answers each command with the next plan, and a session with it."""
    plans: queue.Queue[Plan] = queue.Queue()

    def script(peer: Peer) -> None:
        peer.accept()
        peer.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            peer.read_command()
            answer(peer, plans.get(timeout=LIMIT))

    with (
        FakeServer(remctl_realm.keytab, script, timeout=NEVER) as server,
        remctl.Remctl("localhost", server.port, timeout=LIMIT) as session,
    ):
        yield plans, session
        assert server.connections == 1


def answer(peer: Peer, plan: Plan) -> None:
    """Send all tokens of a plan, in writes that have nothing to do with where they end."""
    messages = [*(wire.pack_output(data, stream) for stream, data in plan.outputs), plan.last]
    flags = Flag.DATA | Flag.PROTOCOL
    stream = b"".join(wire.pack_token(flags, peer.wrap(message)) for message in messages)
    places = sorted({0, len(stream), *(cut % len(stream) for cut in plan.cuts)})
    for start, end in itertools.pairwise(places):
        peer.send_raw(stream[start:end])


pieces = st.tuples(
    st.sampled_from([1, 2]),
    st.binary(max_size=300)
    | st.builds(bytes.__mul__, st.binary(min_size=1, max_size=9), st.integers(0, 7000)),
)
outputs = st.lists(pieces, max_size=12)
cuts = st.lists(st.integers(0, 2**20), max_size=12)
readers = st.sampled_from(["run", "files", "stream", "output"])


def joined(sent: Sequence[tuple[int | None, bytes | None]], stream: int) -> bytes | None:
    return b"".join(data or b"" for number, data in sent if number == stream) or None


def read(session: remctl.Remctl, how: str) -> tuple[Any, remctl.RemctlSimpleResult]:
    """Run a command; its outputs, where they are told one by one, and its result."""
    if how == "run":
        return None, session.run(["x"])
    if how == "files":
        files = io.BytesIO(), io.BytesIO()
        result = session.run(["x"], stdout=files[0], stderr=files[1])
        assert (result.stdout, result.stderr) == (None, None)
        out, err = (file.getvalue() or None for file in files)
        return None, remctl.RemctlSimpleResult(out, err, result.status)
    tokens = read_tokens(session) if how == "output" else list(session.stream(["x"]))
    told = [(token.stream, token.output) for token in tokens[:-1]]
    assert {token.type for token in tokens[:-1]} <= {"output"}
    assert tokens[-1].type == "status"
    out, err = (joined(told, stream) for stream in (1, 2))
    return told, remctl.RemctlSimpleResult(out, err, tokens[-1].status)


def read_tokens(session: remctl.Remctl) -> list[remctl.RemctlOutput]:
    session.command(["x"])
    tokens = [session.output()]
    while tokens[-1].type == "output":
        tokens.append(session.output())
    assert session.output().type == "done"
    return tokens


@settings(steady, max_examples=250)
@given(sent=outputs, status=st.integers(0, 255), cuts=cuts, how=readers)
def test_output_is_joined_exactly_however_it_is_cut(
    scripted: tuple[queue.Queue[Plan], remctl.Remctl],
    sent: list[tuple[int, bytes]],
    status: int,
    cuts: list[int],
    how: str,
) -> None:
    plans, session = scripted
    plans.put(Plan(sent, wire.pack_status(status), cuts))
    told, result = read(session, how)
    assert result == remctl.RemctlSimpleResult(joined(sent, 1), joined(sent, 2), status)
    assert told in (None, sent)


@settings(steady, max_examples=200)
@given(
    sent=outputs,
    # After that one the connection is given up, see test_reopening.py.
    code=(st.integers(0, 12) | st.integers(0, 2**32 - 1)).filter(lambda code: code != 7),
    text=st.binary(max_size=300) | texts.map(str.encode) | st.just(b"\0" * 60_000),
    cuts=cuts,
    how=readers,
)
def test_errors_are_told_whatever_octets_they_have(
    scripted: tuple[queue.Queue[Plan], remctl.Remctl],
    sent: list[tuple[int, bytes]],
    code: int,
    text: bytes,
    cuts: list[int],
    how: str,
) -> None:
    plans, session = scripted
    plans.put(Plan(sent, wire.pack_error(code, text), cuts))
    if how == "output":
        assert read_tokens(session)[-1] == ("error", text, None, None, code)
        return
    with pytest.raises(remctl.RemctlServerError) as caught:
        read(session, how)
    assert str(caught.value) == session.error() == printable(text)
    assert caught.value.code == code
    if how == "run":
        partial = remctl.RemctlSimpleResult(joined(sent, 1), joined(sent, 2))
        assert caught.value.partial == partial
