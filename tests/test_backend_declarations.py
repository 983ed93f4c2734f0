"""Signatures of commands, and those that are refused when they are declared."""

from __future__ import annotations

import asyncio
import collections.abc
import dataclasses
import enum
import functools
import os
import re
import typing
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, Optional, TypedDict
from zoneinfo import ZoneInfo

import pytest
from support.calling import call

from remctl_toolkit.backend import Backend, Context, Count, Matches, Short

pytestmark = pytest.mark.once

User = NewType("User", str)
Name = Annotated[User, Matches("[a-z]+", "a name")]


def seen(**values: Any) -> str:
    return repr(values)


class Point(NamedTuple):
    x: int
    y: int


class Settings(TypedDict):
    size: int


@dataclasses.dataclass
class Pair:
    left: str
    right: str


class Account:
    def __init__(self, name: str) -> None:
        self.name = name


class Drawable(typing.Protocol):
    def draw(self) -> None: ...


class Bits(enum.Enum):
    ONE = b"1"
    HIGH = b"\xff"


def function_of(annotation: Any, *, option: bool = False) -> Callable[..., Any]:
    """Return a function with one parameter."""

    def positional(value):
        return seen(value=value)

    def keyword(*, value):
        return seen(value=value)

    function = keyword if option else positional
    function.__annotations__ = {"value": annotation}
    return function


def refusal(function: Any, name: str | None = "bad", **declared: Any) -> str:
    """Declare a function, and return why it is refused. Other commands work as before."""
    backend = Backend("test", acl="ANYUSER")
    backend.command("fine")(lambda: "fine")
    group = backend.group("group")
    with pytest.raises((TypeError, ValueError)) as caught:
        group.command(name, **declared)(function)
    assert list(group.members) == []
    assert backend.invoke(["fine"]).stdout == b"fine\n"
    assert backend.invoke(["help"]).status == 0
    assert [rule["subcommand"] for rule in backend.rules()] == ["fine", "group", "help", "EMPTY"]
    return str(caught.value)


# -- Types ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "args", "value"),
    [
        (User, ["alice"], "alice"),
        (Name, ["alice"], "alice"),
        (Optional["User"], ["alice"], "alice"),
        ("User | None", ["alice"], "alice"),
        (NewType("Users", list[int]), ["1", "2"], [1, 2]),
        (Sequence[str], ["a", "b"], ["a", "b"]),
        (typing.Sequence[str], ["a"], ["a"]),
        (typing.List[int], ["1"], [1]),  # noqa: UP006
        (tuple[int, ...], ["1", "2"], (1, 2)),
        (Optional[list[str]], ["a"], ["a"]),  # noqa: UP045
        (list["User"], ["a"], ["a"]),
        (list[Name] | None, ["a"], ["a"]),
        (Annotated[list[str], Matches("[a-z]+")], ["a", "b"], ["a", "b"]),
        (Annotated[list[int], sum], ["1", "2"], 3),
        (Annotated[int, Matches("[0-9]{2}")], ["12"], 12),
        (Annotated[int, Matches(re.compile("[0-9]{2}"))], ["12"], 12),
        (Annotated[str, Matches(re.compile(b"[a\xff]", re.IGNORECASE))], [b"A"], "A"),
        (Annotated[int, abs] | Literal["max"], ["max"], "max"),
        (Annotated[int, abs] | Literal["max"], ["-2"], 2),
        (str | int, ["1"], 1),
        (Decimal, ["1.50"], Decimal("1.50")),
        (Path | None, ["/x"], Path("/x")),
        (Bits, [b"\xff"], Bits.HIGH),
        (Literal[b"\xff", 1], [b"\xff"], b"\xff"),
        (Literal["a", None], ["a"], "a"),
        (Literal[Bits.ONE], ["1"], Bits.ONE),
    ],
)
def test_values(annotation: Any, args: list[str | bytes], value: Any) -> None:
    assert call(function_of(annotation), *args).stdout_text() == f"{seen(value=value)}\n"


@pytest.mark.parametrize(
    ("annotation", "arg", "text"),
    [
        (Decimal, "x", "not a valid Decimal: 'x'"),
        (Fraction, "1/0", "not a valid Fraction: '1/0'"),
        (ZoneInfo, "No/Where", "not a valid ZoneInfo: 'No/Where'"),
        (Annotated[list[int], Matches("[0-9]")], "12", "invalid: '12'"),
        (Annotated[int, Matches("[0-9]{2}", "two digits")], "x", "not two digits: 'x'"),
        (list[Name], "X", "not a name: 'X'"),
    ],
)
def test_malformed_values(annotation: Any, arg: str, text: str) -> None:
    result = call(function_of(annotation), arg)
    assert (result.status, result.stderr_text()) == (os.EX_USAGE, f"test run: VALUE: {text}\n")


