"""Backends without a server: what is declared, found, converted, called, returned and reported."""

from __future__ import annotations

import copy
import enum
import functools
import ipaddress
import os
import pickle
import subprocess
import sys
import syslog
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pytest

import remctl
from remctl_toolkit import backend as package
from remctl_toolkit.backend import (
    Backend,
    CommandError,
    Context,
    DataError,
    DeniedError,
    InvokeResult,
    Matches,
    Short,
    UsageError,
    names_in,
)

ROOT = Path(__file__).resolve().parent.parent


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


def call(function: Callable[..., Any], *args: str | bytes, **declared: Any) -> InvokeResult:
    """Run a function as the only command of a backend."""
    keywords = {"user": "alice@EXAMPLE.ORG", "input": declared.pop("input", None)}
    backend = Backend("test")
    backend.command("run", **declared)(function)
    return backend.invoke(["run", *args], **keywords)


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
    assert call(any_number).stdout == b"[]\n"


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

    assert call(run).stdout == b" False True 1 [] False\n"
    args = ["-fl3", "--no-check", "--tag", "a", "--tag=b", "--dry-run", "w"]
    assert call(run, *args).stdout == b"w True False 3 ['a', 'b'] True\n"
    assert call(run, "--level=2", "--level=4").stdout == b" False True 4 [] False\n"
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


async def coroutine() -> None:
    pass


def keywords(**names: str) -> None:
    pass


def container(names: dict[str, str]) -> None:
    pass


def unknown(names: Nonsense) -> None:  # type: ignore[name-defined]  # noqa: F821
    pass


def early_list(names: list[str], more: str) -> None:
    pass


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (coroutine, "coroutine"),
        (keywords, "keywords"),
        (container, "no argument can be dict"),
        (unknown, "Nonsense cannot be evaluated"),
        (early_list, "only the last"),
        (functools.partial(container), "a command is a function"),
    ],
)
def test_functions_that_cannot_be_commands(function: Any, text: str) -> None:
    backend = Backend("test", acl="ANYUSER")
    backend.command("run")(function)
    with pytest.raises(TypeError, match=text):
        backend.rules()
    result = backend.invoke(["run"])
    assert result.status == os.EX_SOFTWARE
    assert text in result.log


# -- Standard input -------------------------------------------------------------------------------


def test_data_go_to_their_parameter() -> None:
    def run(name: str, comment: str = "none", data: bytes = b"default") -> str:
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


@pytest.mark.parametrize("name", ["help", "summary", "ALL", "EMPTY", "two words", "a\x07b", "run"])
def test_names_that_cannot_be(name: str) -> None:
    backend = Backend("test")
    backend.command("run")(container)
    with pytest.raises(ValueError, match=r"reserved|remctl\.conf|already"):
        backend.command(name)(container)


@pytest.mark.parametrize("name", ["", "two words", "ALL"])
def test_backend_names_that_cannot_be(name: str) -> None:
    with pytest.raises(ValueError, match=r"remctl.conf"):
        Backend(name)


def test_forgotten_parentheses() -> None:
    with pytest.raises(TypeError, match="parentheses"):
        Backend("test").command(container)  # type: ignore[arg-type]


def test_a_group_needs_a_name() -> None:
    with pytest.raises(ValueError, match="name"):
        Backend("test").group("")


# -- Who calls ------------------------------------------------------------------------------------


def test_what_remctld_tells() -> None:
    told = {
        "REMOTE_USER": "alice/admin@EXAMPLE.ORG",
        "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_HOST": "client.example.org",
        "REMOTE_EXPIRES": "1900000000",
        "REMCTL_COMMAND": "quota",
    }
    context = Context(told, ("show",))
    assert context.user == "alice/admin@EXAMPLE.ORG"
    assert (context.components, context.realm) == (("alice", "admin"), "EXAMPLE.ORG")
    assert context.instance == "admin"
    assert (context.address, context.untrusted_host) == ("192.0.2.1", "client.example.org")
    assert context.expires == datetime(2030, 3, 17, 17, 46, 40, tzinfo=UTC)
    assert (context.command, context.path) == ("quota", ("show",))
    assert repr(context) == "<Context 'show' for alice/admin@EXAMPLE.ORG from 192.0.2.1>"


