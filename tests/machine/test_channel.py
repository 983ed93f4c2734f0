"""Channels: what goes through them, both ways, and how a command ends."""

from __future__ import annotations

import array
import concurrent.futures
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from machine.remote_traces import descendants, read_all, traces
from support.waiting import eventually, runs

import remctl
from remctl_toolkit.machine import ClosedError, Connection
from remctl_toolkit.machine.channel import channel as channels
from remctl_toolkit.machine.channel.channel import Channel

if TYPE_CHECKING:
    from remctl_toolkit.testing import RemctldServer

pytestmark = pytest.mark.once

MEBIBYTE = 1 << 20


# -- Streams --------------------------------------------------------------------------------------


def test_a_conversation(either: Connection) -> None:
    with Channel(either, ["cat"]) as channel:
        for octets in (b"x", b"\0", b"-n \\0101 %s 'x' \n", bytes(range(256)), b"y" * 5000):
            channel.write(octets)
            assert channel.read_exactly(len(octets)) == octets
        channel.close_write()
        assert (channel.read(), channel.wait()) == (b"", 0)


def test_standard_error_is_a_stream_of_its_own(either: Connection) -> None:
    with Channel(either, ["sh", "-c", "echo out; echo err >&2; echo more >/dev/stderr"]) as channel:
        assert channel.wait() == 0
        assert channel.read() == b"out\n"
        assert b"".join(iter(channel.read_stderr, b"")) == b"err\nmore\n"


def test_standard_error_may_go_with_standard_output(connection: Connection) -> None:
    script = "echo 1; echo 2 >&2; echo 3"
    with Channel(connection, ["sh", "-c", script], stderr="stdout") as channel:
        assert (read_all(channel), channel.read_stderr()) == (b"1\n2\n3\n", b"")


