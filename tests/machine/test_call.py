"""Calls: arguments, results, generators, and printed output."""

from __future__ import annotations

import concurrent.futures
import copy
import functools
import math
import os
import pickle
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from machine import call_functions as far_functions
from machine.call_pipes import PipeInterpreter, begun, pythons
from support.waiting import LIMIT, eventually

from remctl import RemctlStream
from remctl_toolkit.machine import ClosedError, Connection
from remctl_toolkit.machine.call import (
    CallTimeoutError,
    Interpreter,
    InterpreterEndedError,
    RemoteCallError,
    ResultError,
)

pytestmark = pytest.mark.once

Printed = list[tuple[str, int, str]]


@pytest.fixture(scope="module", params=["sh", "python"])
def real(request: pytest.FixtureRequest) -> Iterator[Interpreter]:
    """An interpreter behind a remctld, with both lines and with one."""
    name = "connection" if request.param == "sh" else "python_only"
    with Interpreter(request.getfixturevalue(name)) as interpreter:
        yield interpreter


@pytest.fixture(scope="module")
def shared() -> Iterator[Interpreter]:
    """An interpreter over pipes, for tests that leave it as it was."""
    with PipeInterpreter(sys.executable) as interpreter:
        yield interpreter


@pytest.fixture(scope="module", params=pythons())
def each(request: pytest.FixtureRequest) -> Iterator[PipeInterpreter]:
    """An interpreter of each Python."""
    with PipeInterpreter(pythons()[request.param]) as interpreter:
        yield interpreter


# -- Behind a remctld -----------------------------------------------------------------------------


def test_functions_run_there(real: Interpreter) -> None:
    assert real.call(os.getpid) != os.getpid()
    assert real.call(os.getppid) > 0
    assert real.call(time.time) == pytest.approx(time.time(), abs=30)
    assert real.call(far_functions.echo, 1, "a", key=b"\0") == ((1, "a"), {"key": b"\0"})
    first = real.call(far_functions.count)
    assert real.call(far_functions.count) == first + 1


def test_much_goes_there_and_back(real: Interpreter) -> None:
    octets = os.urandom(3 << 20)
    assert real.call(far_functions.same, octets) == octets


def test_generators_stream(real: Interpreter) -> None:
    assert list(real.call(far_functions.numbers, 2000)) == list(range(2000))


def test_leaving_a_generator_ends_it(real: Interpreter, tmp_path: Path) -> None:
    note = tmp_path / "note"
    with real.call(far_functions.numbers, 10**9, str(note)) as numbers:
        assert [next(numbers) for _ in range(3)] == [0, 1, 2]
    assert note.read_text() == "ended"
    assert list(numbers) == []


def test_exceptions_come_with_their_traceback(real: Interpreter) -> None:
    with pytest.raises(RemoteCallError) as caught:
        real.call(far_functions.fail, "no disk")
    error = caught.value
    name = "machine.call_functions.CustomError"
    assert str(error) == f"{name} on {real.name}: [Errno 5] no disk"
    assert (error.type_name, error.host) == (name, real.name)
    assert error.type_names == (name, "OSError", "Exception", "BaseException")
    assert error.remote_args == (5, "no disk")
    assert "raise CustomError(5, text)" in error.remote_traceback
    assert "remctl agent" not in error.remote_traceback
    assert error.__notes__ == [f"On {real.name}:\n{error.remote_traceback.rstrip()}"]


def test_prints_appear_here(real: Interpreter, capsys: pytest.CaptureFixture[str]) -> None:
    assert real.call(far_functions.shout) == "quiet"
    lines = capsys.readouterr().err.splitlines()
    lines.remove(f"[{real.name}] to stderr")
    assert lines == [
        f"[{real.name}] one",
        f"[{real.name}] no end of line",
        f"[{real.name}] from the system",
        f"[{real.name}] é\\x1b[2J",
        f"[{real.name}] \ufffd",
    ]


def test_an_interpreter_that_died_is_one_error(connection: Connection) -> None:
    with Interpreter(connection, name="web") as interpreter:
        first = interpreter.call(far_functions.count)
        with pytest.raises(
            InterpreterEndedError, match=r"interpreter on web ended \(status 7\)"
        ) as caught:
            interpreter.call(os._exit, 7)
        assert caught.value.status == 7
        with pytest.raises(InterpreterEndedError, match=r"interpreter on web ended"):
            interpreter.call(os.getpid)
        assert "ended" in repr(interpreter)
        interpreter.reopen()
        assert interpreter.call(far_functions.count) == first


