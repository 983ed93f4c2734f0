"""Checks of arguments: commands and their limits, and every other argument."""

from __future__ import annotations

import array
import enum
import hashlib
import pathlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakeserver import FakeServer
from support.generating import steady

import remctl
from remctl_toolkit.testing import Command, Realm, RemctldServer

if TYPE_CHECKING:
    from remctl_toolkit.testing.plugin import ServerFactory

NOT_A_COMMAND = "^command must be a sequence or iterator"
MOST_ARGUMENTS = 4096
MOST_OCTETS = 100 * 1024 * 1024 - 1  # of a command, with the lengths that stand before its parts


@pytest.fixture
def server(remctl_realm: Realm) -> Iterator[FakeServer]:
    """A server that echoes, and remembers what arrived."""
    with FakeServer(remctl_realm.keytab) as server:
        yield server
        assert server.errors == []


@pytest.fixture
def session(server: FakeServer) -> Iterator[remctl.Remctl]:
    with remctl.Remctl("localhost", server.port, timeout=20) as session:
        yield session


class Colour(enum.Enum):
    RED = "red"


class Word(enum.StrEnum):
    ECHO = "echo"


class OldWord(str, enum.Enum):  # noqa: UP042  (as programs of today have it)
    ECHO = "echo"


class Number(enum.IntEnum):
    SEVEN = 7


class Shouting(str):
    def __str__(self) -> str:
        return "not this"


class Account:
    def __str__(self) -> str:
        return "alice"


# Commands


