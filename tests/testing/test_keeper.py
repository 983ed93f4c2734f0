"""The keeper: daemons never outlive the process that started them, however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.waiting import eventually, open_descriptors, runs
from testing.processes import TIMEOUT, gone, processes_of, python

from remctl_toolkit.testing import RealmError
from remctl_toolkit.testing.keeper import _KEEPER_SCRIPT, Daemon, Keeper

# A realm with a server that runs a command; prints the directory, then runs the last line.
OWNER = """if True:
    import os, signal, subprocess, sys
    from remctl_toolkit.testing import Command, Realm, RemctldServer
    from remctl_toolkit.testing.waiting import wait_until
    realm = Realm()
    realm.start()
    started = realm.tmpdir / "started"
    script = f"touch {started}; exec sleep 600"
    server = RemctldServer(realm, [Command("take", "time", script=script)])
    server.start()
    client = subprocess.Popen(
        ["remctl", "-p", str(server.port), server.host, "take", "time"],
        env={**os.environ, **realm.env})
    assert wait_until(started.exists, 20)
    print(realm.tmpdir, flush=True)
    sys.stdin.readline()
"""


@contextlib.contextmanager
def owner(ending: str = "sys.stdin.readline()") -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process with a realm, KDC, server, session and command; and the realm's directory."""
    with python(f"{OWNER}    {ending}\n") as process:
        try:
            assert process.stdout is not None
            folder = Path(process.stdout.readline().strip())
            # keeper, KDC, remctld, its session, the command (not while it becomes sleep), client
            eventually(lambda: len(processes_of(folder)) >= 6, TIMEOUT, what="six processes")
            yield process, folder
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_nothing_is_left_after_a_signal(number: signal.Signals) -> None:
    with owner() as (process, folder):
        process.send_signal(number)
        assert process.wait(TIMEOUT) != 0
        eventually(lambda: gone(folder), TIMEOUT, what=f"{folder} {processes_of(folder)}")


@pytest.mark.parametrize("ending", ["sys.exit(3)", "1 / 0", "os._exit(0)", "pass", "realm.stop()"])
def test_nothing_is_left_after_an_exit(ending: str, capfd: pytest.CaptureFixture[str]) -> None:
    with owner(ending) as (process, folder):
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        process.wait(TIMEOUT)
        eventually(lambda: gone(folder), TIMEOUT, what=f"{folder} {processes_of(folder)}")


def test_nothing_is_left_when_a_forked_child_lives_on() -> None:
    """The child inherits the owner's descriptors, including the pipe to the keeper."""
    ending = """if os.fork() == 0:
        os.close(1)
        import time
        time.sleep(600)
    print("forked", flush=True)
    sys.stdin.readline()
"""
    with owner(ending) as (process, folder):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "forked\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        (forked,) = (int(pid) for pid in children if b"fork" in cmdline(int(pid)))
        try:
            process.kill()
            process.wait(TIMEOUT)
            eventually(lambda: gone(folder), TIMEOUT, what=f"{folder} {processes_of(folder)}")
            os.kill(forked, 0)  # it still runs, so its end did not end the realm
        finally:
            os.kill(forked, signal.SIGKILL)


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_forked_child_cannot_end_what_is_its_parents() -> None:
    """The child exits, leaves the with statement and calls stop(); the realm keeps running."""
    code = """if True:
        import os, sys
        from remctl_toolkit.testing import Realm, RealmError, RemctldServer
        with Realm() as realm, RemctldServer(realm) as server:
            child = os.fork()
            if child == 0:
                assert server.running
                for start in (server.start, realm.start_kdc, realm.start):
                    try:
                        start()
                    except RealmError as error:
                        assert "already" in str(error), error
                try:
                    RemctldServer(realm).start()
                except RealmError as error:
                    assert "belongs to process" in str(error), error
                server.stop()
                realm.stop_kdc()
                realm.stop()
                sys.exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            assert server.running
            assert realm.tmpdir.exists()
            realm.kinit()
            print("alive")
    """
    with python(code) as process:
        output, _ = process.communicate(timeout=TIMEOUT)
    assert output == "alive\n"


# The keeper by itself


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    keeper = Keeper()
    yield keeper
    keeper.close()


