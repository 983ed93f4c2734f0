"""Commands that the shell starts at once, before the Python that keeps them is there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from machine.remote_traces import read_all, traces
from support.waiting import eventually, runs

from remctl_toolkit.machine import Channel, ChannelError, Connection, Machine
from remctl_toolkit.machine.channel import PIPE, STDOUT, ChannelProcess
from remctl_toolkit.machine.channel import keeper as keepers
from remctl_toolkit.testing import RemctldServer, machine_commands

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once


def test_it_is_one_command_of_the_shell(
    connection: Connection, server: RemctldServer, far_log: Callable[[], str]
) -> None:
    assert connection.quick_start is not None
    before = len(far_log())
    with ChannelProcess(connection, ["true"], stdin=PIPE, label="quick") as process:
        assert process.wait(20) == 0
    server.wait_for_log(" quick ")
    commands = [line for line in far_log()[before:].splitlines() if "COMMAND" in line]
    assert len([line for line in commands if " quick " in line and ": sh " in line]) == 1
    assert not [line for line in commands if ": python " in line]


def what_it_finds(connection: Connection) -> bytes:
    script = """
    trap 'echo interrupted' INT; kill -INT $$; trap 'echo quit' QUIT; kill -QUIT $$
    ls -l /proc/self/fd | grep -c -- '->'; ps -o sid= -p $$ | grep -cw $$; umask; pwd
    env | grep -v '^\\(_\\|PWD\\|OLDPWD\\|REMCTL_COMMAND\\)=' | sort
    """
    change = {"A": "a\nb'", "USER": None, "d": "x", "p": "y"}
    with Channel(connection, ["sh", "-c", script], cwd="/usr", extend_env=change) as channel:
        return read_all(channel)


def test_a_command_finds_the_same_either_way(
    connection: Connection, python_only: Connection
) -> None:
    found = what_it_finds(connection)
    assert found == what_it_finds(python_only)
    assert found.startswith(b"interrupted\nquit\n4\n1\n0022\n/usr\nA=a\n")


@pytest.mark.parametrize(
    "how",
    [
        {"env": {"PATH": "/usr/bin:/bin"}},
        {"extend_env": {"PATH": "/usr/bin:/bin"}},
        {"extend_env": {"no-name-for-a-shell": "x"}},
        {"argv": ["sh", "-c", "cat; exit 3", "x" * 5000]},
        {"cwd": "usr"},
    ],
)
def test_what_is_not_for_the_shell_is_started_by_python(
    connection: Connection, how: dict[str, Any]
) -> None:
    with Channel(connection, **{"argv": ["sh", "-c", "cat; exit 3"], **how}) as channel:
        channel.write(b"x")
        assert channel.read() == b"x"
        channel.close_write()
        assert channel.wait() == 3


@pytest.mark.parametrize(
    ("program", "status", "text"),
    [
        ("no-such-program", 127, "No such file or directory"),
        ("/no/such/program", 127, "No such file or directory"),
        ("/etc/passwd", 126, "Permission denied"),
    ],
)
def test_a_program_that_cannot_be_run_has_one_message(
    either: Connection, program: str, status: int, text: str
) -> None:
    with Channel(either, [program]) as channel:
        assert channel.wait(20) == status
        assert channel.read_stderr().decode() == f"{program}: {text}\n"


def test_a_shell_that_asks_for_statuses_itself_starts_nothing(remctl_realm: Realm) -> None:
    with (
        RemctldServer(remctl_realm, machine_commands(shell="/bin/bash")) as server,
        Connection(server.host, server.port, server.principal) as connection,
    ):
        assert (connection.shell, connection.quick_start) == ("sh", None)
        with Channel(connection, ["sh", "-c", "cat; exit 3"]) as channel:
            channel.write(b"x")
            channel.close_write()
            assert (read_all(channel), channel.wait()) == (b"x", 3)


@pytest.mark.parametrize("status", [0, 129, 137, -9])
def test_the_status_of_what_ends_before_its_keeper_is_there(
    connection: Connection, status: int
) -> None:
    script = f"exit {status}" if status >= 0 else f"kill {status} $$"
    for _ in range(10):
        with Channel(connection, ["sh", "-c", f"echo out; echo err >&2; {script}"]) as channel:
            assert channel.wait(20) == status
            assert (read_all(channel), channel.read_stderr()) == (b"out\n", b"err\n")


def test_where_its_output_goes(connection: Connection) -> None:
    argv = ["sh", "-c", "echo out; echo err >&2; exec cat"]
    for stdout, stderr, expected in (
        (PIPE, STDOUT, (b"out\nerr\nx", None)),
        (PIPE, subprocess.DEVNULL, (b"out\nx", None)),
        (subprocess.DEVNULL, PIPE, (None, b"err\n")),
        (subprocess.DEVNULL, STDOUT, (None, None)),
    ):
        with ChannelProcess(connection, argv, stdin=PIPE, stdout=stdout, stderr=stderr) as process:
            assert process.communicate(b"x") == expected
            assert process.returncode == 0


def test_nothing_is_left(connection: Connection) -> None:
    with Channel(connection, ["sh", "-c", "echo ready; exec sleep 1000"]) as channel:
        assert channel.read() == b"ready\n"
        there = traces(channel)
        eventually(lambda: sorted(os.listdir(there.folder)) == ["control", "data"])
        assert os.getsid(there.command) == there.command
    eventually(there.gone)


def test_the_path_of_its_folder_may_have_any_length(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its length is part of a text for the shell."""
    with tempfile.TemporaryDirectory(dir="/tmp") as base:
        for length in (*range(len(base) + 2, 60), 150):
            folder = os.fsencode(base).ljust(length - 1, b"/") + b"x"
            os.makedirs(folder, exist_ok=True)
            monkeypatch.setattr(connection, "quick_start", folder)
            with Channel(connection, ["cat"]) as channel:
                assert traces(channel).folder.startswith(os.fsdecode(folder) + "/.remctl-")