@pytest.mark.parametrize(
    ("part", "sent"),
    [
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"\x00\xff"), b"\x00\xff"),
        (memoryview(b"abcdef")[1:5], b"bcde"),
        (memoryview(b""), b""),
        (memoryview(b"abcdef")[::2], b"ace"),
        (memoryview(b"abcdef").cast("B", (2, 3)), b"abcdef"),
        (memoryview(array.array("H", [1, 2])), array.array("H", [1, 2]).tobytes()),
        ("grün", "grün".encode()),
        ("", b""),
        (b"", b""),
        ("name-\udcff", b"name-\xff"),
        (Path("/tmp/grün"), "/tmp/grün".encode()),
        (pathlib.PurePosixPath("a") / "b", b"a/b"),
        (0, b"0"),
        (-7, b"-7"),
        (1.5, b"1.5"),
        (True, b"True"),
        (Decimal("1.50"), b"1.50"),
        (Number.SEVEN, b"7"),
        (Word.ECHO, b"echo"),
        (OldWord.ECHO, b"echo"),
        (Shouting("this"), b"this"),
        (Colour.RED, b"Colour.RED"),
        (Account(), b"alice"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_part_of_a_command_travels_as_octets(
    session: remctl.Remctl, server: FakeServer, part: Any, sent: bytes
) -> None:
    session.run(["test", "x", part])
    if b"\0" not in sent:  # The command and the subcommand take the same, but no NUL.
        session.run([part, part])
    assert server.commands[0] == [b"test", b"x", sent]
    assert server.commands[1:] in ([], [[sent, sent]])


@pytest.mark.parametrize(
    "command",
    [
        ["a", "b"],
        ("a", b"b"),
        iter(["a", "b"]),
        (letter for letter in "ab"),
        {"a": 1, "b": 2},
        map(str.lower, "AB"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_iterable_is_a_command(
    session: remctl.Remctl, server: FakeServer, command: Any
) -> None:
    session.run(command)
    assert server.commands == [[b"a", b"b"]]


def test_a_generator_is_asked_once_by_the_simple_call(server: FakeServer) -> None:
    words = (word for word in ["test", "echo"])
    remctl.remctl("localhost", server.port, command=words, timeout=20)
    assert server.commands == [[b"test", b"echo"]]


@pytest.mark.parametrize(
    "command",
    ["test", b"test", bytearray(b"test"), memoryview(b"test"), True, 1, 1.5, None, Path("test")],
    ids=lambda value: type(value).__name__,
)
def test_what_is_one_thing_is_not_a_command(session: remctl.Remctl, command: Any) -> None:
    with pytest.raises(TypeError, match=NOT_A_COMMAND):
        remctl.remctl("localhost", 1, command=command)
    for call in (session.command, session.run, session.stream):
        with pytest.raises(TypeError, match=NOT_A_COMMAND):
            call(command)


def test_an_empty_command_is_refused(session: remctl.Remctl, server: FakeServer) -> None:
    nothing: list[Any] = [[], (), iter([]), {}]
    for empty in nothing:
        with pytest.raises(ValueError, match=r"^command must not be empty$"):
            session.command(empty)
    with pytest.raises(ValueError, match=r"^command must not be empty$"):
        session.run([], input=b"data")
    with pytest.raises(ValueError, match=r"^command must not be empty$"):
        remctl.remctl("localhost")
    assert session.noop()
    assert server.commands == []


def test_none_is_a_slip_not_an_argument(session: remctl.Remctl, server: FakeServer) -> None:
    slip: Any = None
    with pytest.raises(TypeError, match="must not contain None"):
        session.run(["test", slip])
    assert server.commands == []


def test_input_is_data_not_what_names_it(session: remctl.Remctl, server: FakeServer) -> None:
    """A path would be sent as its name, which nobody means."""
    slips: list[Any] = [Path("/dev/null"), 3, ["x"]]
    for slip in slips:
        with pytest.raises(TypeError, match=r"^input must be bytes, str or a binary file, "):
            session.run(["test", "x"], input=slip)
    assert session.noop()
    assert server.commands == []


def test_text_that_is_no_text_is_refused(session: remctl.Remctl, server: FakeServer) -> None:
    with pytest.raises(ValueError, match="surrogate"):
        session.run(["test", "x", "half a character: \ud83d"])
    assert session.noop()
    assert server.commands == []


def test_an_exception_of_the_iterable_is_the_callers(session: remctl.Remctl) -> None:
    def fail() -> Iterator[str]:
        yield "test"
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        session.run(fail())
    assert session.noop()


@pytest.mark.parametrize("place", [0, 1], ids=["command", "subcommand"])
def test_a_nul_is_refused_where_no_server_takes_it(
    session: remctl.Remctl, server: FakeServer, place: int
) -> None:
    command = ["test", "echo", "x"]
    command[place] += "\0"
    name = ("command", "subcommand")[place]
    with pytest.raises(ValueError, match=f"^the {name} must not contain a NUL octet$"):
        session.run(command)
    assert session.noop()
    assert server.commands == []


# Limits


def test_as_many_arguments_as_a_server_takes(
    session: remctl.Remctl, server: FakeServer, remctl_server: RemctldServer
) -> None:
    words = ["test", "echo", *["x"] * (MOST_ARGUMENTS - 2)]
    with pytest.raises(ValueError, match=r"^command has more than 4096 arguments: "):
        session.run([*words, "x"])
    with pytest.raises(ValueError, match=r"^command has more than 4096 arguments: "):
        session.run(words, input=b"")
    assert session.noop()
    assert server.commands == []
    session.run(words)
    assert len(server.commands[0]) == MOST_ARGUMENTS
    result = remctl.remctl("localhost", remctl_server.port, command=words)
    assert result.stdout == b"x " * (MOST_ARGUMENTS - 3) + b"x\n"


@pytest.mark.once
def test_as_many_octets_as_a_server_takes(remctld: ServerFactory) -> None:
    server = remctld([Command("digest", script="exec sha256sum", stdin="last")])
    words = ["digest", "x"]
    overhead = 4 + sum(4 + len(word) for word in words) + 4
    data = bytearray(MOST_OCTETS - overhead)
    data[::4099] = b"x" * len(data[::4099])
    with remctl.Remctl("localhost", server.port, timeout=60) as session:
        with pytest.raises(ValueError, match=r"^command has 104857600 octets; .* 100 MiB"):
            session.run(words, input=bytes(data) + b"x")
        result = session.run(words, input=data)
        assert result.stdout_text().split()[0] == hashlib.sha256(data).hexdigest()
        assert session.noop(), "the session is in step"


def test_a_nul_travels_whole_where_it_is_standard_input(remctl_server: RemctldServer) -> None:
    for data in (b"\0", b"hello\0world", b"\0" * 70_000):
        with remctl.Remctl("localhost", remctl_server.port, timeout=20) as session:
            assert session.run(["test", "cat", data]).stdout == data
            assert session.run(["test", "cat"], input=data).stdout == data


def test_a_nul_that_the_server_does_not_take_is_an_error_not_cut(
    remctl_server: RemctldServer,
) -> None:
    with remctl.Remctl("localhost", remctl_server.port, timeout=20) as session:
        with pytest.raises(remctl.RemctlServerError) as caught:
            session.run(["test", "echo", "hello\0world"])
        assert caught.value.code == remctl.RemctlErrorCode.BAD_COMMAND
        assert session.noop()


@settings(steady, max_examples=25)
@given(
    arguments=st.lists(st.binary(max_size=2000).map(lambda b: b.replace(b"\0", b"n")), max_size=20),
    data=st.binary(max_size=100_000),
)
def test_whatever_is_sent_arrives(
    shared: remctl.Remctl, arguments: list[bytes], data: bytes
) -> None:
    sent = [b"show", *arguments]
    result = shared.run(["show", *sent], input=data)
    assert result.stdout == b"".join(b"%d %s\n" % (len(part), part) for part in sent) + data


SHOW = """#!/usr/bin/env python3
import os, sys
for part in map(os.fsencode, sys.argv[1:]):
    sys.stdout.buffer.write(b"%d %s\\n" % (len(part), part))
sys.stdout.buffer.write(sys.stdin.buffer.read())
"""


@pytest.fixture
def shared(remctld: ServerFactory) -> Iterator[remctl.Remctl]:
    """A session whose `show` prints its arguments, each with its length, and what it reads."""
    server = remctld([Command("show", script=SHOW, stdin="last")])
    with remctl.Remctl("localhost", server.port, timeout=20) as session:
        yield session


# Where to


Opener = Callable[..., object]


@pytest.fixture(params=["remctl", "Remctl", "open"])
def opener(request: pytest.FixtureRequest) -> Opener:
    """The three ways to name a server."""

    def simple(*arguments: Any, **keywords: Any) -> object:
        return remctl.remctl(*arguments, **{"command": ["test"], **keywords})

    ways: dict[str, Opener] = {
        "remctl": simple,
        "Remctl": remctl.Remctl,
        "open": remctl.Remctl().open,
    }
    return ways[request.param]


@pytest.mark.parametrize(
    ("port", "kind", "text"),
    [
        ("foo", TypeError, "port must be a number: 'foo'"),
        ("", TypeError, "port must be a number: ''"),
        (b"x", TypeError, "port must be a number: b'x'"),
        ([], TypeError, "port must be a number: []"),
        (1.5, TypeError, "port must be a whole number: 1.5"),
        (float("nan"), TypeError, "port must be a number: nan"),
        (float("inf"), TypeError, "port must be a number: inf"),
        (-1, ValueError, "invalid port number: -1"),
        ("-1", ValueError, "invalid port number: -1"),
        (65536, ValueError, "invalid port number: 65536"),
        ("70000", ValueError, "invalid port number: 70000"),
    ],
)
def test_a_port_is_a_number_of_a_port(
    opener: Opener, port: object, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as caught:
        opener("localhost", port)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ((b"localhost",), TypeError),
        ((3,), TypeError),
        (("local\0host",), ValueError),
        (("localhost", 1, b"host/localhost"), TypeError),
        (("localhost", 1, 3), TypeError),
        (("localhost", 1, ""), ValueError),
        (("localhost", 1, "host/\0"), ValueError),
    ],
)
def test_a_host_and_a_principal_are_text(
    opener: Opener, arguments: tuple[Any, ...], kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        opener(*arguments)


def test_a_host_is_needed() -> None:
    for nobody in (None, ""):
        with pytest.raises((TypeError, ValueError)):
            remctl.Remctl().open(nobody)  # type: ignore[arg-type]
        with pytest.raises((TypeError, ValueError)):
            remctl.remctl(nobody, command=["test"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keyword", "wrong", "kind"),
    [
        ("timeout", "5", TypeError),
        ("timeout", True, TypeError),
        ("timeout", -0.1, ValueError),
        ("timeout", float("nan"), ValueError),
        ("timeout", 10**400, ValueError),
        ("ccache", b"FILE:/tmp/x", TypeError),
        ("ccache", 3, TypeError),
        ("ccache", "", ValueError),
        ("ccache", "FILE:\0", ValueError),
        ("source_ip", b"127.0.0.1", TypeError),
        ("source_ip", "localhost", ValueError),
        ("source_ip", "127.0.0.1\0", ValueError),
        ("source_ip", "", ValueError),
    ],
)
def test_settings_are_checked_at_once(keyword: str, wrong: Any, kind: type[Exception]) -> None:
    settings: dict[str, Any] = {keyword: wrong}
    with pytest.raises(kind):
        remctl.Remctl(**settings)
    with pytest.raises(kind):
        remctl.remctl("localhost", 1, command=["test"], **settings)
    setter = getattr(remctl.Remctl(), f"set_{keyword}")
    negative = keyword == "timeout" and kind is ValueError  # The contract has RemctlError for it.
    if wrong is True:
        setter(wrong)  # The existing binding takes it for 1.
        return
    with pytest.raises(remctl.RemctlError if negative else kind):
        setter(wrong)
