"""How commands of a machine end, or go on without us, and the machine's own end."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
from machine.endings import pids_in, with_more_time
from plumbum.commands.processes import (
    ProcessExecutionError,
    ProcessTimedOut,
)
from plumbum.machines.remote import ClosedRemoteMachine
from support.waiting import eventually, runs, thread_count

import remctl_toolkit.machine.plumbum.popen
from remctl_toolkit.machine.plumbum.machine import Machine
from remctl_toolkit.testing import RemctldServer

pytestmark = pytest.mark.once


# -- What goes on without us ----------------------------------------------------------------------


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

    with_more_time(attempt)
    assert machine["echo"]("x") == "x\n"


def test_a_timeout_of_a_pipeline(machine: Machine, tmp_path: Path) -> None:
    first = machine["sh"]["-c", f"echo $$ >{tmp_path}/pid; exec sleep 100"]

    def attempt(limit: float) -> bool:
        with pytest.raises(ProcessTimedOut):
            (first | machine["cat"])(timeout=limit)
        pids = pids_in(tmp_path / "pid")
        eventually(lambda: not any(map(runs, pids)))
        return len(pids) == 1

    with_more_time(attempt)


@pytest.mark.parametrize("started", [False, True])
def test_signals(machine: Machine, tmp_path: Path, started: bool) -> None:
    process = machine["sleep"]["100"].popen(stdin=subprocess.DEVNULL)
    if started:
        assert process.poll() is None
        eventually(lambda: process.pid)
    process.terminate()
    assert process.wait(20) == -15
    process = machine["sleep"]["100"].popen()
    if started:
        process.stdin.flush()  # A channel.
    process.kill()
    assert process.wait(20) == -9


def test_a_command_may_be_forgotten_at_any_moment(machine: Machine) -> None:
    # Garbage is collected wherever a thread happens to be: what it needs may be locked.
    process = machine["sh"]["-c", "trap '' CONT; exec cat"].popen()
    process.stdin.flush()  # A channel.
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
    # What starts commands late may have it in hand for a moment longer.
    eventually(lambda: gc.collect() >= 0 and left() is None, 20)
    assert time.monotonic() - start < 20
    gone.set()
    thread.join()
    eventually(lambda: not runs(pid), 20)


def test_an_interrupt_ends_the_command(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        remctl_toolkit.machine.plumbum.popen, "GRACE", 30
    )  # It does not become a channel.
    process = machine["sleep"]["100"].popen()
    pids: list[int] = []

    def interrupt() -> None:
        pids.append(eventually(lambda: process.pid or 0, 20))
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
    channel.stdin.flush()
    waiting = script["waiting"].popen()
    session = machine.session()
    names = [tmp_path / "live", tmp_path / "channel"]
    eventually(lambda: all(name.exists() and name.read_text() for name in names))
    machine.close()
    machine.close()
    eventually(lambda: not any(runs(int(name.read_text())) for name in names))
    assert machine.closed
    assert not session.alive()
    eventually(lambda: waiting.returncode == -9 or not runs(waiting.pid or 0))
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
    for process in (live, channel, waiting):
        process.close()
    eventually(lambda: thread_count() <= threads + 1)
