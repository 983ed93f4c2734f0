"""Plumbum's ways of running commands, on a machine over remctl."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from plumbum import BG, ERROUT, FG, NOHUP, RETCODE, TEE, TF, local
from plumbum.commands.base import RedirectionError
from plumbum.commands.modifiers import PipeToLoggerMixin
from plumbum.commands.processes import (
    BY_TYPE,
    CommandNotFound,
    ProcessExecutionError,
    ProcessLineTimedOut,
    ProcessTimedOut,
)
from plumbum.machines.remote import AsyncRemoteMachine
from support.waiting import eventually

from remctl_toolkit.machine import WorkingFolderError
from remctl_toolkit.machine.plumbum import popen
from remctl_toolkit.machine.plumbum.machine import Machine

pytestmark = pytest.mark.once

BINARY = bytes(range(256)) * 40


@pytest.fixture
def sh(machine: Machine) -> Any:
    return machine["sh"]["-c"]


# -- Finding commands -----------------------------------------------------------------------------


def test_forms_of_commands(machine: Machine) -> None:
    ls = machine.which("ls")
    for command in (machine["ls"], machine[str(ls)], machine[ls], machine.cmd.ls):
        assert command("-d", "/") == command["-d"]("/") == command["-d", "/"]() == "/\n"
        assert command.bound_command("-d").bound_command("/")() == "/\n"
        assert str(command["-d", "a b"]) == f"{ls} -d 'a b'"
        assert command.machine is machine
    assert machine.get("no-such-program", "ls")("-d", "/") == "/\n"
    assert "ls" in machine
    assert "no-such-program" not in machine
    with pytest.raises(CommandNotFound) as caught:
        machine["no-such-program"]
    assert caught.value.program == "no-such-program"
    with pytest.raises(AttributeError):
        machine.cmd.no_such_program  # noqa: B018
    with pytest.raises(TypeError):
        machine[local.path("/bin/ls")]


def test_arguments(machine: Machine) -> None:
    words = ["", " ", "a b", "'", '"', "$HOME", "`id`", "\\", "*", "\n", "é", "-n", "~", "\udcff"]
    printf = machine["printf"]["%s|"]
    assert printf(*words, encoding=None) == b"".join(os.fsencode(w) + b"|" for w in words)
    assert printf(b"\xff\xfe", 5, None, ["x", b"\xff"], encoding=None) == b"\xff\xfe|5|x|\xff|"


def test_commands_in_commands(machine: Machine, sh: Any) -> None:
    env = machine["env"]
    assert env["A=b", machine["printenv"]["A"]]() == "b\n"
    assert env[env[machine["echo"]["x"]]]() == "x\n"
    # Each level is quoted once, for a shell such as that of ssh on the next host.
    assert sh['eval "$*"', "sh", machine["printf"]["%s|", "a  b", "$HOME"]]() == "a  b|$HOME|"


# -- Running them ---------------------------------------------------------------------------------


def test_run(machine: Machine, sh: Any) -> None:
    assert sh.run(["echo out; echo err >&2"]) == (0, "out\n", "err\n")
    for retcode in (3, (0, 3), range(5), None):
        assert sh["exit 3"].run(retcode=retcode) == (3, "", "")
    with pytest.raises(ProcessExecutionError) as caught:
        sh("echo out; echo err >&2; exit 3")
    error = caught.value
    assert (error.retcode, error.stdout, error.stderr) == (3, "out\n", "err\n")
    assert error.argv[1:] == ["-c", "echo out; echo err >&2; exit 3"]
    assert error.host == machine.host
    assert machine.host in str(error)
    assert sh.run(["exit 255"], retcode=None)[0] == 255
    assert machine["/no/such/program"].run(retcode=127)[0] == 127
    assert pickle.loads(pickle.dumps(error)).retcode == 3


def test_output_in_another_encoding(machine: Machine, sh: Any) -> None:
    latin = machine["printf"]["\\344"]
    assert latin() == ""  # As plumbum does it: what is no UTF-8 is left out.
    assert latin(encoding="latin-1") == "ä"
    assert latin(encoding=None) == b"\xe4"
    machine.encoding = "latin-1"
    try:
        assert machine["printf"]("\\344") == "ä"
    finally:
        machine.encoding = "utf8"
    error = None
    try:
        sh("printf '\\344'; exit 1", encoding=None)
    except ProcessExecutionError as caught:
        error = caught
    assert error is not None
    assert error.stdout == "b'\\xe4'"


def test_popen(machine: Machine) -> None:
    process = machine["cat"].popen()
    assert process.poll() is None
    process.stdin.write(BINARY)
    process.stdin.close()
    assert process.stdout is not None
    assert process.stdout.read() == BINARY
    assert process.wait() == process.poll() == process.returncode == 0
    process.verify(0, None, b"", b"")
    process.close()
    assert machine["cat"].popen().communicate(BINARY) == (BINARY, b"")
    assert machine["cat"].popen().communicate() == (b"", b"")
    with machine["cat"].popen() as process:
        process.stdin.write(b"x")
        process.stdin.flush()
        assert process.stdout is not None
        assert process.stdout.read(1) == b"x"
    assert process.returncode == 0


def test_popen_of_a_list_and_of_a_text(machine: Machine) -> None:
    assert machine.popen(["echo", "a  b"]).communicate()[0] == b"a  b\n"
    assert machine.popen("echo a  b | tr a c").communicate()[0] == b"c b\n"
    with pytest.raises(TypeError):
        machine.popen(["ls", 1.5])
    with pytest.raises(ValueError, match="NUL"):
        machine.popen(["ls", "a\0b"])


def test_much_input_and_output(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remctl_toolkit.machine.process.streams.LARGEST_INPUT", 1 << 20)
    data = os.urandom(3 << 20)  # More than is sent with the command.
    tee = machine["tee"]["/dev/stderr"]
    for process, input in ((tee.popen(), data), ((tee << data).popen(), None)):
        assert process.communicate(input) == (data, data)
    assert (tee << data)(encoding=None) == data


def test_input_that_is_not_read(machine: Machine, sh: Any) -> None:
    assert sh["exec <&-; echo x"].popen().communicate(b"x" * (1 << 20))[0] == b"x\n"


def test_communicate_with_a_time_limit(machine: Machine, sh: Any) -> None:
    assert machine["cat"].popen().communicate(b"x", timeout=20) == (b"x", b"")
    process = machine["sleep"]["100"].popen()
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=0.2)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.1)
    process.kill()
    assert process.wait() == -9
    process.close()


def test_lines(sh: Any) -> None:
    script = "echo 1; echo 2 >&2; echo 3"
    # Output of two streams may arrive in either order.
    found = sorted(sh[script].popen(), key=str)
    assert found == [("1", None), ("3", None), (None, "2")]
    found = sorted(sh[script].popen().iter_lines(mode=BY_TYPE))
    assert found == [(1, "1"), (1, "3"), (2, "2")]
    with pytest.raises(ProcessExecutionError):
        list(sh["echo x; exit 3"].popen())
    with pytest.raises(ProcessLineTimedOut):
        list(sh["echo x; exec sleep 100"].popen().iter_lines(line_timeout=0.3))
    with pytest.raises(ProcessTimedOut):
        list(sh["echo x; exec sleep 100"].popen().iter_lines(timeout=0.5))


def test_lines_of_a_command_that_is_slow(
    sh: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A reader that found no lines before the end looks once more after it."""
    poll = popen.Popen.poll

    def await_the_end(process: popen.Popen) -> int | None:
        (tmp_path / "looked").touch()
        process.wait(30)
        return poll(process)

    monkeypatch.setattr(popen.Popen, "poll", await_the_end)
    monkeypatch.setattr(popen, "POLL_INTERVAL", 0.001)
    script = f"while ! [ -e {tmp_path}/looked ]; do sleep 0.02; done; echo 1; echo 2"
    assert list(sh[script].popen()) == [("1", None), ("2", None)]


