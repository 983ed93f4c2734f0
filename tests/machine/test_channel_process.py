"""Remote commands behave like subprocess.Popen."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from support.waiting import eventually, open_descriptors

from remctl_toolkit.machine import Connection
from remctl_toolkit.machine.channel import DEVNULL, PIPE, STDOUT, ChannelProcess

BOTH = ["sh", "-c", "echo out; echo err >&2; exit 3"]


@pytest.mark.parametrize("local", [True, False])
def test_the_streams_of_popen(connection: Connection, local: bool, tmp_path: Path) -> None:
    """Run the same calls with Popen and with a channel."""

    def start(argv: list[str], **streams: Any) -> Any:
        if local:
            return subprocess.Popen(argv, **streams)
        return ChannelProcess(connection, argv, **streams)

    with start(BOTH, stdout=PIPE, stderr=PIPE) as process:
        assert process.args == BOTH
        assert process.communicate() == (b"out\n", b"err\n")
        assert process.returncode == process.poll() == process.wait() == 3
    with start(BOTH, stdout=PIPE, stderr=STDOUT, stdin=DEVNULL) as process:
        assert process.communicate() == (b"out\nerr\n", None)
        assert (process.stdin, process.stderr) == (None, None)
    with start(BOTH, stdout=DEVNULL, stderr=DEVNULL) as process:
        assert process.communicate() == (None, None)
    with start(["cat"], stdin=PIPE, stdout=PIPE) as process:
        assert process.communicate(b"x" * 1_000_000) == (b"x" * 1_000_000, None)
    with start(["cat"], stdin=PIPE, stdout=PIPE) as process:
        process.stdin.write(b"abc\0")
        process.stdin.flush()
        assert process.stdout.read(4) == b"abc\0"
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(20) == 0
    with start(["true"], stdin=PIPE) as process:
        assert process.communicate(b"x" * 3_000_000) == (None, None)
    file = tmp_path / "in"
    file.write_bytes(b"y" * 3_000_000)
    with (
        file.open("rb") as source,
        (tmp_path / "out").open("wb") as target,
        start(["cat"], stdin=source, stdout=target.fileno()) as process,
    ):
        assert process.wait(20) == 0
    assert (tmp_path / "out").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("local", [True, False])
def test_the_end_of_popen(connection: Connection, local: bool) -> None:
    def start(argv: list[str], **streams: Any) -> Any:
        if local:
            return subprocess.Popen(argv, **streams)
        return ChannelProcess(connection, argv, **streams)

    with start(["sleep", "1000"]) as process:
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired, match=r"timed out after 0\.01 sec"):
            process.wait(timeout=0.01)
        process.terminate()
        assert process.wait(20) == process.returncode == -signal.SIGTERM
        process.kill()
        process.send_signal(signal.SIGINT)
    with start(["yes"], stdout=PIPE) as process:
        assert process.stdout.read(2) == b"y\n"
        process.stdout.close()
        assert process.wait(20) == -signal.SIGPIPE


def test_many_writes_before_the_command_reads(connection: Connection) -> None:
    script = "sleep 0.3; cat"
    with ChannelProcess(connection, ["sh", "-c", script], stdin=PIPE, stdout=PIPE) as process:
        assert process.stdin is not None
        for number in range(1000):
            process.stdin.write(b"%d\n" % number)
        output, _ = process.communicate()
        assert output == b"".join(b"%d\n" % number for number in range(1000))


def test_input_without_a_pipe(connection: Connection) -> None:
    with ChannelProcess(connection, ["true"], stdin=DEVNULL) as process:
        with pytest.raises(ValueError, match="input needs stdin=PIPE"):
            process.communicate(b"x")
        with pytest.raises(ValueError, match="stdout cannot be STDOUT"):
            ChannelProcess(connection, ["true"], stdout=STDOUT)


def test_a_writer_is_told_that_nobody_reads(connection: Connection) -> None:
    process = ChannelProcess(connection, ["true"], stdin=PIPE)
    assert process.wait(20) == 0
    assert process.stdin is not None
    stdin = process.stdin.fileno()

    def broken() -> bool:
        try:
            os.write(stdin, b"x")
        except BrokenPipeError:
            return True
        return False

    eventually(broken)
    process.close()


def test_our_own_streams_are_inherited(
    connection: Connection, capfd: pytest.CaptureFixture[str]
) -> None:
    with ChannelProcess(connection, BOTH) as process:
        assert process.wait(20) == 3
    eventually(lambda: process._own().ended)
    assert capfd.readouterr() == ("out\n", "err\n")


def test_pipes_may_be_joined(connection: Connection) -> None:
    with (
        ChannelProcess(connection, ["printf", "b\\na\\n"], stdout=PIPE, stdin=DEVNULL) as first,
        subprocess.Popen(["sort"], stdin=first.stdout, stdout=PIPE) as second,
        ChannelProcess(connection, ["tr", "a-z", "A-Z"], stdin=second.stdout, stdout=PIPE) as third,
    ):
        assert third.communicate()[0] == b"A\nB\n"
        assert (first.wait(), second.wait()) == (0, 0)


def test_one_that_runs_and_is_dropped_says_so(connection: Connection) -> None:
    process = ChannelProcess(connection, ["sleep", "1000"], stdin=DEVNULL)
    pid = process.pid
    text = f"<ChannelProcess on {connection.host}, process {pid}, running>"
    assert repr(process) == text
    pid = process.pid
    with pytest.warns(ResourceWarning, match=f"command {pid} .* is still running"):
        del process
    eventually(lambda: not Path(f"/proc/{pid}").exists())


def test_descriptors_are_given_back(connection: Connection) -> None:
    def run() -> None:
        with ChannelProcess(connection, ["cat"], stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
            process.communicate(b"x")

    def used() -> int:
        return open_descriptors() - connection._pool.stats.idle

    run()
    before = used()
    for _ in range(5):
        run()
    eventually(lambda: used() <= before)


def test_closing_while_nobody_reads(connection: Connection) -> None:
    process = ChannelProcess(connection, ["yes"], stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None
    pid = process.pid
    assert process.stdout is not None
    assert process.stdout.read(2) == b"y\n"
    closing = threading.Thread(target=process.close)
    closing.start()
    closing.join(20)
    assert not closing.is_alive()
    assert not Path(f"/proc/{pid}").exists()
    assert process.stdin.closed
    assert process.stdout.closed
    assert process.returncode == -signal.SIGTERM