def start(keeper: Keeper, script: str) -> Daemon:
    with (keeper.folder / "output").open("ab") as output:
        return keeper.launch(["/bin/sh", "-c", script], output=output, env={"PATH": os.defpath})


def test_folder_is_private_and_removed(keeper: Keeper) -> None:
    assert keeper.folder.stat().st_mode & 0o777 == 0o700
    (keeper.folder / "sub").mkdir()
    (keeper.folder / "sub" / "file").touch()
    keeper.close()
    assert not keeper.folder.exists()
    keeper.close()


def test_folder_is_removed_when_nobody_reads_that_it_is_ready(tmp_path: Path) -> None:
    """This simulates an owner that was killed before reading."""
    folder = tmp_path / "realm"
    reading, writing = os.pipe()
    os.close(reading)
    command = ["/bin/sh", "-c", _KEEPER_SCRIPT, "remctl-keeper", str(folder)]
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=writing, timeout=TIMEOUT, check=False)
    os.close(writing)
    assert not folder.exists()


def test_folder_that_cannot_be_made_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    before = open_descriptors()
    with pytest.raises(RealmError, match="/nonexistent/remctl-realm-"):
        Keeper()
    eventually(lambda: open_descriptors() <= before)


def test_close_kills_what_is_left(keeper: Keeper) -> None:
    daemon = start(keeper, "sleep 600 & echo $!; wait")
    output = keeper.folder / "output"
    assert daemon.await_ready(lambda: output.read_text().endswith("\n"), TIMEOUT)
    child = int(output.read_text())
    keeper.close()
    assert daemon.returncode is None or daemon.returncode == -signal.SIGKILL
    eventually(lambda: not daemon.running, TIMEOUT)
    assert daemon.returncode == -signal.SIGKILL
    eventually(lambda: not runs(child), TIMEOUT)


