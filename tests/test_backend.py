"""Backends without a server: what is declared, found and converted."""

from __future__ import annotations

import enum
import functools
import ipaddress
import os
import sys
import uuid
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pytest
from support.calling import call

from remctl_toolkit.backend import Backend, Context, Matches, Short

pytestmark = pytest.mark.once


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


def value_of(annotation: Any, text: str | bytes) -> Any:
    """Return what a command gets for an argument."""
    got = []

    def run(value):
        got.append(value)

    run.__annotations__ = {"value": annotation}
    result = call(run, text)
    if result.status:
        assert result.status == os.EX_USAGE
        return result.stderr_text().removeprefix("test run: ").rstrip("\n")
    return got[0]


# -- Arguments and their types --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (str, "", ""),
        (str, b"\xff", "\udcff"),
        (bytes, b"\xff", b"\xff"),
        (int, "-12", -12),
        (int, "007", 7),
        (float, "1e3", 1000.0),
        (bool, "yes", True),
        (bool, "OFF", False),
        (Path, "/a/b", Path("/a/b")),
        (Colour, "red", Colour.RED),
        (Level, "2", Level.HIGH),
        (Literal["a", 2], "2", 2),
        (int | None, "1", 1),
        (Optional[int], "1", 1),  # noqa: UP045 - as older code has it
        (int | str, "1", 1),
        (int | str | None, "x", "x"),
        (Annotated[int | None, "a number"], "1", 1),
        (uuid.UUID, "00000000-0000-0000-0000-000000000001", uuid.UUID(int=1)),
        (ipaddress.IPv4Address, "127.0.0.1", ipaddress.IPv4Address("127.0.0.1")),
        (date, "2030-01-02", date(2030, 1, 2)),
        (Any, "x", "x"),
        ("int", "3", 3),
        (Annotated[str, Matches("a+")], "aaa", "aaa"),
        (Annotated[bytes, Matches(rb"\xff+")], b"\xff", b"\xff"),
        (Annotated[bytes, Matches("a+")], "aa", b"aa"),
        (list[int], "1", [1]),
        (list[Annotated[int, abs]], "-1", [1]),
        (Annotated[int, abs], "-3", 3),
    ],
)
def test_values(annotation: Any, text: str | bytes, value: Any) -> None:
    got = value_of(annotation, text)
    assert (got, type(got)) == (value, type(value))


@pytest.mark.parametrize(
    ("annotation", "text", "complaint"),
    [
        (int, "", "not an integer: ''"),
        (int, " 1", "not an integer: ' 1'"),
        (int, "1_000", "not an integer: '1_000'"),
        (int, "+1", "not an integer: '+1'"),
        (int, "--1", "not an integer: '--1'"),
        (int, "\N{ARABIC-INDIC DIGIT ONE}", "not an integer: '\N{ARABIC-INDIC DIGIT ONE}'"),
        (float, "nan", "not a number: 'nan'"),
        (float, "1e999", "not a number: '1e999'"),
        (float, "1_0", "not a number: '1_0'"),
        (float, "-", "not a number: '-'"),
        (bool, "perhaps", "neither yes nor no: 'perhaps'"),
        (Colour, "RED", "not one of red, blue: 'RED'"),
        (Literal["a", "b"], "c", "not one of a, b: 'c'"),
        (uuid.UUID, "x", "not a valid UUID: 'x'"),
        (date, "tomorrow", "not a valid date: 'tomorrow'"),
        (int | float, "x", "not a number: 'x'"),
        (Annotated[str, Matches("a+")], "aab", "invalid: 'aab'"),
        (Annotated[str, Matches("a+")], "a\n", "invalid: 'a\\n'"),
        (Annotated[str, Matches("a+", "a cry")], "", "not a cry: ''"),
    ],
)
def test_malformed_values(annotation: Any, text: str, complaint: str) -> None:
    assert value_of(annotation, text) == f"VALUE: {complaint}"


def test_optional_and_repeated_arguments() -> None:
    def run(first: str, second: int = 7, *rest: int) -> str:
        return f"{first} {second} {rest}"

    assert call(run, "a").stdout == b"a 7 ()\n"
    assert call(run, "a", "1").stdout == b"a 1 ()\n"
    assert call(run, "a", "1", "2", "3").stdout == b"a 1 (2, 3)\n"
    assert b"REST: not an integer: 'x'" in (call(run, "a", "1", "2", "x").stderr or b"")


def test_a_list_takes_one_or_more_unless_it_has_a_default() -> None:
    def some(values: list[int]) -> str:
        return repr(values)

    def any_number(values: list[int] | None = None) -> str:
        return repr(values)

    assert call(some, "1", "2").stdout == b"[1, 2]\n"
    assert call(some).stderr == b"test run: missing argument: VALUES\n"
    assert call(any_number).stdout == b"None\n"


