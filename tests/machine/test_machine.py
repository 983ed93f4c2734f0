"""A machine as such: what it is made of, and how many remctl commands it takes."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from plumbum import BG, RETCODE, local
from plumbum.commands.processes import (
    CommandNotFound,
    ProcessExecutionError,
)
from plumbum.machines.remote import BaseRemoteMachine
from support.waiting import eventually, open_descriptors

from remctl_toolkit.machine import Connection, WorkingFolderError
from remctl_toolkit.machine.plumbum.machine import Machine
from remctl_toolkit.testing import RemctldServer

pytestmark = pytest.mark.once

ODD_NAMES = ["a b", "it's", 'say "x"', "new\nline", "$HOME", "*", "-n", "é", "ends\n", b"\xff\xfe"]


@pytest.fixture
def counted(server: RemctldServer) -> Callable[[], Any]:
    """Return a context manager whose list has the logged commands of its block in the end."""

    def logged() -> list[str]:
        return [line for line in server.log.splitlines() if "COMMAND from" in line]

    @contextmanager
    def count() -> Iterator[list[str]]:
        lines: list[str] = []
        with Connection(server.host, server.port, server.principal) as other:
            before = [f"before-{id(lines)}", f"after-{id(lines)}"]
            other.run(["true"], label=before[0])
            server.wait_for_log(before[0])
            start = len(logged())
            yield lines
            other.run(["true"], label=before[1])
            server.wait_for_log(before[1])
        lines += logged()[start:-1]

    return count


# -- Attributes -----------------------------------------------------------------------------------


def test_it_is_a_remote_machine_of_plumbum(machine: Machine, either: Connection) -> None:
    assert isinstance(machine, BaseRemoteMachine)
    assert machine.connection is either
    assert machine.host == either.host
    assert machine.far.uid == os.getuid()
    assert machine.uname == os.uname().sysname
    assert machine.encoding == "utf8"
    assert machine.connect_timeout == 30
    assert str(machine) == f"remctl://{either.far.user}@{either.host}"
    assert repr(machine) == f"<Machine {machine}>"
    assert machine.path("/a b").as_uri() == f"ssh://{either.far.user}@{either.host}/a%20b"


def test_it_opens_a_connection_of_its_own(server: RemctldServer) -> None:
    with Machine(
        server.host, server.port, server.principal, shell=None, encoding=None, cwd=Path("/tmp")
    ) as machine:
        assert machine.connection.shell is None
        assert str(machine.cwd) == "/tmp"
        assert machine["pwd"]() == b"/tmp\n"
    assert machine.connection.closed


def test_over_a_connection_it_leaves_that_open(server: RemctldServer) -> None:
    with Connection(server.host, server.port, server.principal) as connection:
        with Machine.over(connection, cwd="/usr") as machine:
            assert machine["pwd"]() == "/usr\n"
        assert connection.run(["true"]).status == 0


def test_a_folder_to_begin_in_that_is_not_there(server: RemctldServer) -> None:
    before = open_descriptors()
    with pytest.raises(ProcessExecutionError, match="nonexistent"):
        Machine(server.host, server.port, server.principal, cwd="/nonexistent")
    gc.collect()
    eventually(lambda: open_descriptors() <= before)


def test_without_plumbum_there_is_one_clear_error() -> None:
    code = """
import sys
sys.modules["plumbum"] = None
import remctl_toolkit.machine
assert remctl_toolkit.machine.Connection
try:
    import remctl_toolkit.machine.plumbum.machine
except ImportError as error:
    print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50
    )
    assert result.stderr == ""
    assert "needs plumbum: pip install 'plumbum>=2.0.2,<2.1'" in result.stdout


def test_the_room_does_not_import_plumbum() -> None:
    code = "import sys, remctl_toolkit.machine as m; m.Connection; print('plumbum' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50
    )
    assert result.stdout == "False\n"


# -- One remctl command each ----------------------------------------------------------------------


def test_making_a_machine_of_a_connection_asks_nothing(
    either: Connection, counted: Callable[[], Any]
) -> None:
    with counted() as lines, Machine.over(either):
        pass
    assert lines == []


def test_plain_commands_are_one_remctl_command(
    machine: Machine, counted: Callable[[], Any], tmp_path: Path
) -> None:
    echo, cat, sh = machine["echo"], machine["cat"], machine["sh"]
    (tmp_path / "in").write_bytes(b"in")
    with local.cwd(str(tmp_path)):
        plain: list[Callable[[], Any]] = [
            lambda: echo("x"),
            lambda: echo.run(["x"]),
            lambda: sh["-c", "exit 3"].run(retcode=3),
            lambda: sh("-c", "exit 3", retcode=None, timeout=30),
            lambda: (cat << b"\xff\0")(encoding=None),
            lambda: (cat < "in")(),
            lambda: (echo["x"] > "out")(),
            lambda: (echo["x"] >> "out")(),
            lambda: (sh["-c", "echo x >&2"] >= "err")(),
            lambda: echo.with_env(A="b").with_cwd("/")("x"),
            lambda: cat.popen(stdin=subprocess.DEVNULL).communicate(),
            lambda: (cat << b"\xff\0").popen().communicate(),
            lambda: (echo.with_env(A="b")["x"] > "out") & RETCODE,
            lambda: (echo["x"] & BG).wait(),
            lambda: cat.run_bg().wait(),
        ]
        for call in plain:
            with counted() as lines:
                call()
            assert len(lines) == 1, lines