def test_a_check_of_a_list_is_given_all_of_it() -> None:
    def two(values: list[str]) -> None:
        if len(values) != 2:
            raise ValueError("not two")

    function = function_of(Annotated[list[str], two])
    assert call(function, "a", "b").status == 0
    assert call(function, "a").stderr == b"test run: VALUE: not two\n"


def test_none_is_kept_and_so_is_any_default() -> None:
    default = ["dflt"]

    def run(
        users: Optional[list[str]] = None,  # noqa: UP045
        *,
        tag: list[str] | None = None,
        other: Sequence[str] = default,
        define: dict[str, int] | None = None,
        level: Annotated[int | None, Count()] = None,
    ) -> str:
        return seen(users=users, tag=tag, other=other, define=define, level=level)

    nothing = {"users": None, "tag": None, "other": default, "define": None, "level": None}
    assert call(run).stdout_text() == f"{nothing}\n"
    assert call(run, "--tag=", "--level", "--define=a=1").stdout_text() == (
        f"{ {**nothing, 'tag': [''], 'level': 1, 'define': {'a': 1}} }\n"
    )


def test_help_has_defaults_that_have_a_text() -> None:
    unset = object()

    def run(user: Any = unset, unit: str = "GB", where: Path = Path("/x")) -> None:
        """Do it."""

    backend = Backend("test")
    backend.command()(run)
    assert backend.invoke(["help", "run"]).stdout_text() == (
        "usage: test run [USER] [UNIT] [WHERE]\n\nDo it.\n\n"
        "  UNIT  default GB\n  WHERE  default /x\n"
    )


def test_help_of_a_command_without_a_name_has_no_arguments() -> None:
    """Nobody can give it any; the function may well have some, for another name of it."""

    def run(user: str = "all", *rest: str, force: bool = False) -> str:
        """Do it."""
        return seen(user=user, rest=rest, force=force)

    backend = Backend("test")
    group = backend.group("group")
    for place in (backend, group):
        place.command("", json=True)(run)
        place.command("named")(run)
    nothing = f"{seen(user='all', rest=(), force=False)}\n"
    assert backend.invoke([]).stdout_text() == nothing
    assert backend.invoke(["group"]).stdout_text() == nothing
    assert backend.invoke(["help"]).stdout_text().splitlines() == [
        "test group                                   Do it.",
        "test group named [--force] [USER] [REST...]  Do it.",
        "test                                         Do it.",
        "test named [--force] [USER] [REST...]        Do it.",
    ]


@pytest.mark.parametrize(
    ("annotation", "shown"),
    [
        (set, "set"),
        (set[str], "set[str]"),
        (frozenset[str], "frozenset[str]"),
        (dict, "dict"),
        (list, "list"),
        (Sequence, "collections.abc.Sequence"),
        (deque[str], "collections.deque[str]"),
        (list[list[str]], "list[str]"),
        (list[str] | str, "list[str]"),
        (tuple[int, str], "tuple[int, str]"),
        (tuple[()], "tuple"),
        (typing.List, "list: add the type of its items"),  # noqa: UP006
        (typing.Dict, "dict: add the type of its items"),  # noqa: UP006
        (typing.Sequence, "Sequence: add the type of its items"),
        (Literal[None], "no value"),
        (enum.Enum("Nothing", []), "no value"),
        (object, "object"),
        (None, "None"),
        (type(None), "NoneType"),
        (3, "3"),
        (timedelta, "datetime.timedelta"),
        (bytearray, "bytearray"),
        (range, "range"),
        (type, "type"),
        (Point, "Point"),
        (Settings, "Settings"),
        (Pair, "Pair"),
        (Drawable, "Drawable"),
        (collections.abc.Hashable, "collections.abc.Hashable"),
        (Callable[[], None], "Callable"),
        (typing.Iterable[str], "Iterable[str]"),
        (typing.TypeVar("T"), "~T"),
        ("Nonsense", "cannot evaluate Nonsense"),
        (Optional["Nonsense"], "cannot evaluate Nonsense"),  # noqa: F821
        ("list[", "cannot evaluate list["),
    ],
)
def test_types_that_no_argument_can_have(annotation: Any, shown: str) -> None:
    for option in (False, True):
        text = refusal(function_of(annotation, option=option))
        assert text.startswith("command 'group bad': parameter 'value': ")
        assert shown in text


def test_a_class_that_takes_a_text_needs_no_more(tmp_path: Path) -> None:
    def run(account: Account) -> str:
        return account.name

    assert call(run, "alice").stdout == b"alice\n"


# -- Functions ------------------------------------------------------------------------------------


async def coroutine(a: str) -> str:
    return a


async def asynchronous_generator(a: str) -> collections.abc.AsyncIterator[str]:
    yield a