def test_lines_arrive_as_they_are_written(sh: Any, tmp_path: Path) -> None:
    script = f"""
        await() {{ while ! [ -e {tmp_path}/$1 ]; do sleep 0.02; done; }}
        printf '1\\n2\\n'; await a; echo 3 >&2; await b; printf 456
    """
    process = sh[script].popen(stdin=subprocess.DEVNULL)
    lines = process.iter_lines(linesize=2)
    assert next(lines) == ("1", None)
    assert next(lines) == ("2", None)
    (tmp_path / "a").touch()
    assert next(lines) == (None, "3")
    (tmp_path / "b").touch()
    assert list(lines) == [("45", None), ("6", None)]


def test_lines_of_what_is_started_and_left(sh: Any) -> None:
    start = time.monotonic()
    lines = list(sh["echo x; sleep 100 & exit"].popen(stdin=subprocess.DEVNULL))
    assert lines == [("x", None)]
    assert time.monotonic() - start < 50
    lines = list((sh["echo x >&2; echo y"] | sh["cat"]).popen())
    assert sorted(lines, key=str) == [("y", None), (None, "x")]


def test_bgrun(machine: Machine, tmp_path: Path) -> None:
    with machine["sh"]["-c"].bgrun([f"touch {tmp_path}/x; echo y"]) as process:
        eventually((tmp_path / "x").exists)
        assert process.run() == (0, "y\n", "")
    found = []

    def begin() -> None:
        with machine["sleep"].bgrun(["100"]) as process:
            found.append(eventually(lambda: process.poll() is None and process.pid))
            raise RuntimeError("body")

    with pytest.raises(RuntimeError, match="body"):
        begin()
    eventually(lambda: not Path(f"/proc/{found[0]}").exists())