def test_what_remctld_does_not_tell() -> None:
    context = Context({"REMOTE_EXPIRES": "0"})
    assert (context.user, context.realm, context.instance, context.components) == (
        (None, None, None, ())
    )
    assert (context.address, context.untrusted_host, context.expires) == (None, None, None)


@pytest.mark.parametrize(
    ("principal", "components", "realm"),
    [
        ("alice@R", ("alice",), "R"),
        ("a/b/c@R", ("a", "b", "c"), "R"),
        ("alice", ("alice",), None),
        (r"alice\@EVIL@R", ("alice@EVIL",), "R"),
        (r"a\/admin@R", ("a/admin",), "R"),
        (r"a\nb\\@R", ("a\nb\\",), "R"),
        ("alice@R@S", ("alice",), "R@S"),
        ("@R", ("",), "R"),
    ],
)
def test_principals(principal: str, components: tuple[str, ...], realm: str | None) -> None:
    context = Context({"REMOTE_USER": principal})
    assert (context.components, context.realm) == (components, realm)


def allows(user: str | None, *args: Any, **keywords: Any) -> bool:
    return Context({"REMOTE_USER": user} if user else {}).allows(*args, **keywords)


def test_who_is_allowed() -> None:
    assert allows("a@R", "a@R")
    assert allows("a@R", ["b@R", "a@R"])
    assert allows("a@R", realm="R")
    assert allows("a/admin@R", realm={"R", "S"}, instance="admin")
    assert allows("a/admin@R", "a/admin@R", realm="R")


def test_who_is_not_allowed() -> None:
    assert not allows("a@R", "a")
    assert not allows("a@R", "xa@R"), "a text is one name"
    assert not allows("a@R", [])
    assert not allows("a@R", realm="r")
    assert not allows("a@R", realm="R", instance="admin")
    assert not allows("a/admin/x@R", realm="R", instance="admin")
    assert not allows("a/admin@S", realm="R", instance="admin")
    assert not allows(r"a\/admin@R", realm="R", instance="admin")
    assert not allows("a@R", "a@R", realm="S"), "all that is given must hold"
    assert not allows(None, "a@R")
    assert not allows(None, realm=[None, "R"])


def test_a_question_that_asks_nothing_is_a_mistake() -> None:
    for keywords in ({}, {"instance": "admin"}, {"principal": None}):
        with pytest.raises(TypeError, match="who is allowed"):
            allows("a@R", **keywords)
    with pytest.raises(TypeError, match="realm"):
        allows("a/admin@R", "b@R", instance="admin")


def test_a_denial() -> None:
    def run(context: Context) -> str:
        context.require(realm="ELSEWHERE", message="for others")
        return "secret"

    result = call(run)
    assert result == remctl.RemctlSimpleResult(None, b"test run: for others\n", os.EX_NOPERM)


def test_a_file_of_names(tmp_path: Path) -> None:
    file = tmp_path / "names"
    file.write_bytes(b"# us\n\n  alice@R\nb\xff@R\n")
    assert names_in(file) == {"alice@R", "b\udcff@R"}


# -- What a command returns -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "stdout", "status"),
    [
        (None, None, 0),
        (0, None, 0),
        (Level.HIGH, None, 2),
        (255, None, 255),
        ("", None, 0),
        ("a", b"a\n", 0),
        ("a\n", b"a\n", 0),
        ("\udcff", b"\xff\n", 0),
        (b"a", b"a", 0),
        (bytearray(b"a"), b"a", 0),
        (memoryview(b"a"), b"a", 0),
        (["a", b"b", "c"], b"a\nbc\n", 0),
        ((), None, 0),
        (iter(["a"]), b"a\n", 0),
    ],
)
def test_results(returned: Any, stdout: bytes | None, status: int) -> None:
    assert call(lambda: returned) == remctl.RemctlSimpleResult(stdout, None, status)


def test_a_generator_returns_the_status() -> None:
    def run() -> Iterator[str]:
        yield "a"
        return 3

    assert call(run) == remctl.RemctlSimpleResult(b"a\n", None, 3)