def test_programs_are_looked_for_once(machine: Machine, counted: Callable[[], Any]) -> None:
    machine.clear_program_cache()
    assert machine.env.path  # It is asked for once, too.
    with counted() as lines:
        machine["cmp"]
        machine["cmp"]
    assert len(lines) == 1, lines


def test_pipes_into_here_are_one_remctl_command(
    machine: Machine, counted: Callable[[], Any]
) -> None:
    pipe = machine["printf"]["b\\na\\n"] | local["sort"]
    with counted() as lines:
        assert pipe() == "a\nb\n"
    assert len(lines) == 1, lines


def test_nothing_of_a_command_is_logged(machine: Machine, server: RemctldServer) -> None:
    secret = os.urandom(8).hex()
    with machine.env(SECRET=secret):
        echo = machine["echo"][secret].with_env(ANOTHER=secret)
        assert secret in echo()
        assert (machine["cat"] << secret)() == secret
        process = machine["sh"]["-c", f'read x; echo "$SECRET" {secret}'].popen()
        process.stdin.write(b"x\n")
        assert secret.encode() in process.communicate()[0]
        machine.path("/" + secret).exists()
        machine.expand(f"$HOME/{secret}")
    machine.connection.run(["true"], label="after-secret")
    server.wait_for_log("after-secret")
    assert secret not in server.log


# -- Folder and environment -----------------------------------------------------------------------


def test_the_folder_of_commands(machine: Machine, tmp_path: Path) -> None:
    assert str(machine.cwd) == machine.far.home
    odd = tmp_path / "a 'b'\n"
    odd.mkdir()
    with machine.cwd(str(odd)) as folder:
        assert folder == str(odd)
        assert machine["pwd"]() == f"{odd}\n"
        assert machine["pwd"].with_cwd("..")() == f"{tmp_path}\n"
        assert machine.path("x") == str(odd / "x")
        with machine.cwd(".."):
            assert str(machine.cwd) == str(tmp_path)
            assert machine.cwd.getpath() == str(tmp_path)
        assert machine.session().run("pwd")[1] == str(odd) + "\n"
    assert str(machine.cwd) == machine.far.home
    machine.cwd.chdir("/usr")
    assert machine["pwd"]() == "/usr\n"
    machine.cwd.chdir(machine.env.home)


def test_a_folder_that_is_not_there(machine: Machine) -> None:
    with pytest.raises(ProcessExecutionError, match="/nonexistent"), machine.cwd("/nonexistent"):
        pass
    assert str(machine.cwd) == machine.far.home
    with pytest.raises(WorkingFolderError):
        machine["pwd"].with_cwd("/nonexistent")()
    with pytest.raises(WorkingFolderError):
        machine["cat"].popen(cwd="/nonexistent")
    process = machine["cat"].popen(cwd="/nonexistent", stdin=subprocess.DEVNULL)
    with pytest.raises(WorkingFolderError):
        process.wait()


def test_the_environment_of_commands(machine: Machine) -> None:
    env = machine.env
    assert env["HOME"] == machine.far.home
    assert env.home == machine.path(machine.far.home)
    assert env.user == machine.far.user
    assert env["PATH"].split(":")
    assert "REMOTE_USER" in env
    assert env.getdelta() == {}
    show = machine["printenv"]
    with env(A="1\n2 ' $x", EMPTY=""):
        assert show("A") == "1\n2 ' $x\n"
        assert show("EMPTY") == "\n"
        assert env.getdelta() == {"A": "1\n2 ' $x", "EMPTY": ""}
        with env(A="3"):
            assert show("A") == "3\n"
            assert show.with_env(A="4")("A") == "4\n"
            assert show.setenv(A="5")("A") == "5\n"
            assert show("A", env={"A": "6"}) == "6\n"
        del env["LOGNAME"]
        assert show.run(["LOGNAME"], retcode=1) == (1, "", "")
        assert machine.session().run("echo ${LOGNAME-unset} $A")[1] == "unset 1 2 ' $x\n"
    assert show("LOGNAME") == f"{machine.far.user}\n"
    assert show.run(["A"], retcode=None)[0] == 1
    env["B"] = "c"
    assert env.pop("B") == "c"
    assert env.pop("B", "d") == "d"
    with pytest.raises(KeyError):
        del env["B"]


@pytest.mark.parametrize("name", ["a.b", "", "1a", "a b", "a;id", "a\n", "é"])
def test_names_that_no_shell_can_set(machine: Machine, name: str) -> None:
    changes: list[Callable[[], Any]] = [
        lambda: machine.env.__setitem__(name, "x"),
        lambda: machine.env.__delitem__(name),
        lambda: machine.env.pop(name, "x"),
        lambda: machine.env.update({name: "x"}),
    ]
    for change in changes:
        with pytest.raises(ValueError, match="Invalid environment variable name"):
            change()