# -- Modifiers ------------------------------------------------------------------------------------


def test_background(machine: Machine, sh: Any, tmp_path: Path) -> None:
    future = sh[f"touch {tmp_path}/x; while [ -e {tmp_path}/x ]; do sleep 0.02; done; echo y"] & BG
    eventually((tmp_path / "x").exists)  # It has been started, without being waited for.
    assert not future.ready()
    (tmp_path / "x").unlink()
    future.wait()
    assert (future.returncode, future.stdout, future.stderr) == (0, "y\n", "")
    assert future.ready()
    failing = sh["exit 3"].run_bg()
    with pytest.raises(ProcessExecutionError):
        failing.wait()
    assert (sh["exit 3"] & BG(3)).returncode == 3
    ending = machine["sleep"]["100"] & BG(timeout=0.3)
    with pytest.raises(ProcessTimedOut):
        ending.wait()


def test_foreground(machine: Machine, sh: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert (sh["echo out; echo err >&2"] & FG) is None
    assert capfd.readouterr() == ("out\n", "err\n")
    sh["exit 3"] & FG(3)
    with pytest.raises(ProcessExecutionError):
        sh["exit 3"].run_fg()


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_foreground_has_our_standard_input(
    machine: Machine, capfd: pytest.CaptureFixture[str], tmp_path: Path, kind: str
) -> None:
    (tmp_path / "in").write_bytes(b"x\n")
    if kind == "file":
        reader = os.open(tmp_path / "in", os.O_RDONLY)
    else:
        reader, writer = os.pipe()
        os.write(writer, b"x\n")
        os.close(writer)
    ours = os.dup(0)
    os.dup2(reader, 0)
    os.close(reader)
    try:
        machine["cat"] & FG
    finally:
        os.dup2(ours, 0)
        os.close(ours)
    assert capfd.readouterr().out == "x\n"


def test_tee(sh: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert sh["echo out; echo err >&2; exit 3"].run_tee(retcode=3) == (3, "out\n", "err\n")
    assert capsys.readouterr() == ("out\n", "err\n")
    assert (sh["seq 20000"] & TEE)[1].endswith("20000\n")


def test_truth_and_status(machine: Machine, sh: Any) -> None:
    assert machine["true"] & TF
    assert not machine["false"] & TF
    assert sh["exit 3"] & TF(3)
    assert sh["exit 3"] & RETCODE == 3
    assert machine["true"].run_retcode() == 0
    assert not sh["exit 3"].run_tf(FG=True)


def test_nohup(machine: Machine, sh: Any, tmp_path: Path) -> None:
    with machine.cwd(str(tmp_path)):
        sh["echo out; echo err >&2"] & NOHUP
        (sh["echo 2"] > "second") & NOHUP
    eventually(lambda: (tmp_path / "nohup.out").exists() and (tmp_path / "second").exists())
    eventually(lambda: (tmp_path / "nohup.out").read_text() == "out\nerr\n")
    eventually(lambda: (tmp_path / "second").read_text() == "2\n")


def test_a_logger(sh: Any) -> None:
    class Logger(logging.Logger, PipeToLoggerMixin):  # type: ignore[misc]
        pass

    found = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append((record.levelname, record.getMessage()))  # type: ignore[method-assign]
    logger = Logger("far")
    logger.addHandler(handler)
    assert sh["echo out; echo err >&2"] & logger.pipe(prefix="p") == 0
    assert sorted(found) == [("DEBUG", "p: err"), ("INFO", "p: out")]


def test_asyncio(machine: Machine, tmp_path: Path) -> None:
    far = AsyncRemoteMachine(machine)
    when_all_are_there = """
        touch "$0/$1"
        while [ "$(ls "$0" | wc -l)" -lt 3 ]; do sleep 0.05; done
        echo "$1"
    """

    async def main() -> list[str]:
        command = far["sh"]["-c", when_all_are_there, str(tmp_path)]
        results = await asyncio.gather(*(command(str(n)) for n in range(3)))
        assert (await (far["echo"]["b"] | far["grep"]["b"]).run()).stdout == "b\n"
        with pytest.raises(asyncio.TimeoutError):
            await far["sleep"].run(["100"], timeout=0.2)
        return results

    assert asyncio.run(main()) == ["0\n", "1\n", "2\n"]


# -- Pipes and redirections -----------------------------------------------------------------------


def pipes(machine: Machine) -> dict[str, tuple[Any, Any]]:
    return {
        "far-far": (machine, machine),
        "far-near": (machine, local),
        "near-far": (local, machine),
    }


@pytest.mark.parametrize("kind", ["far-far", "far-near", "near-far"])
def test_pipes(machine: Machine, kind: str) -> None:
    first, second = pipes(machine)[kind]
    assert (first["printf"]["a\\nb\\n"] | second["grep"]["b"])() == "b\n"
    failing = first["sh"]["-c", "echo b; exit 3"] | second["cat"]
    with pytest.raises(ProcessExecutionError) as caught:
        failing()
    assert caught.value.retcode == 3
    assert failing.run(retcode=None) == (3, "b\n", "")
    assert failing.run(retcode=3) == (3, "b\n", "")
    last = first["echo"]["b"] | second["sh"]["-c", "cat >&2; exit 4"]
    assert last.run(retcode=4) == (4, "", "b\n")


@pytest.mark.parametrize("kind", ["far-far", "far-near", "near-far"])
def test_octets_in_pipes(machine: Machine, kind: str, tmp_path: Path) -> None:
    first, second = pipes(machine)[kind]
    data = os.urandom(300_000)
    (tmp_path / "in").write_bytes(data)
    ((first["cat"] < str(tmp_path / "in")) | second["dd"]["status=none"] > str(tmp_path / "out"))()
    assert (tmp_path / "out").read_bytes() == data
    process = (first["cat"] | second["cat"]).popen(stdin=subprocess.PIPE)
    if second is machine:
        assert process.communicate(data)[0] == data
    else:  # plumbum's own ends feed the first command of a pipeline by hand alone.
        process.stdin.write(data[:5000])
        process.stdin.close()
        assert process.communicate()[0] == data[:5000]


def test_three_in_a_row(machine: Machine) -> None:
    three = machine["printf"]["c\\nb\\na\\n"] | machine["sort"] | machine["head"]["-n", "2"]
    assert three() == "a\nb\n"


@pytest.mark.parametrize("kind", ["far-far", "far-near", "near-far"])
def test_a_reader_that_leaves_ends_the_writer(machine: Machine, kind: str) -> None:
    first, second = pipes(machine)[kind]
    pipe = first["yes"] | second["head"]["-n", "1"]
    assert pipe.run(retcode=None)[:2] == (
        -13,
        "y\n",
    )  # plumbum supports these for local commands, too.


def test_redirections(machine: Machine, sh: Any, tmp_path: Path) -> None:
    name = str(tmp_path / "file")
    assert (machine["cat"] << "text é")() == "text é"
    assert (machine["cat"] << BINARY)(encoding=None) == BINARY
    (machine["cat"]["-"] << BINARY > name)()
    assert Path(name).read_bytes() == BINARY
    assert (machine["cat"] < name)(encoding=None) == BINARY
    with open(name, "rb") as file:
        file.seek(1)
        file.read(0)
        assert (machine["cat"] < file)(encoding=None) == BINARY[1:]
    (machine["echo"]["x"] > name)()
    (machine["echo"]["y"] >> name)()
    assert Path(name).read_text() == "x\ny\n"
    ((sh["echo out; echo err >&2"] > name) >= name + "2")()
    assert (Path(name).read_text(), Path(name + "2").read_text()) == ("out\n", "err\n")
    (sh["echo err >&2; echo out; echo err >&2"] >= ERROUT)()
    assert (sh["echo err >&2; echo out; echo 2 >&2"] >= ERROUT)() == "err\nout\n2\n"
    with pytest.raises(RedirectionError):
        ((machine["cat"] << "x") << "y")()
    with pytest.raises(TypeError):
        (machine["cat"] > machine.path("/tmp/x"))()


def test_standard_error_among_output_of_a_channel(sh: Any) -> None:
    process = sh["read x; echo $x >&2; echo out; echo err >&2"].popen(stderr=subprocess.STDOUT)
    process.stdin.write(b"x\n")
    process.stdin.flush()
    assert process.communicate() == (b"x\nout\nerr\n", None)
    nowhere = {"stderr": subprocess.STDOUT, "cwd": "/nonexistent"}
    with pytest.raises(WorkingFolderError):
        sh["pwd"].popen(**nowhere)
    process = sh["pwd"].popen(**nowhere, stdin=subprocess.DEVNULL)
    with pytest.raises(WorkingFolderError):
        process.communicate()


def test_talking_with_a_command(machine: Machine) -> None:
    process = machine["cat"].popen()
    assert process.stdout is not None
    for number in range(5):
        process.stdin.write(b"%d\n" % number)
        process.stdin.flush()
        assert process.stdout.readline() == b"%d\n" % number
    process.stdin.close()
    assert process.wait() == 0
    process.close()


def test_status_of_a_signal(sh: Any) -> None:
    process = sh["kill -9 $$"].popen()
    process.stdin.flush()
    assert process.wait() == -9
    process.close()
    assert sh["kill -9 $$"].run(retcode=255)[0] == 255  # The server does not report signals.