def synchronous(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any, **keywords: Any) -> Any:
        return asyncio.run(function(*args, **keywords))

    return run


def asynchronous(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def run(*args: Any, **keywords: Any) -> Any:
        return function(*args, **keywords)

    return run


class Service:
    def method(self, a: int) -> str:
        return seen(a=a)

    @classmethod
    def of_the_class(cls, a: int) -> str:
        return seen(a=a)

    @staticmethod
    def static(a: int) -> str:
        return seen(a=a)

    def __call__(self, a: str) -> str:
        return a


def plain(a: int, /, b: int = 2) -> str:
    return seen(a=a, b=b)


@functools.wraps(plain)
def wrapper(*args: Any) -> Any:
    return plain(*args)


def with_option(a: int, *, b: int = 2) -> str:
    return seen(a=a, b=b)


@functools.wraps(with_option)
def without_keywords(*args: Any) -> Any:
    return with_option(*args)


@functools.wraps(plain)
def narrow(a: int) -> Any:
    return plain(a)


@pytest.mark.parametrize(
    "function",
    [
        Service().method,
        Service().of_the_class,
        Service.of_the_class,
        Service.static,
        Service.__dict__["static"],
        plain,
        wrapper,
        narrow,
        functools.lru_cache(plain),
        synchronous(coroutine),
        lambda a: f"{a}",
    ],
)
def test_functions_that_can_be_commands(function: Any) -> None:
    result = call(function, "1")
    assert result.status == 0
    assert b"1" in (result.stdout or b"")


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (coroutine, "coroutine"),
        (asynchronous_generator, "coroutine"),
        (asynchronous(plain), "coroutine"),
        (lambda **names: None, "keywords"),
        (without_keywords, "its decorator must accept **keywords"),
        (functools.partial(plain, 1), "a command must be a function"),
        (functools.update_wrapper(functools.partial(plain, 1), plain), "must be a function"),
        (Service(), "a command must be a function"),
        (Service, "a command must be a function"),
        (Service.method, "object.method"),
        (Service.__dict__["of_the_class"], "a command must be a function"),
        (print, "a command must be a function"),
        ("text", "a command must be a function"),
    ],
)
def test_functions_that_cannot_be_commands(function: Any, text: str) -> None:
    said = refusal(function)
    assert said.startswith("command 'group bad': ")
    assert text in said


def test_a_function_without_a_name_is_given_one() -> None:
    def _() -> None:
        pass

    for function in (lambda: None, _):
        assert 'command("NAME")' in refusal(function, None)
    assert "a command must be a function" in refusal(functools.partial(plain), None)


# -- Combinations ---------------------------------------------------------------------------------


def list_before_more(a: list[str], b: str) -> None: ...
def list_before_rest(a: list[str], *rest: str) -> None: ...
def two_lists(a: list[str], b: list[str]) -> None: ...
def list_of_lists(*a: list[str]) -> None: ...
def positional_dict(a: dict[str, str]) -> None: ...
def dict_of_numbers(*, a: dict[int, str]) -> None: ...
def positional_count(a: Annotated[int, Count()]) -> None: ...
def count_of_text(*, a: Annotated[str, Count()]) -> None: ...
def short_argument(a: Annotated[str, Short("a")]) -> None: ...
def short_rest(*a: Annotated[str, Short("a")]) -> None: ...
def bare_short(*, a: Annotated[bool, Short] = False) -> None: ...
def bare_count(*, a: Annotated[int, Count] = 0) -> None: ...
def bare_pattern(a: Annotated[str, Matches]) -> None: ...
def late_context(b: str, a: Context) -> None: ...
def optional_context(b: str, *, a: Context | None = None) -> None: ...
def two_contexts(b: Context, a: Context) -> None: ...
def contexts(*a: Context) -> None: ...
def same_label(*, a_: bool = False, a: bool = False) -> None: ...
def same_label_of_no(*, no_a: bool = False, a: bool = True) -> None: ...
def same_letter_twice(
    *, b: Annotated[bool, Short("x")] = False, a: Annotated[str, Short("x")] = ""
) -> None: ...


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (list_before_more, "only the last argument can be a list"),
        (list_before_rest, "only the last argument can be a list"),
        (two_lists, "only the last argument can be a list"),
        (list_of_lists, "type of one argument"),
        (positional_dict, "make it an option"),
        (dict_of_numbers, "keys of dict[int, str] must be str"),
        (positional_count, "make it an option"),
        (count_of_text, "a count must be an int, not str"),
        (short_argument, "is for options"),
        (short_rest, "is for options"),
        (bare_short, "write Short(...)"),
        (bare_count, "write Count(...)"),
        (bare_pattern, "write Matches(...)"),
        (late_context, "make it the first parameter"),
        (optional_context, "make it the first parameter"),
        (two_contexts, "make it the first parameter"),
        (contexts, "make it the first parameter"),
        (same_label, "another one already uses --a"),
        (same_label_of_no, "another one already uses --no-a"),
        (same_letter_twice, "another one already uses -x"),
    ],
)
def test_combinations_that_cannot_be(function: Any, text: str) -> None:
    said = refusal(function)
    assert said.startswith("command 'group bad': parameter 'a': ")
    assert text in said