def test_nothing_is_left_there(connection: Connection, tmp_path: Path) -> None:
    note = tmp_path / "note"
    with Interpreter(connection) as interpreter:
        pid = interpreter.call(os.getpid)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            running = pool.submit(interpreter.call, far_functions.sleep_noted, str(note))
            eventually(note.exists)
            interpreter.close()
            with pytest.raises(InterpreterEndedError):
                running.result(20)
    eventually(lambda: note.read_text() == "Cancelled")
    eventually(lambda: not Path(f"/proc/{pid}").exists())


def test_arguments_are_not_logged(connection: Connection, far_log: Callable[[], str]) -> None:
    with Interpreter(connection) as interpreter:
        assert interpreter.call(far_functions.same, "a secret word") == "a secret word"
        with pytest.raises(TypeError) as caught:
            interpreter.call(far_functions.same, ["a secret word", threading.Lock()])
    assert "secret" not in far_log()
    assert "secret" not in str(caught.value)


def test_a_connection_that_was_closed(connection: Connection) -> None:
    other = Connection(connection.host, connection.port, connection._pool._principal)
    other.close()
    with pytest.raises(ClosedError):
        Interpreter(other)


# -- With each Python -----------------------------------------------------------------------------


def test_functions_of_modules(each: PipeInterpreter) -> None:
    version = ".".join(map(str, each.python_version))
    assert each.call(platform.python_version) == version
    assert each.call(math.sqrt, 4) == 2.0
    assert each.call("{}-{}".format, 1, 2) == "1-2"
    assert each.call(functools.partial(far_functions.echo, 1, a=2), 3) == ((1, 3), {"a": 2})
    assert each.call(Path("/etc").exists) is True
    assert each.call(sorted, {3, 1, 2}, reverse=True) == [3, 2, 1]
    assert each.call(dict, a=b"x", timeout=3) == {"a": b"x", "timeout": 3}


def test_generators(each: PipeInterpreter, tmp_path: Path) -> None:
    note = tmp_path / "note"
    assert list(each.call(far_functions.numbers, 1000, str(note))) == list(range(1000))
    assert note.read_text() == "ended"
    numbers = each.call(far_functions.failing_numbers, 2)
    assert [next(numbers), next(numbers)] == [0, 1]
    with pytest.raises(RemoteCallError, match=r"ValueError on .*: enough"):
        next(numbers)
    assert list(numbers) == []
    assert list(each.call(zip, "ab", [1, 2])) == [("a", 1), ("b", 2)]


def test_paths_are_sent_by_their_public_names(each: PipeInterpreter) -> None:
    """Those of Python 3.13 are made in a module that no other version has."""
    assert each.call(os.fspath, Path("/a")) == "/a"
    assert each.call(str, [PurePosixPath("b")]).endswith("PurePosixPath('b')]")


def test_calls_that_are_given_up_end_there(each: PipeInterpreter, tmp_path: Path) -> None:
    # The first call waits while the second one runs.
    for function in (far_functions.sleep_noted, far_functions.spin_noted):
        note = tmp_path / function.__name__
        reply = begun(each, function, note)
        with pytest.raises(CallTimeoutError, match=r"longer than 0.2 s on far.example.org"):
            reply.next()
        eventually(lambda note=note: note.read_text() == "Cancelled")
    assert each.call(abs, -1) == 1


def test_a_call_in_another_thread_is_ended_too(each: PipeInterpreter, tmp_path: Path) -> None:
    main, other = tmp_path / "main", tmp_path / "other"
    # A call that waits can be ended in the main thread alone, where another may just be ending.
    eventually(lambda: each.call(far_functions.in_main_thread))
    first = begun(each, far_functions.sleep_noted, main)
    second = begun(each, far_functions.spin_noted, other)
    for reply, note in ((second, other), (first, main)):
        with pytest.raises(CallTimeoutError):
            reply.next()
        eventually(lambda note=note: note.read_text() == "Cancelled")