@pytest.mark.parametrize("returned", [True, -1, 256, 1.5, {"a": 1}, object(), [1], [None]])
def test_results_that_mean_nothing_are_internal_errors(returned: Any) -> None:
    result = call(lambda: returned)
    assert result.status == os.EX_SOFTWARE
    assert result.stdout is None
    assert "Error: " in result.log


def test_a_file_is_written_and_closed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\nb\xff")
    file = (tmp_path / "file").open("rb")
    assert call(lambda: file).stdout == b"a\nb\xff"
    assert file.closed


DATA: list[tuple[Any, bytes, bytes]] = [
    ({"a": 1, "b": [1, 2]}, b"a: 1\nb: [1, 2]\n", b'{"a": 1, "b": [1, 2]}\n'),
    (
        ["x", {"a": 1, "b": "c"}, ("y", 2)],
        b"x\na: 1  b: c\ny  2\n",
        b'["x", {"a": 1, "b": "c"}, ["y", 2]]\n',
    ),
    (3, b"3\n", b"3\n"),
    (True, b"true\n", b"true\n"),
    ("a", b"a\n", b'"a"\n'),
    ("\udcff", b"\xff\n", b'"\\udcff"\n'),
]


@pytest.mark.parametrize(("returned", "text", "as_json"), DATA)
def test_data(returned: Any, text: bytes, as_json: bytes) -> None:
    assert call(lambda: returned, json=True) == remctl.RemctlSimpleResult(text, None, 0)
    assert call(lambda: returned, "--json", json=True) == (
        remctl.RemctlSimpleResult(as_json, None, 0)
    )


def test_data_piece_by_piece() -> None:
    def run() -> Iterator[dict[str, int]]:
        yield {"a": 1}
        yield {"a": 2}

    assert call(run, json=True).stdout == b"a: 1\na: 2\n"
    assert call(run, "--json", json=True).stdout == b'{"a": 1}\n{"a": 2}\n'


def test_no_data() -> None:
    assert call(lambda: None, json=True).stdout is None
    assert call(lambda: None, "--json", json=True).stdout == b"null\n"
    assert call(lambda: float("nan"), "--json", json=True).status == os.EX_SOFTWARE


def test_what_is_printed_stays_in_order() -> None:
    def run() -> Iterator[str | bytes]:
        print("one", end=" ")
        yield b"two "
        print("three", end=" ")
        sys.stdout.buffer.write(b"four ")
        yield "five"
        print("error", file=sys.stderr)

    assert call(run) == remctl.RemctlSimpleResult(b"one two three four five\n", b"error\n", 0)


# -- Failures -------------------------------------------------------------------------------------


def raising(error: BaseException) -> Callable[[], None]:
    def run() -> None:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "line", "status"),
    [
        (CommandError("no such user"), "no such user", 1),
        (CommandError("no such user", status=3), "no such user", 3),
        (UsageError("what?"), "what?", os.EX_USAGE),
        (DataError("what?"), "what?", os.EX_DATAERR),
        (DeniedError("no"), "no", os.EX_NOPERM),
        (CommandError("a\nb\u2028c\x00"), r"a\nb\u2028c\x00", 1),
        (CommandError("\udcff\ud800"), r"\xff\ud800", 1),
        (SystemExit("goodbye"), "goodbye", 1),
    ],
)
def test_failures(error: BaseException, line: str, status: int) -> None:
    expected = remctl.RemctlSimpleResult(None, f"test run: {line}\n".encode(), status)
    assert call(raising(error)) == expected


@pytest.mark.parametrize(("code", "status"), [(None, 0), (0, 0), (5, 5)])
def test_sys_exit(code: int | None, status: int) -> None:
    assert call(raising(SystemExit(code))) == remctl.RemctlSimpleResult(None, None, status)


def test_ctrl_c_ends_a_test_as_always() -> None:
    with pytest.raises(KeyboardInterrupt):
        call(raising(KeyboardInterrupt()))


