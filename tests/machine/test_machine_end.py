"""The end of a machine and of its commands, and commands that run on."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from machine.endings import attempt_within_limit, pids_in
from plumbum.commands.processes import (
    ProcessExecutionError,
    ProcessTimedOut,
)
from plumbum.machines.remote import ClosedRemoteMachine
from support.standstill import await_standstill
from support.waiting import eventually, runs, thread_count

from remctl_toolkit.machine.plumbum.machine import Machine
from remctl_toolkit.machine.process.popen import Process
from remctl_toolkit.testing import RemctldServer, machine_commands

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm


# -- Commands that run on -------------------------------------------------------------------------


def test_nohup(machine: Machine, tmp_path: Path) -> None:
    script = 'echo "out $A"; echo err >&2; cat; echo $$ >pid; exec sleep 60'
    command = machine["sh"]["-c", script].with_env(A="a b")
    with machine.cwd(str(tmp_path)):
        process = command.nohup()
    assert (process.poll(), process.wait(), process.returncode) == (0, 0, 0)
    pid = process.pid
    assert pid is not None
    assert pid > 1
    try:
        eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        assert int((tmp_path / "pid").read_text()) == pid
        assert (tmp_path / "nohup.out").read_text() == "out a b\nerr\n"
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        assert (int(fields[2]), int(fields[3])) == (pid, pid)  # its group and its session
        # The shell and the program's beginning may have had more.
        eventually(lambda: sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"])
    finally:
        os.kill(pid, 9)


def test_nohup_with_files_of_ones_own(machine: Machine, tmp_path: Path) -> None:
    command = machine["sh"]["-c", "echo out; echo err >&2"]
    out, err = tmp_path / "o ut", tmp_path / "err"
    out.write_text("before\n")
    machine.daemonic_popen(command, str(tmp_path), "o ut", str(err))
    eventually(lambda: err.exists() and err.read_text())
    assert (out.read_text(), err.read_text()) == ("before\nout\n", "err\n")
    machine.daemonic_popen(command, "/", str(out), append=False)
    eventually(lambda: out.read_text() == "out\nerr\n")
    machine.daemonic_popen(machine["echo"]["x"] | machine["tee"][str(tmp_path / "tee")])
    eventually(lambda: (tmp_path / "tee").exists() and (tmp_path / "tee").read_text() == "x\n")


@pytest.mark.parametrize("where", [{"cwd": "/nonexistent"}, {"stdout": "/nonexistent/x"}])
def test_nohup_says_what_is_wrong(machine: Machine, where: dict[str, Any]) -> None:
    with pytest.raises(ProcessExecutionError, match="/nonexistent"):
        machine.daemonic_popen(machine["true"], **where)


# -- Time limits and signals ----------------------------------------------------------------------


def test_a_timeout_ends_the_command_and_what_it_has_started(
    machine: Machine, tmp_path: Path
) -> None:
    script = f"sleep 100 & echo $! $$ >{tmp_path}/pids; wait"

    def attempt(limit: float) -> bool:
        with pytest.raises(ProcessTimedOut, match=rf"within {limit} seconds"):
            machine["sh"]("-c", script, timeout=limit)
        pids = pids_in(tmp_path / "pids")
        eventually(lambda: not any(map(runs, pids)))
        return len(pids) == 2

    attempt_within_limit(attempt)
    assert machine["echo"]("x") == "x\n"


def test_a_timeout_of_a_pipeline(machine: Machine, tmp_path: Path) -> None:
    first = machine["sh"]["-c", f"echo $$ >{tmp_path}/pid; exec sleep 100"]

    def attempt(limit: float) -> bool:
        with pytest.raises(ProcessTimedOut):
            (first | machine["cat"])(timeout=limit)
        pids = pids_in(tmp_path / "pid")
        eventually(lambda: not any(map(runs, pids)))
        return len(pids) == 1

    attempt_within_limit(attempt)


@pytest.mark.parametrize("started", [False, True])
def test_signals(machine: Machine, tmp_path: Path, started: bool) -> None:
    process = machine["sleep"]["100"].popen(stdin=subprocess.DEVNULL)
    if started:
        assert process.poll() is None
        eventually(lambda: process.pid)
    process.terminate()
    assert process.wait(20) == -15
    process = machine["sleep"]["100"].popen()  # A channel.
    process.kill()
    assert process.wait(20) == -9


def test_a_command_may_be_forgotten_at_any_moment(machine: Machine) -> None:
    # Garbage is collected wherever a thread happens to be: what it needs may be locked.
    process = machine["sh"]["-c", "trap '' CONT; exec cat"].popen()
    process.send_signal(signal.SIGCONT)
    pid = process.pid
    assert isinstance(pid, int)
    locked, gone = threading.Event(), threading.Event()

    def hold() -> None:
        with machine.connection._pool._ledger.lock:
            locked.set()
            gone.wait(40)

    thread = threading.Thread(target=hold)
    thread.start()
    locked.wait(20)
    start = time.monotonic()
    left = weakref.ref(process)
    del process
    eventually(lambda: gc.collect() >= 0 and left() is None, 20)
    assert time.monotonic() - start < 20
    gone.set()
    thread.join()
    eventually(lambda: not runs(pid), 20)


def test_an_interrupt_ends_the_command(machine: Machine) -> None:
    process = Process(
        machine.connection,
        ["sleep", "100"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        whole=True,
    )
    pids: list[int] = []

    def interrupt() -> None:
        engine = eventually(lambda: process._engine, 20)
        pids.append(eventually(lambda: engine.pid or 0, 20))
        await_standstill(threading.main_thread(), __file__)
        os.kill(os.getpid(), 2)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            process.communicate()
    finally:
        thread.join()
    eventually(lambda: not runs(pids[0]))


def test_a_process_keeps_its_machine(server: RemctldServer) -> None:
    process = Machine(server.host, server.port, server.principal)["cat"].popen()
    gc.collect()
    assert process.communicate(b"x") == (b"x", b"")


# -- The machine's end ----------------------------------------------------------------------------


def test_close_ends_all_that_runs(server: RemctldServer, tmp_path: Path) -> None:
    threads = thread_count()
    machine = Machine(server.host, server.port, server.principal, cwd=tmp_path)
    command, path = machine["true"], machine.path("/")
    script = machine["sh"]["-c", "echo $$ >$0; exec sleep 100"]
    live = script["live"].popen(stdin=subprocess.DEVNULL)
    channel = script["channel"].popen()
    session = machine.session()
    names = [tmp_path / "live", tmp_path / "channel"]
    eventually(lambda: all(name.exists() and name.read_text() for name in names))
    machine.close()
    machine.close()
    eventually(lambda: not any(runs(int(name.read_text())) for name in names))
    assert machine.closed
    assert not session.alive()
    for use in (
        lambda: machine["ls"],
        lambda: command(),
        lambda: path.exists(),
        lambda: machine.cwd.chdir("/"),
        lambda: machine.session(),
        lambda: machine.upload("x", "y"),
        lambda: machine.tunnel(0, 1),
        lambda: machine.call(abs, -1),
    ):
        with pytest.raises(ClosedRemoteMachine, match="has been closed"):
            use()
    for process in (live, channel):
        process.close()
    eventually(lambda: thread_count() <= threads + 1)


@pytest.mark.parametrize("way", ["close", "drop"])
def test_a_host_that_hangs_does_not_hold_up_the_end(remctl_realm: Realm, way: str) -> None:
    with RemctldServer(remctl_realm, machine_commands()) as server:
        machines = [Machine(server.host, server.port, server.principal)]
        held = [
            machines[0].popen(["sleep", "100"]),
            machines[0].popen(["sleep", "100"], stdin=subprocess.DEVNULL),
            machines[0].call(os.getpid),
        ]
        server.freeze()
        ended = threading.Event()

        def end() -> None:
            if way == "close":
                machines[0].close()
            held.clear()
            machines.clear()
            gc.collect()
            ended.set()

        thread = threading.Thread(target=end)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            thread.start()
            assert ended.wait(18)
        thread.join()
        server.thaw()


# -- The program's end ----------------------------------------------------------------------------

PROGRAM = """\
import os, subprocess, sys
from plumbum import BG
from remctl_toolkit.machine import Machine
machine = Machine(sys.argv[1], int(sys.argv[2]), sys.argv[3])
command = machine["sh"]["-c", "echo >$0", sys.argv[4]]
"""


def run_program(realm: Realm, server: RemctldServer, rest: str, *args: object) -> int:
    """Run a program that has a machine and a command; return its status."""
    words = [server.host, str(server.port), server.principal, *map(str, args)]
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM + rest, *words],
        env={**os.environ, **realm.env},
        stderr=subprocess.DEVNULL,
        timeout=25,
    )
    return result.returncode


@pytest.mark.parametrize(
    "rest",
    [
        "process = command.popen()",
        "future = command & BG",
        "future = command & BG; os._exit(0)",
        "future = command & BG(stdin=-1)",
        "context = command.bgrun(); context.__enter__()",
        "process = command.popen(); machine.close()",
        "process = command.popen(stdin=subprocess.DEVNULL)",
        "process = command.popen(stdin=subprocess.DEVNULL); os._exit(0)",
        "process = (command << 'x').popen(); os._exit(0)",
    ],
)
def test_what_was_started_runs_though_the_program_ends(
    remctl_realm: Realm, server: RemctldServer, tmp_path: Path, rest: str
) -> None:
    assert run_program(remctl_realm, server, rest, tmp_path / "done") == 0
    eventually((tmp_path / "done").exists)


@pytest.mark.parametrize(
    "rest",
    [
        "session = machine.session(); session.run('true')",
        "session = machine.session(isatty=True); session.run('true'); 1 / 0",
        "process = machine['yes'].popen(); 1 / 0",
        "process = machine['sleep']['100'].popen(); process.stdin.write(bytes(2_000_000)); 1 / 0",
        "future = machine['sleep']['1'] & BG(timeout=100)",
        "machine.call(os.getpid)",
    ],
)
def test_a_program_ends_at_once(
    remctl_realm: Realm, server: RemctldServer, tmp_path: Path, rest: str
) -> None:
    assert run_program(remctl_realm, server, rest, tmp_path / "x") == ("1 / 0" in rest)