def test_options() -> None:
    def run(
        word: str = "",
        *,
        force: Annotated[bool, Short("f")] = False,
        check: bool = True,
        level: Annotated[int, Short("l")] = 1,
        tag: list[str] | None = None,
        dry_run: bool,
    ) -> str:
        return f"{word} {force} {check} {level} {tag} {dry_run}"

    assert call(run).stdout == b" False True 1 None False\n"
    args = ["-fl3", "--no-check", "--tag", "a", "--tag=b", "--dry-run", "w"]
    assert call(run, *args).stdout == b"w True False 3 ['a', 'b'] True\n"
    assert call(run, "--level=2", "--level=4").stdout == b" False True 4 None False\n"
    assert call(run, "--level=x").stderr == b"test run: --level: not an integer: 'x'\n"
    assert call(run, "--force=1").status == os.EX_USAGE


def test_an_option_without_a_default_is_required() -> None:
    def run(*, unit: str) -> str:
        return unit

    assert call(run, "--unit", "GB").stdout == b"GB\n"
    assert call(run).stderr == b"test run: missing option: --unit\n"


def test_without_options_a_dash_is_a_character() -> None:
    def run(*words: str) -> str:
        return repr(words)

    assert call(run, "--", "-x", "--force").stdout == b"('--', '-x', '--force')\n"


def test_wrapped_functions_and_methods() -> None:
    def inner(context: Context, size: int) -> str:
        return f"{context.user} {size + 1}"

    @functools.wraps(inner)
    def outer(*args: Any, **keywords: Any) -> Any:
        return inner(*args, **keywords)

    class Service:
        def run(self, size: int) -> str:
            return str(size + 1)

    assert call(outer, "1").stdout == b"alice@EXAMPLE.ORG 2\n"
    backend = Backend("test")
    backend.command("run")(Service().run)
    assert backend.invoke(["run", "1"]).stdout == b"2\n"


# -- Standard input -------------------------------------------------------------------------------


def test_data_go_to_their_parameter() -> None:
    def run(name: str, data: bytes = b"default", comment: str = "none") -> str:
        return f"{name} {comment} {data!r}"

    def with_data(*args: str, input: str | bytes | None) -> bytes | None:
        return call(run, *args, stdin="data", input=input).stdout

    assert with_data("a", input=b"\xff") == b"a none b'\\xff'\n"
    assert with_data("a", "b", input="text") == b"a b b'text'\n"
    assert with_data("a", "b", input="") == b"a b b''\n"
    assert with_data("a", input=None) == b"a none b'default'\n"
    assert call(run, "a", "b", "c", stdin="data").stderr == b"test run: too many arguments\n"


def test_who_wants_no_data_gets_none() -> None:
    def run() -> str:
        return repr(sys.stdin.read())

    assert call(run, input=b"data").stdout == b"''\n"


# -- Names ----------------------------------------------------------------------------------------


def test_names() -> None:
    backend = Backend("test")

    @backend.command()
    def list_all() -> str:
        return "listed"

    @backend.command()
    def import_() -> str:
        return "imported"

    @backend.command("")
    def nothing() -> str:
        return "no subcommand"

    assert backend.invoke(["list-all"]).stdout == b"listed\n"
    assert backend.invoke(["import"]).stdout == b"imported\n"
    assert backend.invoke([]).stdout == b"no subcommand\n"
    assert backend.invoke([""]).stderr == b"test: unknown subcommand: ''\n"
    assert backend.invoke(["list_all"]).status == os.EX_USAGE
    assert list_all() == "listed", "the function stays what it is"


def test_groups_in_groups() -> None:
    backend = Backend("test")
    inner = backend.group("a").group("b")

    @inner.command()
    def run(context: Context, word: str) -> str:
        return f"{context.path} {word}"

    @inner.command("")
    def nothing(context: Context) -> str:
        return f"{context.path}"

    assert backend.invoke(["a", "b", "run", "x"]).stdout == b"('a', 'b', 'run') x\n"
    assert backend.invoke(["a", "b"]).stdout == b"('a', 'b')\n"
    assert backend.invoke(["a"]).stderr == b"test: missing subcommand after a\n"
    assert backend.invoke(["a", "x"]).stderr == b"test: unknown subcommand: 'a x'\n"


def nothing() -> None:
    pass


@pytest.mark.parametrize("name", ["help", "summary", "ALL", "EMPTY", "two words", "a\x07b", "run"])
def test_names_that_cannot_be(name: str) -> None:
    backend = Backend("test")
    backend.command("run")(nothing)
    with pytest.raises(ValueError, match=r"reserved|remctl\.conf|already"):
        backend.command(name)(nothing)


@pytest.mark.parametrize("name", ["", "two words", "ALL"])
def test_backend_names_that_cannot_be(name: str) -> None:
    with pytest.raises(ValueError, match=r"remctl.conf"):
        Backend(name)


def test_forgotten_parentheses() -> None:
    with pytest.raises(TypeError, match="parentheses"):
        Backend("test").command(nothing)  # type: ignore[arg-type]


def test_a_group_needs_a_name() -> None:
    with pytest.raises(ValueError, match="name"):
        Backend("test").group("")