def test_the_path_of_programs(machine: Machine, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "a-program"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho mine\n")
    (tmp_path / "bin" / "no_program").mkdir()
    program.chmod(0o755)
    with pytest.raises(CommandNotFound):
        machine["a-program"]
    with machine.env():
        machine.env.path.insert(0, str(program.parent))
        assert machine["a_program"]() == "mine\n"
        assert machine.which("a-program") == str(program)
        assert machine["sh"]("-c", "a-program") == "mine\n"
        assert "no_program" not in machine
    assert "a-program" not in machine


def test_expanding(machine: Machine) -> None:
    home = machine.far.home
    assert machine.expand("$HOME/x") == machine.env.expand("~/x") == f"{home}/x"
    assert machine.env.expanduser("~/$x") == f"{home}/$x"
    assert machine.path("~/x") == f"{home.rstrip('/')}/x"


# -- Sessions -------------------------------------------------------------------------------------


def test_a_session_keeps_its_state(machine: Machine) -> None:
    with machine.session() as session:
        session.run("cd /usr; X='a b'")
        assert session.run('pwd; echo "$X"') == (0, "/usr\na b\n", "")
        assert session.run("echo x >&2; false", retcode=1) == (1, "", "x\n")
        assert session.run(machine["echo"]["a  b"])[1] == "a  b\n"
        with pytest.raises(ProcessExecutionError):
            session.run("false")
        assert session.alive()
        assert session.popen("cat").communicate is not None
    assert not session.alive()


def test_a_session_with_a_terminal(machine: Machine) -> None:
    with machine.session(isatty=True) as session:
        for _ in range(5):  # A prompt would be somewhere among them.
            assert session.run("tty")[1].startswith("/dev/")
            assert session.run("echo x >&2")[1].strip() == "x"


# -- Processes and folders ------------------------------------------------------------------------


def test_processes(machine: Machine) -> None:
    found = {process.pid: process for process in machine.list_processes()}
    assert found[os.getpid()].uid == os.getuid()
    args = found[os.getpid()].args
    assert os.getpid() in {process.pid for process in machine.pgrep(re.escape(args[:20]))}


def test_a_folder_for_a_while(machine: Machine) -> None:
    with machine.tempdir() as folder:
        assert folder.is_dir()
        (folder / "x").write(b"x")
    assert not folder.exists()


def test_python(machine: Machine) -> None:
    assert machine.python("-c", "print(6 * 7)") == "42\n"


def test_many_threads_at_once(machine: Machine) -> None:
    from concurrent.futures import ThreadPoolExecutor

    echo = machine["echo"]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(echo, map(str, range(40)))) == [f"{n}\n" for n in range(40)]


# -- Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "name"),
    [("connection", name) for name in ODD_NAMES] + [("python_only", n) for n in ODD_NAMES[-2:]],
)
def test_odd_names(
    request: pytest.FixtureRequest, tmp_path: Path, line: str, name: str | bytes
) -> None:
    machine = Machine.over(request.getfixturevalue(line))
    text = os.fsdecode(name)
    file = tmp_path / text
    octets = bytes(range(256))
    path = machine.path(str(tmp_path)) / text
    path.write(octets)
    assert file.read_bytes() == path.read() == octets
    assert machine["cat"](os.fsencode(file), encoding=None) == octets
    assert machine["cat"](path, encoding=None) == octets
    folder = machine.path(str(tmp_path))
    assert folder.list() == [path]
    assert folder // "*" == [path]
    assert folder.glob("**") == [path]
    assert path.is_file()
    assert path.stat().st_size == 256
    moved = path.move(path.dirname / (text + " moved"))
    assert moved.exists()
    assert not path.exists()
    with machine.cwd(str(tmp_path)):
        assert machine.path(moved.name).exists()
    moved.unlink()
    path.mkdir()
    assert path.is_dir()
    with machine.cwd(path):
        assert os.fsencode(machine["pwd"](encoding=None)[:-1]) == os.fsencode(file)
    path.delete()
    assert not file.exists()


# -- Additions to plumbum -------------------------------------------------------------------------


def test_functions_and_modules(machine: Machine) -> None:
    import platform

    assert machine.call(os.getpid) == machine.call(os.getpid) != os.getpid()
    assert machine.import_module(platform).node() == os.uname().nodename
    interpreter = machine.interpreter
    assert machine.interpreter is interpreter
    interpreter.close()
    assert machine.call(abs, -1) == 1


def test_facts(machine: Machine) -> None:
    assert set(machine.facts("memory", "system")) == {"memory", "system", "reasons"}


def test_gateways(server: RemctldServer) -> None:
    with Machine(server.host, server.port, server.principal) as machine:
        gateway = machine.gateway()
        channel = gateway.remote_exec("channel.send(6 * 7)")
        assert channel.receive(20) == 42
        gateway.exit()