@pytest.mark.parametrize("status", [0, 256, -1])
def test_a_failure_is_no_success(status: int) -> None:
    with pytest.raises(ValueError, match="1 to 255"):
        CommandError("no", status=status)


@pytest.mark.parametrize("kind", [CommandError, UsageError, DataError, DeniedError])
def test_errors_can_be_pickled_and_copied(kind: type[CommandError]) -> None:
    error = kind("text", status=9)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(twin), twin.args, twin.status) == (kind, ("text",), 9)


def test_an_unexpected_exception_is_logged_and_not_told() -> None:
    def run(user: str, password: str, data: bytes) -> None:
        print("before")
        raise RuntimeError(f"{user} {password!r} {data!r}")

    result = call(run, "bob", "hunter\n2", stdin="data", logmask=["password"], input=b"secret\xff")
    assert (result.status, result.stdout) == (os.EX_SOFTWARE, b"before\n")
    line = result.stderr_text()
    assert line.startswith("test run: internal error (reference ")
    reference = line.split()[-1].rstrip(")")
    assert result.log.startswith(f"internal error {reference}\ntest run, for alice@EXAMPLE.ORG\n")
    assert "RuntimeError: bob '**MASKED**' b'**MASKED**'" in result.log
    assert "hunter" not in result.log


def test_references_differ() -> None:
    lines = {call(raising(RuntimeError())).stderr for _ in range(20)}
    assert len(lines) == 20


def test_own_network_errors_are_not_taken_for_a_lost_client() -> None:
    assert call(raising(BrokenPipeError("the database"))).status == os.EX_SOFTWARE


def test_a_closed_output() -> None:
    def run() -> str:
        sys.stdout.close()
        return "nobody reads this"

    with pytest.raises(ValueError, match="closed"):
        call(run)  # it cannot be captured, either