def test_daemon_is_in_the_books_before_it_runs(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon registers itself, because its starter may be killed first."""
    with monkeypatch.context() as patch:
        patch.setattr(keeper, "_tell", lambda line: None)
        daemon = start(keeper, "echo; exec sleep 600")
    output = keeper.folder / "output"
    assert daemon.await_ready(lambda: output.stat().st_size > 0, TIMEOUT)
    keeper.close()
    eventually(lambda: not daemon.running, TIMEOUT)


def test_close_does_not_wait_for_others_who_hold_the_pipe(keeper: Keeper) -> None:
    copy = os.dup(keeper._pipe)
    keeper.close()
    os.close(copy)
    assert not keeper.folder.exists()


def test_end_kills_the_whole_group_whatever_it_ignores(keeper: Keeper) -> None:
    daemon = start(keeper, "trap '' TERM INT HUP; sleep 600 & echo $!; wait; wait")
    output = keeper.folder / "output"
    assert daemon.await_ready(lambda: output.read_text().endswith("\n"), TIMEOUT)
    child = int(output.read_text())
    daemon.freeze()
    daemon.end()
    assert daemon.returncode == -signal.SIGKILL
    eventually(lambda: not runs(child), TIMEOUT)
    daemon.end()


def test_keeper_forgets_what_has_ended(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would finally kill another process that has got the number."""
    daemons = [start(keeper, "exec sleep 600") for _ in range(3)]
    bystander = subprocess.Popen(["sleep", "600"], start_new_session=True)
    forgotten: list[int] = []
    try:
        os.write(keeper._pipe, f"add {bystander.pid}\n".encode())
        with monkeypatch.context() as patch:
            patch.setattr(keeper, "forget", forgotten.append)
            for daemon in daemons:
                daemon.end()
        assert forgotten == [daemon.pid for daemon in daemons]
        for number in (*forgotten, bystander.pid):
            keeper.forget(number)
        keeper.close()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_orphans_are_reaped_by_who_takes_that_part() -> None:
    """This process is a subreaper, like a test run that is process 1 of a container."""
    code = """if True:
        import ctypes, os
        from pathlib import Path
        from remctl_toolkit.testing.keeper import Keeper
        assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
        keeper = Keeper()
        with (keeper.folder / "output").open("ab") as output:
            script = "sleep 600 & sleep 600 & echo; wait"
            daemon = keeper.launch(["/bin/sh", "-c", script], output=output, env=dict(os.environ))
        assert daemon.await_ready(lambda: (keeper.folder / "output").stat().st_size > 0, 20)
        daemon.end()
        print(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
              == [str(keeper._process.pid)])
        keeper.close()
    """
    with python(code) as process:
        output, _ = process.communicate(timeout=TIMEOUT)
    assert output == "True\n"


def test_orphans_that_nobody_reaps_are_not_waited_for() -> None:
    """In many containers, process 1 reaps nothing."""
    code = """if True:
        import ctypes, os, subprocess, sys, time
        from remctl_toolkit.testing import keeper as module
        assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
        if os.fork():
            time.sleep(600)
        module._END_TIMEOUT = 600.0
        keeper = module.Keeper()
        with (keeper.folder / "output").open("ab") as output:
            script = "sleep 600 & echo; wait"
            daemon = keeper.launch(["/bin/sh", "-c", script], output=output, env=dict(os.environ))
        assert daemon.await_ready(lambda: (keeper.folder / "output").stat().st_size > 0, 20)
        daemon.end()
        keeper.close()
        print("ended", flush=True)
    """
    with python(code) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ended\n"
        process.kill()


def test_daemon_that_ends_is_not_waited_for(keeper: Keeper) -> None:
    daemon = start(keeper, "exit 3")
    assert not daemon.await_ready(lambda: False, TIMEOUT)
    assert daemon.returncode == 3
    with pytest.raises(RealmError, match="has ended"):
        daemon.freeze()
    daemon.end()


def test_daemon_that_is_never_ready_is_given_up(keeper: Keeper) -> None:
    daemon = start(keeper, "exec sleep 600")
    assert not daemon.await_ready(lambda: False, 0.05)
    daemon.end()


def test_frozen_daemon_stands_still(keeper: Keeper) -> None:
    daemon = start(keeper, "while :; do echo; done")
    output = keeper.folder / "output"
    assert daemon.await_ready(lambda: output.stat().st_size > 0, TIMEOUT)
    for _ in range(100):  # a freeze() that does not wait would be late only sometimes
        daemon.freeze()
        daemon.freeze()
        assert Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        daemon.thaw()
    daemon.freeze()
    size = output.stat().st_size
    daemon.thaw()
    daemon.thaw()
    eventually(lambda: output.stat().st_size > size, TIMEOUT)
    daemon.end()


def test_daemon_inherits_no_descriptors(keeper: Keeper) -> None:
    with open("/dev/null") as other:
        os.set_inheritable(other.fileno(), True)
        daemon = start(keeper, "exec sleep 600")
        daemon.await_ready(lambda: b"sleep\0" in cmdline(daemon.pid)[:6], TIMEOUT)
    # A program that was just loaded may briefly have a library open.
    eventually(lambda: set(os.listdir(f"/proc/{daemon.pid}/fd")) == {"0", "1", "2"}, TIMEOUT)
    assert os.readlink(f"/proc/{daemon.pid}/fd/2") == str(keeper.folder / "output")
    daemon.end()


def test_closed_keeper_starts_nothing(keeper: Keeper) -> None:
    with open("/dev/null", "wb") as output:
        keeper.close()
        with pytest.raises(RealmError, match="stopped"):
            keeper.launch(["/bin/true"], output=output, env={})


def test_keeper_survives_a_ctrl_c_and_a_hangup(keeper: Keeper) -> None:
    """These signals go to all processes of a terminal; the keeper must clean up afterwards."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
        os.kill(keeper._process.pid, number)
    daemon = start(keeper, "exec sleep 600")
    keeper.close()
    eventually(lambda: not daemon.running, TIMEOUT)
    assert not keeper.folder.exists()


def test_killed_keeper_is_survived(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """stop() must not fail after a kill -9 of everything."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    keeper = Keeper()
    daemon = start(keeper, "echo; exec sleep 600")
    output = keeper.folder / "output"
    assert daemon.await_ready(lambda: output.stat().st_size > 0, TIMEOUT)
    keeper._process.kill()
    keeper._process.wait(TIMEOUT)
    with pytest.raises(RealmError, match="was killed"):
        start(keeper, "exit")
    daemon.end()
    keeper.close()
    assert daemon.returncode == -signal.SIGKILL


def test_no_descriptor_is_left_open() -> None:
    before = open_descriptors()
    for _ in range(3):
        keeper = Keeper()
        start(keeper, "exec sleep 600").end()
        keeper.close()
    eventually(lambda: open_descriptors() <= before)