def test_much_both_ways_at_once(either: Connection) -> None:
    octets = os.urandom(8 * MEBIBYTE)
    with (
        Channel(either, ["cat"]) as channel,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        output = pool.submit(read_all, channel)
        for place in range(0, len(octets), 100_001):
            channel.write(octets[place : place + 100_001])
        channel.close_write()
        assert output.result(50) == octets


def test_small_writes_are_sent_together(connection: Connection, far_log: Callable[[], str]) -> None:
    with Channel(connection, ["cat"]) as channel:
        before = far_log().count(" feed ")
        for number in range(1000):
            channel.write(b"%d\n" % number)
        channel.close_write()
        assert read_all(channel) == b"".join(b"%d\n" % number for number in range(1000))
    assert far_log().count(" feed ") - before < 200


def test_a_command_that_does_not_read_makes_the_writer_wait(either: Connection) -> None:
    total = last = 0
    broken = threading.Event()

    def write() -> None:
        nonlocal total
        try:
            for _ in range(32):
                channel.write(b"x" * MEBIBYTE)
                total += MEBIBYTE
        except BrokenPipeError:
            broken.set()

    def stands_still() -> bool:
        nonlocal last
        before, last = last, total
        return 0 < before == last

    with Channel(either, ["sleep", "1000"], beat=0.3) as channel:
        thread = threading.Thread(target=write)
        thread.start()
        eventually(stands_still, interval=0.5)
        assert total < 8 * MEBIBYTE
        assert channel.poll() is None
        channel.terminate()  # A control word is not held up by what waits.
        assert channel.wait(20) == -signal.SIGTERM
        thread.join(20)
        assert broken.is_set()


def test_nobody_reading_makes_the_command_wait(connection: Connection) -> None:
    size = 32 * MEBIBYTE
    with Channel(connection, ["head", "-c", str(size), "/dev/zero"]) as channel:
        eventually(lambda: len(channel._stdout.octets) >= channels.LIMIT)
        assert len(channel._stdout.octets) < channels.LIMIT + MEBIBYTE
        assert channel.poll() is None
        assert len(read_all(channel)) == size
        assert channel.wait() == 0


def test_reads_take_what_is_there(connection: Connection) -> None:
    with Channel(connection, ["printf", "0123456789"]) as channel:
        assert channel.wait() == 0
        assert channel.read(0) == b""
        assert channel.read(3) == b"012"
        assert channel.read_exactly(2) == b"34"
        with pytest.raises(EOFError, match="ended 3 octets short of 8"):
            channel.read_exactly(8)
        assert channel.read() == b""


def test_writing_to_a_command_that_reads_no_more(either: Connection) -> None:
    with Channel(either, ["sh", "-c", "exec <&-; echo ready; exec sleep 1000"]) as channel:
        assert channel.read() == b"ready\n"
        channel.write(b"x")

        def broken() -> bool:
            try:
                channel.write(b"y" * 2000)
            except BrokenPipeError:
                return True
            return False

        eventually(broken)
        assert channel.poll() is None


def test_commands_that_end_while_their_input_does(either: Connection) -> None:
    for _ in range(20):
        with Channel(either, ["echo", "x"]) as channel:
            channel.close_write()
            assert (read_all(channel), channel.wait()) == (b"x\n", 0)


def test_writing_to_a_command_that_has_ended(either: Connection) -> None:
    with Channel(either, ["true"]) as channel:
        assert channel.wait() == 0

        def broken() -> bool:
            try:
                channel.write(b"y")
            except BrokenPipeError:
                return True
            return False

        eventually(broken)


@pytest.mark.parametrize("data", [5, "text", None, [1, 2]])
def test_what_is_not_octets_is_not_written(connection: Connection, data: Any) -> None:
    with Channel(connection, ["cat"]) as channel:
        with pytest.raises(TypeError, match=r"octets|bytes-like"):
            channel.write(data)
        channel.write(array.array("H", [0x4141]))
        channel.close_write()
        assert read_all(channel) == b"AA"


def test_the_end_of_input_is_written_once(connection: Connection) -> None:
    with Channel(connection, ["wc", "-c"]) as channel:
        channel.write(b"")
        channel.write(bytearray(b"abc"))
        channel.write(memoryview(b"defg")[1:])
        channel.close_write()
        channel.close_write()
        with pytest.raises(ValueError, match="after the end"):
            channel.write(b"x")
        assert read_all(channel).strip() == b"6"


SLOW = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@SLOW
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=3000).map(lambda octets: ("write", octets)),
            st.integers(1, 200_000).map(lambda size: ("write", b"\0z" * size)),
            st.integers(1, 5000).map(lambda size: ("read", size)),
        ),
        max_size=12,
    )
)
def test_what_is_written_is_read(connection: Connection, steps: list[tuple[str, Any]]) -> None:
    written, read = bytearray(), bytearray()
    with Channel(connection, ["cat"]) as channel:
        for verb, what in steps:
            if verb == "write" and len(written) - len(read) < 2 * MEBIBYTE:
                channel.write(what)
                written += what
            elif verb == "read" and len(read) < len(written):
                read += channel.read(what)
        channel.close_write()
        read += read_all(channel)
        assert (read == written, channel.wait()) == (True, 0)


# -- The end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 127, 128, 255])
def test_exit_statuses_are_exact(connection: Connection, status: int) -> None:
    with Channel(connection, ["sh", "-c", f"exit {status}"]) as channel:
        assert channel.wait() == channel.poll() == channel.returncode == status


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL, signal.SIGPIPE, signal.SIGTERM])
def test_signals_end_a_command_and_are_its_status(either: Connection, number: int) -> None:
    with Channel(either, ["sh", "-c", "sleep 1000; :"]) as channel:
        assert channel.poll() is None
        with pytest.raises(TimeoutError, match=r"not end within 0\.01"):
            channel.wait(0.01)
        channel.send_signal(number)
        assert channel.wait(20) == -number
        channel.send_signal(number)


# SIGPIPE is one that Python, which the command is before it is a program, ignores.
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGPIPE])
def test_a_signal_at_once_is_not_lost(connection: Connection, number: int) -> None:
    for _ in range(5):
        with Channel(connection, ["sleep", "1000"]) as channel:
            channel.send_signal(number)
            assert channel.wait(20) == -number


def test_a_command_may_handle_a_signal(connection: Connection) -> None:
    script = "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.05; done"
    with Channel(connection, ["sh", "-c", script]) as channel:
        assert channel.read() == b"ready\n"
        channel.send_signal(signal.SIGINT)
        assert (read_all(channel), channel.wait()) == (b"caught\n", 3)


def test_output_is_there_before_the_status(either: Connection) -> None:
    with Channel(either, ["sh", "-c", "head -c 3000000 /dev/zero; exit 3"]) as channel:
        assert channel.wait(50) == 3  # All of it fits into the buffer.
        assert len(channel.read()) == 3_000_000