def test_what_is_declared_with_the_function_must_fit() -> None:
    assert "another one already uses --json" in refusal(lambda *, json="": None, json=True)
    assert refusal(lambda data: None, stdin="nothing").startswith(
        "command 'group bad': parameter 'nothing': "
    )
    assert "parameter 'data'" in refusal(lambda *data: None, stdin="data")
    assert "parameter 'data'" in refusal(lambda data, other: None, stdin="data")
    assert "parameter 'a'" in refusal(lambda *, a="": None, logmask="a")
    assert "give each parameter a default" in refusal(lambda a: None, "")


def test_json_is_an_option_unless_it_is_declared() -> None:
    def run(json: str, *, other: bool = False) -> list[str]:
        return [json, str(other)]

    assert call(run, "--json", "x", json=True).stdout == b'["x", "False"]\n'
    assert call(lambda *, json="no": json, "--json=yes").stdout == b"yes\n"


def test_a_list_may_stand_before_standard_input() -> None:
    def run(users: list[str], text: str) -> str:
        return seen(users=users, text=text)

    got = call(run, "a", "b", stdin="text", input="hello").stdout_text()
    assert got == f"{seen(users=['a', 'b'], text='hello')}\n"
    backend = Backend("test", acl="ANYUSER")
    backend.command(stdin="text")(run)
    assert backend.rules()[0]["stdin"] == "last"


# -- Options --------------------------------------------------------------------------------------


def options(
    *words: str,
    verbose: Annotated[int, Short("v"), Count()] = 0,
    define: Annotated[dict[str, int], Short("D"), "values"] = {"size": 1},  # noqa: B006
    force: Annotated[bool, Short("f")] = False,
    unit: Annotated[str, Short("u")] = "GB",
) -> str:
    """Take options."""
    return f"{words} {verbose} {define} {force} {unit}"


@pytest.mark.parametrize(
    ("args", "output"),
    [
        ([], "() 0 {'size': 1} False GB"),
        (["-vv", "-v", "--verbose"], "() 4 {'size': 1} False GB"),
        (["-D", "a=1", "--define=b=-2", "-Da=3"], "() 0 {'a': 3, 'b': -2} False GB"),
        (["-vfuTB", "w", "-v"], "('w', '-v') 1 {'size': 1} True TB"),
        (["-u", "-v", "--unit", ""], "() 0 {'size': 1} False "),
        (["-fu", "--", "--", "--"], "('--',) 0 {'size': 1} True --"),
        (["-", "-v"], "('-', '-v') 0 {'size': 1} False GB"),
        (["--", "-v"], "('-v',) 0 {'size': 1} False GB"),
        (["--unit=a=b"], "() 0 {'size': 1} False a=b"),
        (["--unit="], "() 0 {'size': 1} False "),
    ],
)
def test_options(args: list[str], output: str) -> None:
    assert call(options, *args).stdout_text() == f"{output}\n"


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--verb"], "option --verb not recognized"),
        (["--forc"], "option --forc not recognized"),
        (["--uni=TB"], "option --uni not recognized"),
        (["--u", "TB"], "option --u not recognized"),
        (["-force"], "option -o not recognized"),
        (["-\u00e9"], "option -\u00e9 not recognized"),
        (["-v1"], "option -1 not recognized"),
        (["--=x"], "option -- not recognized"),
        (["--verbose=2"], "option --verbose must not have an argument"),
        (["--force="], "option --force must not have an argument"),
        (["-fu"], "option -u requires argument"),
        (["--unit"], "option --unit requires argument"),
        (["-Da"], "--define: not KEY=VALUE: 'a'"),
        (["-Da=x"], "--define: not an integer: 'a=x'"),
    ],
)
def test_options_that_are_refused(args: list[str], text: str) -> None:
    result = call(options, *args)
    assert (result.status, result.stderr_text()) == (os.EX_USAGE, f"test run: {text}\n")


def test_help_shows_how_they_are_written() -> None:
    backend = Backend("test")
    backend.command()(options)
    assert backend.invoke(["help", "options"]).stdout_text() == (
        "usage: test options [--verbose]... [--define=KEY=VALUE]... [--force] [--unit=UNIT]"
        " [WORDS...]\n"
        "\n"
        "Take options.\n"
        "\n"
        "  -v, --verbose\n"
        "  -D, --define=KEY=VALUE  values; default size=1\n"
        "  -f, --force\n"
        "  -u, --unit=UNIT  default GB\n"
    )
