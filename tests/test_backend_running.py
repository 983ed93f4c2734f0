"""Runs of a backend: what a command returns, how it fails, and what starting costs."""

from __future__ import annotations

import copy
import enum
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.calling import call, raising

import remctl
from remctl_toolkit import backend as package
from remctl_toolkit.backend import (
    Backend,
    CommandError,
    DataError,
    DeniedError,
    UsageError,
)

ROOT = Path(__file__).resolve().parent.parent


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


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


class Odd(CommandError):
    """An error whose text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class OddText:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def with_status(status: Any) -> CommandError:
    error = CommandError("text")
    error.status = status
    return error


@pytest.mark.parametrize(
    "error",
    [
        Odd("text"),
        SystemExit(OddText()),
        SystemExit(256),
        SystemExit(-1),
        with_status(0),
        with_status(256),
        with_status(-1),
        with_status("text"),
        with_status(None),
    ],
)
def test_a_failure_that_fails_is_an_internal_error(error: BaseException) -> None:
    """It is no success, whatever status its author gave it, and shows the caller nothing."""
    result = call(raising(error))
    assert (result.status, result.stdout) == (os.EX_SOFTWARE, None)
    assert result.stderr_text().startswith("test run: internal error (reference ")
    assert result.log


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
    def run(user: str) -> None:
        print("before")
        raise RuntimeError(f"no way in for {user}")

    result = call(run, "bob")
    assert (result.status, result.stdout) == (os.EX_SOFTWARE, b"before\n")
    line = result.stderr_text()
    assert line.startswith("test run: internal error (reference ")
    reference = line.split()[-1].rstrip(")")
    assert result.log.startswith(f"internal error {reference}\ntest run, for alice@EXAMPLE.ORG\n")
    assert "RuntimeError: no way in for bob" in result.log


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
    served = {**os.environ, "REMOTE_USER": "alice@EXAMPLE.ORG"}
    return subprocess.run(command, capture_output=True, text=True, timeout=50, env=served)


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
    told = "test run: cannot write output: [Errno 28] No space left on device\n"
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
    with pytest.raises(remctl.RemctlStatusError) as caught:
        call(raising(SystemExit("goodbye"))).check()
    assert caught.value.last_line.endswith("goodbye")


# -- Starting up ----------------------------------------------------------------------------------


HEAVY = {"argparse", "dataclasses", "enum", "gettext", "inspect", "json", "re", "remctl", "typing"}


def imported_by(tmp_path: Path, *args: str) -> set[str]:
    """Return which modules a run of a small backend has imported."""
    for name in ("remctl_toolkit", "_remctl_text.py"):
        (tmp_path / name).symlink_to(ROOT / name)
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


def test_options_import_nothing_more(tmp_path: Path) -> None:
    assert imported_by(tmp_path, "option", "--force") & HEAVY == set()


def test_everything_public_is_there() -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError):
        package.nothing  # noqa: B018