LEAVING = """
import os, sys
from remctl_toolkit.machine import Machine
machine = Machine(sys.argv[1], int(sys.argv[2]), sys.argv[3])
machine["sh"]["-c", "echo $$ >$0; exec sleep 1000", sys.argv[4]].popen()
os._exit(0)
"""


def test_a_client_that_leaves_at_once(remctl_realm: Realm, tmp_path: Path) -> None:
    """The command runs, and is ended when its keeper notices that the client is gone."""
    folders = tmp_path / "folders"
    folders.mkdir()
    with RemctldServer(remctl_realm, machine_commands(), env={"TMPDIR": str(folders)}) as server:
        for number in range(5):
            file = tmp_path / str(number)
            arguments = [server.host, str(server.port), server.principal, str(file)]
            subprocess.run([sys.executable, "-c", LEAVING, *arguments], check=True, timeout=50)
            pid = int(eventually(lambda file=file: file.exists() and file.read_text()))
            eventually(lambda pid=pid: not runs(pid))
        eventually(lambda: not list(folders.iterdir()))


def test_a_keeper_without_a_program_ends_what_was_started(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As when the client leaves before the server has passed it on."""
    monkeypatch.setattr(keepers.Keeper, "_payload", lambda _: b"00001000 cut short")
    script = f"echo $$ >{tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; sleep 1000 & wait"
    process = ChannelProcess(connection, ["sh", "-c", script], stdin=PIPE)
    keeper = process._engine
    assert isinstance(keeper, keepers.Keeper)
    with pytest.raises(ChannelError, match="no program"):
        process.wait(50)
    process.close()
    eventually(lambda: not os.path.exists(keeper._spec["folder"]))
    pid = keeper.pid or int((tmp_path / "pid").read_text())
    eventually(lambda: not runs(pid))


def test_signals_before_its_keeper_is_there(server: RemctldServer) -> None:
    with Machine(server.host, server.port, server.principal) as machine:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            process = machine["sleep"]["1000"].popen()
            process.send_signal(number)
            assert process.wait(20) == -number
            process.close()