def test_the_system_log(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[tuple[int, str]] = []
    opened: list[tuple[Any, ...]] = []
    monkeypatch.setattr(syslog, "openlog", lambda *args: opened.append(args))
    monkeypatch.setattr(syslog, "syslog", lambda level, text: logged.append((level, text)))
    from remctl_toolkit.backend.running import Run

    backend = Backend("test")
    run = Run(backend, {}, None, None)
    run._log("internal error 12\nline\nnext \x00\x1b\udcff" + "x" * 1000)
    assert opened == [("test", syslog.LOG_PID, syslog.LOG_DAEMON)]
    assert {level for level, _ in logged} == {syslog.LOG_ERR}
    assert logged[0][1] == "internal error 12: line"
    assert logged[1][1].startswith(r"internal error 12: next \x00\x1b\xffxxx")
    assert len(logged) == 3
    del logged[:]
    run._log("internal error 12\n" + "x\n" * 5000 + "y" * 1_000_000)
    assert len(logged) == 201
    assert all(len(text) < 1000 for _, text in logged)


def run_program(body: str, redirections: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program with one command, `run`, and a log that does not work."""
    code = f"""
import sys
sys.path[:] = {sys.path!r}
from remctl_toolkit.backend import Backend
def log(text):
    raise OSError("no log")
backend = Backend("test", log=log)
@backend.command()
def run():
    {body}
sys.argv = ["test", "run"]
sys.exit(backend.run())
"""
    shell = ["/bin/sh", "-c", f'exec "$@" {redirections}', "sh"]
    command = [*shell, sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=50)


@pytest.mark.parametrize(
    ("body", "redirections", "status"),
    [
        ("return 'x'", ">&-", 141),
        ("return 'x'", ">&- 2>&-", 141),
        ("return 'x'", ">/dev/full", os.EX_IOERR),
        ("print('x')", ">/dev/full", os.EX_IOERR),
        (f"try: print('x')\n{' ' * 4}except OSError: return 0", ">/dev/full", os.EX_IOERR),
        (
            f"try: sys.stdout.buffer.raw.write(b'x')\n{' ' * 4}except OSError: return 0",
            ">/dev/full",
            os.EX_IOERR,
        ),
        ("raise RuntimeError", "2>&-", os.EX_SOFTWARE),
        ("raise RuntimeError", "2>/dev/full", os.EX_SOFTWARE),
        ("return 3", ">&- 2>&- <&-", 3),
    ],
)
def test_descriptors_that_are_closed_or_full(body: str, redirections: str, status: int) -> None:
    done = run_program(body, redirections)
    assert (done.returncode, done.stdout) == (status, "")
    told = "test run: output cannot be written: [Errno 28] No space left on device\n"
    assert done.stderr == (told if status == os.EX_IOERR else "")


def test_a_log_that_fails_shows_nothing() -> None:
    done = run_program("raise RuntimeError('secret')")
    assert (done.returncode, done.stdout) == (os.EX_SOFTWARE, "")
    assert done.stderr.startswith("test run: internal error (reference ")
    assert done.stderr.endswith(", not logged)\n")


def test_ctrl_c_ends_a_program_quietly() -> None:
    done = run_program("raise KeyboardInterrupt")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


# -- invoke() -------------------------------------------------------------------------------------


def test_invoke_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMOTE_USER", "before")
    monkeypatch.delenv("REMOTE_ADDR", raising=False)
    streams = sys.stdin, sys.stdout, sys.stderr
    environ = dict(os.environ)
    backend = Backend("test", log=print)

    @backend.command()
    def run() -> str:
        return f"{os.environ.get('REMOTE_USER')} {os.environ['REMOTE_ADDR']}"

    assert backend.invoke(["run"], environ={"REMOTE_ADDR": "::1"}).stdout == b"None ::1\n"
    assert backend.invoke(["run"], user="a@R").stdout == b"a@R 127.0.0.1\n"
    assert (sys.stdin, sys.stdout, sys.stderr) == streams
    assert dict(os.environ) == environ
    assert backend.log is print


def test_invoke_can_let_exceptions_through() -> None:
    backend = Backend("test")
    backend.command("run")(raising(RuntimeError("seen")))
    with pytest.raises(RuntimeError, match="seen"):
        backend.invoke(["run"], reraise=True)
    backend.command("deny")(raising(DeniedError("no")))
    assert backend.invoke(["deny"], reraise=True).status == os.EX_NOPERM


def test_a_result_is_that_of_a_client() -> None:
    result = call(lambda: "text")
    assert isinstance(result, remctl.RemctlSimpleResult)
    assert result.check().stdout_text() == "text\n"
    assert remctl.RemctlSimpleResult(b"text\n", None, 0) == result
    with pytest.raises(remctl.RemctlStatusError, match="goodbye"):
        call(raising(SystemExit("goodbye"))).check()


# -- Starting up ----------------------------------------------------------------------------------


HEAVY = {"argparse", "dataclasses", "enum", "gettext", "inspect", "json", "re", "remctl", "typing"}


def imported_by(tmp_path: Path, *args: str) -> set[str]:
    """Return which modules a run of a small backend has imported."""
    (tmp_path / "remctl_toolkit").symlink_to(Path(package.__file__).parent.parent)
    program = tmp_path / "program.py"
    program.write_text(
        """
import sys
sys.path.insert(0, sys.path[0] or ".")
from remctl_toolkit.backend import Backend, Context
backend = Backend("test", acl="ANYUSER")
@backend.command()
def run(context: Context, user: str, size: int = 0):
    return f"{user} {size}"
@backend.command()
def option(*, force: bool = False):
    pass
status = backend.run()
print(*sys.modules)
raise SystemExit(status)
"""
    )
    done = subprocess.run(
        [sys.executable, "-S", "-E", str(program), *args],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_a_run_imports_next_to_nothing(tmp_path: Path) -> None:
    """remctld starts a process for each command: it is what a caller waits for."""
    assert imported_by(tmp_path, "run", "alice", "3") & HEAVY == set()


def test_options_cost_getopt_alone(tmp_path: Path) -> None:
    found = imported_by(tmp_path, "option", "--force")
    assert "getopt" in found
    assert found & HEAVY == set()


def test_getopt_leaves_gettext_to_others() -> None:
    code = """
import sys
from remctl_toolkit.backend.commands import _getopt
_getopt()
import gettext
gettext.gettext("x")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_everything_public_is_there() -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError):
        package.nothing  # noqa: B018