def test_what_a_command_leaves_behind_holds_its_output_but_not_its_status(
    connection: Connection,
) -> None:
    script = "exec 3<&0; { read line <&3; echo later; } & echo now"
    with Channel(connection, ["sh", "-c", script]) as channel:
        assert channel.wait(20) == 0
        assert channel.read() == b"now\n"
        channel.write(b"\n")
        assert read_all(channel) == b"later\n"


def test_what_a_command_leaves_behind_goes_on(connection: Connection, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    script = "{ read line <fifo; echo done >result; } >/dev/null 2>&1 & echo $!"
    with Channel(connection, ["sh", "-c", script], cwd=tmp_path) as channel:
        assert channel.wait(20) == 0
    (tmp_path / "fifo").write_text("go\n")
    eventually(lambda: (tmp_path / "result").exists())


def test_a_daemon_goes_on(connection: Connection) -> None:
    script = "(setsid sleep 1000 & echo $!); exec cat"
    with Channel(connection, ["sh", "-c", script]) as channel:
        daemon = int(channel.read())
        eventually(lambda: os.getsid(daemon) == daemon)
        eventually(lambda: daemon not in descendants(channel.pid))
    try:
        assert runs(daemon)
    finally:
        os.kill(daemon, signal.SIGKILL)


@pytest.mark.parametrize(
    "script",
    [
        "exec sleep 1000",
        "sleep 1000 & wait",
        "setsid sleep 1000 & wait",
        "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 1000; sleep 1000' & wait; wait",
        "trap '' TERM; (trap '' TERM; sleep 1000; sleep 1000) & wait; wait",
        "kill -STOP $$",
        "yes",
    ],
)
def test_closing_leaves_nothing(connection: Connection, script: str) -> None:
    with Channel(connection, ["sh", "-c", f"echo ready; {script}"]) as channel:
        assert channel.read(6) == b"ready\n"
        there = traces(channel)
        assert len(there.processes) >= 3
    eventually(there.gone)  # The session that a signal went by may need a moment.
    assert channel.closed
    for use in (channel.read, channel.read_stderr, channel.close_write, lambda: channel.write(b"")):
        with pytest.raises(ClosedError, match="was closed"):
            use()
    channel.close()


def test_closing_ends_what_waits(connection: Connection) -> None:
    channel = Channel(connection, ["sleep", "1000"])
    calls: list[Callable[[], object]] = [
        channel.read,
        channel.read_stderr,
        channel.wait,
        lambda: channel.write(b"x" * 5 * MEBIBYTE),
    ]
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        waiting = [pool.submit(call) for call in calls]
        done, _ = concurrent.futures.wait(waiting, 0.5)
        assert not done
        channel.close()
        for future in waiting:
            error = future.exception(20)
            assert isinstance(error, ClosedError) or (
                future is waiting[2] and future.result() == -signal.SIGTERM
            )


def test_a_channel_that_is_dropped_says_so_and_is_closed(connection: Connection) -> None:
    channel = Channel(connection, ["sleep", "1000"])
    there = traces(channel)
    with pytest.warns(ResourceWarning, match=r"unclosed <Channel .*use it in a with"):
        del channel
    eventually(there.gone)


def test_kill_0_hurts_nobody_else(either: Connection, server: RemctldServer) -> None:
    with Channel(either, ["sh", "-c", "kill -TERM 0"]) as channel:
        assert channel.wait(20) == -signal.SIGTERM
    assert server.running


def test_a_session_that_was_given_back_is_not_closed(
    server: RemctldServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back: list[remctl.Remctl] = []
    go_on = threading.Event()
    with Connection(server.host, server.port, server.principal) as connection:
        channel = Channel(connection, ["cat"])
        keeper = channel._keeper
        assert keeper is not None
        ledger = connection._pool._ledger
        really_release = ledger.release

        def release(lease: Any, keep: bool) -> list[remctl.Remctl]:
            session = lease.session
            surplus = really_release(lease, keep)
            if threading.current_thread().name == "remctl-channel":
                given_back.append(session)
                go_on.wait(30)
            return surplus

        monkeypatch.setattr(ledger, "release", release)
        channel.close_write()
        eventually(lambda: given_back)
        keeper.drop()
        go_on.set()
        assert given_back[0].opened  # It may be another's by now.
        channel.close()
