"""Calls of several threads, calls that are given up or interrupted, and the interpreter's end."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from machine import call_functions as far_functions
from machine.call_pipes import PipeInterpreter
from support.waiting import LIMIT, eventually, nothing_left_behind

from remctl_toolkit.machine import ClosedError
from remctl_toolkit.machine.call import CallTimeoutError, InterpreterEndedError

# -- Threads, time, signals -----------------------------------------------------------------------


def test_calls_of_several_threads_run_together(own: PipeInterpreter) -> None:
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        met = [pool.submit(own.call, far_functions.meet) for _ in range(3)]
        assert sorted(one.result(30) for one in met) == [0, 1, 2]


def test_many_calls_of_many_threads(own: PipeInterpreter) -> None:
    def several(number: int) -> bool:
        return all(own.call(far_functions.same, (number, n)) == (number, n) for n in range(20))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(several, range(8)))


def test_a_single_call_runs_in_the_main_thread(own: PipeInterpreter) -> None:
    assert all(own.call(far_functions.in_main_thread) for _ in range(10))


def test_the_timeout_of_all_calls() -> None:
    with PipeInterpreter(sys.executable, timeout=0.2) as far:
        with pytest.raises(CallTimeoutError):
            far.call(time.sleep, 60)
        assert far.call_within(None, far_functions.same, 1) == 1


CTRL_C = """
import sys, time
from machine import call_functions
from machine.call_pipes import PipeInterpreter
with PipeInterpreter(sys.executable) as far:
    try:
        far.call(call_functions.sleep_noted, sys.argv[1])
    except KeyboardInterrupt:
        while open(sys.argv[1]).read() != "Cancelled":
            time.sleep(0.01)
        print("interrupted", far.call(abs, -1))
"""


def test_ctrl_c_ends_the_call(tmp_path: Path) -> None:
    note = tmp_path / "note"
    command = [sys.executable, "-c", CTRL_C, str(note)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, env=env, text=True) as program:
        eventually(note.exists)
        program.send_signal(signal.SIGINT)
        try:
            assert program.communicate(timeout=LIMIT)[0] == "interrupted 1\n"
        finally:
            program.kill()


def stuck(far: PipeInterpreter) -> threading.Event:
    """Have what is written from now on wait for the event: a host that does not read."""
    released = threading.Event()
    write = far.stream.write

    def wait(data: bytes) -> None:
        released.wait(LIMIT)
        write(data)

    far.stream.write = wait  # type: ignore[method-assign]
    return released


def test_time_limits_hold_while_arguments_are_sent(own: PipeInterpreter, tmp_path: Path) -> None:
    released = stuck(own)
    with pytest.raises(CallTimeoutError, match=r"longer than 0.1 s"):
        own.call_within(0.1, far_functions.same, bytes(1 << 20))
    with pytest.raises(CallTimeoutError):
        own.call_within(0.1, far_functions.sleep_noted, str(tmp_path / "note"))
    released.set()
    assert own.call(far_functions.same, 1) == 1
    assert not (tmp_path / "note").exists()  # Cancelled calls are not sent any more.


def test_closing_is_bounded_while_arguments_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remctl_toolkit.machine.call.link._END_WAIT", 0.1)
    far = PipeInterpreter(sys.executable)
    released = stuck(far)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(far.call, far_functions.same, 1)
        far.close()  # The event is not set before this is over.
        with pytest.raises(InterpreterEndedError):
            running.result(LIMIT)
        assert not released.is_set()
        released.set()


def test_after_a_fork_it_is_the_parents(own: PipeInterpreter) -> None:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            own.call(os.getpid)
        except ClosedError as error:
            status = 0 if "open another after a fork" in str(error) else 2
        finally:
            own.close()
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert own.call(abs, -1) == 1


# -- The end --------------------------------------------------------------------------------------


def test_closed_is_closed(own: PipeInterpreter) -> None:
    own.close()
    own.close()
    assert own.closed
    with pytest.raises(ClosedError, match=r"the interpreter on far.example.org was closed"):
        own.call(os.getpid)
    own.reopen()
    assert own.call(abs, -1) == 1


def test_nothing_is_left_here() -> None:
    with nothing_left_behind(), PipeInterpreter(sys.executable) as far:
        far.call(far_functions.same, 1)


def test_unclosed_it_warns() -> None:
    far = PipeInterpreter(sys.executable)
    process = far.stream.process
    with pytest.warns(ResourceWarning, match=r"unclosed <PipeInterpreter .*: use it in a with"):
        del far
    eventually(lambda: process.returncode is not None)
    eventually(lambda: not [t.name for t in threading.enumerate() if t.name.startswith("remctl-")])


UNCLOSED = """
import sys
from machine.call_pipes import PipeInterpreter
far = PipeInterpreter(sys.executable)
items = iter([])
{line}
"""


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("", 0),
        ("far.call(abs, -1)", 0),
        ("far.call(abs, -1); raise SystemExit(3)", 3),
        ("items = far.call(range(10**9).__iter__); next(items)", 0),
        ("far.call(abs, -1); del far", 0),
        ("far.itself = far; import gc; del far; gc.collect()", 0),
    ],
    ids=range(6),
)
def test_a_program_ends_without_closing(line: str, status: int) -> None:
    """The time limit is for the test, not for the program."""
    command = [sys.executable, "-W", "ignore", "-c", UNCLOSED.format(line=line)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(command, env=env, stderr=subprocess.PIPE, text=True, timeout=LIMIT)
    assert (ended.returncode, ended.stderr) == (status, "")


def test_what_is_forgotten_starts_no_thread_and_waits_for_nothing() -> None:
    far = PipeInterpreter(sys.executable)
    released = stuck(far)
    link = far._link
    assert link is not None
    before = set(threading.enumerate())
    with pytest.warns(ResourceWarning, match="unclosed"):
        del far
    assert set(threading.enumerate()) <= before
    released.set()
    link._writer.join(LIMIT)
    assert not link._writer.is_alive()


def test_an_interrupted_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remctl_toolkit.machine.call.link.Link._greet", _interrupt)
    with nothing_left_behind(), pytest.raises(KeyboardInterrupt):
        PipeInterpreter(sys.executable)


def _interrupt(*_: object) -> None:
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)  # A terminal's comes there, too.


def test_there_it_ends_in_order(tmp_path: Path) -> None:
    with PipeInterpreter(sys.executable) as far:
        note = tmp_path / "note"
        far.call(far_functions.note_at_exit, str(note))
    assert note.exists()


def test_a_program_that_does_not_start(tmp_path: Path) -> None:
    path = tmp_path / "python"
    path.write_text("#!/bin/sh\necho out of order >&2\nexit 3\n")
    path.chmod(0o755)
    with pytest.raises(InterpreterEndedError, match=r"\(status 3\): out of order"):
        PipeInterpreter(str(path))