def test_a_call_that_misses_its_interruption_is_ended_too(
    each: PipeInterpreter, tmp_path: Path
) -> None:
    note = tmp_path / "note"
    eventually(lambda: each.call(far_functions.in_main_thread))
    reply = begun(each, far_functions.sleep_deaf_at_first, note)
    with pytest.raises(CallTimeoutError):
        reply.next()
    eventually(lambda: note.read_text() == "Cancelled")


def test_main_is_empty_there(each: PipeInterpreter) -> None:
    assert each.call(far_functions.main_names) == []


# -- Arguments and results ------------------------------------------------------------------------


def test_a_call_is_one_write(own: PipeInterpreter) -> None:
    own.call(far_functions.same, 1)
    before = own.stream.writes
    for _ in range(5):
        own.call(far_functions.same, bytes(100000))
    assert own.stream.writes == before + 5


@pytest.mark.parametrize(
    ("function", "error", "text"),
    [
        (3, TypeError, "only a function can be called, not int"),
        (None, TypeError, "only a function can be called, not NoneType"),
        (threading.Lock().acquire, TypeError, "the function cannot be sent: .*lock"),
    ],
    ids=range(3),
)
def test_what_is_no_function(shared: Interpreter, function: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        shared.call(function)


def test_results_are_plain_data(shared: Interpreter) -> None:
    with pytest.raises(ResultError, match=r"result is a _thread.lock, .* \(on far.example.org\)"):
        shared.call(threading.Lock)
    with pytest.raises(ResultError, match=r"result is a .*, but only plain data"):
        list(shared.call(map, threading.Semaphore, [1]))


def test_results_have_a_limit() -> None:
    with PipeInterpreter(sys.executable, result_limit=1000) as far:
        assert len(far.call(bytes, 900)) == 900
        with pytest.raises(ResultError, match=r"takes more than 1000 octets"):
            far.call(bytes, 1000)
        assert far.call(abs, -1) == 1


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"timeout": 0}, ValueError),
        ({"result_limit": 0}, ValueError),
        ({"modules": "os"}, TypeError),
        ({"modules": ["a b"]}, ValueError),
        ({"prefer_far": "os"}, TypeError),
    ],
    ids=str,
)
def test_settings_that_cannot_be(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        PipeInterpreter("/nonexistent", **settings)


def test_standard_input_is_empty_there(shared: Interpreter) -> None:
    assert shared.call(far_functions.read_input) == ("", b"")


def test_what_goes_wrong_otherwise(shared: Interpreter) -> None:
    with pytest.raises(RemoteCallError, match=r"SystemExit on .*: 3") as caught:
        shared.call(sys.exit, 3)
    assert caught.value.remote_args == (3,)
    with pytest.raises(RemoteCallError, match=r"KeyError"):
        shared.call({}.__getitem__, "a")
    assert shared.call(far_functions.forked) == 1
    assert shared.call(far_functions.forked_while_output_is_sent) == 1
    assert shared.call(abs, -1) == 1


@pytest.mark.parametrize("again", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_exceptions_can_be_copied(shared: Interpreter, again: Callable[[Any], Any]) -> None:
    with pytest.raises(RemoteCallError) as caught:
        shared.call(far_functions.fail, "x")
    error = again(caught.value)
    assert str(error) == str(caught.value)
    assert vars(error) == vars(caught.value)


# -- Generators -----------------------------------------------------------------------------------


def settled(note: Path) -> int:
    """Return the number in a file once it is there and stands still."""
    seen = [""]

    def stands_still() -> bool:
        seen.append(note.read_text() if note.exists() else "")
        return bool(seen[-1]) and seen[-1] == seen[-2]

    eventually(stands_still, interval=0.2)
    return int(seen[-1])


def test_a_generator_does_not_run_far_ahead(shared: Interpreter, tmp_path: Path) -> None:
    note = tmp_path / "note"
    with shared.call(far_functions.ahead, str(note)) as numbers:
        assert next(numbers) == 1
        assert settled(note) <= 258
        assert [next(numbers) for _ in range(1000)] == list(range(2, 1002))
        assert settled(note) <= 1001 + 258


def test_nor_with_large_items(shared: Interpreter, tmp_path: Path) -> None:
    note = tmp_path / "note"
    with shared.call(far_functions.blocks, 300_000, str(note)) as blocks:
        assert len(next(blocks)) == 300_000
        assert settled(note) <= 7
        assert sum(len(next(blocks)) for _ in range(20)) == 6_000_000


def test_a_generator_that_waits_is_ended(own: PipeInterpreter, tmp_path: Path) -> None:
    note = tmp_path / "note"
    numbers = own.call(far_functions.slow_numbers, str(note))
    assert next(numbers) == 1
    numbers.close()
    assert note.read_text() == "ended"


def test_a_generator_that_is_forgotten_is_ended(own: PipeInterpreter, tmp_path: Path) -> None:
    note = tmp_path / "note"
    for number in own.call(far_functions.numbers, 10**9, str(note)):
        if number == 5:
            break
    eventually(lambda: note.exists() and note.read_text() == "ended")


def test_a_generator_may_be_forgotten_at_any_moment(own: PipeInterpreter, tmp_path: Path) -> None:
    # Garbage is collected wherever a thread happens to be: also while nothing can be written.
    note = tmp_path / "note"
    numbers = own.call(far_functions.numbers, 10**9, str(note))
    assert next(numbers) == 0
    writable = threading.Event()
    write = own.stream.write
    own.stream.write = lambda data: (writable.wait(LIMIT), write(data))[1]  # type: ignore[method-assign]
    del numbers
    writable.set()
    eventually(lambda: note.exists() and note.read_text() == "ended")


def test_a_generator_that_does_not_end(
    own: PipeInterpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remctl_toolkit.machine.call.interpreter._CLOSE_WAIT", 0.0)
    numbers = own.call(far_functions.numbers, 10**9, os.devnull)
    with pytest.raises(CallTimeoutError, match=r"did not end"):
        numbers.close()
    link = own._link
    assert link is not None
    assert not link._calls


def test_generators_have_the_time_of_a_call(own: PipeInterpreter, tmp_path: Path) -> None:
    note = tmp_path / "note"
    numbers = own.call_within(LIMIT, far_functions.slow_numbers, str(note))
    assert next(numbers) == 1
    assert numbers._reply.timeout == LIMIT
    numbers._reply.timeout = 0.1
    with pytest.raises(CallTimeoutError, match=r"longer than 0.1 s"):
        next(numbers)
    eventually(note.exists)
    assert list(numbers) == []


# -- Output ---------------------------------------------------------------------------------------


def test_output_goes_where_it_is_wanted() -> None:
    lines: Printed = []
    take = lambda host, stream, line: lines.append((host, stream, line))  # noqa: E731
    with PipeInterpreter(sys.executable, name="web", output=take) as far:
        far.call(far_functions.shout)
        # All output has arrived before the result.
        assert [line for _, stream, line in lines if stream == RemctlStream.STDOUT] == [
            "one",
            "no end of line",
            "from the system",
            "é\x1b[2J",
            "\ufffd",
        ]
        assert ("web", RemctlStream.STDERR, "to stderr") in lines
        assert far.call(print, "no end", end="") is None
        assert lines[-1] == ("web", RemctlStream.STDOUT, "no end")


def test_output_comes_before_the_item_that_was_made_with_it(own: PipeInterpreter) -> None:
    assert own.call(abs, -1) == 1
    lines: list[str] = []
    own._link._lines._output = lambda host, stream, line: lines.append(line)  # type: ignore[union-attr]
    for number in own.call(far_functions.noisy, 20):
        assert lines[: number + 1] == [str(each) for each in range(number + 1)]


def test_output_that_raises_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda details: raised.append(details.exc_value))

    def take(host: str, stream: RemctlStream, line: str) -> None:
        if line == "call":
            interpreter.call(abs, -1)
        raise ValueError(line)

    with PipeInterpreter(sys.executable, output=take) as interpreter:
        interpreter.call(print, "a")
        interpreter.call(print, "call")
        assert interpreter.call(abs, -1) == 1
    assert str(raised[0]) == "a"
    assert isinstance(raised[1], RuntimeError)


def test_a_line_without_end_is_not_kept_for_ever() -> None:
    lines: list[str] = []
    take = lambda host, stream, line: lines.append(line)  # noqa: E731
    with PipeInterpreter(sys.executable, output=take) as far:
        far.call(print, "x" * 300_000)
    assert "".join(lines) == "x" * 300_000
    assert max(map(len, lines)) <= 2 * 65536 + 1
